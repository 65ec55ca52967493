"""Patching between runs: against hooks on whole passes, and by laws that hold for any model."""

from __future__ import annotations

import pytest
import torch

from tiny import FAMILIES, encode, families, logits, tiny_folder
from tunescope.capture import Edit, Site, editing, read
from tunescope.capture.patch import PatchPlace, patched_logits
from tunescope.capture.patch_tokens import changed_tokens
from tunescope.errors import SiteError
from tunescope.models import load

CLEAN = ["the cat sat on the warm mat", "he was angry about the noise in the street", "a very good day"]
CORRUPT = ["the cat sat on the cold mat", "he was angry about the rain in the house", "a very sad day"]


def words_of(kind: str) -> tuple[list[str], list[str]]:
    """Byte-level tokens differ in number between words; single letters there."""
    if kind not in ("bert", "distilbert", "roberta"):
        return ["a b c d e f g", "k l m n o", "p q"], ["a b c z e f g", "k x m y o", "p z"]
    return CLEAN, CORRUPT


def naive(model, clean, corrupt, place: PatchPlace) -> torch.Tensor:
    """One full forward pass a text with hooks that write the donor's values."""
    out = []
    for one, other in zip(clean, corrupt, strict=True):
        ours, theirs = encode(model, [one]), encode(model, [other])
        length = ours["input_ids"].shape[1]
        changed = changed_tokens(ours["input_ids"], theirs["input_ids"])[0]
        begun = changed.cumsum(0) > 0
        pooled = torch.zeros(length, dtype=torch.bool)
        pooled[length - 1 if model.pooling == "last" else 0] = True
        number = torch.zeros(length, dtype=torch.bool)
        if isinstance(place.positions, int):
            number[place.positions] = True
        mask = {
            "all": torch.ones(length, dtype=torch.bool), "at": changed, "before": ~begun, "after": begun & ~changed,
            "pooled": pooled,
        }.get(place.positions, number)  # fmt: skip
        site = Site("head_z", place.site.layer) if place.site.name == "head_out" else place.site
        value = read(model, [site], theirs)[site]
        heads = place.heads
        if site.name == "head_z":
            heads = tuple(range(model.n_heads)) if heads is None else heads
            value = value[:, :, list(heads)]

        def put(old, value=value, mask=mask):
            shape = (1, -1) + (1,) * (old.dim() - 2)
            kept = mask.view(shape)
            if place.dimensions is not None:
                own = torch.zeros(old.shape[-1], dtype=torch.bool)
                own[list(place.dimensions)] = True
                kept = kept & own
            return torch.where(kept, value, old)

        with torch.no_grad(), editing(model, [Edit(site, put, heads)]):
            out.append(model(**ours))
    return torch.cat(out)


def places_of(model) -> list[PatchPlace]:
    positions = ["at", "after", "pooled", -2]
    found = [
        PatchPlace(Site(name, layer), None, where)
        for layer in (0, model.n_layers - 1) for name in ("resid_pre", "attn_out", "mlp_out", "resid_post")
        for where in positions
    ]  # fmt: skip
    found += [
        PatchPlace(Site("head_out", layer), heads, where)
        for layer in (1, model.n_layers - 1) for heads in ((1, 3), None) for where in ("all", "at")
    ]  # fmt: skip
    last = model.n_layers - 1
    found += [
        PatchPlace(Site(name, layer), dimensions=(1, 6))
        for name, layer in (("resid_post", 0), ("resid_post", last), ("attn_out", 1), ("resid_pre", last))
    ]
    return [*found, PatchPlace(Site("embeddings"), None, "at")]


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_place_equals_a_whole_pass_with_hooks(kind, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path)))
    clean, corrupt = (side[:2] for side in words_of(kind))
    places = places_of(model)
    ours, theirs, patched = patched_logits(model, encode(model, clean), encode(model, corrupt), places)
    torch.testing.assert_close(ours, logits(model, clean), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(theirs, logits(model, corrupt), atol=1e-5, rtol=1e-5)
    assert (ours - theirs).abs().max() > 0.1
    for place, found in zip(places, patched, strict=True):
        torch.testing.assert_close(
            found, naive(model, clean, corrupt, place), atol=2e-5, rtol=1e-5, msg=str(place)
        )


@pytest.mark.parametrize("pooling", ["mean", "first_raw"])
def test_other_poolings_too(pooling, tmp_path):
    model = load(str(tiny_folder("bert", tmp_path)), pooling=pooling)
    places = [
        PatchPlace(Site(name, 2), None, where) for name in ("resid_pre", "attn_out", "mlp_out", "resid_post")
        for where in ("at", "after")
    ]  # fmt: skip
    *_, patched = patched_logits(model, encode(model, CLEAN), encode(model, CORRUPT), places)
    for place, found in zip(places, patched, strict=True):
        torch.testing.assert_close(found, naive(model, CLEAN, CORRUPT, place), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", families("gpt2", "bert"))
def test_the_whole_stream_of_any_layer_carries_everything(kind, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path)))
    clean, corrupt = words_of(kind)
    places = [
        PatchPlace(Site(name, layer))
        for layer in range(model.n_layers)
        for name in ("resid_pre", "resid_post")
    ]
    ours, theirs, patched = patched_logits(model, encode(model, clean), encode(model, corrupt), places)
    torch.testing.assert_close(patched, theirs.expand_as(patched), atol=2e-5, rtol=1e-5)
    *_, back = patched_logits(model, encode(model, corrupt), encode(model, clean), places)
    torch.testing.assert_close(back, ours.expand_as(back), atol=2e-5, rtol=1e-5)


def test_a_causal_model_knows_nothing_of_the_change_before_it(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    clean, corrupt = words_of("gpt2")
    places = [
        PatchPlace(Site(name, layer), None, "before")
        for layer in range(3)
        for name in ("resid_pre", "mlp_out")
    ]
    ours, _, patched = patched_logits(model, encode(model, clean), encode(model, corrupt), places)
    assert torch.equal(patched, ours.expand_as(patched))  # to the last bit


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_padding_side_and_batch_mates_do_not_matter(kind, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path)))
    clean, corrupt = words_of(kind)
    places = places_of(model)
    together = patched_logits(
        model,
        encode(model, clean, side="left", extra=4),
        encode(model, corrupt, extra=1),
        places,
        tokens_at_once=40,
    )
    for row in range(len(clean)):
        alone = patched_logits(
            model, encode(model, clean[row : row + 1]), encode(model, corrupt[row : row + 1]), places
        )
        for ours, theirs in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[..., row : row + 1, :], theirs, atol=2e-5, rtol=1e-5)


def test_unequal_lengths_are_refused_with_the_pairs_name(tmp_path):
    model = load(str(tiny_folder("bert", tmp_path)))
    with pytest.raises(
        SiteError, match=r"Pair second: its texts have 5 and 6 tokens; .* \(1 of 2 pairs differ\)"
    ):
        patched_logits(
            model, encode(model, ["rain", "i love film"]), encode(model, ["day", "i love this film"]),
            [PatchPlace(Site("mlp_out", 0))], names=["first", "second"],
        )  # fmt: skip


def test_places_outside_the_model_are_refused_with_the_range(tmp_path):
    model = load(str(tiny_folder("bert", tmp_path)), pooling="mean")
    inputs = encode(model, ["rain"])

    def run(place):
        return patched_logits(model, inputs, inputs, [place])

    with pytest.raises(SiteError, match="layer 3 is outside the model; its layers are 0 to 2"):
        run(PatchPlace(Site("mlp_out", 3)))
    with pytest.raises(SiteError, match=r"heads \[4\] are outside the model; its heads are 0 to 3"):
        run(PatchPlace(Site("head_out", 0), (4,)))
    with pytest.raises(
        SiteError, match=r"dimensions \[32\] are outside the model; its dimensions are 0 to 31"
    ):
        run(PatchPlace(Site("resid_post", 1), dimensions=(3, 32)))
    with pytest.raises(SiteError, match="is patched by heads; dimensions are patched at attn_out"):
        PatchPlace(Site("head_out", 1), dimensions=(3,))
    with pytest.raises(SiteError, match="pools over all tokens"):
        run(PatchPlace(Site("mlp_out", 0), None, "pooled"))
    with pytest.raises(SiteError, match="Position 9 is outside rows of 3 tokens; expected -3 to 2"):
        run(PatchPlace(Site("mlp_out", 0), None, 9))
    with pytest.raises(SiteError, match="cannot be patched"):
        PatchPlace(Site("attn_pattern", 0))
    with pytest.raises(SiteError, match="has no heads"):
        PatchPlace(Site("mlp_out", 0), (1,))
    with pytest.raises(SiteError, match="There are no positions 'here'"):
        PatchPlace(Site("mlp_out", 0), None, "here")
