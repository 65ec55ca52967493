"""A folder of checkpoints as a time axis: the lenses' own numbers step by step, in the order of the steps' numbers."""

from __future__ import annotations

import shutil

import polars as pl
import pytest
from subjects import make_rows, make_subject
from trainings import STEPS, training

from tiny import tiny_folder
from tunescope.errors import LensError
from tunescope.lenses import LENSES, look, save_outputs
from tunescope.models import load
from tunescope.models.language import load_language_model
from tunescope.report.page import write_report
from tunescope.report.read import read_run
from tunescope.report.sections import sections

ROWS = {"rows": {"split": "validation", "n": 12}}
FEW = ["attention", "weights", "activations", "probes"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    root = tmp_path_factory.mktemp("training")
    base = tiny_folder("gpt2", root / "base", layers=2)
    training(base, root)
    subject = make_subject(load(str(base)), load(str(root / "checkpoint-200")), make_rows(36))
    output = look(subject, [("watch", {**ROWS, "lenses": FEW})], LENSES)[0]
    return root, subject, output


def test_every_step_has_the_numbers_that_its_lenses_give_by_themselves(seen):
    root, subject, output = seen
    table = output.table.filter(pl.col("lens") != "correlation")
    assert table["step"].unique().sort().to_list() == [0, *STEPS]
    subject = make_subject(subject.base, load(str(root / "checkpoint-20")), make_rows(36))
    alone = look(subject, [("attention", {**ROWS, "regions": False, "texts": 0})], LENSES)[0].table
    axes = ["model", "metric", "layer", "head"]
    both = table.filter((pl.col("step") == 20) & (pl.col("lens") == "attention")).join(
        alone, on=axes, suffix="_alone", nulls_equal=True
    )
    assert both.height == alone.height
    assert both["value"].to_list() == pytest.approx(both["value_alone"].to_list())


def test_step_0_is_the_base_and_what_moves_further_is_further_away(seen):
    table = seen[2].table
    for lens, metric in (
        ("weights", "relative_frobenius"),
        ("attention", "kl"),
        ("attention", "jensen_shannon"),
    ):
        own = table.filter(
            (pl.col("lens") == lens) & (pl.col("metric") == metric) & (pl.col("model") == "base_tuned")
        )
        curve = own.group_by("step").agg(pl.col("value").mean()).sort("step")["value"].to_list()
        assert curve[0] == pytest.approx(0, abs=1e-6)
        assert curve == sorted(curve)
        assert curve[-1] > curve[1] > 1e-6


def test_curves_are_held_against_what_the_training_evaluated(seen):
    own = seen[2].table.filter((pl.col("lens") == "correlation") & (pl.col("of") == "levels"))
    assert set(own["of_metric"]) == {"eval_loss"}
    weights = own.filter((pl.col("curve") == "weights") & pl.col("value").is_not_null())
    assert weights.height > 4
    assert weights["value"].to_list() == pytest.approx(
        [-1.0] * weights.height
    )  # one falls as the other rises


def test_one_text_and_one_head_play_over_all_steps_and_reach_the_page(seen, tmp_path):
    output = seen[2]
    maps = output.examples.filter(pl.col("lens") == "attention")
    assert maps.select("row_id", "layer", "head").unique().height == 1
    assert maps["step"].unique().sort().to_list() == [0, *STEPS]
    save_outputs([output], tmp_path / "run" / "results", {})
    page = write_report(tmp_path / "run", "all").read_text(encoding="utf-8")
    assert "Training as it happened" in page
    assert "What goes with eval_loss" in page
    assert "7 looks at the same texts" in page
    shown = next(one for one in sections(read_run(tmp_path / "run", "all")) if one.anchor == "watch")
    titles = {panel.title for panel in shown.groups[0].figures[0].panels}
    assert titles == {
        "attention: distance from step 0", "attention: KL from step 0", "attention entropy", "weight change",
        "mean magnitude of the stream", "probe accuracy",
    }  # fmt: skip
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"watch.html", "watch-heads-jensen_shannon.gif", "watch-neurons.gif"} <= files
    assert any(name.startswith("watch-attention-L") for name in files)


def test_two_trainings_have_curves_and_pictures_of_their_own(seen, tmp_path):
    output = seen[2]
    other = pl.lit("other")
    output = type(output)(
        "watch", pl.concat([output.table, output.table.with_columns(arm=other)]),
        pl.concat([output.examples, output.examples.with_columns(arm=other)]), [], output.provenance,
    )  # fmt: skip
    save_outputs([output], tmp_path / "run" / "results", {})
    page = write_report(tmp_path / "run", "all").read_text(encoding="utf-8")
    assert all(f'id="watch-{number}-with-eval_loss' in page for number in (0, 1))
    assert (tmp_path / "run" / "watch-1-neurons.gif").is_file()


def test_a_language_models_training_is_followed_too(tmp_path):
    base = tiny_folder("gpt2", tmp_path / "base", layers=2, language=True)
    training(base, tmp_path, log=False)
    subject = make_subject(
        *(load_language_model(str(path)) for path in (base, tmp_path / "checkpoint-200")), make_rows(24)
    )
    found = look(subject, [("watch", {**ROWS, "lenses": ["weights", "probes"], "most": 2})], LENSES)[0]
    assert found.table["step"].unique().sort().to_list() == [0, 2, 200]
    assert set(found.table["lens"]) == {"weights"}  # no log, no correlations
    assert any("without the lens probes: it needs classes" in note for note in subject.notes)


def test_what_cannot_be_followed_is_refused_by_name(seen, tmp_path):
    root, subject, _ = seen
    with pytest.raises(LensError, match=r"the lens 'maps' cannot look at every step; those that can: cka"):
        look(subject, [("watch", {**ROWS, "lenses": ["maps"]})], LENSES)
    with pytest.raises(LensError, match=r"watch needs two checkpoints or more; .* holds 0"):
        look(subject, [("watch", {**ROWS, "folder": str(tmp_path)})], LENSES)
    (tmp_path / "checkpoint-1").mkdir()
    shutil.copytree(root / "checkpoint-2", tmp_path / "checkpoint-2")
    with pytest.raises(Exception, match=r"checkpoint-1"):
        look(subject, [("watch", {**ROWS, "folder": str(tmp_path), "lenses": ["weights"]})], LENSES)
