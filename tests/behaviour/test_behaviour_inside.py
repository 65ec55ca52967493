"""What carries the change, and the states of the pairs that move most, on models whose decisive head is planted."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest

from tunescope.behaviour import Material, Suite, pair_table
from tunescope.behaviour.builtin import builtin_suite
from tunescope.behaviour.heatmaps import align, heatmap_states, outlier_dimensions
from tunescope.config.behaviour import BehaviourConfig, InsideConfig
from tunescope.errors import ConfigError, LensError, SiteError
from tunescope.lenses import Subject
from tunescope.models import load
from tunescope.planted.decisive import ANSWER, BAD, GOOD, WIDTH, planted_head_model
from tunescope.planted.gendered import FEMALE, MALE, planted_gender_model
from tunescope.study.behaviour import behaviour_of

FILLERS = ("the cat", "a house", "this film")


def exchange(words: tuple[str, str] = ("", "")) -> Suite:
    """Pairs that exchange a good word for a bad one and back; ``words`` are put before the second text's end."""
    records = []
    for index, (good, bad) in enumerate(zip(GOOD, BAD, strict=False)):
        for filler in FILLERS:
            for first, second, way in ((good, bad, "good to bad"), (bad, good, "bad to good")):
                records.append({
                    "original": f"{filler} was {first}", "rewritten": f"{filler} was {words[0]}{second}{words[1]}",
                    "direction": way, "terms": [first], "text": f"{index}-{filler}",
                })  # fmt: skip
    return Suite("exchange", "invariance", "good and bad words", pair_table(records))


def subject_of(kind: str, layer: int, head: int, folder) -> Subject:
    planted_head_model(kind, layer, head, folder)
    model = load(str(folder))
    return Subject("planted", 0, model, model, "none", {})


def config(**more) -> BehaviourConfig:
    return BehaviourConfig.model_validate({"suites": ["gender"], "resamples": 200, **more})


@pytest.mark.parametrize(("kind", "layer", "head"), [("gpt2", 1, 2), ("bert", 2, 0)])
def test_the_change_is_mediated_through_the_planted_head_alone(kind, layer, head, tmp_path):
    subject = subject_of(kind, layer, head, tmp_path)
    wanted = config(mediation={"pairs": 12, "components": ["heads"]})
    output, _ = behaviour_of(subject, wanted, [exchange()], "pairs")
    rows = output.table.filter((pl.col("part") == "mediation") & (pl.col("estimator") == "ratio_of_sums"))
    own = rows.filter(pl.col("control").is_null())
    assert own.height == 12
    for one in own.iter_rows(named=True):
        decisive = (one["layer"], one["head"]) == (layer, head)
        assert one["value"] == (pytest.approx(1, abs=1e-3) if decisive else pytest.approx(0, abs=1e-6)), one
    said = [one.sentence for one in output.findings if "of single heads" in one.sentence]
    assert len(said) == 1
    assert f"L{layer}H{head} carries most of the change of margin, a share of +1.000" in said[0]


@pytest.mark.parametrize(("kind", "layer", "head"), [("gpt2", 2, 1), ("bert", 1, 3)])
def test_the_gender_suite_is_mediated_through_the_planted_gender_head_alone(kind, layer, head, tmp_path):
    truth = planted_gender_model(kind, layer, head, tmp_path)
    model = load(str(tmp_path))
    frames = (
        ("the garden was near the", "we saw"),
        ("we saw our", "in the hotel"),
        ("on monday", "saw the river"),
    )
    texts = [f"{start} {word} {end}" for word in (*FEMALE, *MALE) for start, end in frames]
    rows = pl.DataFrame({
        "row_id": [f"r{index}" for index in range(len(texts))], "text": texts,
        "label": pl.Series([None] * len(texts), dtype=pl.String),
    })  # fmt: skip
    suite = builtin_suite("gender", Material(rows, texts, controls=False))
    assert len(suite) == len(texts)
    wanted = config(mediation={"pairs": 16, "components": ["heads"], "suites": ["gender"]})
    output, _ = behaviour_of(Subject("planted", 0, model, model, "none", {}), wanted, [suite], "rows")
    for pair in output.examples.iter_rows(named=True):
        followed = model.labels.names.index(pair["followed"])
        change = truth.margin(pair["rewritten"], followed) - truth.margin(pair["original"], followed)
        assert pair["margin_change_tuned"] == pytest.approx(change, abs=1e-4)
        assert abs(change) > 0.1
    rows = output.table.filter((pl.col("part") == "mediation") & (pl.col("estimator") == "ratio_of_sums"))
    own = rows.filter(pl.col("control").is_null())
    assert own.height == 12
    for one in own.iter_rows(named=True):
        decisive = (one["layer"], one["head"]) == (layer, head)
        assert one["value"] == (pytest.approx(1, abs=1e-3) if decisive else pytest.approx(0, abs=1e-6)), one
    said = [one.sentence for one in output.findings if "of single heads" in one.sentence]
    assert said[0].startswith(f"gender: of single heads L{layer}H{head} carries most of the change of margin")


@pytest.mark.parametrize(("kind", "layer", "head"), [("gpt2", 2, 1), ("bert", 1, 3)])
def test_the_dimensions_that_the_planted_head_writes_carry_the_change_alone(kind, layer, head, tmp_path):
    planted_gender_model(kind, layer, head, tmp_path)
    model = load(str(tmp_path))
    frames = (
        "the garden was near the {} we saw",
        "we saw our {} in the hotel",
        "on monday the {} saw the river",
    )
    records = [
        {"original": frame.format(first), "rewritten": frame.format(second), "terms": [first]}
        for frame in frames for ours, theirs in zip(FEMALE, MALE, strict=True)
        for first, second in ((ours, theirs), (theirs, ours))
    ]  # fmt: skip
    suite = Suite("persons", "invariance", "", pair_table(records))
    wanted = config(mediation={"pairs": 24, "components": ["heads", "dimensions"]})
    output, _ = behaviour_of(Subject("planted", 0, model, model, "none", {}), wanted, [suite], "pairs")
    rows = output.table.filter(pl.col("dimension").is_not_null())
    assert set(rows["estimator"]) == {"ratio_of_sums"}
    own = rows.filter(pl.col("control").is_null())
    assert own["dimension"].to_list() == list(range(WIDTH))
    assert set(own["layer"]) == {2}
    answer = {2 * ANSWER, 2 * ANSWER + 1}
    for one in own.iter_rows(named=True):
        if one["dimension"] in answer:
            assert 0.3 < one["value"] < 0.7
            assert one["q"] <= 0.05
        else:
            assert one["value"] == pytest.approx(0, abs=1e-6), one
    said = [one.sentence for one in output.findings if "of single dimensions" in one.sentence]
    assert len(said) == 1
    assert re.match(
        rf"persons: of single dimensions ({'|'.join(map(str, answer))}) of the stream behind block 2", said[0]
    )
    both = config(mediation={"pairs": 24, "components": ["dimensions"], "dimension_layers": [9]})
    with pytest.raises(
        SiteError, match=r"resid_post\[9\]: layer 9 is outside the model; its layers are 0 to 2"
    ):
        behaviour_of(Subject("planted", 0, model, model, "none", {}), both, [suite], "pairs")


def test_ranked_pairs_say_which_keep_the_number_of_tokens(tmp_path):
    subject = subject_of("gpt2", 0, 1, tmp_path)
    records = [
        {"original": "the film was lovely", "rewritten": "the film was awful"},
        {"original": "the film was lovely", "rewritten": "the old film was awful"},
        {"original": "the film was lovely", "rewritten": "a film was awful and old"},
    ]
    output, _ = behaviour_of(subject, config(), [Suite("s", "invariance", "", pair_table(records))], "pairs")
    marked = {row["rewritten"]: row for row in output.examples.iter_rows(named=True)}
    assert [marked[one["rewritten"]]["same_token_count"] for one in records] == [True, False, False]
    assert [marked[one["rewritten"]]["rewritten_tokens"] for one in records] == [4, 5, 6]
    assert {row["original_tokens"] for row in marked.values()} == {4}
    plain = Suite(
        "m",
        "minimum_functionality",
        "",
        pair_table([{"original": "the film was lovely", "label": "positive"}]),
    )
    alone = behaviour_of(subject, config(), [plain], "cases")[0].examples
    assert alone["rewritten"].to_list() == [None]
    assert alone["same_token_count"].to_list() == [True]


def test_a_suite_that_is_not_there_cannot_be_mediated(tmp_path):
    subject = subject_of("gpt2", 1, 2, tmp_path)
    with pytest.raises(
        ConfigError, match=r"behaviour.mediation.suites: unknown suite 'exchanged'; did you mean 'exchange'"
    ):
        behaviour_of(subject, config(mediation={"suites": ["exchanged"]}), [exchange()], "pairs")


def test_pairs_of_unequal_length_are_left_out_and_counted(tmp_path):
    subject = subject_of("gpt2", 0, 1, tmp_path)
    output, _ = behaviour_of(subject, config(mediation={"pairs": 12}), [exchange(("the ", ""))], "pairs")
    assert output.table.filter(pl.col("part") == "mediation").is_empty()
    notes = output.provenance["notes"]
    assert any("mediation on 0 pairs; 0 of" in note and "equally many tokens" in note for note in notes)
    assert any("no mediation, it needs 5 such pairs" in note for note in notes)


def test_states_are_aligned_and_differ_only_where_the_model_can_know(tmp_path):
    subject = subject_of("gpt2", 1, 2, tmp_path)
    output, states = behaviour_of(subject, config(inside={"pairs": 2, "layer": 0}), [exchange()], "pairs")
    assert states is not None
    assert set(states["pair_id"]) == set(output.examples["pair_id"].head(2))
    one = states.filter(
        (pl.col("model") == "tuned") & (pl.col("pair_id") == output.examples["pair_id"][0])
    ).sort("place")
    changed = [a != b for a, b in zip(one["token"], one["token_rewritten"], strict=True)]
    assert changed.count(True) == 1
    for row, new in zip(one.iter_rows(named=True), changed, strict=True):
        before = row["place"] < changed.index(True)
        difference = np.abs(np.array(row["rewritten"]) - np.array(row["original"])).max()
        assert difference == 0 if before else (difference > 0 or not new)
    assert len(one["original"][0]) == subject.tuned.model.config.hidden_size


def test_a_layer_that_is_not_there_and_a_site_without_tokens_are_refused(tmp_path):
    subject = subject_of("gpt2", 1, 2, tmp_path)
    examples = behaviour_of(subject, config(), [exchange()], "pairs")[0].examples
    with pytest.raises(LensError, match=r"behaviour.inside.layer is 9, and the model has the blocks 0 to 2"):
        heatmap_states(examples, subject.base, subject.tuned, InsideConfig(layer=9))
    with pytest.raises(LensError, match=r"attn_pattern\[1\] has no states of tokens by dimension"):
        heatmap_states(examples, subject.base, subject.tuned, InsideConfig(site="attn_pattern", layer=1))


def test_alignment_and_outlier_dimensions():
    assert align([1, 2, 3], [1, 9, 3]) == [(0, 0), (1, 1), (2, 2)]
    assert align([1, 2, 3], [1, 8, 9, 3]) == [(0, 0), (1, 1), (None, 2), (2, 3)]
    assert align([1, 2], [2]) == [(0, None), (1, 0)]
    rng = np.random.default_rng(0)
    states = rng.normal(size=(30, 64))
    assert outlier_dimensions(states) == []
    states[3, 17] = 40.0
    states[:, 5] += 9.0
    assert outlier_dimensions(states) == [5, 17]
