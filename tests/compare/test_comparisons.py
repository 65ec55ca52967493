"""Comparisons that are more than a pair: what is resumed, seeds of one arm, two runs, other shapes, exports."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from strangers import NAMES, labelled

from tiny import tiny_folder
from tunescope.checkpoints import CompareRequest, compare_folders
from tunescope.checkpoints.usual import usual_lenses
from tunescope.config import DataConfig, LensConfig
from tunescope.data.rows import Rows
from tunescope.data.tokens import tokenize
from tunescope.errors import LensError, ModelError
from tunescope.evaluation.predict import predict
from tunescope.models import load
from tunescope.progress import Progress
from tunescope.stats.results import Result

CKA = LensConfig(lens="cka", options={"rows": {"n": 20}})
ABLATION = LensConfig(
    lens="ablation",
    options={"rows": {"n": 8}, "reference_rows": 8, "random_control": False, "edits": ["mean"]},
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base, two tuned models of it (every weight moved), and rows."""
    root = tmp_path_factory.mktemp("comparisons")
    base = tiny_folder("gpt2", root / "base", n_labels=2, layers=2, names=NAMES)
    for seed in (0, 1):
        moved(base, root / "arms" / "full" / f"seed-{seed}" / "model", seed)
    texts, labels = labelled(60, seed=1)
    pl.DataFrame({"text": texts, "label": labels, "other": labels}).write_csv(root / "rows.csv")
    return root


def moved(base, folder, seed, size=0.05):
    shutil.copytree(base, folder)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: tensor + size * torch.randn(tensor.shape, generator=generator)
        for name, tensor in load_file(base / "model.safetensors").items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def compared(root, tuned, folder, lenses=(CKA,), base=None, progress=None, **options):
    data = DataConfig(path=str(root / "rows.csv"), text="text", label="label")
    request = CompareRequest(
        str(base or root / "base"),
        [str(one) for one in tuned],
        data,
        folder,
        lenses=lenses,
        device="cpu",
        **options,
    )
    return compare_folders(request, *([progress] if progress else []))


class Told(Progress):
    """Keeps what is said."""

    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.mark.usefixtures("no_page")
def test_an_interrupted_comparison_goes_on_where_it_was(root, tmp_path, monkeypatch):
    from tunescope.checkpoints import compare as module

    tuned = [root / "arms" / "full" / f"seed-{seed}" / "model" for seed in (0, 1)]
    true_look, seen = module.look, []

    def interrupted(subject, wanted, lenses):
        seen.append((subject.arm, [name for name, _ in wanted]))
        if len(seen) == 4:
            raise KeyboardInterrupt
        return true_look(subject, wanted, lenses)

    monkeypatch.setattr(module, "look", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compared(root, tuned, tmp_path / "run", (CKA, ABLATION))
    assert not (tmp_path / "run" / "findings.json").exists()
    told = Told()
    run = compared(root, tuned, tmp_path / "run", (CKA, ABLATION), progress=told)
    assert [names for _, names in seen] == [["cka"], ["ablation"], ["cka"], ["ablation"], ["ablation"]]
    assert told.lines[0].endswith("6 of 9 stages are done and undamaged; 3 to do.")
    whole = compared(root, tuned, tmp_path / "whole", (CKA, ABLATION))
    for lens in ("cka", "ablation"):
        resumed, at_once = (Result.load(folder / "results", lens).table for folder in (run, whole))
        assert resumed.equals(at_once)
    before = (run / "findings.json").stat().st_mtime_ns
    compared(root, tuned, run, (CKA, ABLATION), progress=told)
    assert len(seen) == 9  # five, and the four of the whole one: nothing is done again
    assert (run / "findings.json").stat().st_mtime_ns == before
    assert any(line.startswith("in all") for line in told.lines)


@pytest.mark.usefixtures("no_page")
def test_seeds_of_one_arm_are_one_arm_and_compared_with_one_another(root, tmp_path):
    a, b = (root / "arms" / "full" / f"seed-{seed}" / "model" for seed in (0, 1))
    run = compared(root, [f"full={a},{b}"], tmp_path / "run")
    table = Result.load(run / "results", "cka").table
    assert set(table["arm"]) == {"full"}
    assert set(table.filter(pl.col("model") == "base_tuned")["seed"]) == {0, 1}
    assert table.filter(pl.col("model") == "tuned_seeds").height > 0
    about = json.loads((run / "compare.json").read_text())
    assert [(one["arm"], one["seed"]) for one in about["pairs"]] == [("full", 0), ("full", 1)]
    assert (run / "arms" / "full" / "seed-1" / "metrics.json").is_file()
    told = {seed: load_part_findings(run / "looks" / "full" / f"seed-{seed}" / "cka") for seed in (0, 1)}
    assert all(told[seed] and set(told[seed]) == {seed} for seed in (0, 1))


def load_part_findings(part):
    return [one["seed"] for one in json.loads((part / "about.json").read_text())["findings"]]


@pytest.mark.usefixtures("no_page")
def test_two_runs_are_held_against_each_other_with_the_heads_that_were_trained(root, tmp_path):
    for seed in (0, 1):
        moved(root / "base", tmp_path / "after" / "arms" / "full" / f"seed-{seed}" / "model", 10 + seed)
    run = compared(root, [tmp_path / "after"], tmp_path / "run", (ABLATION,), base=root)
    about = json.loads((run / "compare.json").read_text())
    assert about["base_head"] == "own"
    assert about["pairs"][1]["base"] == str(root / "arms/full/seed-1/model")
    assert set(Result.load(run / "results", "ablation").table["base_head"]) >= {"own"}
    rows = Rows.load(run / "data" / "rows.parquet")
    theirs = load(str(root / "arms/full/seed-1/model"), labels=rows.labels)
    tokens = tokenize(rows.split("validation"), theirs.tokenizer, theirs.max_length)
    right = float((predict(theirs, tokens)["prediction"].to_numpy() == tokens.labels).mean())
    (note,) = [note for note in about["notes"] if note.startswith("full, seed 1: accuracy")]
    assert f"the base under its own head {right:.3f} [" in note


def test_models_of_other_shapes_keep_the_lenses_that_can_and_say_why_the_others_cannot(root, tmp_path):
    deeper = tiny_folder("gpt2", tmp_path / "deeper", n_labels=2, layers=3, names=NAMES)
    told = Told()
    run = compared(root, [deeper], tmp_path / "run", (CKA, ABLATION), progress=told)
    (refused,) = json.loads((run / "compare.json").read_text())["refused"]
    assert (refused["arm"], refused["lens"]) == ("deeper", "ablation")
    assert "base (GPT-2, 2 layers x 4 heads, width 32) and tuned (GPT-2, 3 layers" in refused["why"]
    assert any("the lens ablation is left out: it compares part by part" in line for line in told.lines)
    assert Result.load(run / "results", "cka").table.filter(pl.col("model") == "base_tuned").height > 0
    assert not (run / "results" / "ablation.parquet").exists()
    with pytest.raises(LensError, match=r"The lens 'ablation' cannot look at deeper: it compares .*\nNext:"):
        compared(root, [deeper], tmp_path / "nothing", (ABLATION,))


@pytest.mark.usefixtures("no_page")
def test_a_folder_of_checkpoints_is_followed_step_by_step(root, tmp_path):
    for step in (5, 10):
        moved(root / "base", tmp_path / "out" / f"checkpoint-{step}", 3, size=0.01 * step)
    run = compared(root, [tmp_path / "out"], tmp_path / "run")
    table = Result.load(run / "results", "steps").table
    ends = table.filter((pl.col("metric") == "cka") & (pl.col("model") == "base_tuned")).sort("step")
    assert ends["step"].unique(maintain_order=True).to_list() == [0, 5, 10]
    one = dict(zip(ends["step"], ends["value"], strict=True))
    assert one[0] > one[5] > one[10]  # the further every weight was moved, the less is left in common


@pytest.mark.usefixtures("no_page")
def test_the_tuned_head_can_be_put_on_the_base(root, tmp_path):
    tuned = root / "arms" / "full" / "seed-0" / "model"
    run = compared(root, [tuned], tmp_path / "run", (ABLATION,), base_head="tuned")
    assert "tuned" in set(
        Result.load(run / "results", "ablation").table.filter(pl.col("model") == "base")["base_head"]
    )
    other = tiny_folder("bert", tmp_path / "bert", n_labels=2, layers=2, names=NAMES)
    with pytest.raises(LensError, match="different vocabularies"):
        compared(root, [other], tmp_path / "other", (CKA,), base_head="tuned")


def test_what_is_no_model_is_refused_before_rows_are_read(root, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"is not a model folder: it has no config\.json"):
        compared(root, [tmp_path / "empty"], tmp_path / "run")
    language = tiny_folder("gpt2", tmp_path / "language", layers=2, language=True)
    with pytest.raises(
        ModelError, match=r"is a classifier and .*language is a language model; one comparison"
    ):
        compared(root, [root / "arms" / "full" / "seed-0" / "model", language], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_usual_lenses_are_as_thorough_as_the_size_allows(root, tmp_path):
    usual = usual_lenses(str(root / "base"))
    assert [lens.lens for lens in usual.lenses] == ["weights", "cka", "logit_lens", "ablation"]
    assert all(not lens.options for lens in usual.lenses)
    large = tmp_path / "large"
    shutil.copytree(root / "base", large)
    config = json.loads((large / "config.json").read_text())
    (large / "config.json").write_text(json.dumps({**config, "n_embd": 768, "n_layer": 12, "n_head": 12}))
    found = {lens.lens: dict(lens.options) for lens in usual_lenses(str(large)).lenses}
    assert found["weights"] == {"spectra": False}
    assert found["ablation"]["components"] == ["attention", "mlp"]
    assert len(usual_lenses(str(large)).notes) == 2


@pytest.mark.parametrize("more", [3, -3])
def test_vectors_that_no_text_uses_count_as_no_change(tmp_path, more):
    from transformers import AutoModelForSequenceClassification

    from tunescope.checkpoints.pair import extend_vocabulary

    folder = tiny_folder("gpt2", tmp_path / "base", n_labels=2, layers=1, names=NAMES)
    other = AutoModelForSequenceClassification.from_pretrained(folder)
    rows = other.config.vocab_size
    other.resize_token_embeddings(rows + more)
    other.save_pretrained(tmp_path / "other")
    base, tuned = load(str(folder)), load(str(tmp_path / "other"), tokenizer_of=str(folder))
    assert extend_vocabulary(base, tuned) == more
    first, second = (one.trunk.get_input_embeddings().weight for one in (base, tuned))
    assert len(first) == len(second) == max(rows, rows + more)
    assert torch.equal(first, second)
    assert extend_vocabulary(base, tuned) == 0
