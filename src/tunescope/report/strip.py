"""The depth strip: what tuning changed at each layer, lens by lens, over one axis."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tunescope.report.damage import Damage
from tunescope.report.evidence import checked, strip_edit
from tunescope.report.figures import ablation, depth, lanes, similarity, style, weights
from tunescope.report.figures.patching import GRAFT_COLUMNS
from tunescope.report.figures.probes import PROBE_COLUMNS
from tunescope.report.read import RunFolder
from tunescope.report.stacks import read_stack, says_stack
from tunescope.report.trust import rows_said

PARTS_SET = {"zero": "set to zero", "mean": "set to their mean"}
LENSES = ("weights", "cka", "probes", "logit_lens", "ablation", "grafting")
# What the strip says of one model that nothing is held against.
SHOWS_ALONE = "What can be read off the model's layers, and what it loses without them, one lane a measure."
HIGH_ALONE = (
    "Accuracy: the answer can be read there. Ablation: the farther from 0, the more the answer needs it."
)
HOW_ALONE = "Follow one layer through all lanes."


@dataclass
class Strip:
    """The lanes so far, and what the caption says of them.

    Attributes:
        lanes: From top to bottom.
        said: What was measured on which rows.
        controls: What the grey band is, lane by lane.
        stacks: What the caption adds where a model has two stacks.
    """

    lanes: list[depth.Lane] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)
    stacks: str = ""

    def add(self, said: str, control: str, *made: depth.Lane | None) -> None:
        """Add lanes that have something to show."""
        kept = [lane for lane in made if lane is not None]
        if kept:
            self.lanes += kept
            self.said.append(said)
            self.controls += [control] if control else []


def depth_figure(run: RunFolder) -> style.Figure | None:
    """Return the depth strip, or None where no lens measured layers."""
    strip = Strip()
    broken = Damage()  # each lens's own section says what is wrong with its table
    for lens in LENSES:
        if lens in run.results:
            with broken.noting(lens):
                _ADD[lens](strip, run)
    if not strip.lanes:
        return None
    bands = f" Grey band: control ({'; '.join(strip.controls)})." if strip.controls else ""
    flattery = (
        " The strongest head is picked on the rows it is shown on, so its size is flattering."
        if "ablation" in run.results
        else ""
    )
    marks = (
        "With 95 % interval."
        if run.inspected
        else f"Solid: tuned, with 95 % interval{_seed_words(run, strip)}. Dotted with open marks: base."
    )
    caption = f"{_sentence('; '.join(strip.said))} {marks}{bands}{flattery}{strip.stacks}"
    made = style.Figure("depth", "Layer by layer", (depth.depth_strip(strip.lanes),), caption)
    return replace(made, shows=SHOWS_ALONE, high=HIGH_ALONE, how=HOW_ALONE) if run.inspected else made


def _weights(strip: Strip, run: RunFolder) -> None:
    table = read_stack(checked(run.results["weights"], weights.COLUMNS))
    strip.add("weights without any rows", "", lanes.weight_lane(table, run.arm_names))


def _cka(strip: Strip, run: RunFolder) -> None:
    table = read_stack(checked(run.results["cka"], similarity.COLUMNS))
    strip.stacks = says_stack(table)
    lane = lanes.cka_lane(table, run.arm_names)
    band = "; the upper grey band: tuned models of two seeds of one arm" if lane and lane.seeds else ""
    strip.add(f"CKA on {_rows(run, 'cka')}", f"rows shuffled for CKA{band}", lane)


def _probes(strip: Strip, run: RunFolder) -> None:
    table = checked(run.results["probes"], PROBE_COLUMNS)
    lane = lanes.reading_lane(table, run.arm_names, "probe_accuracy", "accuracy of a linear probe", "probe")
    strip.add(f"probes on {_rows(run, 'probes')}", "random labels for probes", lane)


def _logit_lens(strip: Strip, run: RunFolder) -> None:
    if "probes" in run.results:  # one lane says what can be read off a layer
        return
    table = read_stack(
        checked(run.results["logit_lens"], ("arm", "model", "site", "layer", "metric", "value"))
    )
    lane = lanes.reading_lane(
        table, run.arm_names, "accuracy", "accuracy of the model's own head here", "logit lens"
    )
    strip.add(f"logit lens on {_rows(run, 'logit_lens')}", "labels dealt at random for the logit lens", lane)


def _ablation(strip: Strip, run: RunFolder) -> None:
    table = read_stack(checked(run.results["ablation"], ablation.COLUMNS))
    edit, arms = strip_edit(table), run.arm_names
    strip.stacks = strip.stacks or says_stack(table)
    strip.add(
        f"parts {PARTS_SET.get(edit, edit)} on {_rows(run, 'ablation')}",
        "a random direction of equal norm for ablation",
        lanes.sublayer_lane(table, arms, "attn_out", "attention", edit),
        lanes.sublayer_lane(table, arms, "mlp_out", "MLP", edit),
        lanes.head_lane(table, arms, edit),
    )


def _grafting(strip: Strip, run: RunFolder) -> None:
    table = read_stack(checked(run.results["grafting"], GRAFT_COLUMNS))
    strip.stacks = strip.stacks or says_stack(table)
    lane = lanes.graft_lane(table, run.arm_names)
    strip.add(
        f"tuned weights in the base on {_rows(run, 'grafting')}",
        "random changes of the same size for grafts",
        lane,
    )


_ADD = {
    "weights": _weights, "cka": _cka, "probes": _probes, "logit_lens": _logit_lens, "ablation": _ablation,
    "grafting": _grafting,
}  # fmt: skip


def _rows(run: RunFolder, lens: str) -> str:
    return rows_said(run.results[lens]) or "rows not recorded"


def inside_sentence(run: RunFolder) -> list[tuple[str, bool]]:
    """Return where tuning changed the representation most, as pieces of a sentence; empty without CKA."""
    result = run.results.get("cka")
    table = None if result is None else read_stack(checked(result, similarity.COLUMNS))
    lane = None if table is None else lanes.cka_lane(table, run.arm_names)
    pieces: list[tuple[str, bool]] = []
    for line in lane.lines[:3] if lane else ():
        layer, point = min(line.points.items(), key=lambda item: item[1].value or 0.0)
        place = lane.names.get(layer, f"L{layer}") if lane else ""
        pieces += [
            (", " if pieces else "Inside, ", False),
            (f"{line.name} is least like its base at {place}, CKA ", False),
        ]
        pieces.append((str(point), True))
    return [*pieces, (".", False)] if pieces else []


def _seed_words(run: RunFolder, strip: Strip) -> str:
    if len(run.seeds) < 2:
        return ""
    shown = any(line.seeds for lane in strip.lanes for line in lane.lines)
    grey = "; grey along a line: the lowest to the highest value of single seeds" if shown else ""
    return f" from the lowest to the highest of {len(run.seeds)} seeds{grey}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""
