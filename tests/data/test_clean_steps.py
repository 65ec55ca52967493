"""Cleaning: every step against what it says, and every change counted."""

from __future__ import annotations

import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tunescope.config.cleaning import CleaningStep
from tunescope.data.clean import clean_texts

STEPS = TypeAdapter(list[CleaningStep])
TALK = "Agent: Hello.\n\nCustomer: My order (no. 5) is late.\nIt is late!\n\nSupervisor: Oh.\n\nCustomer: Bye: now."


def cleaned(texts, *steps):
    return clean_texts(texts, STEPS.validate_python(list(steps)))


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        ("lower", "It's ÄÖ", "it's äö"),
        ("whitespace", " a \t b\n\nc ", "a b c"),
        ("html", "a<br />b</p><!-- <b> no -->c", "a b  c"),
        ("html", "I <3 you, a < b and b > c", "I <3 you, a < b and b > c"),
        ("bracketed", "a (b) c [d {e}] f", "a  c  f"),
        ("bracketed", "a (b (c) d) e) (f", "a  e) (f"),
        ("bracketed", "word(s)", "word"),
        ({"step": "bracketed", "brackets": ["[]"]}, "a (b) [c]", "a (b) "),
        ("special_characters", "50% off — it's «good»!", "50  off   it's  good !"),
        ({"step": "special_characters", "keep": "%]-^\\"}, "50% [a-b]^\\!", "50%  a-b]^\\ "),
        ("special_characters", "naïve e\u0301 日本", "naïve e\u0301 日本"),
        ("speaker_turns", TALK, "My order (no. 5) is late.\nIt is late!\nBye: now."),
        ({"step": "speaker_turns", "keep": "agent"}, TALK, "Hello."),
        ({"step": "speaker_turns", "keep": "both"}, TALK, "Hello.\nMy order (no. 5) is late.\nIt is late!\nBye: now."),
        (
            {"step": "speaker_turns", "keep": "both", "join": "tagged"},
            TALK,
            "Agent: Hello.\nCustomer: My order (no. 5) is late.\nIt is late!\nCustomer: Bye: now.",
        ),
        (
            {"step": "speaker_turns", "customer": ["Caller 1", "user"]},
            "preface\nUSER : one\ncaller 1: two\nuser 2: three\nOther: four",
            "one\ntwo\nthree",
        ),
        ("speaker_turns", "Customer: see\nhttp://x.org: there\nStep 2: go", "see\nhttp://x.org: there\nStep 2: go"),
    ],
)  # fmt: skip
def test_a_step_does_what_it_says(step, before, after):
    assert cleaned([before], step).texts.to_list() == [after]


def test_numbered_speakers_are_the_speaker_they_number():
    found = cleaned(["Agent 2: a\nCustomer: b\nagent 10: c"], "speaker_turns")
    assert found.texts.to_list() == ["b"]
    assert found.steps[0]["turns_kept"] == {"Customer": 1}
    assert found.steps[0]["turns_left_out"] == {"Agent 2": 1, "agent 10": 1}


def test_every_step_counts_rows_characters_and_emptied_texts():
    found = cleaned(["(a)", "b (c) d", "plain", None, " "], "bracketed", "lower")
    assert found.texts.to_list() == ["", "b  d", "plain", None, " "]
    first, second = found.steps
    assert first["rows"] == 4
    assert first["rows_changed"] == 2
    assert first["characters_removed"] == 6
    assert first["rows_emptied"] == 1  # the blank text was blank before
    assert second["rows_changed"] == second["characters_removed"] == second["rows_emptied"] == 0


def brackets_by_regex(text: str, opening: str, closing: str) -> str:
    """An independent reference: take out innermost pairs until none is left."""
    pattern = re.compile(rf"\{opening}[^\{opening}\{closing}]*\{closing}")
    while True:
        text, changes = pattern.subn("", text)
        if not changes:
            return text


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="()[]ab", max_size=30))
def test_brackets_agree_with_taking_out_innermost_pairs(text):
    expected = brackets_by_regex(brackets_by_regex(text, "(", ")"), "[", "]")
    assert cleaned([text], "bracketed").texts[0] == expected


def test_deep_brackets_take_no_square_time():
    deep = "(" * 200_000 + ")" * 200_000
    assert cleaned([deep + "x", "(" * 200_000], "bracketed").texts.to_list() == ["x", "(" * 200_000]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("upper", "upper"),
        ({"step": "lower", "keep": "a"}, "keep"),
        ({"step": "bracketed", "brackets": ["<>"]}, "brackets"),
        ({"step": "bracketed", "brackets": []}, "brackets"),
        ({"step": "speaker_turns", "agent": ["customer"]}, "names both the customer and the agent"),
        ({"step": "speaker_turns", "agent": ["Agent:"]}, "write the name alone"),
    ],
)
def test_a_wrong_step_is_refused(step, said):
    with pytest.raises(ValidationError, match=said):
        STEPS.validate_python([step])


def test_rows_are_cleaned_before_ids_and_repeats_and_the_emptied_are_counted(write, load):
    path = write("x.csv", "text,label\nA (x),a\na (y),b\n(gone),a\nB,b\nc,a\nC ,b\n")
    rows = load(path, clean=["lower", "bracketed", "whitespace"], validation=0, test=0)
    assert rows.frame["text"].to_list() == ["a", "a", "b", "c", "c"]
    assert rows.frame["position"].to_list() == [0, 1, 3, 4, 5]
    assert rows.frame["row_id"][1] == f"{rows.frame['row_id'][0]}-1"
    provenance = rows.provenance
    assert provenance["dropped"] == {"all": {"empty_after_cleaning": 1}}
    assert provenance["cleaning"][0]["emptied"] == {"rows": 1, "positions": [2]}
    assert [step["step"] for step in provenance["cleaning"][0]["steps"]] == [
        "lower",
        "bracketed",
        "whitespace",
    ]
    assert provenance["texts"] == {
        "repeats": 2, "repeats_within": {}, "shared": {}, "label_conflicts": 2,
    }  # fmt: skip
    assert any("Left out, empty after cleaning: 1 of 6 rows" in note for note in provenance["notes"])
    assert any(note.startswith("Cleaning step lower: 3 of 6 texts") for note in provenance["notes"])


def test_cleaning_that_leaves_nothing_is_refused(write, refusal):
    path = write("x.csv", "text,label\n(a),a\n(b),b\n")
    assert "no row has a text after cleaning" in refusal(path, clean=["bracketed"])


def test_without_steps_nothing_changes(plain, load):
    assert load(plain).provenance["cleaning"] == []
    assert cleaned(["A  b"]).texts.to_list() == ["A  b"]
    assert cleaned(pl.Series(["A"])).steps == []
