"""Rows that belong together: which intervals and comparisons resample as one."""

from __future__ import annotations

import polars as pl
from study_helpers import make_study, raw_study

from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.files import read_json
from tunescope.study import run
from tunescope.study.context import row_groups


def rows(**columns) -> Rows:
    frame = pl.DataFrame(
        {"row_id": ["a", "a-1", "b", "c"], "text": ["x y z", "x y z", "q r", "s"], **columns}
    )
    return Rows(frame, LabelMap(("no", "yes")), {})


def test_rows_that_repeat_a_text_are_one_group():
    assert row_groups(rows(), None) == {"a": "a", "a-1": "a", "b": "b", "c": "c"}
    alone = rows().frame.filter(pl.col("row_id") != "a-1")
    assert row_groups(Rows(alone, LabelMap(("no", "yes")), {}), None) is None


def test_rows_of_one_value_are_one_group_and_rows_without_one_stand_alone():
    found = row_groups(rows(user=[1, 1, 1, None]), "user")
    assert found == {"a": "1", "a-1": "1", "b": "1", "c": "c"}
    assert row_groups(rows(source_label=["u", "u", "v", "w"]), "label")["b"] == "v"
    assert row_groups(rows(), "text") == row_groups(rows(), None)


def test_near_duplicates_are_one_group_where_the_study_says_so():
    fox = "the quick brown fox jumps over the lazy dog today"
    texts = [fox, f"{fox}!", "nothing of the kind stands in this one", "and this is about the weather"]
    found = row_groups(rows(text=texts), "duplicates")
    assert found["a"] == found["a-1"]
    assert len(set(found.values())) == 3


def test_folds_are_grouped_by_the_column_that_the_audit_found_to_tell_the_label(tmp_path, gpt2_folder):
    """A planted column that determines the label: random folds flatter, folds by its values do not."""
    lines = ["text,label,place,note"]
    for i in range(160):
        place = i % 16
        lines.append(f"some words {i * 7 % 31} of row {i},{'ab'[place % 2]},p{place},{i * 13 % 5}")
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    raw = raw_study(tmp_path / "rows.csv", gpt2_folder, lenses=[])
    raw["data"] |= {"text": "text", "label": "label"}
    raw["arms"][0]["method"] = "head_only"
    folder = run(make_study(raw), tmp_path / "run", device="cpu")
    found = read_json(folder / "data" / "cross_validation.json")
    assert (found["done"], found["grouped_by"]) == (True, "place")
    gaps = {one["name"]: one["gap"]["value"] for one in found["baselines"]}
    assert gaps["lookup"] > 0.3
    assert next(one for one in found["baselines"] if one["name"] == "lookup")["leak"]
