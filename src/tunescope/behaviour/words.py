"""What the suites allow to be said, in sentences with numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunescope.behaviour.estimates import CANCELS
from tunescope.behaviour.verdicts import DIFFERENT, EQUIVALENT, INCONCLUSIVE
from tunescope.stats.results import Finding

Record = dict[str, Any]
FINDING_VERDICTS = {
    DIFFERENT: "found", EQUIVALENT: "equivalent", INCONCLUSIVE: "undecided", "fails": "found",
    "holds": "equivalent", "widened": "found", "narrowed": "found",
}  # fmt: skip
SHOWN_TERMS = 5
CONTROL_WORDS = {
    "neutral": "a neutral swap of persons", "neutral_names": "a neutral swap of names",
    "random_words": "a random replacement by words as frequent",
}  # fmt: skip
SCALE = "logits grow with training, so compare it with the change of probability"


@dataclass(frozen=True)
class About:
    """What findings say beside numbers: arm, whether the task was learnt, which rows."""

    arm: str
    learned: bool | None
    rows: str


def findings(records: Sequence[Record], about: About, bound: float, reason: str) -> list[Finding]:
    """Return the sentences of one training, suite by suite: verdict, control, tuned against base, terms.

    Args:
        records: Rows of the result table of one arm and seed.
        about: Arm and rows.
        bound: The mean change of margin that would not matter.
        reason: Why not.
    """
    found: list[Finding] = []
    for suite in dict.fromkeys(record["suite"] for record in records):
        own = [record for record in records if record["suite"] == suite]
        said = _Said(suite, own, about)
        for one in (
            said.failures(),
            said.verdict(bound, reason),
            *said.controls(),
            said.widened(),
            said.terms(),
        ):
            if one is not None:
                found.append(one)
    return found


class _Said:
    """The sentences of one suite."""

    def __init__(self, suite: str, records: Sequence[Record], about: About) -> None:
        self.suite, self.records, self.about = suite, records, about

    def _one(self, metric: str, model: str = "tuned", **axes: Any) -> Record | None:
        wanted = {"metric": metric, "model": model, "part": "all", "class": None, "control": None, **axes}
        for record in self.records:
            if all(record.get(key) == value for key, value in wanted.items()):
                return record
        return None

    def _finding(self, record: Record, sentence: str, test: str | None, control: str | None) -> Finding:
        verdict = FINDING_VERDICTS.get(record.get("verdict") or "", "undecided")
        if self.about.learned is False:
            verdict = "task not learned"
        return Finding(
            lens="behaviour", arm=self.about.arm, sentence=sentence, metric=f"{self.suite} {record['metric']}",
            value=record["value"], low=record["low"], high=record["high"], n=record["n"], test=test, control=control,
            rows=self.about.rows, verdict=verdict,
        )  # fmt: skip

    def failures(self) -> Finding | None:
        one = self._one("failure_share")
        if one is None:
            return None
        sentence = (
            f"{self.suite}: {_percent(one)} of {one['n']:,} cases fail; {100 * one['within']:.0f} % are tolerated: "
            f"{one['verdict']}."
        )
        return self._finding(one, sentence, "Wilson's interval against the tolerated share", None)

    def verdict(self, bound: float, reason: str) -> Finding | None:
        one = self._one("margin_change")
        if one is None or one["kind"] != "invariance":
            return None
        flips, large = self._one("flip_share"), self._one("large_change_share")
        followed = _followed(one)
        shares = ""
        if flips is not None and large is not None:
            shares = f" {_percent(flips)} of the predictions flip; {_percent(large)} move a probability by"
            shares += " the cut or more."
        moved = f"the margin of {followed} moves by {_interval(one)} on average."
        if one.get("note") == CANCELS:
            moved = "in both directions the mean change cancels."
        sentence = (
            f"{self.suite}: {one['verdict']}, bound ±{bound:g} of the logit margin ({one['why']}). On {one['n']:,} "
            f"pairs {moved}{shares}"
        )
        test = "sign flips over groups (Holm over the means judged), two one-sided bootstrap tests"
        return self._finding(one, sentence, test, f"bound of {bound:g}: {reason}")

    def controls(self) -> list[Finding]:
        found = []
        for name in dict.fromkeys(r["control"] for r in self.records if r.get("control")):
            excess = self._one("excess_over_control", control=name)
            band = self._one("absolute_margin_change", control=name)
            if excess is None or band is None:
                continue
            p = excess["p"]
            clear = p is not None and p <= 0.05
            more = "more" if (excess["value"] or 0) > 0 else "less"
            said = f"{more} than" if clear else "not clearly apart from"
            sentence = (
                f"{self.suite}: a pair moves the margin {said} {CONTROL_WORDS.get(name, name)}: the size of its change "
                f"minus that of the control is {_interval(excess)} logits ({_p(p)}; control {band['value']:.3f}; "
                f"n = {excess['n']:,} pairs)."
            )
            record = {**excess, "verdict": DIFFERENT if clear else INCONCLUSIVE}
            found.append(
                self._finding(
                    record, sentence, "paired, sign flips over groups", CONTROL_WORDS.get(name, name)
                )
            )
        return found

    def widened(self) -> Finding | None:
        one = self._one("absolute_margin_change", "tuned_minus_base")
        if one is None:
            return None
        chance = self._one("largest_probability_change", "tuned_minus_base")
        flips = self._one("flip_share", "tuned_minus_base")
        base, tuned = self._one("absolute_margin_change", "base"), self._one("absolute_margin_change")
        assert base is not None
        assert tuned is not None
        verb = {"widened": "Tuning widened", "narrowed": "Tuning narrowed"}.get(one["verdict"])
        lead = (
            f"{verb} what {self.suite} moves"
            if verb
            else f"Whether tuning widened what {self.suite} moves is not shown"
        )
        more = ""
        if chance is not None and flips is not None:
            more = (
                f" The largest change of a probability goes by {_interval(chance)} and the share of flips by "
                f"{_interval(flips)}; {SCALE}."
            )
        sentence = (
            f"{lead}: the size of the change of margin is {tuned['value']:.3f} tuned and {base['value']:.3f} in the "
            f"base, difference {_interval(one)} ({_p(one['p'])}; n = {one['n']:,} pairs).{more}"
        )
        return self._finding(
            one, sentence, "paired difference on the same pairs, sign flips over groups", "the base"
        )

    def terms(self) -> Finding | None:
        own = [r for r in self.records if r.get("part") == "term" and r.get("model") == "tuned"]
        own = [r for r in own if r["metric"] == "absolute_margin_change"]
        apart = sorted((r for r in own if r.get("stands_out")), key=lambda r: -r["value"])
        if not apart:
            return None
        listed = ", ".join(f"{r['term']} ({r['value']:.2f}, n = {r['n']})" for r in apart[:SHOWN_TERMS])
        more = f" and {len(apart) - SHOWN_TERMS} more" if len(apart) > SHOWN_TERMS else ""
        sentence = (
            f"{self.suite}: {len(apart)} of {len(own)} terms move the margin more than the rest, by size: "
            f"{listed}{more}."
        )
        record = {**apart[0], "verdict": DIFFERENT}
        return self._finding(
            record, sentence, "Welch's t over groups, corrected over all terms", "all other pairs"
        )


def _followed(record: Record) -> str:
    labelled, n = record["labelled"], record["n"]
    if labelled == n:
        return "the true class"
    if labelled == 0:
        return "the class that the tuned model predicts for the original"
    return f"the true class ({labelled:,} pairs) or the predicted one ({n - labelled:,})"


def _interval(record: Record) -> str:
    ends = "" if record["low"] is None else f" [{record['low']:+.3f}, {record['high']:+.3f}]"
    return ("undefined" if record["value"] is None else f"{record['value']:+.3f}{ends}").replace("-", "−")


def _percent(record: Record) -> str:
    if record["value"] is None:
        return "an unknown share"
    ends = "" if record["low"] is None else f" [{100 * record['low']:.1f}, {100 * record['high']:.1f}]"
    return f"{100 * record['value']:.1f} %{ends}"


def _p(p: float | None) -> str:
    return (
        "no test could be made"
        if p is None
        else "p < .001"
        if p < 0.001
        else f"p = {p:.3f}".replace("0.", ".", 1)
    )
