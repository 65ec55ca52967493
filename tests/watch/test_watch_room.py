"""Fixed texts that would not fit the memory: the estimate by hand, the refusal, and what the system says is free."""

from __future__ import annotations

import types

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tiny import tiny_folder
from tunescope import device
from tunescope.data.labels import LabelMap
from tunescope.data.rows import rows_of_texts
from tunescope.data.tokens import tokenize
from tunescope.errors import LensError
from tunescope.lenses.over_steps import room as module
from tunescope.lenses.over_steps.room import Room, require_room, room_of
from tunescope.models import load
from tunescope.watch import TunescopeCallback
from tunescope.watch import callback as watching

TEXTS = ["a very good day", "the rain in the street", "i love this film"] * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder("gpt2", tmp_path_factory.mktemp("room") / "gpt2", layers=2)


def test_the_estimate_is_what_stands_in_its_formula(folder):
    model = load(str(folder))
    tokens = tokenize(rows_of_texts(TEXTS, LabelMap(tuple(model.labels.names))), model.tokenizer, 64)
    found = room_of(model, tokens, ["cka", "similarity", "weights"], copy=True)
    assert found.copy == sum(4 * one.numel() for one in model.model.parameters())
    assert found.text == 2 * 2 * (
        2 * (2 + 2) * model.width * 8
    )  # two lenses; twice; models, places, numbers, bytes
    assert found.texts == len(TEXTS)
    assert found.whole == found.copy + found.batch + len(TEXTS) * found.text
    more = room_of(model, tokens, ["cka", "similarity", "weights", "attention"], copy=False)
    assert more.copy == 0
    assert more.text - found.text == 2 * 2 * model.n_heads * 12 * 8
    assert more.batch - found.batch == 2 * 6 * 4 * module.PATTERN_CELLS


def test_what_does_not_fit_is_refused_with_the_number_that_does(monkeypatch):
    asked = Room(copy=100e6, batch=50e6, text=1e6, texts=400)
    monkeypatch.setattr(module, "free_memory", lambda _device: 250e6)
    said = (
        r"Looking at 400 texts would take about 0\.55 GB: 0\.10 GB for a copy of the model, 0\.05 GB for one batch, "
        r"0\.40 GB for what is kept of the texts; 0\.25 GB are free"
    )
    with pytest.raises(LensError, match=said) as raised:
        require_room(asked, "cpu", "rows: {{n: {n}}}")
    assert raised.value.hint == "Take fewer texts, rows: {n: 100}; about 100 fit."
    require_room(Room(100e6, 50e6, 1e6, 100), "cpu", "")  # what was said to fit does
    with pytest.raises(LensError) as raised:
        require_room(Room(300e6, 50e6, 1e6, 4), "cpu", "")
    assert "No number of texts fits" in raised.value.hint
    monkeypatch.setattr(module, "free_memory", lambda _device: None)
    require_room(asked, "mps", "")


def test_the_callback_refuses_before_it_copies_the_model(folder, tmp_path, monkeypatch):
    def never(_model):
        raise AssertionError("copied")

    monkeypatch.setattr(module, "free_memory", lambda _device: 1e6)
    monkeypatch.setattr(watching, "frozen_copy", never)
    callback = TunescopeCallback(TEXTS, folder=tmp_path / "watched")
    callback.tensorboard = False
    with pytest.raises(LensError, match="Looking at 12 texts would take"):
        callback.on_train_begin(
            None, types.SimpleNamespace(is_world_process_zero=True, global_step=0), None,
            model=AutoModelForSequenceClassification.from_pretrained(folder),
            processing_class=AutoTokenizer.from_pretrained(folder),
        )  # fmt: skip
    assert callback.base is None


def test_free_memory_is_the_least_of_what_system_and_group_leave(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:    2048 kB\n")
    assert device._available(tmp_path / "meminfo") == 2048 * 1024
    assert device._available(tmp_path / "none") is None
    for name, text in (
        ("memory.max", "1000000\n"), ("memory.current", "900000\n"), ("memory.stat", "anon 1\ninactive_file 50000\n"),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
    assert device._left_of_group(tmp_path) == 150_000
    (tmp_path / "memory.max").write_text("max\n")
    assert device._left_of_group(tmp_path) is None
    monkeypatch.setattr(device, "_available", lambda _path: 7.0)
    monkeypatch.setattr(device, "_left_of_group", lambda _folder: 5.0)
    assert device.free_memory("cpu") == 5.0
    assert device.free_memory("mps") is None
