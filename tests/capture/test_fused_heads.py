"""Heads' changes carried through the MLP's first product, against the block run as it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tiny import tiny_folder
from tunescope.capture import Site
from tunescope.capture.fused_heads import FusedHeads, can_fuse
from tunescope.capture.sites import head_weights
from tunescope.capture.stored import run_mlp, store
from tunescope.models import load


@pytest.fixture
def model(tmp_path):
    """A tiny GPT-2 whose norms have gains and biases and whose stream has a mean and a loud dimension."""
    made = load(str(tiny_folder("gpt2", tmp_path))).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for name, value in made.model.named_parameters():
            value.add_(0.3 * torch.randn_like(value))
            if name.endswith("attn.c_proj.bias"):
                value.add_(1.0)
                value[5] += 20.0
    return made


def inputs(model, rows=3, length=5):
    ids = torch.randint(
        4, model.model.config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0)
    )
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("layer", [0, 1])
def test_the_stream_behind_the_block_is_that_of_the_block_itself(model, layer):
    fused, heads = FusedHeads(model), [1, 0, 1]
    with torch.inference_mode():
        with fused.keeping() as inner:
            stored = store(model, inputs(model))
        assert len(inner) == model.n_layers
        z = stored.at(Site("head_z", layer))
        changes = torch.randn(3, 15, z.shape[-1], generator=torch.Generator().manual_seed(1))
        middle = stored.at(Site("resid_mid", layer)).flatten(0, 1)
        found = fused.behind(layer, middle, inner[layer].flatten(0, 1), heads, changes)
        written = head_weights(model, layer)
        for copy, head in enumerate(heads):
            attention = stored.at(Site("attn_out", layer)) + (changes[copy] @ written[head]).view(3, 5, -1)
            expected = run_mlp(model, stored, layer, stored.trace.resid_pre[layer], attention)
            torch.testing.assert_close(found[copy], expected.flatten(0, 1), atol=2e-5, rtol=1e-5)
            assert float((found[copy] - stored.values["resid_post"][layer].flatten(0, 1)).abs().max()) > 0.1


def test_hooks_and_modules_are_what_they_were(model):
    before = {name: dict(module.__dict__) for name, module in model.model.named_modules()}
    with FusedHeads(model).keeping() as inner, torch.inference_mode():
        store(model, inputs(model))
    assert all("forward" not in module.__dict__ for module in model.model.modules())
    assert {name: len(module._forward_hooks) for name, module in model.model.named_modules()} == {
        name: len(known["_forward_hooks"]) for name, known in before.items()
    }
    assert len(inner) == model.n_layers


def test_only_blocks_whose_arithmetic_is_known_are_fused(model, tmp_path):
    assert can_fuse(model)
    for kind in ("bert", "llama"):  # a norm behind the sum; a gate beside the first product
        folder = tmp_path / kind
        folder.mkdir()
        assert not can_fuse(load(str(tiny_folder(kind, folder))))
    assert not can_fuse(model.to(torch.bfloat16))


def test_another_norm_is_not_fused(model):
    model.trunk.h[1].ln_2 = nn.RMSNorm(model.width)
    assert not can_fuse(model)
