"""LoRA updates from the adapter's folder alone: the same numbers as from the merged weights, in one orientation."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForSequenceClassification
from transformers.pytorch_utils import Conv1D

from tiny import tiny_folder
from tunescope.errors import ModelError
from tunescope.lenses.weights.adapter import adapter_updates
from tunescope.models.matrices import oriented
from tunescope.stats.weight_change import spectrum

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
TARGETS = {"gpt2": ["c_attn", "mlp.c_proj"], "bert": ["query", "output.dense"]}


def adapted(kind, folder, **options):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_folder(kind, folder / "base"))
    config = LoraConfig(
        r=3, lora_alpha=12, target_modules=TARGETS[kind], fan_in_fan_out=kind == "gpt2", **options
    )
    peft = get_peft_model(model, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.2)
    peft.save_pretrained(folder / "adapter")
    return peft


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
@pytest.mark.parametrize("rslora", [False, True])
def test_numbers_are_those_of_what_merging_adds_and_the_rank_is_r(kind, rslora, tmp_path):
    peft = adapted(kind, tmp_path, use_rslora=rslora)
    found = adapter_updates(tmp_path / "adapter")
    assert set(found.filter(pl.col("metric") == "rank")["value"]) == {3.0}
    modules = {
        name.removeprefix("base_model.model."): one
        for name, one in peft.named_modules()
        if hasattr(one, "lora_A")
    }
    assert found.height == 5 * len(modules)
    for name, module in modules.items():
        before = oriented(module.base_layer).clone()
        module.merge()
        update = (oriented(module.base_layer) - before).double().numpy()
        layer, site = next((int(p), name.split(f".{p}.", 1)[1]) for p in name.split(".") if p.isdigit())
        own = found.filter((pl.col("layer") == layer) & (pl.col("site") == site))
        expected = spectrum(update)
        for metric in ("frobenius", "spectral", "stable_rank", "effective_rank"):
            value = own.filter(pl.col("metric") == metric)["value"][0]
            assert value == pytest.approx(getattr(expected, metric), rel=1e-3), (name, metric)


def test_conv1d_and_linear_of_the_same_function_have_one_orientation():
    torch.manual_seed(0)
    linear, conv = nn.Linear(5, 7), Conv1D(7, 5)
    with torch.no_grad():
        conv.weight.copy_(linear.weight.T)
    assert torch.equal(oriented(conv), oriented(linear))
    assert oriented(conv).shape == (7, 5)
    np.testing.assert_allclose(
        (torch.eye(5) @ conv.weight).T.detach(),
        linear(torch.eye(5)).T.detach() - linear.bias[:, None].detach(),
        atol=1e-6,
    )


def test_what_is_no_lora_adapter_or_needs_the_base_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"holds no adapter: adapter_config\.json"):
        adapter_updates(tmp_path)
    adapted("gpt2", tmp_path)
    path = tmp_path / "adapter" / "adapter_config.json"
    settings = json.loads(path.read_text())
    for change, said in (({"use_dora": True}, "DoRA adapter"), ({"peft_type": "IA3"}, "of type IA3")):
        path.write_text(json.dumps({**settings, **change}))
        with pytest.raises(ModelError, match=said):
            adapter_updates(tmp_path / "adapter")
