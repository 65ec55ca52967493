"""How a graft is named in the table, and what it must carry whatever was learnt."""

from __future__ import annotations

from typing import Any

from tunescope.capture.graft_parts import names_of
from tunescope.lenses.grafting.runs import Grafts, Run
from tunescope.lenses.patching.certain_across import Certain
from tunescope.lenses.patching.construction import EVERYTHING

SITES = {
    "embeddings": "embeddings",
    "block": "block",
    "attention": "attn_out",
    "mlp": "mlp_out",
    "head": "head_out",
}


def axes_of(grafts: Grafts, one: Run) -> dict[str, Any]:
    """Return the columns that name a graft; ``stack`` in an encoder-decoder alone.

    The embeddings, which both stacks share, stand with the encoder, which is run first.
    """
    site = SITES.get(one.kind, one.kind)
    axes = {
        "site": f"cross_{site}" if one.place == "cross" else site, "layer": one.layer, "head": one.head,
        "control": one.control, "direction": one.direction, "scope": one.scope, "component": one.name,
        "step": one.step, "share": one.share, "picked": one.picked,
        "on": "all rows" if one.scope in ("one", "up_to_here", "from_here") else "other half",
        "by_construction": by_construction(grafts, one),
    }  # fmt: skip
    if grafts.base.is_encoder_decoder:
        stack = {"cross": "decoder", None: "encoder" if one.kind == "embeddings" else None}
        axes["stack"] = stack.get(one.place, one.place)
    return axes


def by_construction(grafts: Grafts, one: Run) -> str | None:
    """Return what a graft carries by which weights differ at all: ``everything``, ``nothing``, or None.

    A part whose weights tuning left as they were carries nothing, one that holds all that changed everything; so do
    the depths of the curves, and all rows of all matrices together.
    """
    if one.control != "none":
        return None
    if one.scope == "rows":
        return EVERYTHING if (one.share or 0) >= 1 else None
    names = {name for part in grafts.parts_in(one) for name in names_of(grafts.base, part)}
    return Certain(grafts.base, frozenset(grafts.moved), {}).graft(names, one.kind == "head")
