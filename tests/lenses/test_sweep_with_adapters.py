"""The proof of a family and the exact sweep of it with a LoRA adapter in place, for every table there is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from subjects import make_rows, splits_of

from tiny import FAMILIES, families, tiny_folder
from tiny_encoder_decoder import folder_of
from tunescope.capture import Site, editing, verify, zero
from tunescope.data.batches import collate
from tunescope.lenses.ablation.components import every
from tunescope.lenses.ablation.replacement import Statistics
from tunescope.lenses.ablation.sweep import Sweep
from tunescope.lenses.ablation.sweep_encoder_decoder import StackSweep
from tunescope.models import load
from tunescope.progress import SILENT
from tunescope.tuning import METHODS

TWO_STACKS = ("t5", "bart")
WHOLE = {
    "head_out": "head_z",
    "cross_head_out": "cross_head_z",
    "attn_out": "attn_out",
    "cross_attn_out": "cross_attn_out",
    "mlp_out": "mlp_out",
}


def adapted(kind, folder):
    """A classifier with a random LoRA on every attention's query and output projection, and its logits before."""
    made = folder_of(kind, folder) if kind in TWO_STACKS else tiny_folder(kind, folder)
    model = load(str(made))
    family = model.family
    names = {
        path.rpartition(".")[2] for path in (family.query, family.attention_projection, family.mlp_projection)
    }
    method = METHODS["lora"]
    method.prepare(model, method.options.model_validate({"peft": {"target_modules": sorted(names)}}))
    torch.manual_seed(1)
    touched = 0
    with torch.no_grad():
        for name, parameter in model.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
                touched += 1
    assert touched >= 2 * model.n_layers
    return model.eval(), load(str(made)).eval()


@pytest.mark.parametrize("kind", families("gpt2", "qwen3"))
def test_the_sweep_equals_full_passes_with_an_adapter_in_place(kind, tmp_path):
    check(kind, tmp_path)


@pytest.mark.parametrize("kind", [pytest.param("t5", marks=pytest.mark.slow), "bart"])
def test_so_does_that_of_two_stacks(kind, tmp_path):
    check(kind, tmp_path)


def check(kind, folder):
    model, plain = adapted(kind, folder)
    assert verify(model) is model
    splits = splits_of(model, make_rows())
    tokens = splits["validation"].take(np.arange(4))
    variants = every(model, ("heads", "attention", "mlp"), "zero")
    sweep = (StackSweep if model.is_encoder_decoder else Sweep)(model, variants, Statistics(), 0)
    out = torch.empty(len(variants), len(tokens), 3)
    with SILENT.task("", 1) as task:
        for index, _, changed in sweep.run(tokens, task):
            out[:, index] = changed
    inputs = collate(tokens, np.array([2])).inputs()
    moved = 0.0
    for number, variant in enumerate(variants):
        (part,) = variant.parts
        site = Site(WHOLE[part.site.name], part.site.layer, part.site.stack)
        with torch.no_grad():
            with editing(model, [zero(site, part.units)]):
                expected = model(**inputs)[0]
            with editing(plain, [zero(site, part.units)]):
                moved = max(moved, float((plain(**inputs)[0] - expected).abs().max()))
        torch.testing.assert_close(out[number, 2], expected, atol=1e-5, rtol=1e-5, msg=variant.name)
    assert moved > 1e-2  # the adapter is in what was swept


def test_every_family_is_tried():
    assert {"gpt2", "bert", "distilbert", "roberta", "gpt_neox", "llama", "qwen2", "qwen3"} == set(FAMILIES)
