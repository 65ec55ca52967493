from __future__ import annotations

import pytest
from pydantic import ValidationError

from tiny import tiny_folder
from tunescope.data.labels import LabelMap
from tunescope.models import load_trunk
from tunescope.tuning import METHODS


def test_every_method_is_named_as_it_is_listed():
    assert {name: method.name for name, method in METHODS.items()} == {
        "full": "full",
        "head_only": "head_only",
    }


@pytest.mark.parametrize("name", list(METHODS))
def test_unknown_options_are_refused(name):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        METHODS[name].options.model_validate({"rank": 8})


@pytest.mark.parametrize("kind", ["gpt2", "bert", "distilbert", "roberta"])
@pytest.mark.parametrize("pooling", [None, "mean"])
def test_head_only_trains_the_head_and_nothing_below_it(kind, pooling, tmp_path):
    classifier = load_trunk(
        str(tiny_folder(kind, tmp_path / kind)), labels=LabelMap(("a", "b", "c")), pooling=pooling
    )
    method = METHODS["head_only"]
    method.prepare(classifier, method.options())
    trained = {name for name, value in classifier.model.named_parameters() if value.requires_grad}
    head = {id(value) for value in classifier.head.parameters()}
    assert trained == {name for name, value in classifier.model.named_parameters() if id(value) in head}
    assert any(family_head in name for name in trained for family_head in ("score", "classifier"))
    assert not any("layer" in name or ".h." in name or "embeddings" in name for name in trained)
    METHODS["full"].prepare(classifier, METHODS["full"].options())
    assert all(value.requires_grad for value in classifier.parameters())
