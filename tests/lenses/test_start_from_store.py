"""Lenses start from what a training stored of frozen blocks: the same results, and the blocks before do not run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tiny import TEXTS, tiny_folder
from tunescope.capture.sites import Site
from tunescope.data.tokens import Tokens
from tunescope.lenses import reading as module
from tunescope.lenses.dimensions.head_input import read_head_inputs
from tunescope.lenses.reading import ReadingLens, read_pass
from tunescope.lenses.subject import Subject
from tunescope.models import load
from tunescope.models.prefix import blocks_of
from tunescope.models.store import ActivationStore

DEPTH = 2  # of three blocks


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """Stored and computed values are compared below."""


@pytest.fixture(scope="module", params=["gpt2", "bert", "distilbert"])
def folder(request, tmp_path_factory):
    return str(tiny_folder(request.param, tmp_path_factory.mktemp("start") / request.param))


def tokens_of(classifier):
    rows = [np.asarray(classifier.tokenizer(text)["input_ids"], dtype=np.int32) for text in TEXTS]
    lengths = np.array([len(row) for row in rows])
    return Tokens([f"r{i}" for i in range(len(rows))], rows, None, np.arange(len(rows)) % 3, lengths, 0)


@pytest.fixture
def pair(folder):
    """Return a base, a model tuned in its last block and head, and their rows."""
    base, tuned = load(folder).eval(), load(folder).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in [*blocks_of(tuned)[-1].parameters(), *tuned.head.parameters()]:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return base, tuned, tokens_of(base)


@pytest.fixture
def filled(pair, tmp_path):
    """Return a store that a training that froze two blocks has filled."""
    store = ActivationStore(tmp_path / "store", filling="none")
    base, _, tokens = pair
    filling = ActivationStore(tmp_path / "store")
    filling.obtain(base, tokens, DEPTH)
    return store


class Keeps(ReadingLens):
    def __init__(self, *sites):
        self.wanted, self.seen = list(sites), {}

    def sites(self, model):
        return self.wanted

    def update(self, view):
        for n, row in enumerate(view.row_ids):
            value = view.activation[n]
            if view.site.name not in ("pooled", "logits"):
                value = value[: int(view.attention_mask[n].sum())]
            self.seen[view.which, str(view.site), row] = value.clone()

    def table(self):
        return None


def read(pair, store, *sites):
    base, tuned, tokens = pair
    subject = Subject("arm", 0, base, tuned, "none", {"validation": tokens}, store=store)
    lens = Keeps(*sites)
    ran = {"base": [0] * base.n_layers, "tuned": [0] * tuned.n_layers}
    handles = []
    for which, model in (("base", base), ("tuned", tuned)):
        for layer, block in enumerate(blocks_of(model)):
            part = next(one for one in block.modules() if isinstance(one, nn.LayerNorm))
            original = type(part).forward

            def counted(value, part=part, which=which, layer=layer, original=original):
                ran[which][layer] += 1
                return original(part, value)

            handles.append((part, counted))
    # set after `starting_from` has looked for what hangs on modules: at the first batch
    with pytest.MonkeyPatch.context() as patch:
        shown = module._Shown.of

        def first(batch):
            for part, forward in handles:
                part.forward = forward
            return shown(batch)

        patch.setattr(module._Shown, "of", first)
        read_pass(subject, tokens, [lens])
    for part, _ in handles:
        del part.forward
    return lens.seen, ran


LATE = (Site("resid_post", 2), Site("head_z", 2), Site("pooled"), Site("logits"))


def test_late_sites_are_the_same_with_and_without_the_store_and_earlier_blocks_do_not_run(pair, filled):
    without, all_of_them = read(pair, None, *LATE)
    found, ran = read(pair, filled, *LATE)
    assert all_of_them["base"] == [1, 1, 1]
    assert ran["base"] == [0, 0, 1]
    assert ran["tuned"] == [0, 0, 1]
    assert found.keys() == without.keys()
    assert len(found) == 2 * 4 * len(TEXTS)
    for key, value in without.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-5)


def test_a_lens_that_looks_before_what_is_stored_runs_every_block(pair, filled):
    for early in (Site("embeddings"), Site("resid_post", 1)):
        found, ran = read(pair, filled, early, Site("pooled"))
        without, _ = read(pair, None, early, Site("pooled"))
        assert ran["base"] == [1, 1, 1]
        for key, value in without.items():
            assert torch.equal(found[key], value)


def test_an_entry_of_other_weights_or_rows_is_not_used(pair, filled):
    base, tuned, tokens = pair
    other = tokens.take(np.arange(4))
    other.input_ids[0] = other.input_ids[0].copy()
    other.input_ids[0][1] += 1
    _, ran = read((base, tuned, other), filled, *LATE)
    assert ran["base"] == [1, 1, 1]
    _, ran = read((base, tuned, tokens.take([5, 2])), filled, *LATE)
    assert ran["base"] == [0, 0, 1]
    for model in (base, tuned):
        with torch.no_grad():
            next(blocks_of(model)[0].parameters()).add_(1e-3)
    _, ran = read(pair, filled, *LATE)
    assert ran["base"] == [1, 1, 1]
    assert ran["tuned"] == [0, 0, 1]  # shared with the base all the same


def test_the_heads_input_starts_from_the_store_too(pair, filled, monkeypatch):
    base, tuned, tokens = pair
    without = read_head_inputs([base, tuned], tokens)
    seen = []
    original = ActivationStore.find
    monkeypatch.setattr(ActivationStore, "find", lambda *a, **k: seen.append(original(*a, **k)) or seen[-1])
    found = read_head_inputs([base, tuned], tokens, store=filled)
    assert seen[0].depth == DEPTH
    for one, other in zip(found, without, strict=True):
        np.testing.assert_allclose(one.values, other.values, atol=1e-5)
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-5)
    states = np.memmap(seen[0].values.filename, dtype="float32", mode="r+")
    states[:] = 0.0  # what is stored is what is used: spoilt, it spoils the result
    states.flush()
    spoilt = read_head_inputs([base, tuned], tokens, store=filled)
    assert np.abs(spoilt[0].values - without[0].values).max() > 1e-3
