"""One logit for two classes: the same loss, gradients and seed as elsewhere, and a folder Auto classes refuse."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from tiny import FAMILIES, NAMES, TEXTS, encode, logits, tiny_folder
from tunescope.capture import verify
from tunescope.data.labels import LabelMap
from tunescope.errors import ModelError
from tunescope.models import load, load_trunk

TWO = LabelMap(("bad", "good"))


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("sigmoid")
    return {kind: tiny_folder(kind, root / kind) for kind in FAMILIES}


@pytest.mark.parametrize("pooling", [None, "mean"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_one_logit_with_a_bias_is_trained_saved_and_read_back(kind, pooling, bases, tmp_path):
    classifier = verify(load_trunk(str(bases[kind]), labels=TWO, pooling=pooling, head="sigmoid", seed=3))
    layer = classifier.model.get_submodule(classifier.family.head)
    assert (layer.weight.shape, layer.bias.shape) == ((1, 32), (1,))
    with torch.no_grad():
        layer.bias.fill_(0.3)
    inputs = encode(classifier, TEXTS)
    values = classifier(**inputs)
    assert values.shape == (8, 2)
    assert not values[:, 0].any()
    torch.testing.assert_close(values.softmax(1)[:, 1], values[:, 1].sigmoid())

    labels = torch.arange(8) % 2
    functional.cross_entropy(values, labels).backward()
    ours = layer.weight.grad.clone()
    classifier.zero_grad()
    functional.binary_cross_entropy_with_logits(classifier(**inputs)[:, 1], labels.float()).backward()
    torch.testing.assert_close(layer.weight.grad, ours)

    classifier.save(tmp_path)
    with pytest.raises(ValueError, match=r"tunescope-.*-sigmoid"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
    again = load(str(tmp_path), labels=TWO)
    assert (again.head_kind, again.labels.names) == ("sigmoid", TWO.names)
    assert torch.equal(logits(again, TEXTS), logits(classifier, TEXTS))
    turned = load(str(tmp_path), labels=LabelMap(("good", "bad")))
    assert torch.equal(logits(turned, TEXTS), logits(classifier, TEXTS).flip(1))
    with pytest.raises(ModelError, match="reordered head"):
        turned.save(tmp_path / "turned")


def test_the_head_depends_on_the_seed_alone_and_the_bias_starts_at_0(bases):
    first, same, other = (
        load_trunk(str(bases["gpt2"]), labels=TWO, head="sigmoid", seed=seed).model.score
        for seed in (5, 5, 6)
    )
    assert torch.equal(first.weight, same.weight)
    assert not torch.equal(first.weight, other.weight)
    assert not first.bias.any()


def test_more_than_two_labels_and_unknown_heads_are_refused(bases):
    with pytest.raises(ModelError, match="exactly two labels apart, and the data has 3"):
        load_trunk(str(bases["gpt2"]), labels=LabelMap(NAMES), head="sigmoid")
    with pytest.raises(ModelError, match="no head 'tanh'; the heads are softmax and sigmoid"):
        load_trunk(str(bases["gpt2"]), labels=TWO, head="tanh")


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_a_folder_with_one_logit_can_be_the_base_of_another_head(kind, bases, tmp_path):
    load_trunk(str(bases[kind]), labels=TWO, head="sigmoid").save(tmp_path / "one")
    three = load_trunk(str(tmp_path / "one"), labels=LabelMap(NAMES))
    assert three.head_kind == "softmax"
    three.save(tmp_path / "three")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "three").eval()
    with torch.no_grad():
        theirs = plain(**encode(three, TEXTS)).logits
    torch.testing.assert_close(theirs, logits(three, TEXTS), atol=1e-5, rtol=1e-5)


def test_a_folder_whose_bias_is_missing_is_refused(bases, tmp_path):
    from safetensors.torch import load_file, save_file

    load_trunk(str(bases["gpt2"]), labels=TWO, head="sigmoid").save(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["score.bias"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"its weights lack score.bias"):
        load(str(tmp_path))
