"""What this run cannot tell, in sentences made from what is in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunescope.report import arms, comparison
from tunescope.report.audit import audit_findings
from tunescope.report.quality import Score, metric_tables, scores
from tunescope.report.read import RunFolder
from tunescope.report.text import listed, plural
from tunescope.report.trust import ROWLESS, base_heads, rows_said

AUDIT_FOUND = "The data audit found what makes numbers untrue:"


def limits(run: RunFolder, found: Sequence[Score] | None = None) -> list[str]:
    """Return what this run cannot tell, in sentences made from what is in it, the gravest first.

    Args:
        run: The run.
        found: Its scores, where they are known already.
    """
    found = scores(run) if found is None else found
    told: list[str] = []
    failed = [score.arm for score in found if score.learned is False]
    if failed:
        told.append(
            f"Task not learned: the accuracy interval of {listed(failed)} does not clear the majority "
            "baseline, so nothing seen inside can be put down to learning the task."
        )
    told += [f"{AUDIT_FOUND} {one.sentence}" for one in audit_findings(run) if one.severity == "red"]
    if len(run.seeds) == 1:
        told.append(
            "One seed: every interval here is about rows. How much another initialisation or another order "
            "of the training data would change is not measured; small differences between arms may be "
            "nothing but that."
        )
    told += _elsewhere(run)
    told += comparison.undecided(run)
    told += _widths(run, found)
    told += arms.notes_of_arms(run)
    told += _evidence_limits(run)
    told += _lens_limits(run)
    notes = [str(note) for note in (run.compare or {}).get("assumptions") or []]
    return told + [f"Assumed, because the folders do not say: {note}" for note in notes]


def _widths(run: RunFolder, found: Sequence[Score]) -> Iterator[str]:
    """Yield how sure accuracies are: of one training by its rows, of several seeds by both, which differs by arm."""
    widths = {
        score.arm: 50 * (score.accuracy.high - score.accuracy.low)
        for score in found
        if score.accuracy.low is not None and score.accuracy.high is not None
    }
    if not widths:
        return
    rows, seeds = plural(found[0].accuracy.n or 0, f"{run.split} row"), max(score.seeds for score in found)
    worst, best = max(widths, key=widths.__getitem__), min(widths, key=widths.__getitem__)
    known = f"an accuracy is known to about ±{widths[worst]:.1f} percentage points"
    if seeds > 1:
        rows += f" and {plural(seeds, 'seed')}"
        if widths[worst] > widths[best]:
            ends = f"±{widths[best]:.1f} ({best}) to ±{widths[worst]:.1f}"
            known = f"accuracies are known to {ends} percentage points ({worst})"
    yield f"With {rows}, {known}; arms closer together than this are not told apart by looking at their intervals."


def _elsewhere(run: RunFolder) -> list[str]:
    """Return what is not known of checkpoints that were trained elsewhere."""
    if run.compare is None:
        return []
    if run.inspected:
        return ["Trained elsewhere: which rows the model was trained on is not known. Nothing was compared."]
    if len({one.get("seed") for one in run.compare.get("pairs") or [] if isinstance(one, dict)}) > 1:
        return ["Trained elsewhere: which rows the checkpoints were trained on is not known."]
    return [
        "Checkpoints trained elsewhere: each is one training, so how much another seed would change is "
        "not known, and neither is which rows they were trained on."
    ]


def brief(told: Sequence[str], most: int = 3) -> list[str]:
    """Return the gravest limits for the first screen, where the trust bar has said what the audit found."""
    return [sentence for sentence in told if not sentence.startswith(AUDIT_FOUND)][:most]


def _evidence_limits(run: RunFolder) -> list[str]:
    """Return what intervals, grids and expectations leave open."""
    told: list[str] = []
    tables = [table for table in metric_tables(run) if table.split == run.split and table.colour is not None]
    doubtful = sum(table.doubtful for table in tables)
    if doubtful:
        told.append(
            f"{plural(doubtful, 'interval')} of metrics on {run.split} cannot be trusted at this number of rows; "
            "their notes say why."
        )
    if (run.grids or {}).get("note"):
        told.append(str((run.grids or {})["note"]))
    open_ = [one for one in (run.expect or {}).get("verdicts", []) if one.get("verdict") == "undecided"]
    if open_:
        told.append(f"{plural(len(open_), 'expectation')} undecided: the interval straddles the bound.")
    return told


def _lens_limits(run: RunFolder) -> list[str]:
    told: list[str] = []
    heads = {head for result in run.results.values() for head in base_heads(result.table)}
    if "probe" in heads:
        told.append(
            "The base model has no trained classification head. Its logits come from a probe: a logistic "
            "regression fitted on the frozen base's features of the training rows. What the base does is "
            "therefore what a linear reader can get out of it, and effects on base and tuned have "
            "different heads behind them."
        )
    if "tuned" in heads:
        told.append(
            "Base logits marked 'tuned' come from the tuned head on the base trunk, a head not made for it."
        )
    known = {f"{item.arm}: {note}" for item in run.arms for note in (item.metrics or {}).get("notes") or []}
    for result in run.results.values():
        rows = rows_said(result)
        if rows:
            told.append(f"{result.lens} looked at {rows}.")
        elif result.lens not in ROWLESS:
            told.append(f"{result.lens}: which rows it looked at is not said.")
        notes = [str(note) for note in result.provenance.get("notes") or []]
        told += [f"{result.lens}: {note}" for note in notes if note not in known]
    if "ablation" in run.results:
        told.append(
            "Ablation says what breaks when a part is taken out, not what the part does: other parts may "
            "compensate, and setting to zero puts the model where it has never been. Parts that matter "
            "only together are not found."
        )
    if "cka" in run.results:
        told.append(
            "CKA compares the geometry of representations up to rotation and scale. A high value does not "
            "mean that two layers compute the same, and a few dominant dimensions can carry it."
        )
    return told
