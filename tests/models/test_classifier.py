"""Loading, pooling by mask, saving: logits that do not depend on how rows are batched."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tiny import FAMILIES, NAMES, TEXTS, encode, logits, tiny_folder
from tunescope.data.labels import LabelMap
from tunescope.errors import ModelError
from tunescope.models import POOLINGS, load, load_trunk


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", FAMILIES)
def test_logits_do_not_depend_on_padding_or_batch_mates(kind, pooling, tmp_path):
    classifier = load(str(tiny_folder(kind, tmp_path)), pooling=pooling)
    alone = torch.cat([logits(classifier, [text]) for text in TEXTS])
    assert alone.std(0).min() > 1e-3, "the texts must differ in their logits for this test to mean anything"
    for side in ("right", "left"):
        for extra in (0, 7):
            torch.testing.assert_close(logits(classifier, TEXTS, side, extra), alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(classifier, TEXTS[::-1], "left"), alone.flip(0), atol=1e-5, rtol=1e-5)


def test_pad_id_inside_and_at_the_end_of_a_text_is_an_ordinary_token(tmp_path):
    classifier = load(str(tiny_folder("gpt2", tmp_path)))
    assert classifier.tokenizer.pad_token_id == 0
    for text in ("rain<|endoftext|>rain", "rain<|endoftext|>"):
        alone = logits(classifier, [text])
        torch.testing.assert_close(
            logits(classifier, [text, TEXTS[0]], extra=3)[:1], alone, atol=1e-5, rtol=1e-5
        )
    assert not torch.allclose(
        logits(classifier, ["rain"]), logits(classifier, ["rain<|endoftext|>"]), atol=1e-3
    )


@pytest.mark.parametrize("kind", FAMILIES)
def test_saved_means_the_same_elsewhere(kind, tmp_path):
    source = tiny_folder(kind, tmp_path / "source")
    classifier = load_trunk(str(source), labels=LabelMap(NAMES), seed=3)
    classifier.save(tmp_path / "saved", {"template": "{text}"})
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    assert plain.config.id2label == dict(enumerate(NAMES))
    with torch.no_grad():
        theirs = plain(**encode(classifier, TEXTS)).logits
    torch.testing.assert_close(theirs, logits(classifier, TEXTS), atol=1e-5, rtol=1e-5)
    again = load(str(tmp_path / "saved"), labels=LabelMap(NAMES))
    torch.testing.assert_close(logits(again, TEXTS), logits(classifier, TEXTS), atol=0, rtol=0)
    assert again.record["assumed"] == []


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_pooling_that_auto_classes_cannot_express_is_refused_by_them(kind, tmp_path):
    classifier = load_trunk(
        str(tiny_folder(kind, tmp_path / "source")), labels=LabelMap(NAMES), pooling="mean"
    )
    classifier.save(tmp_path / "saved")
    with pytest.raises(ValueError, match="tunescope"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    again = load(str(tmp_path / "saved"))
    assert again.pooling == "mean"
    torch.testing.assert_close(logits(again, TEXTS), logits(classifier, TEXTS), atol=0, rtol=0)


def test_head_initialisation_depends_on_the_seed_alone(tmp_path):
    folder = str(tiny_folder("gpt2", tmp_path))
    first, second = (load_trunk(folder, labels=LabelMap(NAMES), seed=5).model.score.weight for _ in range(2))
    torch.manual_seed(99)
    assert torch.equal(first, second)
    assert not torch.equal(first, load_trunk(folder, labels=LabelMap(NAMES), seed=6).model.score.weight)


def test_labels_are_aligned_by_name_and_never_guessed(tmp_path):
    folder = str(tiny_folder("bert", tmp_path / "named", names=["good", "bad", "fine"]))
    plain, aligned = load(folder), load(folder, labels=LabelMap(NAMES))
    torch.testing.assert_close(logits(aligned, TEXTS), logits(plain, TEXTS)[:, [1, 2, 0]])
    unnamed = str(tiny_folder("bert", tmp_path / "unnamed"))
    with pytest.raises(
        ModelError, match=r"(?s)saved without label names.*never guessed.*--label-map LABEL_0=bad"
    ) as caught:
        load(unnamed, labels=LabelMap(NAMES))
    assert caught.value.exit_code == 4
    mapped = load(unnamed, labels=LabelMap(NAMES), label_map={"LABEL_2": "bad", "0": "fine", "1": "good"})
    torch.testing.assert_close(logits(mapped, TEXTS), logits(load(unnamed), TEXTS)[:, [2, 0, 1]])
    with pytest.raises(ModelError, match="has other labels than the data"):
        load(folder, labels=LabelMap(("bad", "fine", "great")))


def test_a_folder_without_weights_or_with_pickles_only_is_refused(tmp_path):
    folder = tiny_folder("gpt2", tmp_path)
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    with pytest.raises(ModelError, match=r"has a config.json but no weights"):
        load(str(folder))
    (folder / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(ModelError, match=r"only pickled weights \(pytorch_model.bin\)"):
        load(str(folder))
    (folder / "pytorch_model.bin").unlink()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="could not be loaded"):
        load(str(folder))


def test_unknown_family_missing_folder_and_hub_ids_offline(tmp_path, monkeypatch):
    folder = tiny_folder("gpt2", tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "opt"}))
    with pytest.raises(ModelError, match="'opt' is of no known family; known model types: gpt2, bert"):
        load(str(folder))
    with pytest.raises(ModelError, match="is not a folder"):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="'gpt2-not-here' could not be had"):
        load("gpt2-not-here")


def test_a_trunk_is_no_classifier(tmp_path):
    classifier = load(str(tiny_folder("bert", tmp_path / "m")))
    classifier.trunk.save_pretrained(tmp_path / "trunk")
    classifier.tokenizer.save_pretrained(tmp_path / "trunk")
    with pytest.raises(ModelError, match="is not a trained classifier: its weights lack"):
        load(str(tmp_path / "trunk"))
    again = load_trunk(str(tmp_path / "trunk"), labels=LabelMap(NAMES))
    assert again.record["new_tensors"] == ["classifier.bias", "classifier.weight"]


def test_a_row_without_tokens_is_refused(tmp_path):
    classifier = load(str(tiny_folder("gpt2", tmp_path)))
    ids = torch.ones(2, 4, dtype=torch.long)
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]])
    with pytest.raises(ModelError, match="Row 1 of the batch has no token"):
        classifier(ids, mask)
