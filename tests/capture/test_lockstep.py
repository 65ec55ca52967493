"""Running block by block: the same activations as a full pass, in order, and nothing left behind."""

from __future__ import annotations

import pytest
import torch

from tiny import FAMILIES, TEXTS, tiny_folder
from tunescope.capture.hooks import read, reading
from tunescope.capture.lockstep import block_by_block, side_by_side
from tunescope.capture.sites import Site
from tunescope.errors import SiteError
from tunescope.models import load


def inputs_of(model, side="right"):
    model.tokenizer.padding_side = side
    found = model.tokenizer(TEXTS[:4], padding=True, return_tensors="pt", truncation=True, max_length=16)
    return {name: found[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in found}


@pytest.fixture(params=FAMILIES)
def model(request, tmp_path):
    return load(str(tiny_folder(request.param, tmp_path)))


def test_every_site_is_what_a_full_pass_gives(model):
    inputs = inputs_of(model)
    sites = [Site("embeddings"), Site("pooled"), Site("logits")]
    for layer in range(model.n_layers):
        sites += [Site(name, layer) for name in ("resid_pre", "attn_pattern", "attn_out", "resid_post")]
    expected = read(model, sites, inputs)
    found = {}
    with reading(model, sites, lambda site, value: found.__setitem__(site, value.detach())):
        assert list(block_by_block(model, inputs)) == list(range(model.n_layers))
    assert set(found) == set(expected)
    for site in sites:
        torch.testing.assert_close(found[site], expected[site], atol=1e-6, rtol=1e-6, msg=str(site))


def test_each_site_is_seen_once_and_in_the_order_of_the_blocks(model):
    seen = []
    sites = [Site("resid_post", layer) for layer in range(model.n_layers)]
    with reading(model, sites, lambda site, _value: seen.append(site.layer)):
        for layer in block_by_block(model, inputs_of(model)):
            assert seen == list(range(layer + 1))


def test_the_model_is_whole_again_even_if_the_caller_stops_early(model):
    inputs = inputs_of(model)
    before, names = model(**inputs), [name for name, _ in model.named_modules()]
    next(block_by_block(model, inputs))
    assert [name for name, _ in model.named_modules()] == names
    torch.testing.assert_close(model(**inputs), before, atol=0, rtol=0)


def test_the_callers_gradient_mode_is_its_own_between_blocks_and_after(tmp_path):
    base, tuned = (load(str(tiny_folder("gpt2", tmp_path / str(seed), seed=seed))) for seed in (0, 1))
    for _ in side_by_side(base, tuned, inputs_of(base)):
        assert torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    unfinished = block_by_block(base, inputs_of(base))
    next(unfinished)
    assert torch.is_grad_enabled()


def test_two_models_take_turns(tmp_path):
    base, tuned = (load(str(tiny_folder("gpt2", tmp_path / str(seed), seed=seed))) for seed in (0, 1))
    seen = []
    sites = [Site("resid_post", layer) for layer in range(base.n_layers)]
    with (
        reading(base, sites, lambda site, _value: seen.append(("base", site.layer))),
        reading(tuned, sites, lambda site, _value: seen.append(("tuned", site.layer))),
    ):
        for layer in side_by_side(base, tuned, inputs_of(base)):
            assert seen[-2:] == [("base", layer), ("tuned", layer)]


def test_models_of_different_depth_are_refused(tmp_path):
    base, tuned = (load(str(tiny_folder("gpt2", tmp_path / str(seed), seed=seed))) for seed in (0, 1))
    del tuned.trunk.h[1:]
    tuned.model.config.n_layer = 1
    with pytest.raises(SiteError, match="blocks cannot run side by side"):
        next(side_by_side(base, tuned, inputs_of(base)))
