"""What tuning cost elsewhere: transformers' own losses, closed forms, and mapped labels."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from tiny import TEXTS, byte_bpe, word_piece
from tunescope.config.expect import ElsewhereData
from tunescope.data.labels import LabelMap
from tunescope.errors import ConfigError, DataError
from tunescope.evaluation import baselines
from tunescope.evaluation.elsewhere import (
    cross_evaluate,
    document_loss,
    encode_documents,
    language_costs,
    language_head,
    load_cross_data,
    read_documents,
)
from tunescope.evaluation.elsewhere.documents import IGNORED, WindowRule
from tunescope.models import load_trunk

LABELS = LabelMap(("bad", "good"))
DOCUMENTS = [" ".join(TEXTS), " ".join(reversed(TEXTS)), "the cat sat é on the mat"]


def language_model(kind, folder):
    """A tiny language model of one family, as pretraining would leave it."""
    torch.manual_seed(0)
    tokenizer = byte_bpe() if kind == "gpt2" else word_piece(kind=kind)
    size = {"vocab_size": len(tokenizer), "initializer_range": 0.3}
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}
    if kind == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(n_layer=2, n_head=4, n_embd=32, n_positions=64, bos_token_id=0, eos_token_id=0, **size)
        )
    elif kind == "bert":
        model = BertForMaskedLM(BertConfig(max_position_embeddings=64, **shape, **size))
    elif kind == "roberta":
        config = RobertaConfig(
            max_position_embeddings=66, pad_token_id=tokenizer.pad_token_id, **shape, **size
        )
        model = RobertaForMaskedLM(config)
    else:
        config = DistilBertConfig(
            n_layers=2, n_heads=4, dim=32, hidden_dim=64, max_position_embeddings=64, **size
        )
        model = DistilBertForMaskedLM(config)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def perturbed(path, scale=0.5):
    model = load_trunk(str(path), labels=LABELS)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.trunk.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return model


@pytest.mark.parametrize("kind", ["gpt2", "bert", "roberta", "distilbert"])
def test_the_loss_is_that_of_transformers_own_language_model(kind, tmp_path):
    model = language_model(kind, tmp_path / kind)
    base = load_trunk(str(tmp_path / kind), labels=LABELS)
    head, reason = language_head(base)
    assert reason is None
    rule = WindowRule(window=16, windows=3, mask_share=0.3, seed=2)
    documents = encode_documents(DOCUMENTS, base.tokenizer, head.kind, rule)
    found = document_loss(base, head, documents).bits
    expected = np.zeros(3)
    with torch.no_grad():
        for window, target, owner in zip(
            documents.input_ids, documents.targets, documents.owner, strict=True
        ):
            arguments = {"input_ids": torch.as_tensor(window)[None]}
            if kind == "roberta":  # its own positions count from the pad id's
                arguments["position_ids"] = torch.arange(len(window))[None] + base.tokenizer.pad_token_id + 1
            logits = model(**arguments).logits[0]
            told = torch.as_tensor(target) != IGNORED
            losses = torch.nn.functional.cross_entropy(
                logits[told].double(), torch.as_tensor(target)[told], reduction="sum"
            )
            expected[owner] += float(losses) / math.log(2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_causal_windows_tell_every_token_but_the_first_exactly_once_and_count_its_bytes():
    tokenizer = byte_bpe()
    text = DOCUMENTS[0] + " naïve 😀 end"
    ids = tokenizer(text)["input_ids"]
    found = encode_documents([text], tokenizer, "causal", WindowRule(window=9, windows=1000))
    told = np.concatenate([t[t != IGNORED] for t in found.targets])
    assert told.tolist() == ids[1:]
    first = len(tokenizer.decode(ids[:1]).encode())
    assert found.sizes.tolist() == [len(text.encode()) - first]
    assert found.counted.tolist() == [len(ids) - 1]
    few = encode_documents([text], tokenizer, "causal", WindowRule(window=9, windows=2))
    assert np.concatenate([t[t != IGNORED] for t in few.targets]).tolist() == ids[1:17]


def test_masks_are_fixed_by_seed_and_document_and_hide_what_is_to_be_told():
    tokenizer = word_piece()
    rule = WindowRule(window=12, windows=100, mask_share=0.25, seed=1)
    one, again = (encode_documents(DOCUMENTS, tokenizer, "masked", rule) for _ in range(2))
    for a, b in zip(one.input_ids, again.input_ids, strict=True):
        assert (a == b).all()
    other = encode_documents(DOCUMENTS, tokenizer, "masked", WindowRule(12, 100, 0.25, 2))
    assert any((a != b).any() for a, b in zip(one.input_ids, other.input_ids, strict=True))
    for window, target in zip(one.input_ids, one.targets, strict=True):
        assert ((window == tokenizer.mask_token_id) == (target != IGNORED)).all()
        assert (window[0], window[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        assert (target != IGNORED).sum() == max(1, round(0.25 * (len(window) - 2)))


def test_all_tokens_masked_account_for_all_bytes():
    tokenizer = word_piece()
    found = encode_documents(DOCUMENTS[:2], tokenizer, "masked", WindowRule(12, 100, 1.0))
    assert found.sizes.tolist() == [len(text.encode()) for text in DOCUMENTS[:2]]


def test_a_model_that_knows_nothing_needs_log2_of_the_vocabulary_per_token(tmp_path):
    language_model("gpt2", tmp_path / "lm")
    base = load_trunk(str(tmp_path / "lm"), labels=LABELS)
    with torch.no_grad():
        base.trunk.ln_f.weight.zero_()
        base.trunk.ln_f.bias.zero_()
    head, _ = language_head(base)
    documents = encode_documents(DOCUMENTS, base.tokenizer, "causal", WindowRule(window=64))
    bits = document_loss(base, head, documents).bits
    np.testing.assert_allclose(bits, documents.counted * math.log2(len(base.tokenizer)), rtol=1e-6)


def test_an_untouched_trunk_costs_nothing_and_a_shaken_one_is_seen(tmp_path):
    language_model("gpt2", tmp_path / "lm")
    base = load_trunk(str(tmp_path / "lm"), labels=LABELS)
    before = [parameter.clone() for parameter in base.parameters()]
    loaders = {
        ("frozen", 0): lambda: load_trunk(str(tmp_path / "lm"), labels=LABELS),
        ("shaken", 0): lambda: perturbed(tmp_path / "lm"),
    }
    texts = DOCUMENTS * 4
    found = language_costs(base, loaders, texts, WindowRule(window=32, windows=4))
    frozen, shaken = found["tuned"]
    assert frozen["difference"]["value"] == 0.0
    assert frozen["difference"]["p"] is None
    assert "no cost in language modelling is shown" in frozen["sentence"]
    assert shaken["difference"]["low"] > 0
    assert shaken["value"] == pytest.approx(found["base"]["value"] + shaken["difference"]["value"])
    assert "shaken (seed 0) cost language modelling" in shaken["sentence"]
    assert (found["unit"], found["documents"]) == ("bits per byte", 12)
    assert all((a == b).all() for a, b in zip(before, base.parameters(), strict=True))


def test_bits_per_byte_are_total_bits_by_total_bytes(tmp_path):
    language_model("gpt2", tmp_path / "lm")
    base = load_trunk(str(tmp_path / "lm"), labels=LABELS)
    head, _ = language_head(base)
    documents = encode_documents(DOCUMENTS, base.tokenizer, "causal", WindowRule(window=64))
    bits = document_loss(base, head, documents).bits
    found = language_costs(base, {}, DOCUMENTS)
    assert found["base"]["value"] == pytest.approx(bits.sum() / documents.sizes.sum())


def test_a_checkpoint_without_a_language_model_head_says_so(bert_folder):
    base = load_trunk(str(bert_folder), labels=LabelMap(("a", "b", "c")))
    found = language_costs(base, {}, DOCUMENTS)
    assert found["base"] is None
    assert "has no masked language-model head: it lacks cls.predictions" in found["note"]
    assert found["sentence"].startswith("What tuning cost in language modelling cannot be said")


def test_documents_are_read_from_blocks_and_columns(tmp_path):
    (tmp_path / "a.txt").write_text("one\nstill one\n\n\n two \r\n\r\nthree", encoding="utf-8")
    assert read_documents(tmp_path / "a.txt") == ["one\nstill one", "two", "three"]
    pl.DataFrame({"body": ["x", None, " ", "y", "z"]}).write_parquet(tmp_path / "a.parquet")
    assert read_documents(tmp_path / "a.parquet", "body") == ["x", "y", "z"]
    assert read_documents(tmp_path / "a.parquet", "body", most=2) == ["x", "z"]
    with pytest.raises(DataError, match="no column 'text'; columns: body"):
        read_documents(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="there is no file"):
        read_documents(tmp_path / "b.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(DataError, match="holds no text"):
        read_documents(tmp_path / "empty.txt")


@pytest.fixture
def reviews(tmp_path):
    frame = pl.DataFrame({
        "body": ["the cat sat", "a very good day", "i love this film", "rain", "what a surprise", None, "the night"],
        "stars": [1, 5, 5, 1, 3, 1, 4],
    })  # fmt: skip
    frame.write_parquet(tmp_path / "reviews.parquet")
    return {"name": "reviews", "path": str(tmp_path / "reviews.parquet"), "text": "body", "label": "stars"}


def test_labels_are_mapped_and_what_is_not_is_counted(reviews, bert_folder):
    data = load_cross_data(ElsewhereData(**reviews, map={1: "bad", 5: "good", 4: "good"}), LABELS)
    assert data.left_out == {"3": 1}
    assert data.rows.frame.select("text", "label").rows() == [
        ("the cat sat", 0), ("a very good day", 1), ("i love this film", 1), ("rain", 0), ("the night", 1),
    ]  # fmt: skip
    model = load_trunk(str(bert_folder), labels=LABELS)
    found = cross_evaluate(model, data)
    accuracy = next(r for r in found["records"] if r["metric"] == "accuracy")
    assert accuracy["n"] == found["rows"] == 5
    assert found["records_among"] is None
    assert accuracy["value"] == pytest.approx(np.trace(found["confusion"]) / 5)
    assert "1 rows of other labels (3) were left out" in found["sentence"]
    assert "always saying the most frequent label gives 0.600" in found["sentence"]


def test_where_the_map_reaches_some_labels_only_the_choice_among_them_is_measured_too(reviews, bert_folder):
    labels = LabelMap(("fine", "good", "bad"))
    data = load_cross_data(ElsewhereData(**reviews, map={1: "bad", 5: "good"}), labels)
    model = load_trunk(str(bert_folder), labels=labels)
    with torch.no_grad():
        next(p for n, p in model.head.named_parameters() if n.endswith("bias") and len(p) == 3)[0] += 1e4
    found = cross_evaluate(model, data)
    by_all, among = (
        next(r["value"] for r in found[key] if r["metric"] == "accuracy")
        for key in ("records", "records_among")
    )
    assert by_all == 0.0  # it always says fine, which cannot occur there
    assert among > 0.0
    assert found["labels"] == ["good", "bad"]


def test_a_wrong_map_is_refused_with_the_nearest_label(reviews):
    with pytest.raises(ConfigError, match="the study has no label 'god'; it has bad, good") as caught:
        load_cross_data(ElsewhereData(**reviews, map={1: "bad", 5: "god"}), LABELS)
    assert "Did you mean 'good'?" in str(caught.value)
    with pytest.raises(ConfigError, match="reviews has no label '9'; it has 1, 3, 4, 5"):
        load_cross_data(ElsewhereData(**reviews, map={9: "bad"}), LABELS)


def test_the_studys_template_serves_where_it_fits_and_a_wrong_one_is_refused(reviews):
    own = ElsewhereData(**reviews, map={1: "bad", 5: "good"})
    assert load_cross_data(own, LABELS, "Review: {text}").rows.frame["text"][0] == "Review: the cat sat"
    assert load_cross_data(own, LABELS, "{first} {second}").rows.frame["text"][0] == "the cat sat"
    wrong = ElsewhereData(**{**reviews, "text": {"one": "body"}}, template="{two}", map={1: "bad"})
    with pytest.raises(ConfigError, match=r"may use \{one\}, and must use one; it names \{two\}"):
        load_cross_data(wrong, LABELS)


def test_the_studys_cleaning_is_done_there_too_but_not_what_is_about_its_own_form(reviews):
    from tunescope.config import DataConfig

    steps = DataConfig(
        path="x", text="t", label="y", clean=["lower", {"step": "speaker_turns", "keep": "customer"}]
    ).clean
    loud = pl.read_parquet(reviews["path"]).with_columns(pl.col("body").str.to_uppercase())
    loud.write_parquet(reviews["path"])
    data = load_cross_data(ElsewhereData(**reviews, map={1: "bad", 5: "good"}), LABELS, clean=steps)
    assert data.rows.frame["text"].to_list() == ["the cat sat", "a very good day", "i love this film", "rain"]
    assert data.cleaned == ("lower",)


def test_the_probe_is_a_baseline_of_every_split(bert_folder):
    from test_baselines_tables import rows_of

    from tunescope.data.tokens import tokenize

    texts = [TEXTS[i % len(TEXTS)] for i in range(40)]
    rows = rows_of([int("the" in text) for text in texts], texts)
    base = load_trunk(str(bert_folder), labels=LabelMap(("bad", "good")))
    parts = {split: tokenize(rows.split(split), base.tokenizer, 32) for split in rows.splits}
    found = baselines.probe(base, parts, rows)
    assert found["about"].startswith("probe: logistic regression on 30 train rows")
    assert found["predictions"]["row_id"].to_list() == rows.frame["row_id"].to_list()
    accuracy = {r["split"]: r["value"] for r in found["records"] if r["metric"] == "accuracy"}
    assert accuracy == {"train": 1.0, "test": 1.0}
    with pytest.raises(DataError, match="fitted on train rows"):
        baselines.probe(base, {}, rows)


@pytest.mark.shared
@pytest.mark.slow
def test_the_small_gpt2_reads_english_as_its_makers_say(shared):
    """The README of the weights: 1.74 bits per byte on the validation documents."""
    base = load_trunk(str(shared / "weights" / "gpt2-mini-english"), labels=LABELS)
    texts = read_documents(shared / "data" / "english_lm" / "validation.parquet")
    found = language_costs(base, {}, texts, WindowRule(window=256, windows=4))
    assert found["base"]["value"] == pytest.approx(1.74, abs=0.06)
