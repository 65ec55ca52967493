"""A lens that compares the seeds of one arm: called once an arm, merged into its result, done again where a seed is."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest
from study_helpers import Listening, make_study, raw_study, write_reviews

from tunescope.errors import LensError
from tunescope.lenses import SeveralSeeds
from tunescope.study import run

OPTIONS = {"training": {"max_steps": 6, "learning_rate": 5e-3, "per_device_train_batch_size": 16}}


@pytest.fixture
def finished(tmp_path, bert_folder):
    data = write_reviews(tmp_path / "reviews.csv", 90)
    raw = raw_study(data, bert_folder, seeds=[3, 1], **OPTIONS)
    folder = run(make_study(raw), tmp_path / "run", progress=Listening())
    return raw, folder


def test_the_band_of_two_seeds_joins_the_result_and_is_redone_with_a_seed(finished, tmp_path):
    raw, folder = finished
    table = pl.read_parquet(folder / "results" / "cka.parquet")
    band = table.filter(pl.col("model") == "tuned_seeds")
    assert set(band.select("seed", "seed_other").iter_rows()) == {(1, 3)}
    assert set(band["metric"]) == {"cka", "cka_standardised", "cka_without_outliers"}
    assert (band["layer"] == band["layer_other"]).all()
    sentences = [one["sentence"] for one in json.loads((folder / "findings.json").read_text())["findings"]]
    assert sum("than another seed of the same recipe does" in one for one in sentences) == 1
    assert json.loads((folder / "results" / "cka.json").read_text())["what"].startswith("Unbiased linear CKA")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "tuned models of two seeds of this arm" in page
    assert "the upper grey band: tuned models of two seeds of one arm" in page

    again = Listening()
    run(make_study(raw), folder, progress=again)
    assert "nothing to do" in again.lines[0]
    shutil.rmtree(folder / "looks" / "full" / "seed-3" / "cka")
    third = Listening()
    run(make_study(raw), folder, progress=third)
    said = "\n".join(third.lines)
    assert "look-full-seed-3-cka" in said
    record = json.loads((folder / "stages" / "across-full-cka.json").read_text())
    assert {"look-full-seed-1-cka", "look-full-seed-3-cka"} <= set(record["after"])


def test_one_seed_has_no_band(tmp_path, bert_folder):
    raw = raw_study(write_reviews(tmp_path / "reviews.csv", 90), bert_folder, **OPTIONS)
    folder = run(make_study(raw), tmp_path / "run", progress=Listening())
    assert not (folder / "stages" / "across-full-cka.json").exists()
    assert "tuned_seeds" not in set(pl.read_parquet(folder / "results" / "cka.parquet")["model"])


def test_several_seeds_are_loaded_when_asked_for_and_at_most_two_are_kept():
    loaded = []

    def load(seed):
        loaded.append(seed)
        return object()

    many = SeveralSeeds("arm", [7, 1, 4], load, pl.DataFrame())
    assert (many.seeds, len(many), loaded) == ((1, 4, 7), 3, [])
    first, second = many[0], many[1]
    assert (many[1] is second, many[0] is first, loaded) == (True, True, [1, 4])
    assert many[2] is not first  # 4 was used least lately and goes
    assert many[0] is first
    many[1]
    assert loaded == [1, 4, 7, 4]
    with pytest.raises(
        LensError, match=r"arm: comparing seeds needs two seeds or more, each once; there are \[2, 2\]"
    ):
        SeveralSeeds("arm", [2, 2], load, pl.DataFrame())
