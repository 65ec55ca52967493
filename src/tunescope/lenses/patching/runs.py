"""Patches between the two texts of many pairs: margins of every run, and shares of the gap with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tunescope.capture.patch import PatchPlace, check_places, first_stream, passed, patcher_of
from tunescope.capture.patch_tokens import changed_tokens
from tunescope.data.batches import collate
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.evaluation.margins import margin
from tunescope.lenses.ablation.sweep import require_finite_pass
from tunescope.models.activations import fast_activations
from tunescope.models.classifier import Classifier
from tunescope.progress import Task
from tunescope.seeds import derive_seed
from tunescope.stats.intervals import Intervals, bootstrap_means
from tunescope.stats.ratios import bootstrap_ratio_differences, bootstrap_ratios
from tunescope.stats.tests import sign_flip_p

PERMUTATIONS = 1999
TOKENS_STORED = 1024


@dataclass(frozen=True)
class PatchRequest:
    """What is patched between two texts.

    Attributes:
        places: What is patched, one place a run, P.
        seed: Seeds the random directions and which pair is lent as the unrelated one.
        unrelated: Whether every place is also patched from an unrelated text of equal length.
        random: Whether every place is also moved as far in a random direction.
        tokens_at_once: Tokens in one pass; bounds the memory.
        pool: Texts that unrelated ones are drawn from; None draws from the other pairs' donors alone.
    """

    places: Sequence[PatchPlace]
    seed: int = 0
    unrelated: bool = True
    random: bool = False
    tokens_at_once: int = 2048
    pool: Tokens | None = None


@dataclass(frozen=True)
class PairMargins:
    """Margins of one class a pair, of N pairs and P places.

    Attributes:
        recipient: Of the text that the values are put into, [N].
        donor: Of the text that they come from, [N].
        patched: With each place patched, [N, P].
        unrelated: With each place patched from an unrelated text, [N, P]; NaN where none has the length; or None.
        random: With each place moved as far in a random direction, [N, P]; or None.
        no_op: With the recipient's own stream put in, [N].
        everything: With the donor's whole stream before block 0 (of two stacks, before both first blocks), [N].
    """

    recipient: np.ndarray
    donor: np.ndarray
    patched: np.ndarray
    unrelated: np.ndarray | None
    random: np.ndarray | None
    no_op: np.ndarray
    everything: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """Margin of the donor minus that of the recipient, [N]."""
        return self.donor - self.recipient


def pair_margins(
    model: Classifier, recipients: Tokens, donors: Tokens, labels: np.ndarray, request: PatchRequest,
    task: Task | None = None,
) -> PairMargins:  # fmt: skip
    """Run every patch on every pair.

    Args:
        model: The classifier; it is run in evaluation mode.
        recipients: The texts that values are put into, N.
        donors: The texts that they come from; each of as many tokens.
        labels: The class of each pair whose margin is measured, [N].
        request: What is patched.
        task: Where to report pairs.

    Raises:
        LensError: A pair has unequal lengths, or a logit is not finite; the pair is named.
    """
    check_places(model, request.places)
    unequal = [
        name for name, ours, theirs in zip(recipients.row_ids, recipients.input_ids, donors.input_ids, strict=True)
        if len(ours) != len(theirs)
    ]  # fmt: skip
    if unequal:
        raise LensError(
            f"Pair {unequal[0]}: its texts have different numbers of tokens; patching needs equal lengths."
        )
    count, places = len(recipients), len(request.places)
    lenders = unrelated_texts(recipients, donors, request) if request.unrelated else None
    single = [np.empty(count) for _ in range(4)]
    wanted = (True, request.unrelated, request.random)
    tables = [np.full((count, places), np.nan) if own else None for own in wanted]
    was_training = model.training
    model.eval()
    try:
        for index in _same_length(recipients):
            lent = None if lenders is None else [lenders[row] for row in index]
            for place, values in _one_batch(model, (recipients, donors), index, lent, request):
                target = single[place] if place < 4 else tables[place - 4]
                assert target is not None
                _write(target, index, values, labels, recipients.row_ids)
            if lent is not None and tables[1] is not None:
                tables[1][[row for row, one in zip(index, lent, strict=True) if one is None]] = np.nan
            if task is not None:
                task.advance(len(index))
    finally:
        model.train(was_training)
    assert tables[0] is not None
    return PairMargins(single[0], single[1], tables[0], tables[1], tables[2], single[2], single[3])


def _same_length(tokens: Tokens) -> list[np.ndarray]:
    """Return positions of rows of one length, batch by batch."""
    lengths = np.array([len(ids) for ids in tokens.input_ids])
    found = []
    for length in np.unique(lengths)[::-1]:
        same = np.flatnonzero(lengths == length)
        found += np.array_split(same, max(1, -(-len(same) * int(length) // TOKENS_STORED)))
    return found


Lender = tuple[Tokens, int]


def unrelated_texts(recipients: Tokens, donors: Tokens, request: PatchRequest) -> list[Lender | None]:
    """Draw for every pair a text of as many tokens that is neither of its own two, from all donors and the pool.

    Returns:
        Of every pair the tokens and the row in them; None where no other text has the length.
    """
    known: dict[int, dict[bytes, Lender]] = {}  # by length, each text once
    for tokens in (donors, *(() if request.pool is None else (request.pool,))):
        for row, ids in enumerate(tokens.input_ids):
            known.setdefault(len(ids), {}).setdefault(_text(ids), (tokens, row))
    found: list[Lender | None] = []
    for name, ours, theirs in zip(recipients.row_ids, recipients.input_ids, donors.input_ids, strict=True):
        own = {_text(ours), _text(theirs)}
        others = [one for text, one in sorted(known.get(len(ours), {}).items()) if text not in own]
        generator = np.random.default_rng(derive_seed(request.seed, "unrelated text", name))
        found.append(others[int(generator.integers(len(others)))] if others else None)
    return found


def _text(ids: np.ndarray) -> bytes:
    return np.asarray(ids, dtype=np.int64).tobytes()


def _one_batch(
    model: Classifier, sides: tuple[Tokens, Tokens], index: np.ndarray, lent: Sequence[Lender | None] | None,
    request: PatchRequest,
) -> list[tuple[int, torch.Tensor]]:  # fmt: skip
    """Return (which result, logits [B, C] or [P, B, C]) of one batch."""
    ours, theirs = (collate(side, index).to(model.device).inputs() for side in sides)
    size = request.tokens_at_once
    whole = [first_stream(model)]
    with torch.inference_mode(), fast_activations(model.model):
        recipient, donor = passed(model, ours), passed(model, theirs)
        for side, stored in zip(sides, (recipient, donor), strict=True):
            require_finite_pass(stored, stored.logits, [side.row_ids[row] for row in index])
        changed = changed_tokens(ours["input_ids"], theirs["input_ids"])
        patcher = patcher_of(model, recipient, donor, changed=changed)
        found = [
            (0, recipient.logits), (1, donor.logits),
            (2, patcher_of(model, recipient, recipient).logits(whole, size)[0]), (3, patcher.everything(size)),
            (4, patcher.logits(request.places, size)),
        ]  # fmt: skip
        if lent is not None and any(lent):
            # A pair that nothing can be lent to keeps its own donor here, and is taken out of the table.
            given = [one or (sides[1], int(row)) for one, row in zip(lent, index, strict=True)]
            rows = [collate(tokens, np.array([row])).to(model.device).inputs() for tokens, row in given]
            other = passed(model, {name: torch.cat([one[name] for one in rows]) for name in theirs})
            found.append(
                (5, patcher_of(model, recipient, other, changed=changed).logits(request.places, size))
            )
        if request.random:
            generator = torch.Generator().manual_seed(request.seed)
            drawn = torch.randn(len(request.places), model.width, generator=generator)
            way = drawn / drawn.norm(dim=1, keepdim=True)
            found.append((6, patcher.logits(request.places, size, way)))
    return found


def _write(
    target: np.ndarray, index: np.ndarray, logits: torch.Tensor, labels: np.ndarray, names: Sequence[str]
) -> None:
    values = logits.double().cpu()
    bad = (~torch.isfinite(values)).any(-1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0][-1])
        raise LensError(f"Pair {names[index[row]]}: the logits of a patched run are not finite.")
    true = torch.as_tensor(np.asarray(labels)[index])
    if values.dim() == 2:
        target[index] = margin(values, true).numpy()
        return
    runs = len(values)
    target[index] = margin(values.flatten(0, 1), true.repeat(runs)).unflatten(0, (runs, -1)).T.numpy()


@dataclass(frozen=True)
class Shares:
    """Shares of the gap between two texts that patches carry, K places.

    Attributes:
        ratio: Ratio of sums: ``sum |gap| R / sum |gap|``.
        mean: Mean of the pairs' own ratios R.
        p: Sign-flip p values of "no share", [K].
        pairs: How many pairs are above the floor.
    """

    ratio: Intervals
    mean: Intervals
    p: np.ndarray
    pairs: int


def shares(
    found: PairMargins, patched: np.ndarray, floor: float, groups: np.ndarray, seed: int, rows: np.ndarray | None = None
) -> Shares:  # fmt: skip
    """Return ``R = (m_patched - m_recipient) / (m_donor - m_recipient)`` over pairs whose gap is above a floor.

    The ratio of sums turns every pair so that its gap is positive: ``sum sign(gap) (m_patched - m_recipient) / sum
    |gap|``; it is the mean of R weighted by the gap, and steadier than the mean of R, in which small gaps weigh as much
    as large ones. Both have intervals from a bootstrap over groups.

    Args:
        found: Margins of the pairs.
        patched: The runs to summarise, [N, K]; NaN leaves a pair out.
        floor: The least absolute gap, in logits.
        groups: Group of each pair, [N].
        seed: Seeds resamples and permutations.
        rows: Which pairs; None for all.
    """
    kept = np.abs(found.gap) >= floor
    kept &= np.isfinite(patched).all(axis=1)
    if rows is not None:
        inside = np.zeros(len(kept), dtype=bool)
        inside[rows] = True
        kept &= inside
    gap, own = found.gap[kept], groups[kept]
    moved = patched[kept] - found.recipient[kept, None]
    ratio = bootstrap_ratios(moved * np.sign(gap)[:, None], np.abs(gap), own, seed=seed)
    mean = bootstrap_means(moved / gap[:, None], own, seed=seed)
    p = sign_flip_p(moved * np.sign(gap)[:, None], own, permutations=PERMUTATIONS, seed=seed)
    return Shares(ratio, mean, p, int(kept.sum()))


def share_differences(
    tuned: tuple[PairMargins, np.ndarray], base: tuple[PairMargins, np.ndarray], floor: float, groups: np.ndarray,
    seed: int,
) -> Shares:  # fmt: skip
    """Return the tuned model's shares minus the base's, over pairs whose gap is above the floor in both.

    Args:
        tuned: Margins of the pairs, and the runs to summarise, [N, K].
        base: The same of the base.
        floor: The least absolute gap, in logits.
        groups: Group of each pair, [N].
        seed: Seeds resamples and permutations.

    Returns:
        Differences; ``p`` is of the sign-flip test of the pairs' differences, each model's moves in units of its mean
        gap, whose mean is the difference of the ratios of sums.
    """
    kept = np.ones(len(groups), dtype=bool)
    for found, patched in (tuned, base):
        kept &= (np.abs(found.gap) >= floor) & np.isfinite(patched).all(axis=1)
    moves, gaps = [], []
    for found, patched in (tuned, base):
        gap = found.gap[kept]
        moves.append((patched[kept] - found.recipient[kept, None]) * np.sign(gap)[:, None])
        gaps.append(np.abs(gap))
    own = groups[kept]
    ratio = bootstrap_ratio_differences((moves[0], gaps[0]), (moves[1], gaps[1]), own, seed=seed)
    mean = bootstrap_means(moves[0] / gaps[0][:, None] - moves[1] / gaps[1][:, None], own, seed=seed)
    scaled = [move / gap.mean() if len(gap) else move for move, gap in zip(moves, gaps, strict=True)]
    p = sign_flip_p(scaled[0] - scaled[1], own, permutations=PERMUTATIONS, seed=seed)
    return Shares(ratio, mean, p, int(kept.sum()))
