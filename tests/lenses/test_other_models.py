"""Other models on the same rows: equal to direct CKA, of any width and tokenizer, with the base as control."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from subjects import make_rows, make_subject

from tiny import tiny_folder
from tunescope.config import LensConfig
from tunescope.errors import LensError
from tunescope.lenses import LENSES, look
from tunescope.lenses.geometry.other_models import against_others
from tunescope.lenses.geometry.pair_plan import say_pairs
from tunescope.models import load

ROWS = {"n": 60}


def subject_of(folder, **more):
    base, tuned = load(str(folder)), load(str(folder))
    rows = make_rows(120)
    return make_subject(base, tuned, rows, texts=rows.frame.select("row_id", "text"), **more)


def looked(subject, models, **options):
    return look(
        subject, [("other_models", {"models": models, "rows": ROWS, "rsa_rows": 40, **options})], LENSES
    )[0]


def test_a_model_is_equal_to_itself_and_unlike_another_of_other_width(tmp_path):
    folder = tiny_folder("gpt2", tmp_path / "a")
    wide = tiny_folder("bert", tmp_path / "b")
    subject = subject_of(folder)
    output = looked(subject, {"itself": str(folder), "wide": str(wide)})
    table = output.table
    same = (pl.col("site") == pl.col("site_other")) & (pl.col("layer") == pl.col("layer_other"))
    itself = table.filter((pl.col("other") == "itself") & same & pl.col("value").is_not_null())
    np.testing.assert_allclose(
        itself.filter(pl.col("metric").str.starts_with("cka"))["value"], 1.0, atol=1e-6
    )
    np.testing.assert_allclose(itself.filter(pl.col("metric") == "rsa_correlation")["value"], 1.0, atol=1e-9)
    shared = itself.filter(pl.col("metric") == "shared_top_dimensions")
    assert (shared["value"] == shared["top"]).all()
    other = table.filter((pl.col("other") == "wide") & (pl.col("metric") == "cka"))
    places = other.filter(pl.col("model") == "tuned_other").select("layer", "layer_other").unique()
    theirs = load(str(wide))
    assert places["layer_other"].max() == theirs.n_layers - 1  # no final norm in BERT
    last = other.filter(
        (pl.col("layer") == subject.tuned.n_layers) & (pl.col("layer_other") == theirs.n_layers - 1)
    )
    assert last["value"].max() < 0.9
    assert set(table["model"]) == {"tuned_other", "base_other"}
    assert len(output.findings) == 2


def test_tuning_towards_the_other_model_is_told_from_what_the_base_shares(tmp_path):
    """The tuned model takes over the other's last block: CKA with it is 1 there, the base's is not."""
    folder, other = tiny_folder("gpt2", tmp_path / "a"), tmp_path / "other"
    theirs = load(str(folder))
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in theirs.trunk.h[-1].parameters():
            parameter.add_(2.0 * torch.randn_like(parameter))
    theirs.model.save_pretrained(other)
    theirs.tokenizer.save_pretrained(other)
    subject = subject_of(folder)
    subject.tuned.trunk.load_state_dict(theirs.trunk.state_dict())
    output = looked(subject, {"target": str(other)})
    finding = output.findings[0]
    assert "the tuned model and target have CKA 1.00" in finding.sentence
    assert finding.verdict == "found"
    assert "of their 10 dimensions of greatest variance they share 10" in finding.sentence
    values = output.table.filter((pl.col("metric") == "cka") & (pl.col("site") == "final_norm_out"))
    values = values.filter(pl.col("site_other") == "final_norm_out")
    by_model = dict(values.select("model", "value").iter_rows())
    assert by_model["base_other"] < 0.99 < by_model["tuned_other"]


def test_another_tokenizer_is_said_and_texts_must_be_known(tmp_path):
    folder, other = tiny_folder("gpt2", tmp_path / "a"), tiny_folder("bert", tmp_path / "b")
    table = looked(subject_of(folder), {"bert": str(other)}).table
    different = load(str(folder)).tokenizer.get_vocab() != load(str(other)).tokenizer.get_vocab()
    assert table["note"].str.contains("another tokenizer").fill_null(False).any() == different
    model = load(str(folder))
    with pytest.raises(LensError, match="the texts of the rows are not known, so bert cannot read them"):
        looked(make_subject(model, model, make_rows(120)), {"bert": str(other)})


def test_in_a_comparison_each_is_held_against_the_others(tmp_path):
    compared = [{"name": "a", "path": "x"}, {"name": "b", "path": "y"}, {"name": "c", "path": "z"}]
    own = against_others(LensConfig(lens="other_models", options={"rsa_rows": 9}), "b", compared)
    assert own == {"rsa_rows": 9, "models": {"a": "x", "c": "z"}}
    named = {"models": {"mine": "w"}}
    assert against_others(LensConfig(lens="other_models", options=named), "b", compared) == named
    assert against_others(LensConfig(lens="cka"), "b", compared) == {}
    model = load(str(tiny_folder("gpt2", tmp_path)))
    with pytest.raises(LensError, match="arm: other_models has no model to compare with"):
        looked(make_subject(model, model), {})


class Loud:
    arm = "arm"

    def __init__(self):
        self.progress, self.lines = self, []

    def say(self, line):
        self.lines.append(line)


def test_many_pairs_are_said_first_and_too_many_are_refused():
    subject = Loud()
    assert say_pairs(subject, "cka", 26, 2000) == 351
    assert subject.lines == []
    assert say_pairs(subject, "cka", 100, 2000) == 5050
    assert subject.lines == [
        "arm: cka: 100 sites, 5,050 pairs on 2,000 rows, about 5.1 billion multiplications a variant"
    ]
    with pytest.raises(LensError, match="500 sites make 125,250 pairs; at most 100,000 are compared"):
        say_pairs(subject, "cka", 500, 10)
