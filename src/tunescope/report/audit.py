"""The section on the data audit: what was found in the rows, ranked, worded, each with what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunescope.report.figures.select import estimate
from tunescope.report.quality import Strip, strip
from tunescope.report.read import RunFolder, reading
from tunescope.report.tables import Table
from tunescope.report.text import Estimate, number, percent, plural, probability, short_path, visible

SEVERITIES = ("red", "amber", "note")
KINDS = {"exact": "equal", "normalised": "equal but for case, space, punctuation", "near": "near duplicates"}
SHOWN_EXAMPLES = 5
SHOWN_CHARACTERS = 160


@dataclass(frozen=True)
class Found:
    """One finding of the audit."""

    severity: str
    sentence: str
    advice: str


@dataclass(frozen=True)
class Words:
    """The words of one class: most typical (with their z) and most frequent (with their count)."""

    label: str
    typical: tuple[tuple[str, str], ...]
    frequent: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Fold:
    """One baseline with random and with grouped folds."""

    name: str
    random: Estimate
    grouped: Estimate
    gap: Estimate
    drawn: Strip | None
    q: str
    leak: bool


@dataclass(frozen=True)
class CrossValidation:
    """Random and grouped cross-validation side by side, or the reason why there is none."""

    sentence: str
    about: str
    folds: tuple[Fold, ...]


@dataclass(frozen=True)
class Audit:
    """The section on the audit."""

    findings: tuple[Found, ...]
    columns: Table | None
    untested: tuple[str, ...]
    duplicates: Table | None
    examples: tuple[tuple[str, str, str], ...]
    shift: Table | None
    lengths: tuple[tuple[str, Table], ...]
    words: tuple[Words, ...]
    notes: tuple[str, ...]

    @property
    def reds(self) -> int:
        """How many findings are red."""
        return sum(one.severity == "red" for one in self.findings)


Cell = tuple[str, str]


def audit(run: RunFolder) -> Audit | None:
    """Return the section, or None where the run holds no data/audit.json."""
    if run.audit is None:
        return None
    with reading(run.folder, "data/audit.json"):
        found = run.audit
        columns = found.get("columns") or []
        lengths = found.get("lengths") or {}
        return Audit(
            findings=audit_findings(run),
            columns=_columns([one for one in columns if "untested" not in one]),
            untested=tuple(f"{one['column']}: {one['untested']}" for one in columns if "untested" in one),
            duplicates=_duplicates(found.get("duplicates") or {}, found.get("conflicts") or {}),
            examples=_examples(found.get("duplicates") or {}, found.get("conflicts") or {}),
            shift=_shift(found.get("balance") or {}),
            lengths=tuple(
                (title, _lengths(lengths[kind])) for kind, title in (("words", "words"), ("tokens", "tokens"))
                if lengths.get(kind)
            ),
            words=_words(found.get("words") or {}),
            notes=_notes(found),
        )  # fmt: skip


def audit_findings(run: RunFolder) -> tuple[Found, ...]:
    """Return the audit's findings, red first; none where there is no audit."""
    if run.audit is None:
        return ()
    with reading(run.folder, "data/audit.json"):
        found = [
            Found(str(one["severity"]), str(one["sentence"]), str(one.get("advice") or ""))
            for one in run.audit["findings"]
        ]
    rank = {name: place for place, name in enumerate(SEVERITIES)}
    return tuple(sorted(found, key=lambda one: rank.get(one.severity, len(SEVERITIES))))


def _notes(found: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    if found.get("tokens_of"):
        limit = (found.get("lengths") or {}).get("max_length")
        at = f", cut at {number(limit)}" if limit else ""
        notes.append(f"Tokens are those of {short_path(str(found['tokens_of']))}{at}.")
    if isinstance(found.get("near"), str):
        notes.append(f"Near duplicates: {found['near']}.")
    method = (found.get("duplicates") or {}).get("method")
    if method:
        notes.append(
            f"Near duplicates share at least {percent(method['threshold'], 0)} of their shingles of "
            f"{plural(int(method['shingle']), 'word')} (Jaccard)."
        )
    return tuple(notes)


def _text(value: Any) -> Cell:
    shown = str(visible(str(value), SHOWN_CHARACTERS))
    return shown, shown.casefold()


def _count(value: Any, digits: int = 3) -> Cell:
    return (number(value, digits), "" if value is None else repr(value))


def _share(value: Any) -> Cell:
    return (percent(value), "" if value is None else repr(value))


def _columns(records: Sequence[Mapping[str, Any]]) -> Table | None:
    """Return every column against the label: association, purity, and a look-up table's accuracy."""
    if not records:
        return None
    names = (
        "column", "values", "of one label only", "look-up, leaving one out", "on test", "always the most frequent",
        "Cramér's V", "q",
    )  # fmt: skip
    rows = []
    for one in records:
        test = one.get("test")
        trusted = "" if one.get("trusted") is not False else " (approximate)"
        q = one.get("q")
        rows.append((
            _text(one["column"]), _count(one["distinct"]), _count(one["pure_values"]),
            _right(one["leave_one_out"]), _right(test) if test else ("–", ""), _share(one["majority"]["accuracy"]),
            _count(one.get("cramers_v_corrected"), 2),
            (f"{probability(q)}{trusted}", "" if q is None else repr(q)),
        ))  # fmt: skip
    return Table(names, (False, *[True] * 7), tuple(rows), len(rows))


def _right(one: Mapping[str, Any]) -> Cell:
    return f"{number(one['right'])} of {number(one['rows'])} ({percent(one['accuracy'])})", repr(
        one["accuracy"]
    )


def _duplicates(duplicates: Mapping[str, Any], conflicts: Mapping[str, Any]) -> Table | None:
    """Return repeats within splits, texts shared by splits, and texts under several labels."""
    kinds = [kind for kind in KINDS if kind in duplicates]
    if not kinds:
        return None
    splits = list(duplicates[kinds[0]]["within"])
    pairs = list(duplicates[kinds[0]]["across"])
    names = ("texts that are", *(f"within {split}" for split in splits),
             *(f"{pair.split('/')[1]} also in {pair.split('/')[0]}" for pair in pairs),
             "several labels")  # fmt: skip
    rows = []
    for kind in kinds:
        own, clash = duplicates[kind], conflicts.get(kind)
        rows.append((
            _text(KINDS[kind]), *(_count(own["within"].get(split)) for split in splits),
            *(_count(own["across"].get(pair, {}).get("rows", {}).get(pair.split("/")[1])) for pair in pairs),
            _count(clash["texts"]) if clash else ("–", ""),
        ))  # fmt: skip
    return Table(names, (False, *[True] * (len(names) - 1)), tuple(rows), len(rows))


def _examples(
    duplicates: Mapping[str, Any], conflicts: Mapping[str, Any]
) -> tuple[tuple[str, str, str], ...]:
    """Return examples as (kind, where they stand, the text): foreign text, cut for display."""
    found = []
    for kind, said in KINDS.items():
        for one in (duplicates.get(kind) or {}).get("examples", [])[:SHOWN_EXAMPLES]:
            where = ", ".join(
                f"{split} {row}" for split, row in zip(one["splits"], one["row_ids"], strict=True)
            )
            text = _cut(one["text"])
            if one.get("other") is not None:
                text, said = (
                    f"{text}\n{_cut(one['other'])}",
                    f"{KINDS[kind]}, similarity {number(one['jaccard'], 2)}",
                )
            found.append((said, where, text))
    for one in conflicts.get("examples", [])[:SHOWN_EXAMPLES]:
        votes = ", ".join(f"{label} {number(rows)}" for label, rows in one["labels"].items())
        found.append(("several labels", votes, _cut(one["text"])))
    return tuple(found)


def _cut(text: Any) -> str:
    return str(visible(str(text), SHOWN_CHARACTERS))


def _shift(balance: Mapping[str, Any]) -> Table | None:
    """Return how far class shares of two splits lie apart; the shares themselves stand under Data."""
    rows = tuple(
        (_text(pair.replace("/", " against ")), _share(one["distance"]), _count(one.get("cramers_v"), 3),
         (probability(one.get("p")), "" if one.get("p") is None else repr(one["p"])))
        for pair, one in (balance.get("shift") or {}).items()
    )  # fmt: skip
    columns = ("splits", "rows that would have to change class", "Cramér's V", "p (chi-square)")
    return Table(columns, (False, True, True, True), rows, len(rows)) if rows else None


def _lengths(splits: Mapping[str, Any]) -> Table:
    cut = any("truncated" in one for classes in splits.values() for one in classes.values())
    columns = ("split", "class", "rows", "mean", "median", "95th percentile", "longest",
               *(("texts cut", "tokens lost") if cut else ()))  # fmt: skip
    rows = tuple(
        (
            _text(split), _text("all classes" if label == "all" else label), _count(one["rows"]),
            *(_count(one[key], 1) for key in ("mean", "median", "p95", "max")),
            *((_count(one.get("truncated")), _share(one.get("cut"))) if cut else ()),
        )
        for split, classes in splits.items()
        for label, one in classes.items()
    )  # fmt: skip
    return Table(columns, (False, False, *[True] * (len(columns) - 2)), rows, len(rows))


def _words(words: Mapping[str, Any]) -> tuple[Words, ...]:
    return tuple(
        Words(
            str(label),
            tuple(
                (str(visible(str(one["word"]), 40)), number(one["z"], 1)) for one in own.get("typical") or []
            ),
            tuple(
                (str(visible(str(one["word"]), 40)), number(one["count"]))
                for one in own.get("frequent") or []
            ),
        )
        for label, own in (words.get("classes") or {}).items()
    )


def cross_validation(run: RunFolder) -> CrossValidation | None:
    """Return the cheap baselines with random and with grouped folds, or None without the file."""
    found = run.cross_validation
    if found is None:
        return None
    if not found.get("done", True):
        reason = str(found.get("reason") or "no reason is recorded")
        return CrossValidation(f"Random and grouped folds were not compared: {reason}.", "", ())
    with reading(run.folder, "data/cross_validation.json"):
        gaps = [estimate(dict(one["gap"])) for one in found["baselines"]]
        bounds = [abs(b) for gap in gaps for b in (gap.value, gap.low, gap.high) if b is not None]
        reach = 1.1 * max(bounds, default=1.0) or 1.0
        folds = tuple(
            Fold(
                str(one["name"]), estimate(dict(one["random"]["accuracy"])),
                estimate(dict(one["grouped"]["accuracy"])), gap,
                strip(gap, [0.0], (-reach, reach)),
                probability(one["gap"].get("q")), bool(one["leak"]),
            )
            for one, gap in zip(found["baselines"], gaps, strict=True)
        )  # fmt: skip
        about = (
            f"{found['k']} folds over {plural(int(found['rows']), 'train row')} in {number(found['groups'])} groups "
            f"({found['grouped_by']}); the gap is random minus grouped accuracy."
        )
        return CrossValidation(str(found.get("sentence") or ""), about, folds)
