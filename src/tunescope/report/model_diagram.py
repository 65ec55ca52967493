"""A diagram of each arm's model: its matrices and sites, which of them were trained, and how far they moved."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tunescope.report.figures import model as drawing
from tunescope.report.figures import style
from tunescope.report.figures.select import first_seed, only
from tunescope.report.read import RunFolder, reading
from tunescope.report.text import finite, number, percent

# What a matrix does, by the end of its path in the block, over the naming of all architectures; the first that fits.
ROLES: tuple[tuple[str, str], ...] = (
    ("norm", r"(norm|ln_?\d*|ln_f)\w*$"),
    ("query, key, value", r"(c_attn|query_key_value|qkv\w*|in_proj\w*)$"),
    ("query", r"(query|q_proj|q_lin|q)$"),
    ("key", r"(key|k_proj|k_lin|k)$"),
    ("value", r"(value|v_proj|v_lin|v)$"),
    (
        "attn_projection",
        r"(attn\.c_proj|attention\.output\.dense|attention\.dense|out_lin|o_proj|out_proj|\bo)$",
    ),
    ("mlp_projection", r"(c_proj|output\.dense|lin2|down_proj|fc2|dense_4h_to_h|\bwo)$"),
)
# The sites that a role writes, for the axis under the diagram.
SITES = {
    "query": "attn_pattern", "key": "attn_pattern", "value": "head_z", "query, key, value": "attn_pattern, head_z",
    "attn_projection": "head_out, attn_out", "mlp_projection": "mlp_out", "mlp": "mlp_neurons",
}  # fmt: skip
SHORT = {"attn_projection": "attention out", "mlp_projection": "MLP out", "mlp": "MLP in"}
_BLOCK = re.compile(r"^(.*?)\.(\d+)\.(.+)$")
_ADAPTER = re.compile(r"\.(base_layer|lora_\w+|ia3_\w+|modules_to_save|original_module)(\..*)?$")


@dataclass
class Cell:
    """One part of the model: its matrices with their biases, how many numbers were trained, how far they moved."""

    part: str
    role: str
    shapes: list[str] = field(default_factory=list)
    trained: int = 0
    of: int = 0
    moved: float | None = None

    @property
    def label(self) -> str:
        """What the diagram calls the part."""
        if self.role:
            return SHORT.get(self.role, self.role)
        words = [word for word in self.part.split(".") if word not in ("dense", "embeddings", "model")]
        return re.sub(r"_?(embeddings?|embed)$", "", words[-1]) if words else self.part

    @property
    def said(self) -> str:
        """The part in words: trained or frozen, its parameters, how far it moved."""
        moved = "" if self.moved is None else f", moved by {percent(self.moved, 2)} of its norm"
        state = "frozen" if not self.trained else "trained" if self.trained == self.of else "trained in part"
        counts = (
            f"{number(self.trained)} of {number(self.of)} parameters"
            if self.trained
            else f"{number(self.of)}"
        )
        return f"{self.part} ({'; '.join(self.shapes[:3])}): {state}, {counts}{moved}"


@dataclass
class Diagram:
    """A model in the order of its computation: what stands before the blocks, the blocks, what stands behind."""

    before: dict[str, Cell]
    blocks: dict[str, dict[str, Cell]]
    after: dict[str, Cell]

    def cells(self) -> list[tuple[str, Cell]]:
        """Return every part with the place it stands at, from input to output."""
        named = [("embeddings", cell) for cell in self.before.values()]
        named += [(place, cell) for place, parts in self.blocks.items() for cell in parts.values()]
        return [*named, *(("head", cell) for cell in self.after.values())]


def model_figures(run: RunFolder) -> list[style.Figure]:
    """Return the diagram of every arm's model, and the parameters of each kind of matrix."""
    diagrams = {arm: made for arm in run.arm_names if (made := arm_diagram(run, arm)) is not None}
    if not diagrams:
        return []
    top = max(
        (cell.moved for one in diagrams.values() for _, cell in one.cells() if cell.moved is not None),
        default=0.0,
    )
    colours = {arm: style.arm_colour(run.arm_names, arm) for arm in diagrams}
    panels = tuple(drawing.model_panel(arm, one, colours[arm], top) for arm, one in diagrams.items())
    far = f" from white (not at all) to the full colour ({percent(top)} of its norm)" if top else ""
    caption = (
        f"Each arm's first seed. Colour: how far a matrix moved{far}; a middle colour says that it was trained and "
        "how far it moved was not measured (the lens weights does). Numbers: how far it moved, else its parameters, "
        "bias included."
    )
    bars = tuple(drawing.parameter_panel(arm, _by_kind(one), colours[arm]) for arm, one in diagrams.items())
    table = [record for arm, one in diagrams.items() for record in _records(arm, one)]
    return [
        style.Figure("model", "The model and what was trained", panels, caption, table=table),
        style.Figure(
            "parameters", "Parameters by kind of matrix", bars,
            "Full colour: trained; pale: frozen. Adapters count with the matrix that they change.", folded=True,
        ),
    ]  # fmt: skip


def arm_diagram(run: RunFolder, arm: str) -> Diagram | None:
    """Return the model of an arm from its first seed's parameters.json, or None where nothing records it."""
    item = next((one for one in run.of(arm) if one.matrices), None)
    if item is None or item.matrices is None:
        return None
    with reading(run.folder, f"arms/{arm}/seed-{item.seed}/parameters.json"):
        made = diagram(item.matrices)
    result = run.results.get("weights")
    if result is not None:
        changes = only(first_seed(only(result.table, arm=arm)), metric="relative_frobenius", head=None)
        _add_changes(made, changes)
    return made


def diagram(matrices: Sequence[Mapping[str, Any]]) -> Diagram:
    """Return the parts of a model from its list of matrices, which stands in the order of the modules."""
    names = [_ADAPTER.sub("", re.sub(r"\.(weight|bias)$", "", str(one["matrix"]))) for one in matrices]
    stacks = {match[1] for name in names if (match := _BLOCK.match(name))}
    made = Diagram({}, {}, {})
    for name, one in zip(names, matrices, strict=True):
        match = _BLOCK.match(name)
        if match is None:
            place, part = (made.after if made.blocks else made.before), name
            role = "norm" if re.search(ROLES[0][1], name, re.IGNORECASE) else ""
        else:
            stack = next(
                (word for word in ("encoder", "decoder") if word in match[1] and len(stacks) > 1), ""
            )
            place = made.blocks.setdefault(f"{stack} block {match[2]}".strip(), {})
            part = match[3]
            role = next((key for key, ends in ROLES if re.search(ends, part, re.IGNORECASE)), "mlp")
        cell = place.setdefault(part, Cell(part, role))
        cell.shapes.append(" × ".join(map(str, one["shape"])) or "scalar")
        cell.trained += int(one["trained"])
        cell.of += int(one["of"])
    return made


def _add_changes(made: Diagram, changes: pl.DataFrame) -> None:
    """Put the measured relative changes at their parts; a fused matrix takes the largest of its thirds."""
    known: dict[tuple[str, str], float] = {}
    for record in changes.iter_rows(named=True):
        value = finite(record["value"])
        if value is not None:
            layer = record.get("layer")
            stack = str(record.get("stack") or "")
            place = "" if layer is None else f"{stack} block {layer}".strip()
            known[place, str(record["site"])] = value
    for place, cell in made.cells():
        own = place if place in made.blocks else ""
        sites = [cell.part, cell.part.split(".")[-1], *cell.role.split(", ")]
        found = [known[own, site] for site in sites if (own, site) in known]
        cell.moved = max(found, default=None)


def _by_kind(made: Diagram) -> dict[str, tuple[int, int]]:
    """Return trained and all parameters of each kind of part, blocks added up, in the order of the model."""
    sums: dict[str, tuple[int, int]] = {}
    for place, cell in made.cells():
        kind = cell.label if place in made.blocks and cell.role != "norm" else place
        kind = "norms" if cell.role == "norm" else kind
        trained, of = sums.get(kind, (0, 0))
        sums[kind] = (trained + cell.trained, of + cell.of)
    return sums


def _records(arm: str, made: Diagram) -> list[dict[str, Any]]:
    return [
        {
            "arm": arm, "place": place, "matrix": cell.part, "writes": SITES.get(cell.role, ""),
            "shapes": "; ".join(cell.shapes), "trained": cell.trained, "of": cell.of, "relative_change": cell.moved,
        }
        for place, cell in made.cells()
    ]  # fmt: skip
