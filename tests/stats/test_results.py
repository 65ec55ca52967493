"""Result tables and findings: types, round trips, and corrupt files."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from tunescope.errors import RunError
from tunescope.stats import COLUMNS, Finding, Result, load_findings, result_table, save_findings
from tunescope.stats.results import joined_tables

RECORDS = [
    {
        "arm": "full",
        "seed": 0,
        "metric": "cka",
        "value": np.float64(0.5),
        "n": np.int64(7),
        "layer": -1,
        "other": 3,
    },
    {
        "arm": "full",
        "metric": "cka",
        "value": float("nan"),
        "note": "constant",
        "class": "joy <b>",
        "other": 2.5,
    },
]
FINDING = Finding(
    lens="cka", arm="full", sentence="Layer 3 moved.", metric="cka", value=np.float64(0.4), low=0.3, high=0.5,
    n=np.int64(512), test=None, control="shuffled rows 0.01", rows="512 rows of validation", verdict="found",
)  # fmt: skip


def test_a_table_has_all_columns_in_order_with_their_types():
    table = result_table(RECORDS)
    assert table.columns == [*COLUMNS, "other", "note"]
    assert dict(list(table.schema.items())[: len(COLUMNS)]) == COLUMNS
    assert table.schema["other"] == pl.Float64
    assert table["value"].to_list() == [0.5, None]
    assert table["n"].to_list() == [7, None]
    assert table["note"].to_list() == [None, "constant"]
    assert result_table([]).schema == COLUMNS
    assert result_table([{"x": None}]).schema["x"] == pl.String


def test_a_value_of_the_wrong_type_names_its_column():
    with pytest.raises(ValueError, match="column 'seed'"):
        result_table([{"seed": "zero"}])
    with pytest.raises(ValueError, match="column 'layer'"):
        result_table([{"layer": 1.5}])


def test_a_result_round_trips(tmp_path):
    result = Result(
        "cka", result_table(RECORDS), {"what": "CKA of ü", "rows": {"n": 7}, "seeds": [0], "notes": []}
    )
    result.save(tmp_path / "results")
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == ["cka.json", "cka.parquet"]
    loaded = Result.load(tmp_path / "results", "cka")
    assert loaded.table.equals(result.table)
    assert loaded.table.schema == result.table.schema
    assert loaded.provenance == {**result.provenance, "lens": "cka"}
    document = json.loads((tmp_path / "results/cka.json").read_text())
    assert document["format_version"] == 1
    assert document["what"] == "CKA of ü"
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again/cka.json").read_bytes() == (tmp_path / "results/cka.json").read_bytes()


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("cka.parquet", lambda b: b[: len(b) // 2], r"cka\.parquet is corrupt"),
        ("cka.parquet", lambda b: b[:40] + b"\0" + b[41:], r"cka\.parquet is corrupt"),
        ("cka.parquet", None, r"cka\.parquet is missing"),
        ("cka.json", lambda b: b[:30], r"cka\.json is not readable JSON"),
        ("cka.json", lambda b: b"[]", r"cka\.json: expected format_version 1"),
        (
            "cka.json",
            lambda b: b.replace(b'"lens": "cka"', b'"lens": "abc"'),
            r"cka\.json is not the provenance",
        ),
        ("cka.json", None, r"cka\.json is missing"),
    ],
)
def test_a_corrupt_result_is_named_and_never_half_read(tmp_path, file, damage, message):
    Result("cka", result_table(RECORDS), {}).save(tmp_path)
    path = tmp_path / file
    if damage is None:
        path.unlink()
    else:
        before = path.read_bytes()
        path.write_bytes(damage(before))
        assert path.read_bytes() != before
    with pytest.raises(RunError, match=message) as caught:
        Result.load(tmp_path, "cka")
    assert "Run the study again" in str(caught.value) or "written by another version" in str(caught.value)


def test_a_table_of_another_result_is_refused(tmp_path):
    Result("cka", result_table(RECORDS), {}).save(tmp_path)
    Result("other", result_table(RECORDS[:1]), {}).save(tmp_path)
    (tmp_path / "other.parquet").rename(tmp_path / "cka.parquet")
    with pytest.raises(RunError, match=r"it is not the table that cka\.json was written for"):
        Result.load(tmp_path, "cka")


def test_a_failed_save_leaves_the_old_result(tmp_path, monkeypatch):
    first = Result("cka", result_table(RECORDS), {"what": "first"})
    first.save(tmp_path)
    second = Result("cka", result_table(RECORDS[:1]), {"what": float("nan")})

    def full_disk(self, path, *args, **kwargs):
        path.write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full_disk)
    with pytest.raises(RunError, match="The disk is full"):
        second.save(tmp_path)
    assert Result.load(tmp_path, "cka").provenance["what"] == "first"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_result_needs_its_columns_and_a_plain_name():
    with pytest.raises(ValueError, match="the table lacks arm, seed"):
        Result("cka", pl.DataFrame({"value": [1.0]}), {})
    with pytest.raises(ValueError, match=r"found '\.\./cka'"):
        Result("../cka", result_table([]), {})


def test_findings_round_trip(tmp_path):
    undefined = Finding(**{**FINDING.__dict__, "value": float("nan"), "low": None, "high": None, "arm": None})
    assert undefined.value is None
    path = tmp_path / "findings.json"
    save_findings([FINDING, undefined], path)
    assert load_findings(path) == [FINDING, undefined]
    save_findings([], path)
    assert load_findings(path) == []


def test_findings_say_what_is_wrong(tmp_path):
    with pytest.raises(
        ValueError, match="verdict of found, equivalent, undecided, task not learned; found 'maybe'"
    ):
        Finding(**{**FINDING.__dict__, "verdict": "maybe"})
    with pytest.raises(ValueError, match="high of a finding must be finite"):
        Finding(**{**FINDING.__dict__, "high": float("inf")})
    path = tmp_path / "findings.json"
    with pytest.raises(RunError, match=r"findings\.json is missing"):
        load_findings(path)
    save_findings([FINDING], path)
    path.write_text(path.read_text().replace('"sentence"', '"sentense"'))
    with pytest.raises(RunError, match=r"findings\.json does not hold findings"):
        load_findings(path)
    path.write_text('{"format_version": 1}')
    with pytest.raises(RunError, match=r"findings\.json does not hold findings \(it has no list"):
        load_findings(path)


def test_a_column_that_one_table_leaves_empty_stays_a_column_of_numbers():
    full = result_table([{"metric": "rank", "value": 1.0, "control": 0.5}])
    empty = result_table([{"metric": "rank", "value": 2.0, "control": None, "note": None}])
    joined = joined_tables([empty, full])
    assert joined.schema["control"] == pl.Float64
    assert joined["control"].to_list() == [None, 0.5]
    assert joined.schema["note"] == pl.String
    assert joined.schema["low"] == full.schema["low"]
