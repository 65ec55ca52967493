"""From an audit's numbers to ranked sentences, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tunescope.data.audit.column_findings import column_findings
from tunescope.data.audit.kinds import Finding, Severity, counted, percent, probability
from tunescope.data.audit.near import LARGEST_BUCKET

__all__ = ["Finding", "findings_of"]

SEVERITIES = ("red", "amber", "note")
LEAK_RED = 0.01  # of the evaluated rows
REPEATS_AMBER = 0.01  # of the train rows
CONFLICTS_AMBER = 0.01  # of the rows
LEFT_OUT_AMBER = 0.01
RARE = 0.05  # of the train rows
RARE_OF_EVEN = 0.25  # of the share that a class would have if all were equally frequent
SHIFT_AMBER = 0.1  # total variation
SIGNIFICANT = 0.01
TRUNCATED_AMBER = 0.05
WORDINGS = {
    "exact": "texts",
    "normalised": "texts that differ at most in case, white space and punctuation",
    "near": "near-duplicate texts",
}


Weighed = Iterator[tuple[Finding, float]]


def findings_of(counts: Mapping[str, Any], parts: Mapping[str, Any]) -> list[Finding]:
    """Word what an audit found; red first, then amber, then notes, the weightiest first.

    Args:
        counts: As :attr:`Audit.rows`.
        parts: As :attr:`Audit.parts`.
    """
    found = [
        *column_findings(parts["columns"]),
        *_leaks(counts, parts["duplicates"]),
        *_repeats(counts, parts["duplicates"]),
        *_bounded(parts["duplicates"]),
        *_conflicts(counts, parts["conflicts"]),
        *_rare(parts["balance"]),
        *_shifts(parts["balance"]),
        *_truncation(parts["lengths"]),
        *_left_out(counts),
        *_characters(counts, parts["characters"]),
        *_missing(counts, parts["missing"]),
    ]
    found.sort(key=lambda pair: (SEVERITIES.index(pair[0].severity), -pair[1]))
    return [finding for finding, _ in found]


def _grade(share: float, bar: float, above: Severity = "amber", below: Severity = "note") -> Severity:
    return above if share >= bar else below


def _leaks(counts: Mapping[str, Any], duplicates: Mapping[str, Any]) -> Weighed:
    """Texts that two splits share; a coarser sameness is told only where it adds something."""
    seen: dict[str, int] = {}
    for kind in ("exact", "normalised", "near"):
        for pair, found in duplicates.get(kind, {}).get("across", {}).items():
            first, second = pair.split("/")
            rows = found["rows"][second]
            if rows <= seen.get(pair, 0):
                continue
            before, seen[pair] = seen.get(pair, 0), rows
            n = counts["splits"][second]
            share = rows / n
            if before:
                more = f"{counted(rows - before, f'more {second} row')} ({rows:,} in all, {percent(share)})"
                sentence = f"{more} {_have(rows - before)} {WORDINGS[kind]} in {first}."
            elif kind == "near":
                sentence = (
                    f"{counted(rows, f'{second} row')} ({percent(share)}) {_have(rows)} a near-duplicate text in "
                    f"{first}."
                )
            else:
                texts, in_first = found["texts"], found["rows"][first]
                sentence = (
                    f"{counted(texts, 'text')} {'stand' if texts > 1 else 'stands'} in both {first} and {second}"
                    f"{'' if kind == 'exact' else ' but for case, white space and punctuation'}: "
                    f"{counted(rows, f'{second} row')} ({percent(share)}) and {counted(in_first, f'{first} row')}."
                )
            severity = _grade(share, LEAK_RED, "red", "amber")
            advice = (
                f"Set data.deduplicate: {kind}; it leaves out the train rows. Where the splits are yours to make, "
                "set data.group_by: duplicates."
            )
            evidence = {"sameness": kind, "splits": [first, second], **found, "share": share}
            yield Finding(severity, "shared_texts", sentence, advice, evidence), share - before / n


def _have(rows: int) -> str:
    return "have" if rows != 1 else "has"


def _repeats(counts: Mapping[str, Any], duplicates: Mapping[str, Any]) -> Weighed:
    """Repeats within train, or within the only split."""
    split = "train" if "train" in counts["splits"] else next(iter(counts["splits"]))
    n = counts["splits"][split]
    told = 0
    for kind in ("exact", "normalised", "near"):
        repeats = duplicates.get(kind, {}).get("within", {}).get(split, 0)
        if repeats <= told:
            continue
        more, told = repeats - told, repeats
        share = repeats / n
        what = {
            "exact": "repeat an earlier text",
            "normalised": "repeat an earlier text but for case, white space and punctuation",
            "near": "go with an earlier text as near duplicates",
        }[kind]
        many = f"{more:,}{'' if more == repeats else ' more'} of {n:,} rows"
        sentence = f"Within {split}, as it is used, {many} {what} ({percent(more / n)})."
        yield (
            Finding(
                _grade(share, REPEATS_AMBER),
                "repeated_texts",
                sentence,
                f"Set data.deduplicate: {kind}, so that these texts do not count twice.",
                {"sameness": kind, "split": split, "repeats": repeats, "rows": n, "share": share},
            ),
            share,
        )


def _bounded(duplicates: Mapping[str, Any]) -> Weighed:
    many = duplicates.get("near", {}).get("bounded", 0)
    if many:
        sentence = (
            f"{counted(many, 'group')} of more than {LARGEST_BUCKET} similar texts were too large to compare each with "
            "each (texts made from a template?): near duplicates are counted from below."
        )
        advice = "Set data.group_by to the column of the template, where there is one."
        yield Finding("note", "near_duplicates_bounded", sentence, advice, {"groups": many}), 0.0


def _conflicts(counts: Mapping[str, Any], conflicts: Mapping[str, Any]) -> Weighed:
    kind = "exact" if conflicts["exact"]["texts"] else "normalised"
    found = conflicts[kind]
    if not found["texts"]:
        return
    share = found["rows"] / counts["total"]
    like = "" if kind == "exact" else ", equal but for case, white space and punctuation,"
    sentence = (
        f"{counted(found['texts'], 'text')}{like} {'stand' if found['texts'] > 1 else 'stands'} under more than one "
        f"label ({found['rows']:,} rows); nothing that sees the text alone can be right on more than "
        f"{percent(found['ceiling'])} of the rows."
    )
    advice = (
        f"Look at them and correct the labels; data.deduplicate: {kind} keeps one row each, of the more frequent "
        "label. Read confidences near one half on such texts as what they are."
    )
    severity = _grade(share, CONFLICTS_AMBER)
    yield Finding(severity, "label_conflicts", sentence, advice, {"sameness": kind, **found}), share


def _rare(balance: Mapping[str, Any]) -> Weighed:
    split = "train" if "train" in balance["shares"] else next(iter(balance["shares"]), None)
    if split is None:
        return
    counts, shares = balance["counts"][split], balance["shares"][split]
    n = sum(counts.values())
    least = min(RARE, RARE_OF_EVEN / len(shares))
    rare = {name: share for name, share in shares.items() if share < least}
    for name, share in rare.items():
        sentence = (
            f"The label {name!r} is rare: {counts[name]:,} of {n:,} {split} rows ({percent(share)}); a model that "
            "never says it loses almost no accuracy."
        )
        advice = (
            "Read macro F1 and the class's recall, not accuracy; try training.class_weights: balanced or "
            "training.sampling: balanced, or give more rows of it."
        )
        evidence = {"label": name, "split": split, "rows": counts[name], "of": n, "share": share}
        yield Finding("amber", "rare_label", sentence, advice, evidence), 1 - share


def _shifts(balance: Mapping[str, Any]) -> Weighed:
    for pair, found in balance["shift"].items():
        if found["distance"] < SHIFT_AMBER or found["p"] is None or found["p"] >= SIGNIFICANT:
            continue
        first, second = pair.split("/")
        one, two = balance["shares"][first], balance["shares"][second]
        shown = sorted(one, key=lambda name: -abs(one[name] - two[name]))[:3]
        moves = ", ".join(f"{name!r} {percent(one[name])} to {percent(two[name])}" for name in shown)
        sentence = (
            f"The labels shift from {first} to {second}: {moves} (chi-square {probability('p', found['p'])}; "
            f"{percent(found['distance'])} of the rows would have to change label)."
        )
        advice = (
            "Judge by per-class recall and macro F1; try training.logit_adjustment: 1 or "
            "training.class_weights: balanced, and read accuracy only with the prior corrected."
        )
        evidence = {"splits": [first, second], "shares": {first: one, second: two}, **found}
        yield Finding("amber", "label_shift", sentence, advice, evidence), found["distance"]


def _truncation(lengths: Mapping[str, Any]) -> Weighed:
    limit = lengths.get("max_length")
    for split, classes in lengths.get("tokens", {}).items():
        whole = classes["all"]
        if not whole["truncated"]:
            continue
        share = whole["truncated"] / whole["rows"]
        cut = {name: c["truncated"] / c["rows"] for name, c in classes.items() if name != "all"}
        uneven = ""
        if len(cut) > 1:
            most, least = max(cut, key=lambda name: cut[name]), min(cut, key=lambda name: cut[name])
            uneven = f"; most of {most!r} ({percent(cut[most])}), least of {least!r} ({percent(cut[least])})"
        sentence = (
            f"At {limit} tokens, {whole['truncated']:,} of {whole['rows']:,} {split} texts ({percent(share)}) are cut "
            f"and {percent(whole['cut'])} of all tokens are lost{uneven}."
        )
        advice = (
            f"Raise data.max_length if the model allows it (the longest text has {whole['max']:,} tokens), or choose "
            "what is kept with data.window."
        )
        evidence = {"split": split, "max_length": limit, "share": share, **whole, "by_label": cut}
        yield (
            Finding(_grade(share, TRUNCATED_AMBER), "truncation", sentence, advice, evidence),
            share,
        )


def _left_out(counts: Mapping[str, Any]) -> Weighed:
    reasons = {
        "null_text": "no text",
        "empty_text": "a blank text",
        "null_label": "no label",
        "empty_after_cleaning": "nothing left after cleaning",
    }
    totals: dict[str, int] = {}
    for per_split in counts["left_out"].values():
        for reason, rows in per_split.items():
            totals[reason] = totals.get(reason, 0) + rows
    for reason, rows in totals.items():
        share = rows / (rows + counts["total"])
        sentence = (
            f"{counted(rows, 'row')} ({percent(share)}) {'were' if rows > 1 else 'was'} left out: "
            f"{reasons.get(reason, reason)}."
        )
        severity = _grade(share, LEFT_OUT_AMBER)
        advice = "Check that these rows are missing for no reason that has to do with the label."
        yield (
            Finding(severity, "left_out", sentence, advice, {"reason": reason, "rows": rows, "share": share}),
            share,
        )


def _characters(counts: Mapping[str, Any], characters: Mapping[str, Any]) -> Weighed:
    wrong = "Read the file with the encoding that it was written in (data.encoding)."
    told: dict[str, tuple[Severity, str, str]] = {
        "replacement": ("amber", "contain the replacement sign U+FFFD: bytes were lost in decoding", wrong),
        "mojibake": ("amber", "look like UTF-8 that was decoded as something else ('Ã©' for 'é')", wrong),
        "control": ("note", "contain control characters", "Set data.clean: [special_characters]."),
        "invisible": ("note", "contain invisible characters", "Set data.clean: [special_characters]."),
        "html_tags": (
            "note",
            "contain HTML tags",
            "Set data.clean: [html, whitespace] if tags are no content.",
        ),
        "html_entities": ("note", "contain HTML entities such as &amp;", "Decode them in the source."),
    }
    for kind, (severity, what, advice) in told.items():
        rows = characters[kind]
        if rows:
            share = rows / counts["total"]
            sentence = f"{counted(rows, 'text')} ({percent(share)}) {what}."
            yield (
                Finding(
                    severity, "characters", sentence, advice, {"sign": kind, "rows": rows, "share": share}
                ),
                share,
            )


def _missing(counts: Mapping[str, Any], missing: Mapping[str, int]) -> Weighed:
    for column, rows in missing.items():
        if rows:
            share = rows / counts["total"]
            sentence = (
                f"Column {column!r} is empty in {rows:,} of {counts['total']:,} rows ({percent(share)})."
            )
            advice = "Do not group or slice by it without saying what becomes of these rows."
            yield Finding("note", "missing_values", sentence, advice, {"column": column, "rows": rows}), share
