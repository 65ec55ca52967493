"""Every artefact of study 004 has its place: the table in the docs, held against pages made from stored results."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from subjects import make_rows, make_subject
from trainings import STEPS, training
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

from tiny import TEXTS, tiny_folder
from tunescope import TunescopeCallback
from tunescope.lenses import LENSES, look, save_outputs
from tunescope.models import load
from tunescope.report.page import write_report
from tunescope.report.read import read_run
from tunescope.report.sections import sections
from tunescope.watch import Schedule

DOC = Path(__file__).parents[2] / "docs" / "study-004-artefacts.md"
ROWS = {"rows": {"split": "validation", "n": 16}}


def table():
    lines = [line for line in DOC.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    torch.manual_seed(0)
    model_folder = tiny_folder("bert", folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForSequenceClassification.from_pretrained(model_folder)
    data = [
        {**tokenizer(text, truncation=True, max_length=16), "labels": n % 3} for n, text in enumerate(TEXTS)
    ]
    callback = TunescopeCallback(
        TEXTS, folder=folder / "w", schedule=Schedule(every=1, most_time=1),
        lenses=[
            ("attention", {"texts": 1, "of_heads": [[1, 2]], "regions": False}), "activations", "weights", "gradients",
        ],
    )  # fmt: skip
    arguments = TrainingArguments(
        str(folder / "out"), max_steps=6, per_device_train_batch_size=4, learning_rate=5e-3, report_to=[], use_cpu=True,
        save_strategy="no", logging_steps=1, eval_strategy="steps", eval_steps=1, disable_tqdm=True,
    )  # fmt: skip
    Trainer(
        model,
        arguments,
        train_dataset=data,
        eval_dataset=data[:4],
        processing_class=tokenizer,
        callbacks=[callback],
    ).train()
    write_report(folder / "w")
    return folder / "w"


def keys_of(run):
    return {figure.key for shown in sections(run) for group in shown.groups for figure in group.figures}


def named(keys, wanted):
    return any(key == wanted or key.startswith(wanted) for key in keys)


def test_what_a_training_leaves_is_drawn_and_plays_from_its_folder(watched):
    rows = [row for row in table() if row[1] == "watched"]
    keys = keys_of(read_run(watched))
    assert len(rows) >= 8
    for artefact, _, _, key, file in rows:
        assert not key or named(keys, key), artefact
        assert not file or (watched / file).is_file(), artefact


def test_what_a_comparison_leaves_is_drawn_from_its_tables(tmp_path):
    base, tuned = (load(str(tiny_folder("gpt2", tmp_path / str(seed), seed=seed))) for seed in (0, 1))
    wanted = ("attention", "activations", "weights", "similarity", "flow")
    outputs = look(
        make_subject(base, tuned, make_rows(48)),
        [(name, {} if name == "weights" else ROWS) for name in wanted],
        LENSES,
    )
    save_outputs(outputs, tmp_path / "run" / "results", {})
    run = read_run(tmp_path / "run", "all")
    assert tuple(run.arm_names) == ("arm",)
    keys = keys_of(run)
    rows = [row for row in table() if row[1] == "compared" and row[2] in wanted]
    assert {row[2] for row in rows} == set(wanted)
    for artefact, _, _, key, _ in rows:
        assert named(keys, key), (artefact, sorted(keys))


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A folder of checkpoints followed step by step; its models are gone before anything is drawn."""
    root = tmp_path_factory.mktemp("followed")
    base = tiny_folder("gpt2", root / "base", layers=2)
    training(base, root)
    subject = make_subject(load(str(base)), load(str(root / "checkpoint-200")), make_rows(48))
    wanted = [("steps", ROWS), ("watch", {**ROWS, "lenses": ["attention", "activations", "weights"]})]
    save_outputs(look(subject, wanted, LENSES), root / "run" / "results", {})
    for path in (base, *root.glob("checkpoint-*")):
        shutil.rmtree(path)
    write_report(root / "run")
    return root / "run"


def test_the_latent_space_over_the_steps_plays_and_turns(followed):
    keys = keys_of(read_run(followed))
    rows = [row for row in table() if row[2] == "steps"]
    assert len(rows) == 2
    for artefact, _, _, key, file in rows:
        assert named(keys, key), artefact
        assert (followed / file).is_file(), artefact
    movie = Image.open(io.BytesIO((followed / "watch-latent-space-0.gif").read_bytes()))
    assert movie.n_frames == 6 * (1 + len(STEPS))
    page = (followed / "steps.html").read_text(encoding="utf-8")
    places = [page.index(f'"step {step}"') for step in (0, *STEPS)]
    assert places == sorted(places)  # steps in the order of their numbers


def test_everything_is_written_again_from_the_stored_tables_alone(followed, watched):
    for folder in (followed, watched):
        drawn = {
            path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".html", ".gif")
        }
        assert "report.html" in drawn  # the artefact interpretability_report.html
        for name in drawn:
            (folder / name).unlink()
        write_report(folder)
        assert {name: (folder / name).read_bytes() for name in drawn} == drawn


def test_sections_named_in_the_table_exist():
    from tunescope.report.sections import SECTIONS

    lenses = {section.lens for section in SECTIONS}
    for artefact, folder, lens, _, _ in table():
        assert folder in ("watched", "compared", "summarised"), artefact
        assert not lens or lens in lenses, artefact
    assert re.search(r"steps-map-", (Path(__file__).parents[2] / "src/tunescope/report/steps.py").read_text())
