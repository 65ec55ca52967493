"""Blocks that tuning left alone are run once for base and tuned, and nothing that a lens says changes by that."""

from __future__ import annotations

import collections

import pytest
import torch
from polars.testing import assert_frame_equal
from subjects import make_rows, make_subject

from tiny import FAMILIES, NAMES, tiny_folder
from tunescope.capture import Site, reading
from tunescope.capture.shared import decided_before, shared_depth
from tunescope.lenses import LENSES, ReadingLens, look, read_pass
from tunescope.models import load, load_trunk
from tunescope.models.prefix import blocks_of
from tunescope.tuning import METHODS

ROWS = {"rows": {"split": "validation", "n": 40}}
READING = [
    ("cka", ROWS), ("spread", ROWS), ("similarity", {**ROWS, "resamples": 20, "permutations": 19}),
    ("dimensions", {**ROWS, "random": 2, "points": 3}),
]  # fmt: skip
TUNED = {
    "last_k": ({"k": 1}, 2),
    "lora": ({"peft": {"r": 2, "layers_to_transform": [1, 2]}}, 1),
    "head_only": ({}, 2),  # the last block is never left out
    "full": ({}, 0),
}


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """Bits are compared below."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("shared")
    return {kind: str(tiny_folder(kind, base / kind, names=list(NAMES))) for kind in FAMILIES}


def make_pair(folder, method, into):
    """A base, and what was tuned from it by a method, saved and loaded as a run does."""
    base = load(folder)
    tuned = load_trunk(folder, labels=base.labels, seed=1)
    made = METHODS[method]
    made.prepare(tuned, made.options.model_validate(TUNED[method][0]))
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    tuned.save(into)
    return base, load(str(into))


def calls_of_blocks(monkeypatch, *models):
    """Count how often each block of each model computes, by (model, layer)."""
    places = {id(block): (m, layer) for m, model in enumerate(models)
              for layer, block in enumerate(blocks_of(model))}  # fmt: skip
    counted = collections.Counter()
    for kind in {type(block) for model in models for block in blocks_of(model)}:
        forward = kind.forward

        def counting(self, *arguments, forward=forward, **named):
            counted[places[id(self)]] += 1
            return forward(self, *arguments, **named)

        monkeypatch.setattr(kind, "forward", counting)
    return counted


@pytest.mark.parametrize(
    ("kind", "method"),
    [*((kind, "last_k") for kind in FAMILIES), ("gpt2", "lora"), ("bert", "lora"), ("gpt2", "head_only"),
     ("roberta", "full")],
)  # fmt: skip
def test_tables_are_the_same_bits_and_frozen_blocks_run_once(kind, method, folders, tmp_path, monkeypatch):
    subject = make_subject(*make_pair(folders[kind], method, tmp_path / "tuned"), make_rows(90))
    depth = TUNED[method][1]
    assert shared_depth(subject.base, subject.tuned) == depth
    with monkeypatch.context() as patched:
        for part in ("reading", "dimensions.head_input"):
            patched.setattr(f"tunescope.lenses.{part}.shared_depth", lambda *_: 0)
        plain = calls_of_blocks(patched, subject.base, subject.tuned)
        wanted = look(subject, READING, LENSES)
    with monkeypatch.context() as patched:
        counted = calls_of_blocks(patched, subject.base, subject.tuned)
        found = look(subject, READING, LENSES)
    assert len(set(plain.values())) <= 2  # the last block's second half may run without its call
    for layer in range(3):
        assert counted[0, layer] == plain[0, layer] > 0
        assert counted[1, layer] == (0 if layer < depth else plain[1, layer])
    for ours, theirs in zip(found, wanted, strict=True):
        assert_frame_equal(ours.table, theirs.table, check_exact=True)
        assert ours.findings == theirs.findings


class Keeps(ReadingLens):
    def __init__(self, sites):
        self.names, self.seen = sites, {}

    def sites(self, model):
        return self.names

    def update(self, view):
        for n, row in enumerate(view.row_ids):
            self.seen[view.which, str(view.site), row] = view.activation[n].clone()

    def table(self):
        return None


ALL = [*(Site(name, layer) for layer in range(3) for name in
         ("resid_pre", "resid_mid", "resid_post", "head_z", "head_out", "attn_out", "mlp_out", "mlp_neurons")),
       Site("embeddings"), Site("pooled"), Site("logits")]  # fmt: skip


@pytest.mark.parametrize("pattern", [False, True])
@pytest.mark.parametrize("kind", FAMILIES)
def test_every_site_is_the_same_bits_with_padding_and_without(kind, pattern, folders, tmp_path, monkeypatch):
    """Patterns need eager attention and padded batches; without them there is no padding."""
    subject = make_subject(*make_pair(folders[kind], "last_k", tmp_path / "tuned"))
    tokens = subject.splits["validation"]
    sites = [*ALL, *([Site("attn_pattern", layer) for layer in range(3)] if pattern else [])]
    sites = [site for site in sites if site.name != "resid_mid" or not subject.base.is_parallel]
    shared, apart = Keeps(sites), Keeps(sites)
    read_pass(subject, tokens, [shared])
    monkeypatch.setattr("tunescope.lenses.reading.shared_depth", lambda *_: 0)
    read_pass(subject, tokens, [apart])
    assert shared.seen.keys() == apart.seen.keys()
    assert len(shared.seen) == 2 * len(sites) * len(tokens)
    assert all(torch.equal(shared.seen[key], value) for key, value in apart.seen.items())
    differ = {site for which, site, row in apart.seen
              if not torch.equal(apart.seen["base", site, row], apart.seen["tuned", site, row])}  # fmt: skip
    assert differ == {str(site) for site in sites if not decided_before(site, 2)} - {"resid_pre[2]"}


def test_models_are_as_they_were_even_after_an_error(folders, tmp_path):
    subject = make_subject(*make_pair(folders["gpt2"], "last_k", tmp_path / "tuned"))
    tokens = subject.splits["validation"]

    class Fails(Keeps):
        def update(self, view):
            if view.which == "tuned" and view.site.name == "pooled":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_pass(subject, tokens, [Fails(ALL)])
    for model in (subject.base, subject.tuned):
        for module in model.modules():
            assert "forward" not in vars(module)
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
    assert shared_depth(subject.base, subject.tuned) == 2


def test_equal_weights_alone_do_not_share_where_activations_may_differ(folders, tmp_path):
    base, tuned = make_pair(folders["bert"], "last_k", tmp_path / "tuned")
    assert shared_depth(base, tuned) == 2
    with reading(tuned, [Site("resid_post", 0)], lambda *_: None):
        assert shared_depth(base, tuned) == 0
    tuned.train()
    assert shared_depth(base, tuned) == 0
    tuned.eval()
    block = blocks_of(tuned)[1]
    with torch.no_grad():
        next(block.parameters()).view(-1)[0].add_(1e-6)
    assert shared_depth(base, tuned) == 1
    tuned.model.config.layer_norm_eps = 1e-3
    assert shared_depth(base, tuned) == 0
