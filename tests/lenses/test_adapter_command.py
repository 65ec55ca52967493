"""`tunescope inspect ADAPTER --updates`: the table of an adapter's updates, with no base on the machine."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest
from test_adapter_updates import adapted
from typer.testing import CliRunner

from tunescope.cli import app
from tunescope.lenses.weights.adapter import adapter_updates

HEADINGS = ["layer", "matrix", "Frobenius", "spectral", "stable", "rank", "effective", "rank", "rank"]
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter-alone")
    peft = adapted("gpt2", folder)
    shutil.rmtree(folder / "base")  # nothing but the adapter is left
    count = sum(one.numel() for name, one in peft.named_parameters() if "lora_" in name)
    return folder / "adapter", count


def asked(*words):
    return CliRunner().invoke(app, ["inspect", *map(str, words), "--updates"])


def test_the_table_is_that_of_the_function_and_needs_no_base(adapter, tmp_path):
    folder, count = adapter
    answer = asked(folder, "--output-dir", tmp_path / "out")
    assert answer.exit_code == 0, answer.output
    wide = pl.read_csv(tmp_path / "out" / "updates.csv")
    known = adapter_updates(folder)
    assert wide.height * 5 == known.height
    for row in wide.to_dicts():
        own = known.filter((pl.col("layer") == row["layer"]) & (pl.col("site") == row["site"]))
        for metric, value in own.select("metric", "value").iter_rows():
            assert row[metric] == pytest.approx(value)
    assert set(wide["rank"]) == {3.0}
    lines = answer.stdout.splitlines()
    assert f"r 3, alpha 12: {count:,} parameters in {wide.height} updates" in lines[0]
    assert lines[2].split() == HEADINGS
    assert len(lines) == 3 + wide.height + 1  # and where the table lies


def test_json_holds_the_same(adapter):
    folder, count = adapter
    answer = asked(folder, "--json")
    found = json.loads(answer.stdout)
    assert (found["r"], found["alpha"], found["parameters"]) == (3, 12, count)
    assert found["matrices"] == len(found["updates"])
    assert {one["rank"] for one in found["updates"]} == {3.0}


def test_what_does_not_go_together_or_is_no_adapter_is_refused(adapter, tmp_path):
    folder, _ = adapter
    answer = asked(folder, "--data", "rows.csv", "--text", "text")
    assert answer.exit_code != 0
    assert "no model that could look at rows" in answer.output
    answer = asked(tmp_path)
    assert answer.exit_code != 0
    assert "holds no adapter: adapter_config.json" in " ".join(answer.output.split())
