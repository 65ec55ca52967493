"""Sites, edits and partial runs on every family, against plain hooks and closed forms."""

from __future__ import annotations

import pytest
import torch

from tiny import FAMILIES, TEXTS, tiny_folder
from tunescope.capture import (
    Edit,
    Site,
    constant,
    editing,
    locate,
    read,
    reading,
    run_from,
    trace,
    verify,
    zero,
)
from tunescope.errors import EditError, SiteError
from tunescope.models import families as tables
from tunescope.models import load


@pytest.fixture(params=FAMILIES)
def classifier(request, tmp_path):
    return load(str(tiny_folder(request.param, tmp_path)))


def batch(classifier):
    encoded = classifier.tokenizer(TEXTS, padding=True, return_tensors="pt")
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def state(classifier):
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in classifier.modules())
    return hooks, classifier.training, {k: v.clone() for k, v in classifier.state_dict().items()}


def bias_of(classifier, layer):
    bias = locate(classifier, Site("attn_out", layer)).module.bias
    return torch.zeros(classifier.width) if bias is None else bias.detach()


def test_every_family_passes_its_own_verification(classifier):
    assert verify(classifier) is classifier


def test_head_outputs_plus_bias_sum_to_the_attention_output(classifier):
    for layer in range(classifier.n_layers):
        found = read(classifier, [Site("head_out", layer), Site("attn_out", layer)], batch(classifier))
        bias = bias_of(classifier, layer)
        torch.testing.assert_close(
            found[Site("head_out", layer)].sum(2) + bias, found[Site("attn_out", layer)], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
def test_residual_stream_adds_up_in_pre_norm_models(kind, tmp_path):
    classifier = load(str(tiny_folder(kind, tmp_path)))
    names = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
    found = {s.name: v for s, v in read(classifier, [Site(n, 1) for n in names], batch(classifier)).items()}
    torch.testing.assert_close(found["resid_pre"] + found["attn_out"], found["resid_mid"])
    torch.testing.assert_close(found["resid_mid"] + found["mlp_out"], found["resid_post"])
    embeddings = read(classifier, [Site("embeddings"), Site("resid_pre", 0)], batch(classifier))
    assert torch.equal(embeddings[Site("embeddings")], embeddings[Site("resid_pre", 0)])


def test_zeroing_all_heads_equals_leaving_only_the_projection_bias(classifier):
    inputs = batch(classifier)
    for layer in range(classifier.n_layers):
        bias = bias_of(classifier, layer)
        with torch.no_grad():
            with editing(classifier, [zero(Site("head_z", layer))]) as report:
                heads = classifier(**inputs)
            with editing(classifier, [constant(Site("attn_out", layer), bias)]):
                removed = classifier(**inputs)
            with editing(classifier, [zero(Site("head_out", layer), tuple(range(classifier.n_heads)))]):
                summed = classifier(**inputs)
            clean = classifier(**inputs)
        torch.testing.assert_close(heads, removed, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(summed, removed, atol=1e-4, rtol=1e-5)
        assert not torch.allclose(clean, removed, atol=1e-3)
        assert report.tensors == {f"head_z[{layer}]": 1}
        elements = inputs["input_ids"].numel() * classifier.n_heads * classifier.head_width
        assert report.elements == {f"head_z[{layer}]": elements}


def test_editing_one_head_touches_that_slice_only(classifier):
    inputs = batch(classifier)
    place = locate(classifier, Site("attn_out", 1)).module
    clean, edited = [], []

    def keep(into):
        return place.register_forward_pre_hook(lambda _m, a: into.append(a[0].detach().clone()))

    with torch.no_grad():
        handle = keep(clean)
        classifier(**inputs)
        handle.remove()
        with editing(classifier, [zero(Site("head_z", 1), (2,))]) as report:
            handle = keep(edited)  # registered after the edit, so it sees what the projection sees
            classifier(**inputs)
            handle.remove()
    width = classifier.head_width
    assert not edited[0][..., 2 * width : 3 * width].any()
    rest = [i for i in range(classifier.n_heads * width) if not 2 * width <= i < 3 * width]
    assert torch.equal(edited[0][..., rest], clean[0][..., rest])
    assert report.elements == {"head_z[1]": inputs["input_ids"].numel() * width}


def test_nothing_is_left_behind_even_after_an_error(classifier):
    inputs = batch(classifier)
    before = state(classifier)
    with torch.no_grad():
        clean = classifier(**inputs)
        with (
            pytest.raises(RuntimeError, match="on purpose"),
            editing(classifier, [zero(Site("mlp_out", 0))]),
            reading(classifier, [Site("attn_pattern", 0)], print_none),
        ):
            raise RuntimeError("on purpose")
        after = classifier(**inputs)
    hooks, training, weights = state(classifier)
    assert (hooks, training) == before[:2]
    assert all(torch.equal(weights[key], value) for key, value in before[2].items())
    assert torch.equal(clean, after)
    assert classifier.model.config._attn_implementation == "sdpa"


def print_none(_site, _value):
    return None


def test_running_from_a_block_equals_a_full_pass_with_the_same_edit(classifier):
    inputs = batch(classifier)
    stored = trace(classifier, inputs)
    for layer in range(classifier.n_layers):
        edit = [zero(Site("head_z", layer), (1,))]
        with torch.no_grad(), editing(classifier, edit):
            full = classifier(**inputs)
        with editing(classifier, edit):
            partial = run_from(classifier, stored, layer, copies=3)
        torch.testing.assert_close(partial, full.repeat(3, 1), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(full, stored.logits, atol=1e-5)


def test_attention_patterns_sum_to_one_and_ignore_padding(classifier):
    inputs = batch(classifier)
    pattern = read(classifier, [Site("attn_pattern", 0)], inputs)[Site("attn_pattern", 0)]
    mask = inputs["attention_mask"].bool()
    sums = pattern.sum(-1).transpose(1, 2)[mask]
    torch.testing.assert_close(sums, torch.ones_like(sums))
    assert float(pattern.masked_fill(mask[:, None, None, :], 0).max()) < 1e-6


def test_bad_sites_and_edits_are_refused(classifier):
    with pytest.raises(SiteError, match="layer 9 is outside the model; its layers are 0 to 2"):
        read(classifier, [Site("resid_post", 9)], batch(classifier))
    with pytest.raises(SiteError, match="There is no site 'resid'"):
        Site.parse("resid[1]")
    with pytest.raises(SiteError, match=r"needs a layer, for example 'head_out\[0\]'"):
        Site.parse("head_out")
    with pytest.raises(SiteError, match="has no layer"):
        Site.parse("pooled[1]")
    with (
        pytest.raises(EditError, match="heads are 0 to 3"),
        editing(classifier, [zero(Site("head_z", 0), (4,))]),
    ):
        pass
    with pytest.raises(EditError, match="hit nothing"), editing(classifier, [zero(Site("mlp_out", 0))]):
        pass
    with (
        pytest.raises(EditError, match="expected"),
        editing(classifier, [Edit(Site("mlp_out", 0), lambda a: a[:1])]),
    ):
        classifier(**batch(classifier))
    if classifier.family.norm_order == "post":
        with pytest.raises(SiteError, match="no final norm"):
            read(classifier, [Site("final_norm_out")], batch(classifier))
    elif classifier.is_parallel:
        with pytest.raises(SiteError, match="both read resid_pre"):
            read(classifier, [Site("resid_mid", 0)], batch(classifier))
    else:
        with (
            pytest.raises(EditError, match="can be read but not edited"),
            editing(classifier, [zero(Site("resid_mid", 0))]),
        ):
            pass


def test_a_wrong_table_is_found_out(tmp_path):
    classifier = load(str(tiny_folder("bert", tmp_path)))
    from dataclasses import replace

    classifier.family = replace(tables.BERT, attention_projection="encoder.layer.{layer}.intermediate.dense")
    with pytest.raises((SiteError, RuntimeError)):
        verify(classifier)
    classifier.family = replace(tables.BERT, block="encoder.layer.0")
    with pytest.raises(SiteError):
        verify(classifier)
