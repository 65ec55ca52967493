"""Batches without padding: the same logits and gradients as padded ones, and no row sees another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import GPT2Config, GPT2Model

from tiny import FAMILIES, TEXTS, encode, logits, tiny_folder
from tunescope.capture.sites import Site
from tunescope.data.packed import pack, packed_batches
from tunescope.data.tokens import Tokens
from tunescope.errors import DataError, ModelError
from tunescope.evaluation import predict
from tunescope.lenses.reading import ReadingLens, read_pass
from tunescope.lenses.subject import Subject
from tunescope.models import POOLINGS, features, load
from tunescope.models import packed as packed_module
from tunescope.models.packed import (
    Layout,
    has_kernel,
    model_batches,
    packed_attention,
    packing_problem,
    padded_again,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("packed")
    return {kind: str(tiny_folder(kind, base / kind)) for kind in FAMILIES}


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """Bits are compared below."""


def line(classifier, texts):
    rows = [classifier.tokenizer(text)["input_ids"] for text in texts]
    ids = [one for row in rows for one in row]
    return {"input_ids": torch.tensor([ids]), "lengths": torch.tensor([len(row) for row in rows])}


def tokens_of(classifier, texts, windows=None):
    rows = [np.asarray(classifier.tokenizer(text)["input_ids"], dtype=np.int32) for text in texts]
    lengths = np.array([len(row) for row in rows])
    labels = np.arange(len(rows)) % 3
    return Tokens([f"r{i}" for i in range(len(rows))], rows, None, labels, lengths, 0, windows=windows)


def gradients(classifier, inputs):
    classifier.zero_grad(set_to_none=True)
    labels = torch.arange(len(TEXTS)) % 3
    functional.cross_entropy(classifier(**inputs), labels).backward()
    return {n: p.grad.clone() for n, p in classifier.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", FAMILIES)
def test_logits_and_gradients_equal_those_of_padded_rows(kind, pooling, folders):
    classifier = load(folders[kind], pooling=pooling)
    padded, packed = encode(classifier, TEXTS, extra=3), line(classifier, TEXTS)
    with torch.no_grad():
        torch.testing.assert_close(classifier(**packed), classifier(**padded), atol=1e-5, rtol=1e-5)
    wanted, found = gradients(classifier, padded), gradients(classifier, packed)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert (found[name] - value).abs().max() <= 1e-5 * max(1.0, float(value.abs().max())), name


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_row_gives_the_same_bits_whatever_its_batch_mates_and_order_are(kind, folders):
    classifier = load(folders[kind])
    with torch.no_grad():
        together = classifier.pooled(**line(classifier, TEXTS))
        backwards = classifier.pooled(**line(classifier, TEXTS[::-1])).flip(0)
        apart = torch.cat([classifier.pooled(**line(classifier, TEXTS[i : i + 2])) for i in range(0, 8, 2)])
        changed = classifier.pooled(**line(classifier, [TEXTS[0], *TEXTS[2:], TEXTS[4]]))
    # Tiny Qwen models differ in the last bits with the number of rows; their values agree all the same.
    tolerance = 1e-5 if kind in ("qwen2", "qwen3") else 0.0
    for found, wanted in (
        (backwards, together),
        (apart, together),
        (changed[:-1], together[[0, *range(2, 8)]]),
    ):
        torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)
    assert not torch.equal(together[0], together[1])


def test_rows_of_equal_length_attend_in_one_call_and_give_the_same_bits(folders):
    classifier = load(folders["bert"])
    texts = ["the cat sat", "a good day", "i love this", "rain"]
    layout = Layout.of(line(classifier, texts)["lengths"])
    assert layout.runs == [(5, 3), (3, 1)]
    with torch.no_grad():
        each = torch.cat([classifier.pooled(**line(classifier, [text])) for text in texts])
        assert torch.equal(classifier.pooled(**line(classifier, texts))[:3], each[:3])


def test_sorting_inside_a_batch_keeps_ids_labels_and_logits_together(folders):
    classifier = load(folders["roberta"])
    tokens = tokens_of(classifier, TEXTS)
    batch = pack(tokens, [2, 0, 7, 5])
    assert sorted(batch.index.tolist()) == [0, 2, 5, 7]
    assert batch.lengths.tolist() == sorted(batch.lengths.tolist(), reverse=True)
    assert batch.row_ids == [f"r{i}" for i in batch.index]
    assert batch.labels.tolist() == tokens.labels[batch.index].tolist()
    alone = torch.cat([logits(classifier, [TEXTS[i]]) for i in batch.index])
    with torch.no_grad():
        torch.testing.assert_close(classifier(**batch.inputs()), alone, atol=1e-5, rtol=1e-5)
    with pytest.raises(DataError, match="at least one row"):
        pack(tokens, [])


def test_segment_ids_reach_the_model(folders):
    classifier = load(folders["bert"])
    with torch.no_grad():
        embedding = classifier.trunk.embeddings.token_type_embeddings
        embedding.weight[1] += 1.0
        inputs = line(classifier, TEXTS)
        segments = torch.arange(inputs["input_ids"].shape[1])[None] % 2
        plain, marked = classifier(**inputs), classifier(**inputs, token_type_ids=segments)
        padded = encode(classifier, TEXTS)
        types = padded_again(segments, Layout.of(inputs["lengths"]))
        torch.testing.assert_close(classifier(**padded, token_type_ids=types), marked, atol=1e-5, rtol=1e-5)
    assert (plain - marked).abs().max() > 1e-3


def test_windows_of_a_row_are_averaged_as_with_padding(folders):
    classifier = load(folders["gpt2"])
    plain = tokens_of(classifier, TEXTS[:3])
    windows = [[ids[:4], ids[2:6]] if n != 1 else [ids] for n, ids in enumerate(plain.input_ids)]
    tokens = tokens_of(classifier, TEXTS[:3], windows=windows)
    wanted = []
    with torch.no_grad():
        for parts in windows:
            each = [
                classifier(torch.tensor(one)[None].long(), torch.ones(1, len(one), dtype=torch.long))
                for one in parts
            ]
            wanted.append(torch.cat(each).mean(0))
        batch = pack(tokens, [0, 1, 2])
        assert batch.row_of is not None
        found = classifier(**batch.inputs())
    torch.testing.assert_close(found, torch.stack(wanted)[batch.index], atol=1e-5, rtol=1e-5)


def test_batches_hold_every_row_once_and_no_more_tokens_than_allowed(folders):
    classifier = load(folders["gpt2"])
    tokens = tokens_of(classifier, TEXTS * 3)
    seen, sizes = [], []
    for batch in packed_batches(tokens, max_tokens=60, max_rows=7):
        seen += batch.index.tolist()
        sizes.append(batch.input_ids.shape[1])
        assert len(batch) <= 7
        assert len(batch) == 1 or batch.input_ids.shape[1] <= 60
        assert batch.input_ids.shape[1] == sum(len(tokens.input_ids[i]) for i in batch.index)
    assert sorted(seen) == list(range(24))
    assert sum(sizes) == tokens.kept.sum()


def test_predictions_and_features_do_not_change_when_a_model_must_pad(folders, monkeypatch):
    classifier = load(folders["distilbert"])
    tokens = tokens_of(classifier, TEXTS)
    without, vectors = predict(classifier, tokens), features(classifier, tokens)
    monkeypatch.setattr("tunescope.models.packed.PROVEN", ())
    assert packing_problem(classifier.model, classifier.family) == (
        "the family DistilBERT has not been proven on batches without padding"
    )
    assert all("attention_mask" in batch.inputs() for batch in model_batches(classifier, tokens))
    padded = predict(classifier, tokens)
    for name in ("logit_LABEL_0", "logit_LABEL_1", "logit_LABEL_2"):
        assert np.abs(without[name].to_numpy() - padded[name].to_numpy()).max() < 1e-5
    assert np.abs(vectors - features(classifier, tokens)).max() < 1e-5
    with pytest.raises(ModelError, match="cannot run without padding: the family DistilBERT"):
        classifier(**line(classifier, TEXTS))


def test_the_attention_of_the_model_is_what_it_was_even_after_an_error(folders):
    classifier = load(folders["gpt2"])
    before = classifier.model.config._attn_implementation
    with pytest.raises(IndexError):
        classifier(torch.tensor([[10**6, 1]]), lengths=torch.tensor([2]))
    assert classifier.model.config._attn_implementation == before
    with (
        packed_attention(classifier.model),
        pytest.raises(ModelError, match="without the layout of its rows"),
    ):
        classifier(**encode(classifier, TEXTS))
    assert classifier.model.config._attn_implementation == before


def test_the_cache_of_transformers_contaminates_packed_rows_and_ours_is_off(folders):
    """The trap: with the cache, rows packed by position ids alone see one another, without a warning."""
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_head=4, n_embd=32, n_positions=64, vocab_size=320, initializer_range=0.3)
    trunk = GPT2Model(config).eval()
    ids = torch.randint(1, 300, (1, 12))
    positions = torch.cat([torch.arange(7), torch.arange(5)])[None]
    with torch.no_grad():
        alone = trunk(ids[:, 7:], use_cache=False).last_hidden_state
        cached = trunk(ids, position_ids=positions, use_cache=True).last_hidden_state[:, 7:]
        assert (cached - alone).abs().max() > 1e-2, "the trap is gone from transformers; this test can go too"
    classifier = load(folders["gpt2"])
    assert classifier.model.config.use_cache
    with torch.no_grad():
        both = classifier.pooled(ids, lengths=torch.tensor([7, 5]))[1]
        one = classifier.pooled(ids[:, 7:], torch.ones(1, 5, dtype=torch.long))[0]
    torch.testing.assert_close(both, one, atol=1e-5, rtol=1e-5)


def test_a_line_that_is_not_its_rows_is_refused(folders):
    classifier = load(folders["gpt2"])
    ids = torch.arange(1, 8)[None]
    with pytest.raises(ModelError, match=r"holds its tokens as \[1, 6\]; came \[1, 7\]"):
        classifier(ids, lengths=torch.tensor([4, 2]))
    with pytest.raises(ModelError, match=r"at least one token; came the lengths \[7, 0\]"):
        classifier(ids, lengths=torch.tensor([7, 0]))
    with pytest.raises(ModelError, match="needs an attention_mask, or the lengths"):
        classifier(ids)


def test_dropout_of_attention_works_row_by_row(folders):
    """With every attention weight dropped, no row gets anything from its attention, with or without padding."""
    classifier = load(folders["gpt2"]).train()
    for block in classifier.trunk.h:
        block.attn.attn_dropout.p = 1.0 - 1e-7
    for module in classifier.modules():
        if isinstance(module, torch.nn.Dropout) and module.p < 0.9:
            module.p = 0.0
    first, second = line(classifier, TEXTS), encode(classifier, TEXTS)
    with torch.no_grad():
        torch.testing.assert_close(classifier(**first), classifier(**second), atol=1e-5, rtol=1e-5)
        assert (classifier.eval()(**first) - classifier.train()(**first)).abs().max() > 1e-3


@pytest.mark.parametrize("pooling", ["last", "first"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_watched_last_block_computes_all_tokens_and_gives_the_same_vector(kind, pooling, folders):
    """Unwatched, the second half of the last block runs on the pooled tokens alone."""
    classifier = load(folders[kind], pooling=pooling)
    inputs = line(classifier, TEXTS)
    projection = classifier.trunk.get_submodule(classifier.family.path("mlp_projection", 2))
    sizes = []
    forward = projection.forward
    projection.forward = lambda value: sizes.append(value.shape[-2]) or forward(value)
    with torch.no_grad():
        short = classifier.pooled(**inputs)
        handle = projection.register_forward_hook(lambda *_: None)
        whole = classifier.pooled(**inputs)
        handle.remove()
    assert sizes == [len(TEXTS), int(inputs["lengths"].sum())]
    torch.testing.assert_close(short, whole, atol=1e-5, rtol=1e-5)


def test_reading_without_padding_shows_lenses_the_same_activations(folders, monkeypatch):
    """Every token's activation, pooled vectors, ids and labels, with batches of either kind."""
    classifier = load(folders["bert"])
    tokens = tokens_of(classifier, TEXTS)
    names = [Site("embeddings"), Site("resid_post", 2), Site("head_z", 1), Site("pooled")]

    class Keeps(ReadingLens):
        def __init__(self):
            self.seen = {}

        def sites(self, model):
            return names

        def update(self, view):
            for n, row in enumerate(view.row_ids):
                real = int(view.attention_mask[n].sum())
                value = view.activation[n] if view.site.name == "pooled" else view.activation[n, :real]
                self.seen[view.which, str(view.site), row] = (value.clone(), int(view.labels[n]))

        def table(self):
            return None

    subject = Subject("arm", 0, classifier, classifier, "none", {"validation": tokens})
    packed, padded = Keeps(), Keeps()
    read_pass(subject, tokens, [packed])
    monkeypatch.setattr("tunescope.models.packed.PROVEN", ())
    read_pass(subject, tokens, [padded])
    assert packed.seen.keys() == padded.seen.keys()
    assert len(packed.seen) == 2 * 4 * len(TEXTS)
    for key, (value, label) in padded.seen.items():
        torch.testing.assert_close(packed.seen[key][0], value, atol=1e-5, rtol=1e-5)
        assert packed.seen[key][1] == label


@pytest.mark.parametrize(
    ("dtype", "width", "capability", "takes_scale", "expected"),
    [
        (torch.bfloat16, 64, (8, 0), True, True),
        (torch.float16, 256, (9, 0), True, True),
        (torch.float32, 64, (9, 0), True, False),  # the kernel is of half precision
        (torch.bfloat16, 64, (7, 5), True, False),  # older than the first device that it runs on
        (torch.bfloat16, 12, (8, 0), True, False),
        (torch.bfloat16, 264, (8, 0), True, False),
        (torch.bfloat16, 64, (8, 0), False, False),  # PyTorch 2.10
    ],
)
def test_the_kernel_is_used_only_for_what_it_can_compute(
    dtype, width, capability, takes_scale, expected, monkeypatch
):
    monkeypatch.setattr(packed_module, "_kernel_takes_scale", lambda: takes_scale)
    assert has_kernel(torch.zeros(1, 2, 5, width, dtype=dtype), capability) is expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("causal", [True, False])
def test_the_kernel_gives_what_attention_row_by_row_gives(causal):
    layout = Layout((3, 17, 1, 40, 17))
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(1, 4, layout.total, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3)
    )
    assert has_kernel(query, torch.cuda.get_device_capability())
    found = packed_module._kernel(query, key, value, layout, causal, 0.2)[0]
    expected = []
    for q, k, v in zip(*(one.split(layout.lengths, dim=2) for one in (query, key, value)), strict=True):
        row = functional.scaled_dot_product_attention(
            q.float(), k.float(), v.float(), is_causal=causal, scale=0.2
        )
        expected.append(row[0].transpose(0, 1))
    torch.testing.assert_close(found.float(), torch.cat(expected), atol=0.02, rtol=0.02)
