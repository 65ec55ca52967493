"""peft adapters are opened as the tuned models they stand for."""

from __future__ import annotations

import warnings

import pytest
import torch

from tiny import NAMES, TEXTS, encode, logits, tiny_folder
from tunescope.capture import verify
from tunescope.data.labels import LabelMap
from tunescope.errors import ModelError
from tunescope.models import load
from tunescope.models.source import quiet_transformers

peft = pytest.importorskip("peft")
MAP = {str(index): name for index, name in enumerate(NAMES)}


def adapter(kind, base, folder, **options):
    """Write an adapter with random (not zero) updates and return the logits that peft itself gives."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(1)
    with warnings.catch_warnings(), quiet_transformers():
        warnings.simplefilter("ignore")
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
        tuned = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=8, **options))
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if "lora_" in name or "modules_to_save" in name:
                    parameter.normal_(0, 0.3)
        tuned.eval().save_pretrained(folder)
    return tuned


@pytest.mark.parametrize(
    ("kind", "targets"), [("gpt2", ["c_attn"]), ("bert", ["query", "value"]), ("roberta", ["query"])]
)
def test_an_adapter_gives_the_logits_that_peft_gives(kind, targets, tmp_path):
    base = tiny_folder(kind, tmp_path / "base")
    tuned = adapter(kind, base, tmp_path / "adapter", task_type="SEQ_CLS", target_modules=targets)
    classifier = verify(load(str(tmp_path / "adapter"), labels=LabelMap(NAMES), label_map=MAP))
    assert classifier.record["adapter_of"] == str(base)
    with torch.no_grad():
        theirs = tuned(**encode(classifier, TEXTS)).logits
    torch.testing.assert_close(logits(classifier, TEXTS), theirs, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits(load(str(base)), TEXTS), theirs, atol=1e-2)


def test_the_base_may_be_given_by_hand(tmp_path):
    base = tiny_folder("gpt2", tmp_path / "base")
    adapter("gpt2", base, tmp_path / "adapter", task_type="SEQ_CLS", target_modules=["c_attn"])
    moved = base.rename(tmp_path / "moved")
    with pytest.raises(ModelError, match="is not a folder"):
        load(str(tmp_path / "adapter"))
    assert load(str(tmp_path / "adapter"), base=str(moved)).n_layers == 3


def test_an_adapter_without_its_head_is_refused(tmp_path):
    base = tiny_folder("bert", tmp_path / "base")
    adapter("bert", base, tmp_path / "adapter", target_modules=["query"])
    with pytest.raises(ModelError, match=r"saved without its head \(classifier\).*random head"):
        load(str(tmp_path / "adapter"))
