"""What is particular to GPT-NeoX, Llama and Qwen: residuals in parallel or not, sliding windows, adapters in place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import GPTNeoXForSequenceClassification

from tiny import TEXTS, decoder_config, encode, logits, tiny_folder
from tunescope.capture import Site, read, verify
from tunescope.capture.direct import is_rms_norm
from tunescope.errors import ModelError, SiteError
from tunescope.models import family_of, load
from tunescope.models.packed import packing_problem
from tunescope.models.questions import final_norm
from tunescope.tuning import METHODS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-an-architecture.md"


def test_gpt_neox_in_series_is_verified_too_and_has_a_middle(tmp_path):
    folder = tiny_folder("gpt_neox", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "use_parallel_residual": False}))
    series = load(str(folder))
    assert verify(series) is series
    (folder / "config.json").write_text(json.dumps(config))
    parallel = load(str(folder))
    assert verify(parallel) is parallel
    assert (series.is_parallel, parallel.is_parallel) == (False, True)
    inputs = encode(series, TEXTS)
    names = [Site("resid_pre", 1), Site("attn_out", 1), Site("resid_mid", 1)]
    before, attention, middle = read(series, names, inputs).values()
    torch.testing.assert_close(before + attention, middle)
    assert not torch.allclose(logits(series, TEXTS), logits(parallel, TEXTS), atol=1e-3)
    with pytest.raises(SiteError, match="attention and MLP both read resid_pre and are added together"):
        read(parallel, [Site("resid_mid", 1)], inputs)


def test_a_table_that_takes_parallel_for_series_is_found_out(tmp_path):
    from dataclasses import replace

    model = load(str(tiny_folder("gpt_neox", tmp_path)))
    model.family = replace(model.family, parallel_switch=None)
    with pytest.raises(SiteError, match=r"resid_mid\[0\] \(resid_pre plus attn_out\): differs"):
        verify(model)


def test_classifier_logits_are_transformers_own(tmp_path):
    folder = tiny_folder("gpt_neox", tmp_path)
    theirs, ours = GPTNeoXForSequenceClassification.from_pretrained(folder).eval(), load(str(folder))
    for text in TEXTS[:3]:
        inputs = encode(ours, [text])
        with torch.no_grad():
            torch.testing.assert_close(theirs(**inputs).logits, ours(**inputs), atol=1e-5, rtol=1e-5)
    assert decoder_config("gpt_neox", 1, {}).rope_parameters["partial_rotary_factor"] == 0.25


@pytest.mark.parametrize("kind", ["gpt_neox", "llama", "qwen3"])
def test_adapters_in_place_are_verified_and_move_the_logits(kind, tmp_path):
    classifier = load(str(tiny_folder(kind, tmp_path)))
    before = logits(classifier, TEXTS)
    projection = classifier.family.attention_projection.rpartition(".")[2]
    method = METHODS["lora"]
    targets = {"target_modules": [projection, classifier.family.query.rpartition(".")[2]]}
    method.prepare(classifier, method.options.model_validate({"peft": targets}))
    with torch.no_grad():
        for name, parameter in classifier.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    classifier.eval()
    assert verify(classifier) is classifier
    assert not torch.allclose(logits(classifier, TEXTS), before, atol=1e-2)


def test_sliding_windows_are_not_run_without_padding(tmp_path):
    folder = tiny_folder("qwen2", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert packing_problem(load(str(folder)).model, family_of("qwen2")) is None
    config |= {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    config["layer_types"] = ["full_attention", "sliding_attention", "sliding_attention"]
    (folder / "config.json").write_text(json.dumps(config))
    model = load(str(folder))
    assert packing_problem(model.model, model.family) == "some of its layers attend within a sliding window"
    assert verify(model) is model


def test_root_mean_square_norms_are_told_from_layer_norms(tmp_path):
    llama, gpt2 = (load(str(tiny_folder(kind, tmp_path / kind))) for kind in ("llama", "gpt2"))
    assert is_rms_norm(llama.trunk.norm)
    assert not is_rms_norm(gpt2.trunk.ln_f)
    state = torch.randn(2, 3, 32)
    root = state.pow(2).mean(-1, keepdim=True).add(1e-6).sqrt()
    torch.testing.assert_close(final_norm(llama, state), state / root * llama.trunk.norm.weight)


def test_an_unknown_architecture_is_refused_with_the_page_that_says_what_to_do():
    with pytest.raises(ModelError, match="'mamba' is of no known family") as caught:
        family_of("mamba")
    assert "docs/adding-an-architecture.md" in caught.value.hint
    page = PAGE.read_text(encoding="utf-8")
    assert "from tunescope.capture import verify" in page
    for name in ("norms", "parallel_switch", "rotary", "fused_by_head", "language_head"):
        assert f"`{name}`" in page
