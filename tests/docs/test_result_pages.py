"""Pages of results: made from a run folder alone, on the model that was measured, without a text of the data."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from study.study_helpers import Listening, write_reviews
from tunescope.commands.recipes import Wanted
from tunescope.recipes import Places
from tunescope.report.read import read_run
from tunescope.study import run

PROJECT = Path(__file__).resolve().parents[2]
sys.path.append(str(PROJECT / "scripts"))

result_pages = pytest.importorskip("result_pages")

STUDY = """\
name: mini
question: Does a page hold what was measured?
recipe: {study: "study X", unpinned: it is generated, columns: {words: [review]}}
data: {path: nobody/nothing, revision: main, text: words, label: mood, validation: 0.2, test: 0.2}
arms: [{name: full, model: nobody/model, revision: main}]
training: {num_train_epochs: 1, max_steps: 3, learning_rate: 2.0e-3}
claims:
  - claim: "1"
    statement: Anything is learnt.
    reported: ".9 | of all"
    source: table 1
    number: {metric: accuracy}
    learned: false
    verdicts: [{verdict: reproduced, when: [{lower: 0.0}], because: shares are positive}]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory, gpt2_folder):
    folder = tmp_path_factory.mktemp("results")
    (folder / "mini.yaml").write_text(STUDY, encoding="utf-8")
    (folder / "data").mkdir()
    write_reviews(folder / "data" / "train.csv", 120)
    study, source = Wanted(
        str(folder / "mini.yaml"), places=Places(folder / "data", [str(gpt2_folder)])
    ).load()
    return run(study, folder / "run", progress=Listening(), source=source)


def test_the_page_is_what_the_script_makes_of_the_folder(finished, tmp_path):
    script = [
        sys.executable,
        str(PROJECT / "scripts" / "result_pages.py"),
        str(finished),
        "--to",
        str(tmp_path),
    ]
    subprocess.run(script, check=True, capture_output=True)
    page = (tmp_path / "mini.md").read_text(encoding="utf-8")
    assert page == result_pages.page(read_run(finished, texts="examples"))
    assert "- [`mini`](mini.md)" in (tmp_path / "index.md").read_text(encoding="utf-8")


def test_the_page_holds_model_rows_verdicts_and_arms_with_intervals(finished, gpt2_folder):
    page = result_pages.page(read_run(finished, texts="examples"))
    claim = pl.read_parquet(finished / "results" / "claims.parquet").to_dicts()[0]
    number = f"{claim['value']:.3f} [{claim['low']:.3f}, {claim['high']:.3f}]"
    row = next(line for line in page.splitlines() if line.startswith("| 1. "))
    assert row.count(number) >= 1
    assert "**reproduced**" in row
    assert r".9 \| of all (table 1)" in row
    assert re.search(rf"^\| full \| full \| {re.escape(number)} \|", page, re.MULTILINE)
    assert f"**{gpt2_folder.name}**, 2 blocks, width" in page
    rows = read_run(finished).rows
    assert f"- train: {rows.filter(pl.col('split') == 'train').height} rows" in page


def test_the_page_holds_no_text_of_the_data(finished):
    found = read_run(finished, texts="all")
    page = result_pages.page(found)
    assert len(found.rows) == 120
    assert not [text for text in found.rows["text"] if text in page]


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("/work/shared/data/sst2", "../shared/data/sst2"),
        ("gpt2=../shared/weights/mini", "gpt2=../shared/weights/mini"),
        ("bert=/x/.venv/lib/python3.11/site-packages/m", "bert=.venv/lib/python3.11/site-packages/m"),
        ("data.rows={train: 5}", "data.rows={train: 5}"),
    ],
)
def test_paths_of_this_machine_are_not_on_the_page(typed, shown):
    assert result_pages.place(typed) == shown


def test_every_page_of_results_names_a_recipe_and_a_stand_in():
    from tunescope.config import recipes

    pages = [file for file in (PROJECT / "docs" / "results").glob("*.md") if file.stem != "index"]
    for file in pages:
        text = file.read_text(encoding="utf-8")
        assert file.stem in recipes()
        assert "## Verdicts" in text
        assert "it is **not GPT-2 small**" in text
        assert "/tmp/" not in text
