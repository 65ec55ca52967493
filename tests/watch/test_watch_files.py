"""What a watched training leaves beside its tables: scalars, correlations in the result, and what plays."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.stats import spearmanr
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tunescope.lenses.over_steps import correlation
from tunescope.report.figures import style
from tunescope.report.page import write_report
from tunescope.report.read import read_run
from tunescope.report.watch_file import FRAMES, colour_of, gif, movies, thinned
from tunescope.stats.results import result_table
from tunescope.watch.records import Records
from tunescope.watch.scalars import Scalars, scalars

STEPS = (0, 1, 2, 5, 10, 20, 50, 100)


def table(step):
    records = [
        {"model": "base_tuned", "site": "attn_pattern", "layer": layer, "head": head, "metric": "jensen_shannon",
         "value": step * (1 + layer) / 300 + head / 100}
        for layer in (0, 1) for head in (0, 1, 2)
    ]  # fmt: skip
    return result_table(records)


def maps(step):
    cells = [(query, key) for query in range(3) for key in range(query + 1)]
    return pl.DataFrame({
        "arm": "training", "model": "tuned", "row_id": "text-0", "layer": 1, "head": 2,
        "query": [query for query, _ in cells], "key": [key for _, key in cells],
        "query_token": [("a", "b", "c")[query] for query, _ in cells],
        "key_token": [("a", "b", "c")[key] for _, key in cells],
        "value": [(step + 10 * query + key) / 200 for query, key in cells],
    }).sample(fraction=1, shuffle=True, seed=step)  # fmt: skip


@pytest.fixture
def watched(tmp_path):
    records = Records(tmp_path)
    for step in STEPS:
        records.add(step, {"attention": table(step)}, {"attention": maps(step)})
        records.log({"step": step, "eval_loss": 3.0 - step / 100, "eval_runtime": 1.0})
    records.finish({"texts": 3})
    return tmp_path


def test_scalars_are_means_over_heads_and_tensorboard_reads_them(tmp_path):
    writer = Scalars(tmp_path)
    writer.open()
    for step in (0, 5):
        writer.write(step, {"attention": table(step)})
    writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert set(tags) == {
        "attention/jensen_shannon/base_tuned", "attention/jensen_shannon/base_tuned/layer-00",
        "attention/jensen_shannon/base_tuned/layer-01",
    }  # fmt: skip
    last = events.Scalars("attention/jensen_shannon/base_tuned/layer-01")[-1]
    assert (last.step, last.value) == (5, pytest.approx(5 * 2 / 300 + 0.01))
    own = scalars("attention", table(5))
    assert own["attention/jensen_shannon/base_tuned"] == pytest.approx(5 * 1.5 / 300 + 0.01)


def test_resampled_rank_correlations_are_scipys():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=9), generator.integers(0, 4, 9).astype(float)  # ties
    low, high = correlation._interval(first, second, 3)
    rows = np.random.default_rng(3).integers(0, 9, (correlation.RESAMPLES, 9))
    draws = [
        spearmanr(first[own], second[own]).statistic
        for own in rows
        if np.ptp(first[own]) and np.ptp(second[own])
    ]
    assert (low, high) == pytest.approx(np.quantile(draws, (0.025, 0.975)))


def test_the_result_holds_correlations_with_what_was_evaluated(watched):
    result = pl.read_parquet(watched / "results" / "watch.parquet").filter(pl.col("lens") == "correlation")
    assert set(result["of_metric"]) == {"eval_loss"}  # not how long it took
    levels = result.filter(pl.col("of") == "levels")
    assert set(levels["layer"]) == {0, 1}
    assert levels["value"].to_list() == pytest.approx([-1.0, -1.0])


def test_long_trainings_are_thinned_to_first_last_and_even_places_between():
    assert thinned([3, 1, 2]) == [1, 2, 3]
    found = thinned(range(0, 5400, 20))
    assert len(found) == FRAMES
    assert (found[0], found[-1]) == (0, 5380)
    assert max(np.diff(found)) - min(np.diff(found)) <= 20


def test_what_plays_finds_its_cells_by_name_and_steps_by_number(watched):
    heads, attention = movies(read_run(watched, "all"))
    assert heads.steps == attention.steps == STEPS  # 100 after 50, not after 1
    assert heads.grids[-1][2][1] == pytest.approx(100 * 2 / 300 + 0.02)  # head 2 of layer 1
    assert (heads.rows, heads.columns) == (("H0", "H1", "H2"), ("L0", "L1"))
    assert attention.rows == attention.columns == ("a", "b", "c")
    assert attention.grids[3][2][1] == pytest.approx((5 + 20 + 1) / 200)
    assert attention.grids[3][0][1] is None


def test_pictures_have_a_frame_a_step_and_the_colours_of_the_scale(watched):
    heads = movies(read_run(watched, "all"))[0]
    assert colour_of(heads.low, heads) == tuple(int(style.BLUES[0][1][at : at + 2], 16) for at in (1, 3, 5))
    assert colour_of(heads.high, heads) == tuple(int(style.BLUES[-1][1][at : at + 2], 16) for at in (1, 3, 5))
    picture = Image.open(io.BytesIO(gif(heads)))
    assert picture.n_frames == len(STEPS)


def test_files_stand_beside_the_page_with_a_still_on_it_and_old_ones_go(watched):
    (watched / "watch-old.gif").write_bytes(b"GIF89a")
    page = write_report(watched, "all").read_text(encoding="utf-8")
    assert {path.name for path in watched.glob("watch*.gif")} == {
        "watch-heads-jensen_shannon.gif", "watch-attention-L1H2-0.gif",
    }  # fmt: skip
    assert "watch-attention-L1H2-0.gif beside this page" in page
    assert "What goes with eval_loss" in page
    slider = (watched / "watch.html").read_text(encoding="utf-8")
    assert "unsafe" not in slider.split('http-equiv="Content-Security-Policy"')[1].split(">")[0]
    write_report(watched, "none")
    assert (
        '"c"'
        not in (watched / "watch.html")
        .read_text(encoding="utf-8")
        .split('id="data"')[1]
        .split("</script>")[0]
    )
