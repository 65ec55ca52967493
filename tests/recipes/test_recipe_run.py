"""A recipe end to end on a generated miniature: profile, folders, published slips, verdicts, table and page."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import torch

from study.study_helpers import Listening, write_reviews
from tiny import NAMES, encode
from tunescope.commands.recipes import Wanted, unmet_lines, verdict_lines
from tunescope.config.claims import ARTEFACT
from tunescope.data.labels import LabelMap
from tunescope.errors import ModelError
from tunescope.models import load_trunk
from tunescope.models.packed import reader_of
from tunescope.recipes import Places
from tunescope.study import run

STUDY = """\
name: mini
question: Does a recipe end in its verdicts?
recipe: {study: "study X", unpinned: it is generated, columns: {words: [review]}}
data: {path: nobody/nothing, revision: main, text: words, label: mood, validation: 0.2, test: 0.2}
arms: [{name: full, model: nobody/model, revision: main}]
training: {num_train_epochs: 3, learning_rate: 2.0e-3, per_device_train_batch_size: 16}
lenses: [{lens: cka, rows: {n: 24}}]
expect: [{metric: accuracy, lower: 1.01, source: nowhere}]
claims:
  - claim: "1"
    statement: Anything is learnt.
    reported: ".9"
    source: table 1
    number: {metric: accuracy}
    lower: 1.5
    upper: 2.0
    learned: false
    verdicts: [{verdict: reproduced, when: [{lower: 0.0}], because: shares are positive}]
  - claim: "2"
    statement: It beats words.
    reported: none
    source: table 2
    number: {metric: accuracy, baseline: tfidf}
    set_after: the first runs
    verdicts: [{verdict: artefact of single words, when: [{lower: 0.0}], because: words do it too}]
  - {claim: "3", statement: Heads matter., reported: none, source: table 3, not_testable: no head was touched}
profiles: {small: {data: {rows: {train: 60}}, training: {max_steps: 4}}}
"""
PUBLISHED = """\
extends: mini.yaml
name: mini-as-published
recipe: {form: as published}
data: {stratify: false, repeats_cross_splits: true}
arms: {full: {pooling: last_padded}}
as_published:
  - {key: data.stratify, because: it was not}
  - {key: data.repeats_cross_splits, because: rows were split one by one}
  - {key: arms.full.pooling, because: padding was read}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory, gpt2_folder):
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "mini.yaml").write_text(STUDY, encoding="utf-8")
    (folder / "published.yaml").write_text(PUBLISHED, encoding="utf-8")
    data = folder / "data"
    data.mkdir()
    write_reviews(data / "train.csv", 150)
    places = Places(data, [str(gpt2_folder)])
    study, source = Wanted(str(folder / "published.yaml"), (), "small", places).load()
    return run(study, folder / "run", progress=Listening(), source=source)


def test_verdicts_follow_from_the_rules(finished):
    rows = pl.read_parquet(finished / "results" / "claims.parquet").to_dicts()
    assert [(row["claim"], row["arms"]) for row in rows] == [("1", "full"), ("2", "tfidf"), ("3", "")]
    assert [row["verdict"] for row in rows] == [
        "reproduced", f"{ARTEFACT}single words", "not testable here because no head was touched",
    ]  # fmt: skip
    measured = json.loads((finished / "arms" / "full" / "seed-0" / "metrics.json").read_text())["records"]
    accuracy = next(
        one["value"] for one in measured
        if (one["metric"], one["split"], one["class"]) == ("accuracy", "test", None)
    )  # fmt: skip
    assert rows[0]["value"] == pytest.approx(accuracy)
    assert [row["outside"] for row in rows] == [True, False, False]


def test_the_run_ends_with_a_table_and_says_loudly_what_is_outside(finished):
    lines = verdict_lines(finished)
    assert any(line.startswith("!! OUTSIDE THE EXPECTED BAND: claim 1 (full)") for line in lines)
    at = lines.index("    -> ARTEFACT OF SINGLE WORDS")
    assert lines[at + 1] == "    (its bounds were set after the first runs were seen)"
    assert sum("bounds were set after" in line for line in lines) == 1
    found = json.loads((finished / "expect.json").read_text())
    assert unmet_lines(found)[0].startswith("!! OUTSIDE THE EXPECTED BAND: ")


def test_the_page_shows_claims_and_highlights_what_is_published(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    for part in ("They reported", "We measured", "Outside the expected band", "What is done as published",
                 "<strong>last_padded</strong>", "padding was read", "artefact of single words",
                 "Its bounds were set after the first runs were seen."):  # fmt: skip
        assert part in page, part


def test_lenses_read_the_last_real_token_of_a_model_that_was_trained_on_padding(finished):
    notes = json.loads((finished / "results" / "cka.json").read_text())["notes"]
    assert any("was trained and evaluated at the last padded position" in note for note in notes)
    saved = json.loads((finished / "arms" / "full" / "seed-0" / "model" / "tunescope.json").read_text())
    assert saved["pooling"] == "last_padded"


def loaded(folder, pooling):
    labels = LabelMap(NAMES)
    return load_trunk(str(folder), labels=labels, pooling=pooling, max_length=32, seed=0, device="cpu")


@pytest.mark.parametrize("pooling", ["last", "last_padded"])
def test_only_the_padded_position_depends_on_batch_mates(gpt2_folder, pooling):
    model = loaded(gpt2_folder, pooling)
    model.eval()
    short, long = "rain", "a very good day and a long one that goes on and on"
    with torch.no_grad():
        alone = model(**encode(model, [short]))[0]
        beside = model(**encode(model, [short, long]))[0]
    assert np.allclose(alone, beside, atol=1e-5) == (pooling == "last")


def test_rows_without_padding_have_no_padded_position():
    with pytest.raises(ModelError, match="last_padded reads padding, and rows without padding have none"):
        reader_of("last_padded")


def test_rows_split_one_by_one_let_repeats_cross(tmp_path):
    from tunescope.config import load_data
    from tunescope.data.load import load_rows

    texts = [f"row {number // 2}" for number in range(80)]  # each text twice
    pl.DataFrame({"t": texts, "l": [number % 2 for number in range(80)]}).write_csv(tmp_path / "a.csv")
    shared = {}
    for crossing in (False, True):
        data = load_data(
            {"path": str(tmp_path / "a.csv"), "text": "t", "label": "l", "repeats_cross_splits": crossing}
        )
        frame = load_rows(data, 0).frame
        by = {split: set(frame.filter(pl.col("split") == split)["text"]) for split in ("train", "test")}
        shared[crossing] = len(by["train"] & by["test"])
    assert shared[False] == 0 < shared[True]


def test_lora_on_fresh_projections_does_not_start_at_the_base(gpt2_folder):
    from tunescope.tuning import METHODS

    def prepared(fresh):
        model = load_trunk(
            str(gpt2_folder), labels=LabelMap(NAMES), pooling="last", max_length=32, seed=0, device="cpu"
        )
        before = {name: value.clone() for name, value in model.trunk.named_parameters()}
        method = METHODS["lora"]
        given = {"peft": {"layers_to_transform": [1]}, "fresh_projections": fresh}
        method.prepare(model, method.options.model_validate(given))
        model.eval()
        with torch.no_grad():
            return (
                before,
                dict(model.trunk.named_parameters()),
                model(**encode(model, ["rain", "a very good day"])),
            )

    base, kept, logits = prepared(False)
    _, drawn, other = prepared(True)
    _, again, _ = prepared(True)
    name = next(key for key in drawn if "h.1" in key and key.endswith("c_attn.base_layer.weight"))
    plain = name.replace("base_layer.", "")
    assert torch.equal(kept[name], base[plain])
    assert not torch.allclose(drawn[name], base[plain])
    assert torch.equal(drawn[name], again[name])  # a function of the seed
    assert not drawn[name].requires_grad
    assert float(drawn[name].detach().abs().max()) <= 1 / drawn[name].shape[0] ** 0.5
    assert not torch.allclose(logits, other)
    first = "h.0.attn.c_attn.weight"
    assert torch.equal(drawn[first], base[first])
