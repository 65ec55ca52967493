"""The first screen of a run that summarises: arms compared on the same articles, the better one first."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from tunescope.report.written import differences


def record(first, second, value, q, metric="rouge1", split="test"):
    low, high = (None, None) if value is None else (value - 0.01, value + 0.02)
    return {
        "split": split, "metric": metric, "first": first, "second": second, "value": value, "low": low, "high": high,
        "n": 500, "method": "bootstrap", "note": None, "p": q, "q": q,
    }  # fmt: skip


def run_of(folder, records, seeds=(0,), task="summarise"):
    (folder / "summaries.json").write_text(json.dumps({"format_version": 1, "records": records}))
    return SimpleNamespace(
        folder=folder, study={"task": task}, split="test", seeds=seeds, arm_names=["plain", "tuned"]
    )


def test_the_better_stands_first_with_its_interval_turned(tmp_path):
    (found,) = differences(run_of(tmp_path, [record("plain", "tuned", -0.05, 0.0004)]))
    assert (found["value"], found["low"], found["high"]) == (0.05, pytest.approx(0.03), pytest.approx(0.06))
    assert found["sentence"].startswith(
        "As trained here, tuned is better than plain: 0.050 [0.030, 0.060] more"
    )
    assert found["sentence"].endswith("ROUGE-1 (corrected p < 0.001).")
    assert (found["verdict"], found["lens"], found["n"]) == ("found", "comparison", 500)
    assert (
        found["control"] == "the same 500 articles; these trained models, not their methods: no other seeds"
    )


def test_what_is_not_told_apart_says_so_and_several_seeds_speak_of_methods(tmp_path):
    (found,) = differences(run_of(tmp_path, [record("plain", "tuned", 0.004, 0.3)], seeds=(0, 1)))
    assert found["verdict"] == "undecided"
    assert found["sentence"].startswith(
        "plain and tuned are not told apart: the first has 0.004 [−0.006, 0.024] more"
    )
    assert found["control"] == "the same 500 articles"


def test_arms_come_before_lead_3_and_nothing_else_is_a_finding(tmp_path):
    records = [
        record("plain", "lead-3", -0.2, 0.001), record("plain", "tuned", -0.05, 0.001),
        record("plain", "tuned", -0.01, 0.001, "rouge2"), record("plain", "tuned", 3.0, 0.001, "words"),
        record("plain", "random-3", -0.1, 0.001), record("plain", "tuned", -0.05, 0.001, split="validation"),
        record("tuned", "lead-3", None, None),
    ]  # fmt: skip
    found = differences(run_of(tmp_path, records))
    assert [one["metric"] for one in found] == ["rouge1", "rouge2", "rouge1"]
    assert "lead-3 is better than plain" in found[-1]["sentence"]
    assert differences(run_of(tmp_path, records, task="classify")) == []
    (tmp_path / "summaries.json").unlink()
    assert differences(SimpleNamespace(folder=tmp_path, study={"task": "summarise"})) == []
