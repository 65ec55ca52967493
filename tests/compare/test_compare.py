"""Two checkpoints that transformers' own Trainer wrote, one of them a peft adapter, compared."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from tiny import tiny_folder
from tunescope.checkpoints import CompareRequest, compare_folders
from tunescope.config import DataConfig, LensConfig
from tunescope.errors import DataError, ModelError
from tunescope.models.source import quiet_transformers
from tunescope.stats.results import Result, load_findings

NAMES = ["anger", "joy"]
GOOD, BAD = ["love", "film", "good", "warm"], ["angry", "sad", "noise", "cold"]
OTHER = [
    "the",
    "cat",
    "sat",
    "on",
    "mat",
    "and",
    "rain",
    "day",
    "very",
    "old",
    "house",
    "he",
    "was",
    "street",
]
LENSES = (
    LensConfig(lens="cka", options={"rows": {"n": 40}}),
    LensConfig(lens="ablation", options={"rows": {"n": 24}, "reference_rows": 24, "random_control": False}),
)


def labelled(n: int = 160, seed: int = 0) -> tuple[list[str], list[str]]:
    generator = np.random.default_rng(seed)
    texts, labels = [], []
    for index in range(n):
        label = index % 2
        words = [*generator.choice(OTHER, 4), *generator.choice(GOOD if label else BAD, 2)]
        texts.append(" ".join(generator.permutation(words)))
        labels.append(NAMES[label])
    return texts, labels


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base, a Trainer checkpoint with label names, and a LoRA adapter without, all trained for real."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

    root = tmp_path_factory.mktemp("folders")
    base = tiny_folder("gpt2", root / "base", n_labels=2, scale=0.08)
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts, labels = labelled()
    tokenizer.pad_token = tokenizer.eos_token
    rows = [
        {**tokenizer(text, padding="max_length", max_length=40), "labels": NAMES.index(label)}
        for text, label in zip(texts, labels, strict=True)
    ]
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}

    def train(model, folder, rate):
        arguments = TrainingArguments(
            folder, learning_rate=rate, num_train_epochs=6, per_device_train_batch_size=16, report_to="none",
            disable_tqdm=True, seed=0, use_cpu=True, eval_strategy="epoch", save_strategy="epoch",
            dataloader_pin_memory=False,
        )  # fmt: skip
        Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, processing_class=tokenizer).train()

    with warnings.catch_warnings(), quiet_transformers():
        warnings.simplefilter("ignore")
        train(
            AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, **names),
            root / "full",
            5e-3,
        )
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
        lora = LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=16, target_modules=["c_attn"])
        train(get_peft_model(model, lora), root / "lora", 1e-2)
    full, adapter = (
        sorted((root / n).glob("checkpoint-*"), key=lambda p: int(p.name[11:]))[-1] for n in ("full", "lora")
    )
    texts, labels = labelled(200, seed=1)
    pl.DataFrame({"text": texts, "label": labels}).write_csv(root / "rows.csv")
    return {"base": base, "full": full, "lora": adapter, "rows": root / "rows.csv"}


def request_for(folders, tuned, folder, **options):
    data = DataConfig(path=str(folders["rows"]), text="text", label="label")
    return CompareRequest(
        str(folders["base"]),
        [str(path) for path in tuned],
        data,
        folder,
        lenses=LENSES,
        device="cpu",
        **options,
    )


def test_a_trainer_checkpoint_compared_with_its_base(folders, tmp_path):
    run = compare_folders(request_for(folders, [folders["full"]], tmp_path / "run"))
    page = (run / "report.html").read_text(encoding="utf-8")
    about = json.loads((run / "compare.json").read_text())
    assert list(about["tuned"].values()) == [str(folders["full"])]
    assert any("max_length" in item for item in about["assumptions"])
    logged = about["logged_metrics"][0]["logged"]
    assert logged["step"] == 60
    assert logged["eval_loss"] < 0.3
    name = next(iter(about["tuned"]))
    metrics = json.loads((run / "arms" / name / "seed-0" / "metrics.json").read_text())
    accuracy = next(r for r in metrics["records"] if r["metric"] == "accuracy")
    assert accuracy["value"] > 0.9
    assert accuracy["low"] < accuracy["value"] <= accuracy["high"]
    table = Result.load(run / "results", "ablation").table
    assert set(table["model"]) == {"base", "tuned", "tuned_minus_base"}
    assert load_findings(run / "findings.json")
    assert name in page


def test_an_adapter_needs_its_labels_named_and_is_then_a_tuned_model_like_any_other(folders, tmp_path):
    with pytest.raises(ModelError, match="--label-map LABEL_0=anger --label-map LABEL_1=joy"):
        compare_folders(request_for(folders, [folders["lora"]], tmp_path / "refused"))
    mapping = {"LABEL_0": "anger", "LABEL_1": "joy"}
    run = compare_folders(request_for(folders, [folders["lora"]], tmp_path / "run", label_map=mapping))
    metrics = json.loads(next((run / "arms").glob("*/seed-0/metrics.json")).read_text())
    assert next(r for r in metrics["records"] if r["metric"] == "accuracy")["value"] > 0.9
    swapped = compare_folders(
        request_for(folders, [folders["lora"]], tmp_path / "swapped", label_map={"0": "joy", "1": "anger"})
    )
    notes = json.loads((swapped / "compare.json").read_text())["notes"]
    assert any("Labels may be permuted" in note and "Nothing was changed" in note for note in notes)


def test_a_model_compared_with_itself_gives_no_findings(folders, tmp_path):
    folders = {**folders, "base": folders["full"]}
    run = compare_folders(request_for(folders, [folders["full"]], tmp_path / "run"))
    assert load_findings(run / "findings.json") == []
    notes = json.loads((run / "compare.json").read_text())["notes"]
    assert any("one and the same model" in note for note in notes)


def test_a_checkpoint_that_shares_only_the_trunk_has_no_findings_about_its_inside(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other-head"
    shutil.copytree(folders["full"], other)
    tensors = load_file(other / "model.safetensors")
    tensors["score.weight"] = tensors["score.weight"] * 1.5
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    run = compare_folders(request_for({**folders, "base": folders["full"]}, [other], tmp_path / "run"))
    kinds = {finding.metric for finding in load_findings(run / "findings.json")}
    assert kinds == {"margin_change"}
    notes = json.loads((run / "compare.json").read_text())["notes"]
    assert any("every weight of the trunk equals the base's" in note for note in notes)


def test_rows_of_one_given_split_alone_are_refused(folders, tmp_path):
    data = DataConfig(path={"test": str(folders["rows"])}, text="text", label="label")
    request = replace(request_for(folders, [folders["full"]], tmp_path / "run"), data=data)
    with pytest.raises(DataError, match="there are no train and no validation rows"):
        compare_folders(request)
    assert not (tmp_path / "run").exists()
