"""The token budget that keeps the summary, labels, and generation that does not depend on the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from tiny import TEXTS, byte_bpe
from tiny_encoder_decoder import make
from tunescope.errors import ConfigError, DataError, ModelError
from tunescope.summaries import SummaryOptions, collate_summaries, encode_summaries
from tunescope.summaries.generation import GenerationOptions, write_summaries

ARTICLES = [" ".join([text] * (1 + 2 * i)) for i, text in enumerate(TEXTS)]
SUMMARIES = ["the cat", "good day", "sad house", "surprise", "angry", "love film", "rain", "cold night"]
IDS = [f"r{i}" for i in range(len(TEXTS))]
OPTIONS = SummaryOptions(max_tokens=60, max_summary=16)


def gpt2(positions=128):
    torch.manual_seed(0)
    tokenizer = byte_bpe()
    config = GPT2Config(
        n_layer=2, n_head=4, n_embd=32, n_positions=positions, vocab_size=len(tokenizer), bos_token_id=0,
        eos_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval(), tokenizer


@pytest.fixture(scope="module")
def decoder():
    return gpt2()


@pytest.fixture(scope="module", params=("t5", "bart"))
def encoder_decoder(request):
    return make(request.param, "language_model")


def encoded(tokenizer, kind="decoder", summaries=SUMMARIES, **options):
    chosen = SummaryOptions(**{"max_tokens": 60, "max_summary": 16, **options})
    return encode_summaries(ARTICLES, summaries, IDS, tokenizer, kind, chosen)


def test_the_summary_is_always_whole_and_the_cut_is_counted(decoder):
    _, tokenizer = decoder
    tokens = encoded(tokenizer)
    cut = 0
    for row, article in enumerate(ARTICLES):
        ids = tokens.input_ids[row]
        assert len(ids) <= 60
        text = tokenizer.decode(ids)
        assert text.endswith(f"\nTL;DR: {SUMMARIES[row]}<|endoftext|>")
        whole = tokenizer(article)["input_ids"]
        kept = int(tokens.article_kept[row])
        assert ids[:kept].tolist() == whole[:kept]
        assert tokens.article_tokens[row] == len(whole)
        assert len(ids) == 60 or kept == len(whole)  # nothing is cut without need
        cut += len(whole) - kept
    account = tokens.account()
    assert account["article_tokens_cut"] == cut > 0
    assert account["rows_cut"] == int((tokens.article_cut > 0).sum())
    assert account["article_share_cut"] == pytest.approx(cut / tokens.article_tokens.sum())
    assert account["summary_tokens_cut"] == 0
    assert account["rows"] == len(ARTICLES)


@pytest.mark.parametrize("loss", ["summary", "all"])
def test_labels_are_the_summary_and_the_end_token_or_everything(decoder, loss):
    _, tokenizer = decoder
    tokens = encoded(tokenizer, loss=loss)
    batch = collate_summaries(tokens, [1, 7, 3], pad_id=tokenizer.eos_token_id)
    for place, row in enumerate([1, 7, 3]):
        length = len(tokens.input_ids[row])
        labels = batch["labels"][place]
        assert batch["attention_mask"][place].sum() == length
        assert (labels[length:] == -100).all()
        assert labels[length - 1] == tokenizer.eos_token_id  # learnt, although it also pads
        learnt = labels[labels != -100]
        if loss == "summary":
            assert tokenizer.decode(learnt) == f" {SUMMARIES[row]}<|endoftext|>"
        else:
            assert torch.equal(learnt, batch["input_ids"][place, :length])


def test_the_loss_is_that_of_the_summary_alone(decoder):
    model, tokenizer = decoder
    tokens = encoded(tokenizer)
    batch = collate_summaries(tokens, [0, 2], pad_id=tokenizer.eos_token_id)
    with torch.no_grad():
        found = model(**batch).loss
        total, count = 0.0, 0
        for row in (0, 2):
            ids = torch.tensor(tokens.input_ids[row].astype(np.int64))[None]
            log = model(ids).logits[0].log_softmax(-1)
            for place in range(ids.shape[1] - len(tokens.target_ids[row]), ids.shape[1]):
                total -= float(log[place - 1, ids[0, place]])
                count += 1
    assert float(found) == pytest.approx(total / count, abs=1e-4)


def test_an_encoder_decoder_reads_the_article_and_learns_the_summary(encoder_decoder):
    model, tokenizer = encoder_decoder
    tokens = encoded(tokenizer, "encoder_decoder", before="the : ", max_tokens=20)
    assert max(map(len, tokens.input_ids)) == 20
    assert all(ids[-1] == tokenizer.eos_token_id for ids in tokens.input_ids)  # special tokens are never cut
    plain = tokenizer("the : " + ARTICLES[1])["input_ids"]
    assert tokens.input_ids[1].tolist() == plain
    batch = collate_summaries(tokens, [0, 1, 7], pad_id=tokenizer.pad_token_id)
    assert [row[row != -100].tolist() for row in batch["labels"]] == [
        tokens.target_ids[i].tolist() for i in (0, 1, 7)
    ]
    with torch.no_grad():
        assert torch.isfinite(model(**batch).loss)


def test_generation_keeps_room_for_the_summary(decoder):
    _, tokenizer = decoder
    tokens = encoded(tokenizer, summaries=None)
    assert max(map(len, tokens.input_ids)) == 60 - 16
    assert all(tokenizer.decode(ids).endswith("\nTL;DR:") for ids in tokens.input_ids)
    trained = encoded(tokenizer)
    prompt = len(tokenizer("\nTL;DR:")["input_ids"])
    one, other = tokens.input_ids[1], trained.input_ids[1]
    assert one.tolist() == other[: len(one)].tolist()  # the same tokens as in training
    assert len(one) == tokens.article_kept[1] + prompt
    with pytest.raises(DataError, match="encoded for generation"):
        collate_summaries(tokens, [0], 0)


HOW = [{}, {"beams": 3}, {"sample": True, "seed": 4}, {"ban_repeats": 2, "min_tokens": 5}]


@pytest.mark.parametrize("options", HOW)
def test_what_is_written_does_not_depend_on_the_batch(decoder, options):
    model, tokenizer = decoder
    tokens = encoded(tokenizer, summaries=None)
    together = write_summaries(model, tokenizer, tokens, GenerationOptions(rows_at_once=8, **options))
    alone = write_summaries(model, tokenizer, tokens, GenerationOptions(rows_at_once=1, **options))
    assert together.texts == alone.texts
    assert together.new_tokens.tolist() == alone.new_tokens.tolist()
    assert together.row_ids == IDS
    assert len(set(together.texts)) > 1
    assert int(together.new_tokens.max()) <= 16
    assert not any("TL;DR" in text for text in together.texts)  # new tokens alone


def test_greedy_writing_is_a_loop_over_the_likeliest_token(decoder):
    model, tokenizer = decoder
    tokens = encoded(tokenizer, summaries=None)
    written = write_summaries(model, tokenizer, tokens)
    for row in (0, 3):
        ids, new = tokens.input_ids[row].astype(np.int64).tolist(), []
        with torch.no_grad():
            while len(new) < 16 and (not new or new[-1] != tokenizer.eos_token_id):
                new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
        assert written.texts[row] == tokenizer.decode(new, skip_special_tokens=True).strip()
        assert written.new_tokens[row] == len(new)
        assert written.ended[row] == (new[-1] == tokenizer.eos_token_id)


def test_sampling_differs_by_seed_and_leaves_the_global_stream_alone(decoder):
    model, tokenizer = decoder
    tokens = encoded(tokenizer, summaries=None)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    first = write_summaries(model, tokenizer, tokens, GenerationOptions(sample=True, seed=0))
    assert torch.equal(torch.rand(3), expected)
    assert (
        first.texts != write_summaries(model, tokenizer, tokens, GenerationOptions(sample=True, seed=1)).texts
    )


def test_an_encoder_decoder_writes_the_same_in_any_batch(encoder_decoder):
    model, tokenizer = encoder_decoder
    tokens = encoded(tokenizer, "encoder_decoder", summaries=None, max_tokens=20)
    together = write_summaries(model, tokenizer, tokens, GenerationOptions(rows_at_once=8))
    alone = write_summaries(model, tokenizer, tokens, GenerationOptions(rows_at_once=1))
    assert together.texts == alone.texts
    assert together.new_tokens.tolist() == alone.new_tokens.tolist()
    assert not any("<" in text for text in together.texts)


def test_bad_rows_and_budgets_are_refused(decoder):
    _, tokenizer = decoder
    with pytest.raises(DataError, match="1 of 8 rows have an empty article; the first is row r2"):
        encode_summaries([*ARTICLES[:2], " ", *ARTICLES[3:]], SUMMARIES, IDS, tokenizer, "decoder", OPTIONS)
    with pytest.raises(DataError, match="empty summary; the first is row r0"):
        encode_summaries(ARTICLES, ["", *SUMMARIES[1:]], IDS, tokenizer, "decoder", OPTIONS)
    long = [*SUMMARIES[:3], ARTICLES[5], *SUMMARIES[4:]]
    with pytest.raises(
        DataError, match=r"1 of 8 summaries are longer than max_summary \(16 tokens.*row r3 with"
    ):
        encode_summaries(ARTICLES, long, IDS, tokenizer, "decoder", OPTIONS)
    published = SummaryOptions(
        max_tokens=60, max_summary=16, cut="end"
    )  # as published nothing is refused: it is cut
    assert (
        max(map(len, encode_summaries(ARTICLES, long, IDS, tokenizer, "decoder", published).input_ids)) == 60
    )
    with pytest.raises(ConfigError, match="leaves no room for an article"):
        encoded(tokenizer, max_tokens=12)
    with pytest.raises(DataError, match="came 8 and 3 for 8 rows"):
        encode_summaries(ARTICLES, SUMMARIES[:3], IDS, tokenizer, "decoder", OPTIONS)


def test_models_that_cannot_write_are_refused(decoder, encoder_decoder):
    model, tokenizer = decoder
    tokens = encoded(tokenizer, summaries=None)
    classifier = GPT2ForSequenceClassification(model.config)
    with pytest.raises(ModelError, match="GPT2ForSequenceClassification cannot generate text"):
        write_summaries(classifier, tokenizer, tokens)
    with pytest.raises(
        ModelError, match="is an encoder-decoder, and the rows were encoded for kind 'decoder'"
    ):
        write_summaries(encoder_decoder[0], encoder_decoder[1], tokens)
    with pytest.raises(DataError, match="These rows hold summaries"):
        write_summaries(model, tokenizer, encoded(tokenizer))
    small, _ = gpt2(positions=40)
    with pytest.raises(
        ModelError, match="numbers 40 positions, and article, prompt and summary need up to 60"
    ):
        write_summaries(small, tokenizer, tokens)
