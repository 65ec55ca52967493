"""The section on what tuning cost elsewhere: language-model loss before and after, and other data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunescope.report.figures import style
from tunescope.report.figures.select import estimate
from tunescope.report.quality import Strip, record_of, shared_domain, strip
from tunescope.report.read import RunFolder, reading
from tunescope.report.text import Estimate, finite, number, percent, plural, probability, short_path


@dataclass(frozen=True)
class Loss:
    """The trunk's language-model loss after one training, and how far that is from before."""

    arm: str
    colour: int | None
    seed: str
    after: Estimate
    change: Estimate
    drawn: Strip | None
    share: str
    p: str


@dataclass(frozen=True)
class Language:
    """One base model on general text, and what was tuned from it."""

    model: str
    before: Estimate
    unit: str
    about: str
    note: str
    losses: tuple[Loss, ...]


@dataclass(frozen=True)
class Crossed:
    """One tuned model on another data set."""

    arm: str
    colour: int | None
    seed: str
    name: str
    accuracy: Estimate
    drawn: Strip | None
    among: Estimate
    f1: Estimate
    majority: float | None
    own: Estimate
    rows: str
    left_out: str
    mapped: str


@dataclass(frozen=True)
class Elsewhere:
    """The section."""

    language: tuple[Language, ...]
    crossed: tuple[Crossed, ...]
    notes: tuple[str, ...]


def elsewhere(run: RunFolder) -> Elsewhere | None:
    """Return the section, or None where the run holds no elsewhere.json."""
    found = run.elsewhere
    if found is None:
        return None
    with reading(run.folder, "elsewhere.json"):
        skipped = [f"{one['arm']}: {one['note']}." for one in found.get("skipped") or []]
        language = [_language(run, one) for one in found.get("language") or []]
        skipped += [f"{one['arm']}: {one['note']}." for each in found.get("language") or []
                    for one in each.get("skipped") or []]  # fmt: skip
        return Elsewhere(
            tuple(language), _crossed(run, found.get("data") or []), tuple(dict.fromkeys(skipped))
        )


def _colour(run: RunFolder, arm: str) -> int | None:
    return run.arm_names.index(arm) % len(style.ARM_COLOURS) if arm in run.arm_names else None


def _seed(one: Mapping[str, Any]) -> str:
    return "" if one.get("seed") is None else str(one["seed"])


def _language(run: RunFolder, one: Mapping[str, Any]) -> Language:
    before = estimate(dict(one["base"])) if one.get("base") else Estimate(None)
    tuned: Sequence[Mapping[str, Any]] = one.get("tuned") or []
    changes = [estimate(dict(item["difference"])) for item in tuned]
    bounds = [abs(b) for change in changes for b in (change.value, change.low, change.high) if b is not None]
    reach = 1.1 * max(bounds, default=1.0) or 1.0
    losses = tuple(
        Loss(
            str(item["arm"]), _colour(run, str(item["arm"])), _seed(item), estimate(dict(item)), change,
            strip(change, [0.0], (-reach, reach)), percent(item["difference"].get("share")),
            probability(item["difference"].get("p")),
        )
        for item, change in zip(tuned, changes, strict=True)
    )  # fmt: skip
    about = ""
    if one.get("documents"):
        about = (
            f"{plural(int(one['documents']), 'document')}, {number(one.get('tokens'))} counted tokens, windows of "
            f"{number(one.get('window'))}; {one.get('kind')} language model, read by {one.get('head')}."
        )
    reason = "" if one.get("base") else str(one.get("sentence") or "")
    note = reason or str(one.get("note") or "")
    return Language(
        short_path(str(one.get("model") or "")), before, str(one.get("unit") or ""), about, note, losses
    )


def _crossed(run: RunFolder, data: Sequence[Mapping[str, Any]]) -> tuple[Crossed, ...]:
    found = [estimate(_accuracy(one["records"])) for one in data]
    majorities = [finite((one.get("majority") or {}).get("accuracy")) for one in data]
    domain = shared_domain(found, majorities)
    return tuple(
        Crossed(
            arm=str(one["arm"]),
            colour=_colour(run, str(one["arm"])),
            seed=_seed(one),
            name=str(one["name"]),
            accuracy=accuracy,
            drawn=strip(accuracy, [majority], domain),
            among=estimate(_accuracy(one["records_among"])) if one.get("records_among") else Estimate(None),
            f1=estimate(record_of({"records": one["records"]}, "test", "f1_macro")),
            majority=majority,
            own=_own(run, one),
            rows=number(one["rows"]),
            left_out=", ".join(
                f"{label} {number(rows)}" for label, rows in (one.get("left_out") or {}).items()
            ),
            mapped=", ".join(f"{theirs} → {ours}" for theirs, ours in (one.get("map") or {}).items()),
        )
        for one, accuracy, majority in zip(data, found, majorities, strict=True)
    )


def _accuracy(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return record_of({"records": records}, "test", "accuracy")


def _own(run: RunFolder, one: Mapping[str, Any]) -> Estimate:
    """Return the same model's accuracy on the study's own rows."""
    own = [item for item in run.of(str(one["arm"])) if item.seed == one.get("seed")]
    return estimate(record_of(own[0].metrics, run.split, "accuracy")) if own else Estimate(None)
