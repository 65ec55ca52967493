"""The bench's numbers: switches against edits in a full pass, the grid against the ablation lens, words by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from serve_run import TEXT

from tiny import NAMES, encode, logits, tiny_folder
from tunescope.capture import edits
from tunescope.capture.hooks import read
from tunescope.capture.sites import Site
from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.data.tokens import tokenize
from tunescope.errors import DataError, LensError
from tunescope.evaluation.margins import margin
from tunescope.lenses.ablation.lens import AblationOptions, run
from tunescope.lenses.bench import Bench, bench_row
from tunescope.lenses.bench.offline import DIGITS
from tunescope.lenses.subject import Subject
from tunescope.models import load

TEXTS = [
    TEXT,
    "a very good day",
    "what a surprise in the street",
    "i love this film and the rain",
    "she walked home",
]


def subject_of(folder, kind="gpt2", same=False, base_head="tuned") -> Subject:
    base = load(str(tiny_folder(kind, folder / "base", names=list(NAMES))))
    tuned = load(str(tiny_folder(kind, folder / "tuned", seed=0 if same else 1, names=list(NAMES))))
    frame = pl.DataFrame({
        "row_id": [f"row-{i}" for i in range(40)],
        "position": pl.Series(range(40), dtype=pl.Int64),
        "split": ["train" if i % 2 else "validation" for i in range(40)],
        "text": [f"{TEXTS[i % 5]} {TEXTS[(i // 5) % 5]}" for i in range(40)],
        "label": pl.Series([i % 3 for i in range(40)], dtype=pl.Int64),
    })  # fmt: skip
    rows = Rows(frame, LabelMap(NAMES), {})
    splits = {
        one: tokenize(rows.split(one), tuned.tokenizer, tuned.max_length) for one in ("train", "validation")
    }
    texts = frame.select("row_id", "text")
    return Subject("arm", 0, base, tuned, base_head, splits, texts=texts)


@pytest.fixture(scope="module", params=["gpt2", "bert"])
def bench(request, tmp_path_factory) -> Bench:
    made = Bench(subject_of(tmp_path_factory.mktemp("bench"), request.param), reference_rows=12)
    shares = list(made.prepare_means())
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    return made


OFF = {
    "one head": ["L1H2"],
    "heads of one layer": ["L0H1", "L0H3"],
    "an MLP": ["L2.mlp"],
    "attention and its own head": ["L1.attention", "L1H0"],
    "over all layers": ["L0H1", "L0.mlp", "L1.attention", "L2H0", "L2H3", "L2.mlp"],
}


@pytest.mark.parametrize("edit", ["zero", "mean"])
@pytest.mark.parametrize("off", OFF.values(), ids=OFF)
def test_switching_off_equals_edits_inside_a_full_pass(bench, off, edit):
    found = bench.switched(TEXT, off, edit)
    for which, model in bench.models.items():
        changes = [
            _edit(bench, which, name, edit) for name in off if not ("attention" in off[0] and "H" in name)
        ]
        with edits.editing(model, changes):
            wanted = logits(model, [TEXT])[0].numpy()
        np.testing.assert_allclose(found[which], wanted, atol=1e-5)
        assert np.abs(found[which] - logits(model, [TEXT])[0].numpy()).max() > 1e-3


def _edit(bench, which, name, edit):
    layer, rest = int(name[1]), name[2:]
    site = {"H": "head_z", ".a": "attn_out", ".m": "mlp_out"}["H" if rest[0] == "H" else rest[:2]]
    heads = (int(rest[1:]),) if rest[0] == "H" else None
    if edit == "zero":
        return edits.zero(Site(site, layer), heads)
    return edits.constant(Site(site, layer), _mean(bench, which, site, layer, heads), heads)


def _mean(bench, which, site, layer, heads):
    """The plain mean over every real token of the reference rows, one row at a time."""
    from tunescope.lenses.subject import LensRows

    tokens = bench.subject.draw(LensRows(split="train", n=12), labelled=False)
    values = []
    for ids in tokens.input_ids:
        inputs = {"input_ids": torch.as_tensor(ids)[None].long()}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        values.append(read(bench.models[which], [Site(site, layer)], inputs)[Site(site, layer)][0])
    value = torch.cat(values).double().mean(0).float()
    return value if heads is None else value[list(heads)]


def test_the_grid_is_what_the_ablation_lens_says_of_the_row(bench):
    options = AblationOptions.model_validate({
        "rows": {"n": 6}, "edits": ["zero", "mean"], "reference_rows": 12, "components": ["heads", "attention", "mlp"],
    })  # fmt: skip
    _, examples = run(bench.subject, options)
    texts = dict(bench.subject.texts.iter_rows())
    tokens = bench.subject.tokens("validation")
    row_id = examples["row_id"][0]
    label = int(tokens.labels[tokens.row_ids.index(row_id)])
    mine = examples.filter(pl.col("row_id") == row_id)
    seen = 0
    for edit in ("zero", "mean"):
        for part in bench.grid(texts[row_id], edit):
            clean = margin(bench.predict(texts[row_id])[part["model"]][None], np.array([label]))[0]
            named = {("head_out", head): part["heads"][head] for head in range(4)}
            named |= {("attn_out", None): part["attention"], ("mlp_out", None): part["mlp"]}
            for (site, head), values in named.items():
                wanted = mine.filter(
                    (pl.col("model") == part["model"]) & (pl.col("edit") == edit) & (pl.col("site") == site)
                    & (pl.col("layer") == part["layer"]) & pl.col("head").eq_missing(pl.lit(head))
                )["margin_change"]  # fmt: skip
                assert len(wanted) == 1
                assert margin(values[None], np.array([label]))[0] - clean == pytest.approx(
                    wanted[0], abs=1e-5
                )
                seen += 1
    assert seen == 2 * 2 * 3 * 6


def test_one_model_twice_gives_the_same_in_both(tmp_path):
    bench = Bench(subject_of(tmp_path, same=True))
    for found in (bench.predict(TEXT), bench.switched(TEXT, ["L0H1", "L2.mlp"]), bench.attention(TEXT, 1, 2)):
        np.testing.assert_array_equal(found["base"], found["tuned"])


def test_batch_mates_do_not_matter(bench):
    for which, model in bench.models.items():
        together = logits(model, TEXTS, extra=5).numpy()
        for text, wanted in zip(TEXTS, together, strict=True):
            np.testing.assert_allclose(bench.predict(text)[which], wanted, atol=1e-5)


def test_a_word_left_out_is_the_text_without_it(bench):
    parts = list(bench.words("he was very sad, she said"))
    for which, model in bench.models.items():
        found = np.concatenate([part["logits"] for part in parts if part["model"] == which])
        without = [
            "was very sad, she said", "he very sad, she said", "he was sad, she said", "he was very, she said",
            "he was very sad, said", "he was very sad, she",
        ]  # fmt: skip
        assert len(found) == len(without)
        wanted = np.concatenate([logits(model, [text]).numpy() for text in without])
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_attention_is_what_capture_reads(bench):
    found = bench.attention(TEXT, 1, 2)
    for which, model in (("base", bench.subject.base), ("tuned", bench.subject.tuned)):
        wanted = read(model, [Site("attn_pattern", 1)], encode(model, [TEXT]))[Site("attn_pattern", 1)][0, 2]
        np.testing.assert_allclose(found[which], wanted, atol=1e-6)
        np.testing.assert_allclose(found[which].sum(1), 1, atol=1e-5)


def test_swaps_are_predicted_as_texts_of_their_own(bench):
    swap = next(one for one in bench.swaps("he said that he was sad") if one["lexicon"] == "gender")
    assert swap["text"] == "she said that she was sad"
    assert [swap["text"][one["start"] : one["end"]] for one in swap["changes"]] == ["she", "she"]
    for which in bench.models:
        np.testing.assert_allclose(swap["logits"][which], bench.predict(swap["text"])[which], atol=1e-5)
    assert [one["lexicon"] for one in bench.swaps("qqq zzz")] == []


def test_a_long_text_is_cut_and_said_to_be(bench):
    text = " ".join(["rain"] * 200)
    whole = bench.read(text)
    assert len(whole.pieces) == bench.subject.tuned.max_length == 64
    assert whole.cut == whole.tokens.lengths[0] - 64 > 0
    assert bench.read("rain").cut == 0


def test_what_cannot_be_asked_is_refused_with_the_reason(bench):
    with pytest.raises(DataError, match="The text is empty"):
        bench.predict("  \n ")
    with pytest.raises(DataError, match="60,000 characters; the bench takes up to 50,000"):
        bench.predict("a " * 30_000)
    with pytest.raises(LensError, match="'L0N3' cannot be switched off here"):
        bench.switched(TEXT, ["L0N3"])
    with pytest.raises(LensError, match="head 4 is outside the model; its heads are 0 to 3"):
        bench.switched(TEXT, ["L0H4"])
    with pytest.raises(LensError, match="layer 3 is outside"):
        bench.attention(TEXT, 3, 0)
    with pytest.raises(LensError, match="means over train rows are not there yet"):
        Bench(bench.subject).switched(TEXT, ["L0H1"], "mean")


def test_without_a_base_head_the_base_predicts_nothing_but_is_looked_at(tmp_path):
    bench = Bench(subject_of(tmp_path, base_head="none"))
    assert list(bench.predict(TEXT)) == ["tuned"]
    assert {part["model"] for part in bench.grid(TEXT)} == {"tuned"}
    assert list(bench.attention(TEXT, 0, 0)) == ["base", "tuned"]


def test_other_kinds_of_models_are_refused(bench):
    from types import SimpleNamespace

    two = SimpleNamespace(is_encoder_decoder=True, family=SimpleNamespace(name="t5"))
    with pytest.raises(LensError, match="models of one stack; t5 is an encoder-decoder"):
        Bench(replace(bench.subject, tuned=two))


def test_stored_passes_stay_bounded(bench, monkeypatch):
    monkeypatch.setattr("tunescope.lenses.bench.bench.KEPT_BYTES", 1)
    own = Bench(bench.subject)
    for text in TEXTS:
        own.predict(text)
    assert len(own._passes) == 2
    np.testing.assert_allclose(own.predict(TEXT)["tuned"], bench.predict(TEXT)["tuned"], atol=1e-6)


def test_the_row_of_the_report_holds_what_the_bench_says(bench):
    row = json.loads(json.dumps(bench_row(bench.subject, reference_rows=12)))
    assert row["chosen"].startswith(
        "the first of 20 drawn validation rows of 6 to 30 words that the tuned model"
    )
    assert row["label"] == int(bench.predict(row["text"])["tuned"].argmax())
    assert row["text"] == dict(bench.subject.texts.iter_rows())[row["row_id"]]
    for which in ("base", "tuned"):
        mine, near = row["models"][which], 0.6 * 10**-DIGITS
        np.testing.assert_allclose(mine["logits"], bench.predict(row["text"])[which], atol=near)
        for edit in ("zero", "mean"):
            off = mine["off"][edit]
            np.testing.assert_allclose(
                off["heads"][1][2], bench.switched(row["text"], ["L1H2"], edit)[which], atol=near
            )
            np.testing.assert_allclose(
                off["mlp"][2], bench.switched(row["text"], ["L2.mlp"], edit)[which], atol=near
            )
        assert len(mine["words"]) == len(row["words"]) == len(row["text"].split())
