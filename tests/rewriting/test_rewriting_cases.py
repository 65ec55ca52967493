"""A table of labelled cases: at least 97 % right, and the wrong ones are named."""

from __future__ import annotations

from pathlib import Path

import yaml

from tunescope.rewriting import Rewrite, Unresolved, load_lexicon, rewrite

CASES = yaml.safe_load((Path(__file__).parent / "cases.yaml").read_text(encoding="utf-8"))


def answer(text: str, lexicon) -> str | None:
    made = rewrite(text, lexicon)
    if isinstance(made, Unresolved):
        return "?"
    return made.rewritten if isinstance(made, Rewrite) else None


def test_at_least_97_percent_of_the_labelled_cases_are_right(capsys):
    lexicons = {name: load_lexicon(name) for name in ("gender", "race")}
    wrong, total = [], 0
    for group, cases in CASES.items():
        for text, expected in cases:
            total += 1
            got = answer(text, lexicons[group.split("_")[0]])
            if got != expected:
                wrong.append(f"{group}: {text!r}: expected {expected!r}, came {got!r}")
    with capsys.disabled():
        print(f"\n  {total - len(wrong)} of {total} labelled rewriting cases right")
        for line in wrong:
            print(f"    wrong: {line}")
    assert total >= 150
    assert len(wrong) <= 0.03 * total, wrong
