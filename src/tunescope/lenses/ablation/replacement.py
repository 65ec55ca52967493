"""What an edit puts in a component's place: zero, a mean, another example's value, or noise on top."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from tunescope.capture.finite import not_finite_rows
from tunescope.capture.hooks import reading
from tunescope.capture.sites import HEAD_OUT, Site, head_weights
from tunescope.capture.stored import StoredPass, store
from tunescope.data.batches import batches, collate
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.ablation.components import EditKind, Part, Variant, neuron_weights, projection_bias
from tunescope.models.classifier import Classifier, right_padded
from tunescope.progress import Task
from tunescope.seeds import derive_seed
from tunescope.stats.states import Moments

FEWEST_AT_POSITION = 4  # positions seen less often have no mean of their own
LENGTH_BIN = 0.1  # donors may be this much longer or shorter


def stored_site(part: Part) -> Site:
    """Return the site at which a part's value is read: heads are edited before the output projection."""
    names = {"head_out": "head_z", "cross_head_out": "cross_head_z"}
    return replace(part.site, name=names.get(part.site.name, part.site.name))


def needs_statistics(variants: Sequence[Variant]) -> set[Site]:
    """Return the sites of which these variants need means or deviations."""
    return {
        stored_site(part)
        for variant in variants
        if variant.edit in ("mean", "position_mean", "noise")
        for part in variant.parts
    }


@dataclass
class Statistics:
    """Means and deviations over the real tokens of reference rows.

    Attributes:
        mean: Per site, [...]: [D], [H, D/H] or [F].
        deviation: Per site, the standard deviation, in the same shape.
        by_position: Per site, the mean at each position, [P, ...]; the overall mean where a position was seen fewer
            than four times. Empty unless it was asked for.
    """

    mean: dict[Site, torch.Tensor] = field(default_factory=dict)
    deviation: dict[Site, torch.Tensor] = field(default_factory=dict)
    by_position: dict[Site, torch.Tensor] = field(default_factory=dict)


def statistics(
    model: Classifier, reference: Tokens, sites: Collection[Site], positions: bool, task: Task
) -> Statistics:
    """Average the values at some sites over the real tokens of reference rows, in one pass and in float64."""
    states: dict[Site, Moments] = {}
    shapes: dict[Site, torch.Size] = {}
    places: dict[Site, tuple[torch.Tensor, torch.Tensor]] = {}
    longest = int(max(len(ids) for ids in reference.input_ids))
    ordered = sorted(sites, key=str)
    for batch in batches(reference):
        moved = batch.to(model.device)
        mask = right_padded(moved.input_ids, moved.attention_mask)[1].bool()

        ids = batch.row_ids

        def receive(
            site: Site, value: torch.Tensor, mask: torch.Tensor = mask, ids: Sequence[str] = ids
        ) -> None:
            bad = not_finite_rows(value, mask, ids)
            if bad is not None:
                raise LensError(f"{site} is NaN or infinite in {bad} (of the reference rows).")
            shapes[site] = value.shape[2:]
            flat = value.flatten(2)
            states.setdefault(site, Moments(flat.shape[-1])).update(flat[mask])
            if positions:
                sums, counts = places.setdefault(
                    site,
                    (flat.new_zeros(longest, flat.shape[-1], dtype=torch.float64), flat.new_zeros(longest)),
                )
                sums[: flat.shape[1]] += (flat * mask.unsqueeze(-1)).double().sum(0)
                counts[: flat.shape[1]] += mask.sum(0)

        with torch.inference_mode(), reading(model, ordered, receive):
            model(**moved.inputs())
        task.advance(len(batch.row_ids))
    found = Statistics()
    for site, state in states.items():

        def shaped(value: np.ndarray, site: Site = site) -> torch.Tensor:
            return torch.as_tensor(value).to(model.device, torch.float32).reshape(shapes[site])

        found.mean[site] = shaped(state.mean)
        found.deviation[site] = shaped(state.standard_deviation(ddof=0))
        if positions:
            sums, counts = places[site]
            own = (sums / counts.clamp(min=1).unsqueeze(-1)).float().unflatten(-1, shapes[site])
            often = (counts >= FEWEST_AT_POSITION).view(-1, *(1 for _ in shapes[site]))
            found.by_position[site] = torch.where(often, own, found.mean[site])
    return found


@dataclass(frozen=True)
class Donors:
    """Reference rows that lend their values to resampled components.

    Attributes:
        rows: The reference rows.
        seed: Seeds which row lends to which.
    """

    rows: Tokens
    seed: int

    def choose(self, tokens: Tokens, index: int, other_class: bool) -> int:
        """Return the reference row that lends to a row: drawn from those of about its length, never its own text.

        Raises:
            LensError: No reference row has another text (and class).
        """
        own = np.asarray(tokens.input_ids[index])
        lengths = np.array([len(ids) for ids in self.rows.input_ids])
        usable = np.array([not np.array_equal(own, ids) for ids in self.rows.input_ids])
        if other_class:
            usable &= (self.rows.labels != tokens.labels[index]) & (self.rows.labels >= 0)
        if not usable.any():
            kind = " and class" if other_class else ""
            raise LensError(
                f"Row {tokens.row_ids[index]}: no reference row has another text{kind}, so there is nothing to "
                "resample from.",
                hint="Raise reference_rows, or take the edit out.",
            )
        gaps = np.where(usable, np.abs(lengths - len(own)), np.iinfo(np.int64).max)
        candidates = np.flatnonzero(gaps <= max(LENGTH_BIN * len(own), gaps.min()))
        drawn = np.random.default_rng(derive_seed(self.seed, "donor", tokens.row_ids[index]))
        return int(drawn.choice(candidates))

    def values(
        self, model: Classifier, tokens: Tokens, index: np.ndarray, other_class: bool, neurons: bool
    ) -> Lent:
        """Run the donors of some rows of equal length and return their values, aligned token by token."""
        chosen = [self.choose(tokens, int(i), other_class) for i in index]
        stored = {
            row: store(model, collate(self.rows, np.array([row])).to(model.device).inputs(), neurons)
            for row in dict.fromkeys(chosen)
        }
        return Lent(
            [stored[row] for row in chosen], len(tokens.input_ids[int(index[0])]), model.pooling == "last"
        )


@dataclass(frozen=True)
class Lent:
    """Values of other examples, aligned with rows of T tokens: at the end where the last token is pooled."""

    passes: list[StoredPass]
    length: int
    from_end: bool

    def at(self, site: Site) -> torch.Tensor:
        """Return the donors' values, [B, T, ...]."""
        found = []
        for one in self.passes:
            shift = one.length - self.length if self.from_end else 0
            places = (torch.arange(self.length) + shift).clamp(0, one.length - 1)
            found.append(one.at(site)[0, places.to(one.logits.device)])
        return torch.stack(found)


@dataclass
class Replacer:
    """Says by how much each part of a variant changes, for one batch of rows of equal length.

    Attributes:
        model: The classifier.
        statistics: Means and deviations.
        row_ids: Ids of the rows.
        length: T.
        seed: Seeds the noise.
        lent: Values of other examples, per resampling edit.
        directions: Orthonormal directions by name, [K, D].
    """

    model: Classifier
    statistics: Statistics
    row_ids: Sequence[str]
    length: int
    seed: int
    lent: dict[EditKind, Lent] = field(default_factory=dict)
    directions: dict[str, torch.Tensor] = field(default_factory=dict)
    _noise: dict[Site, torch.Tensor] = field(default_factory=dict)
    _weights: dict[Site, torch.Tensor] = field(default_factory=dict)

    def added(
        self, variant: Variant, part: Part, current: torch.Tensor, places: torch.Tensor, random: torch.Tensor
    ) -> torch.Tensor:
        """Return what a variant adds to a part's output, [B, P, D]: its edit's change, or what its control asks for.

        Nothing for a no-op; for a random control, a direction as long at each token as the change.

        Args:
            variant: Says what replaces the part, or which control it is.
            part: Says which.
            current: The value now, [B, P, ...] over all heads, neurons or dimensions.
            places: The positions that ``current`` holds, [P].
            random: The control's unit vector, [D].
        """
        if variant.control == "no_op":
            return torch.zeros_like(current.flatten(2)[..., :1])
        change = self.delta(variant, part, current, places)
        if variant.control == "random":
            return -change.norm(dim=-1, keepdim=True) * random
        return change

    def head_change(self, variant: Variant, current: torch.Tensor) -> torch.Tensor:
        """Return by how much the one head of a variant changes before the output projection, [B, T, D/H].

        Args:
            variant: Changes one head at every token.
            current: The heads' values now, [B, T, H, D/H].
        """
        units = variant.parts[0].units
        assert units is not None
        places = torch.arange(current.shape[1], device=current.device)
        new = self._new(variant.edit, stored_site(variant.parts[0]), current, places)
        return new[:, :, units[0]] - current[:, :, units[0]]

    def delta(
        self, variant: Variant, part: Part, current: torch.Tensor, places: torch.Tensor
    ) -> torch.Tensor:
        """Return what the edit adds to the residual-width output of a part, [B, P, D].

        Args:
            variant: Says what replaces the part.
            part: Says which.
            current: The value now, [B, P, ...] over all heads, neurons or dimensions.
            places: The positions that ``current`` holds, [P].
        """
        if part.bias:
            cross = part.site.name == "cross_attn_out"
            bias = projection_bias(self.model, part.layer, part.site.stack, cross)
            return -bias.detach().expand(*current.shape[:2], -1)
        site = stored_site(part)
        new = self._new(variant.edit, site, current, places)
        change = new - current
        if part.site.name in HEAD_OUT:
            units = slice(None) if part.units is None else list(part.units)
            change = torch.einsum("bthd,hde->bte", change[:, :, units], self._matrix(part.site)[units])
        elif part.site.name == "mlp_neurons":
            units = slice(None) if part.units is None else list(part.units)
            change = change[..., units] @ self._matrix(part.site)[units]
        elif part.units is not None:
            kept = torch.zeros_like(change)
            kept[..., list(part.units)] = change[..., list(part.units)]
            change = kept
        if part.direction is not None:
            basis = self.directions[part.direction]
            change = change @ basis.T @ basis
        if part.positions is not None:
            wanted = {position if position >= 0 else self.length + position for position in part.positions}
            change = change * torch.tensor([int(p) in wanted for p in places], device=change.device)[:, None]
        return change

    def _matrix(self, site: Site) -> torch.Tensor:
        if site not in self._weights:
            assert site.layer is not None
            made = (
                head_weights(self.model, site.layer, site.stack, site.name == "cross_head_out")
                if site.name in HEAD_OUT
                else neuron_weights(self.model, site.layer, site.stack)
            )
            self._weights[site] = made.detach()
        return self._weights[site]

    def _new(self, edit: EditKind, site: Site, current: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        if edit == "zero":
            return torch.zeros_like(current)
        if edit == "mean":
            return self.statistics.mean[site].expand_as(current)
        if edit == "position_mean":
            table = self.statistics.by_position[site]
            # Rows longer than every reference row: the overall mean, as for positions that were seen too seldom.
            known = places.clamp(max=len(table) - 1)
            beyond = (places >= len(table)).view(-1, *(1 for _ in table.shape[1:]))
            return torch.where(beyond, self.statistics.mean[site], table[known]).expand_as(current)
        if edit == "noise":
            return current + self.statistics.deviation[site] * self._drawn(site, current.shape[2:])[:, places]
        return self.lent[edit].at(site)[:, places]

    def _drawn(self, site: Site, shape: torch.Size) -> torch.Tensor:
        """Draw standard normal noise that depends on row id, site and seed alone, [B, T, ...]."""
        if site not in self._noise:
            rows = []
            for row_id in self.row_ids:
                generator = torch.Generator().manual_seed(derive_seed(self.seed, "noise", row_id, str(site)))
                rows.append(torch.randn(self.length, *shape, generator=generator))
            self._noise[site] = torch.stack(rows).to(self.model.device)
        return self._noise[site]
