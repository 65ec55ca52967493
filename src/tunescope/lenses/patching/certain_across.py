"""Which patches and grafts between two models carry all or nothing by where their weights differ at all.

Where nothing that a place's value depends on was changed by tuning, both models have the same value there; where all
that was changed acts through the place alone, the value carries everything. Neither says what was learnt.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tunescope.capture.graft_parts import GraftPart, GraftPlace, names_of, parts_of
from tunescope.capture.sites import Site, stack_of
from tunescope.lenses.patching.construction import EVERYTHING, NOTHING
from tunescope.models.classifier import Classifier

HEADS = ("head_out", "cross_head_out")
SHARED = "relative_attention_bias"  # T5's first blocks make it for all blocks of their stack


@dataclass(frozen=True)
class Certain:
    """What is certain of patches and grafts between two models.

    Attributes:
        model: One of the two; only its shape matters.
        moved: Names of the weights that differ, outside the readout.
        names: Of every part the names of its weights that differ.
    """

    model: Classifier
    moved: frozenset[str]
    names: dict[GraftPart, frozenset[str]]

    @classmethod
    def of(cls, model: Classifier, moved: Collection[str]) -> Certain:
        """Sort the weights that differ by the parts that they belong to."""
        parts = parts_of(model, ("embeddings", "attention", "mlp"))
        names = {part: frozenset(names_of(model, part)) & frozenset(moved) for part in parts}
        return cls(model, frozenset(moved), names)

    def patch(self, site: Site) -> str | None:
        """Return what a patch of a whole site (or of a head) at every token carries: all, nothing, or None."""
        if not self._moved(self._above(site)):
            return NOTHING
        if site.name not in HEADS and self.moved <= self._only_through(site):
            return EVERYTHING
        return None

    def graft(self, weights: Collection[str], head: bool = False) -> str | None:
        """Return what a graft of these weights carries; of a head the weights are those of its attention."""
        inside = self.moved & set(weights)
        if not inside:
            return NOTHING
        return EVERYTHING if inside == self.moved and not head else None

    def _moved(self, parts: Iterable[GraftPart]) -> frozenset[str]:
        return frozenset().union(*(self.names[part] for part in parts))

    def _place(self, site: Site) -> GraftPlace | None:
        if site.name.startswith("cross_"):
            return "cross"
        return site.stack

    def _before(self, site: Site, layer: int) -> list[GraftPart]:
        """Return the parts of a stack's blocks before a layer."""
        own = {"encoder": ("encoder",), "decoder": ("decoder", "cross"), None: (None,)}[site.stack]
        return [one for one in self.names if one.layer is not None and one.layer < layer and one.place in own]

    def _above(self, site: Site) -> list[GraftPart]:
        """Return the parts that a site's value depends on."""
        layer, found = site.layer or 0, [GraftPart("embeddings")]
        depth = layer + 1 if site.name == "resid_post" else layer
        found += self._before(site, depth)
        crossed = depth > 0 or site.name.startswith("cross_") or site.name == "mlp_out"
        if site.stack == "decoder" and crossed:
            found += [one for one in self.names if one.place == "encoder"]
        if site.name not in ("resid_pre", "resid_post", "embeddings"):
            found.append(self._own(site))
            attention = GraftPart("attention", layer, site.stack)
            if site.name.startswith("cross_") or (site.name == "mlp_out" and not self.model.is_parallel):
                found.append(attention)
            if site.name == "mlp_out" and site.stack == "decoder":
                found.append(GraftPart("attention", layer, "cross"))
        return found

    def _own(self, site: Site) -> GraftPart:
        """Return the part that writes a sublayer's output."""
        if site.name == "mlp_out":
            return GraftPart("mlp", site.layer, site.stack)
        return GraftPart("attention", site.layer, self._place(site))

    def _only_through(self, site: Site) -> frozenset[str]:
        """Return the names of weights that differ and act on the answer through a site's value alone."""
        layer, last = site.layer or 0, stack_of(self.model, site).n_layers - 1
        if site.name == "resid_post" and layer == last and site.stack != "encoder":
            return self.moved
        if site.name not in ("resid_pre", "resid_post", "embeddings"):
            return self._without_norms(self.names[self._own(site)], site)
        depth = layer + 1 if site.name == "resid_post" else layer
        # Two stacks share the embeddings, and T5's blocks the first block's table of positions.
        shared = [] if site.stack is not None else [GraftPart("embeddings")]
        inside = self._moved([*shared, *self._before(site, depth)])
        norm = stack_of(self.model, site).family.final_norm or "-"
        whole = depth == last + 1
        return frozenset(
            name for name in inside if (whole or SHARED not in name) and not name.startswith(f"{norm}.")
        )

    def _without_norms(self, names: frozenset[str], site: Site) -> frozenset[str]:
        """Leave out what acts behind a sublayer's output (norms after the sum), and what other blocks share."""
        family, layer = stack_of(self.model, site).family, site.layer
        behind = [*family.norms, *([family.cross_attention_norm] if family.cross_attention_norm else [])]
        paths = (
            tuple(f"{path.format(layer=layer)}." for path in behind) if family.norm_order == "post" else ()
        )
        if family.final_norm is not None:
            paths += (f"{family.final_norm}.",)
        return frozenset(name for name in names if SHARED not in name and not name.startswith(paths))
