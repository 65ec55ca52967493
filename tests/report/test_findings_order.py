"""Which findings come first on the page: in turns over lenses, decided ones before the others."""

from __future__ import annotations

from tunescope.report.cards import by_importance


def test_no_lens_crowds_another_off_the_first_screen():
    def one(lens, verdict, name):
        return {"lens": lens, "verdict": verdict, "sentence": name}

    found = [
        one("cka", "undecided", "a"), one("cka", "found", "b"), one("cka", "found", "c"), one("cka", "found", "d"),
        one("spread", "undecided", "e"), one("ablation", "found", "f"), one("ablation", "found", "g"),
    ]  # fmt: skip
    order = "".join(item["sentence"] for item in by_importance(found))
    assert order == "bfecgda"
    assert by_importance([]) == []
