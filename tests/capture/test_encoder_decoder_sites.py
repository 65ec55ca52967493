"""Sites, edits and partial runs in both stacks and cross-attention, against transformers' outputs and plain hooks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tiny import TEXTS, encode, tiny_folder
from tiny_encoder_decoder import KINDS, folder_of
from tunescope.capture import Site, constant, editing, locate, read, reading, run_from, trace, verify, zero
from tunescope.capture.encoder_decoder import run_from_stack, trace_stacks
from tunescope.errors import EditError, SiteError
from tunescope.models import load
from tunescope.models.encoder_decoder import decoder_inputs

PLACES = [("encoder", "head_z"), ("decoder", "head_z"), ("decoder", "cross_head_z")]


@pytest.fixture(params=KINDS, scope="module")
def model(request, tmp_path_factory):
    return load(str(folder_of(request.param, tmp_path_factory.mktemp(request.param))))


def theirs(model, inputs):
    """Return transformers' own outputs under eager attention."""
    model.model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model.trunk(
            **inputs, decoder_input_ids=decoder_inputs(inputs["input_ids"], model.model.config),
            output_attentions=True, output_hidden_states=True,
        )  # fmt: skip
    model.model.set_attn_implementation("sdpa")
    return out


def test_every_family_passes_its_own_verification(model):
    assert verify(model) is model
    assert model.model.config._attn_implementation == "sdpa"
    assert model.trunk.get_submodule("encoder").config._attn_implementation == "sdpa"


def test_patterns_and_streams_are_those_that_transformers_gives(model):
    inputs = encode(model, TEXTS)
    out = theirs(model, inputs)
    real = inputs["attention_mask"].bool()
    for stack in model.stacks:
        patterns = getattr(out, f"{stack.name}_attentions")
        streams = getattr(out, f"{stack.name}_hidden_states")
        for layer in range(stack.n_layers):
            site, before = Site("attn_pattern", layer, stack.name), Site("resid_pre", layer, stack.name)
            found = read(model, [site, before], inputs)
            ours, expected = found[site].transpose(1, 2)[real], patterns[layer].transpose(1, 2)[real]
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(found[before][real], streams[layer][real], atol=1e-4, rtol=1e-4)
    for layer, expected in enumerate(out.cross_attentions):
        ours = read(model, [Site("cross_attn_pattern", layer)], inputs)[Site("cross_attn_pattern", layer)]
        torch.testing.assert_close(
            ours.transpose(1, 2)[real], expected.transpose(1, 2)[real], atol=1e-5, rtol=1e-5
        )
        assert float((ours - ours.mean(-1, keepdim=True)).abs().max()) > 0.01  # not the same everywhere


@pytest.mark.parametrize(("stack", "name"), PLACES)
def test_editing_one_head_equals_a_hand_written_hook(model, stack, name):
    inputs = encode(model, TEXTS)
    site = Site(name, 1, stack)
    module = locate(model, site).module
    width = next(one for one in model.stacks if one.name == stack).head_width

    def by_hand(_module, given):
        changed = given[0].clone()
        changed[..., width : 2 * width] = 0
        return (changed, *given[1:])

    with torch.no_grad():
        clean = model(**inputs)
        handle = module.register_forward_pre_hook(by_hand)
        expected = model(**inputs)
        handle.remove()
        with editing(model, [zero(site, (1,))]) as report:
            ours = model(**inputs)
        with editing(model, [zero(Site(name.replace("_z", "_out"), 1, stack), (1,))]):
            after = model(**inputs)
        assert torch.equal(model(**inputs), clean)
    assert torch.equal(ours, expected)
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours, clean, atol=1e-4)
    assert report.tensors == {f"{stack}.{name}[1]": 1}
    assert report.elements == {f"{stack}.{name}[1]": inputs["input_ids"].numel() * width}


@pytest.mark.parametrize(("stack", "name"), PLACES)
def test_zeroing_all_heads_leaves_only_the_projections_bias(model, stack, name):
    inputs = encode(model, TEXTS)
    out = Site(name.replace("head_z", "attn_out"), 0, stack)
    bias = locate(model, out).module.bias
    rest = torch.zeros(model.width) if bias is None else bias.detach()
    with torch.no_grad():
        with editing(model, [zero(Site(name, 0, stack))]):
            heads = model(**inputs)
        with editing(model, [constant(out, rest)]):
            whole = model(**inputs)
    torch.testing.assert_close(heads, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("stack", "name"), [*PLACES, ("encoder", "mlp_out"), ("decoder", "mlp_neurons")])
def test_running_from_a_block_equals_a_full_pass_with_the_same_edit(model, stack, name):
    inputs = encode(model, TEXTS)
    stored = trace_stacks(model, inputs)
    layers = next(one for one in model.stacks if one.name == stack).n_layers
    for layer in range(layers):
        edit = [zero(Site(name, layer, stack))]
        with torch.no_grad(), editing(model, edit):
            full = model(**inputs)
        with editing(model, edit):
            partial = run_from_stack(model, stored, stack, layer, copies=3)
        torch.testing.assert_close(partial, full.repeat(3, 1), atol=2e-5, rtol=2e-5)
        assert not torch.allclose(full, stored.logits, atol=1e-4)


def test_the_decoder_alone_runs_as_any_other_model(model):
    inputs = encode(model, TEXTS)
    stored = trace(model, inputs)
    torch.testing.assert_close(run_from(model, stored, 1), stored.logits, atol=2e-5, rtol=2e-5)


def test_one_row_alone_runs_from_any_block(model):
    inputs = encode(model, TEXTS[:1])  # T5's position bias then has the batch's size, 1
    stored = trace_stacks(model, inputs)
    for stack in ("encoder", "decoder"):
        again = run_from_stack(model, stored, stack, 1, copies=2)
        torch.testing.assert_close(again, stored.logits.repeat(2, 1), atol=2e-5, rtol=2e-5)


def test_sites_are_written_and_read_with_their_stack():
    for text in ("decoder.head_out[3]", "encoder.final_norm_out", "decoder.cross_attn_pattern[0]", "pooled"):
        assert str(Site.parse(text)) == text
    assert Site("cross_head_z", 2) == Site("cross_head_z", 2, "decoder")
    with pytest.raises(SiteError, match="The encoder has no cross_head_z"):
        Site("cross_head_z", 2, "encoder")
    with pytest.raises(SiteError, match="There is no stack 'middle'; the stacks are encoder and decoder"):
        Site.parse("middle.head_out[3]")
    with pytest.raises(SiteError, match="'logits' is of the whole model"):
        Site.parse("decoder.logits")
    with pytest.raises(SiteError, match="needs a layer"):
        Site("cross_attn_out")


def test_a_site_without_or_with_a_wrong_stack_is_refused(model, tmp_path):
    inputs = encode(model, TEXTS)
    with pytest.raises(SiteError, match=r"write encoder.resid_post\[0\] or decoder.resid_post\[0\]"):
        read(model, [Site("resid_post", 0)], inputs)
    with pytest.raises(
        SiteError, match=r"decoder.mlp_out\[2\]: layer 2 is outside the model; its layers are 0 to 1"
    ):
        read(model, [Site("mlp_out", 2, "decoder")], inputs)
    with (
        pytest.raises(EditError, match="its heads are 0 to"),
        editing(model, [zero(Site("cross_head_z", 0), (40,))]),
    ):
        pass
    gpt2 = load(str(tiny_folder("gpt2", tmp_path / "gpt2")))
    with pytest.raises(
        SiteError, match=r"GPT-2 has one stack of blocks, so there is no decoder.cross_attn_out\[0\]"
    ):
        read(gpt2, [Site("cross_attn_out", 0)], inputs)
    with pytest.raises(SiteError, match="GPT-2 has one stack"):
        trace_stacks(gpt2, inputs)


def test_wrong_tables_are_found_out(model):
    right = model.family
    wrong = [
        replace(right, cross_attention_projection=right.attention_projection),
        replace(right, attention_projection=right.cross_attention_projection),
        replace(right, block=right.block.replace("{layer}", "0")),
        replace(right, mlp_projection=right.encoder.mlp_projection),
        replace(right, encoder=replace(right.encoder, attention_projection=right.encoder.query)),
        replace(right, encoder=replace(right.encoder, middle=right.middle)),
    ]
    try:
        for table in wrong:
            model.family = table
            with pytest.raises((SiteError, RuntimeError)):
                verify(model)
    finally:
        model.family = right


def test_nothing_is_left_behind_after_an_error(model):
    inputs = encode(model, TEXTS)
    # transformers leaves hooks of its own once it was asked for attentions
    hooks = [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules()]
    with torch.no_grad():
        clean = model(**inputs)
        with (
            pytest.raises(RuntimeError, match="on purpose"),
            editing(model, [zero(Site("cross_attn_out", 0))]),
            reading(model, [Site("cross_attn_pattern", 0)], lambda _site, _value: None),
        ):
            raise RuntimeError("on purpose")
        assert torch.equal(model(**inputs), clean)
    assert hooks == [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules()]
