"""A study that summarises and is stopped ends as one that was not: the same weights, the same summaries."""

from __future__ import annotations

import json
import os
import signal
import sys

import polars as pl
import pytest
from planted_summaries import PROMPT, documents, write_model

from tiny_encoder_decoder import folder_of
from tunescope import study
from tunescope.config import load_study
from tunescope.errors import ConfigError, DataError, Interrupted, ModelError
from tunescope.files import read_json
from tunescope.study import summarise
from tunescope.summaries.training import SummaryTrainer

TIMES = {"seconds", "cost", "rows_per_second", "tokens_per_second", "memory_mb"}


def loaded(raw):
    return load_study(raw, methods=study.METHODS, lenses=study.LENSES, refused=study.REFUSED_METHODS)


def write_rows(folder, count=40):
    articles, summaries = documents(count, 1)
    path = folder / "rows.parquet"
    pl.DataFrame({"article": articles, "highlights": summaries}).write_parquet(path)
    return str(path)


def study_of(rows, model, **arm):
    return {
        "name": "stopped", "task": "summarise",
        "data": {"path": rows, "text": "article", "summary": "highlights", "validation": 0.2, "test": 0.2},
        "summarise": {"max_tokens": 32, "max_summary": 6, "prompt": PROMPT, "generation": {"sample": True}},
        "arms": [{"name": "tuned", "model": str(model), "method": "full", **arm}],
        "training": {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-2,
                     "gradient_accumulation_steps": 2, "report_to": "none"},
        "lenses": [],
    }  # fmt: skip


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    model = write_model(folder / "base", width=32)
    config = json.loads((model / "config.json").read_text())
    config |= {"resid_pdrop": 0.2, "embd_pdrop": 0.2, "attn_pdrop": 0.2}  # so that random streams matter
    (model / "config.json").write_text(json.dumps(config))
    return study_of(write_rows(folder), model)


@pytest.fixture(scope="module")
def straight(raw, tmp_path_factory):
    return study.run(loaded(raw), tmp_path_factory.mktemp("straight") / "run", device="cpu")


def same(one, other):
    """Compare what was computed: weights bit for bit, every summary and score, every number but times."""
    for name in ("model/model.safetensors",):
        assert (one / "arms/tuned/seed-0" / name).read_bytes() == (
            other / "arms/tuned/seed-0" / name
        ).read_bytes()
    tables = [pl.read_parquet(run / "arms/tuned/seed-0/predictions.parquet") for run in (one, other)]
    assert tables[0].equals(tables[1])
    assert tables[0]["generated"].n_unique() > 1
    metrics = [read_json(run / "arms/tuned/seed-0/metrics.json") for run in (one, other)]
    assert metrics[0]["records"] == metrics[1]["records"]
    logs = [
        [
            {key: value for key, value in json.loads(line).items() if key not in TIMES}
            for line in (run / "arms/tuned/seed-0/log.jsonl").read_text().splitlines()
        ]
        for run in (one, other)
    ]
    assert [line.get("loss") for line in logs[0]] == [line.get("loss") for line in logs[1]]
    assert read_json(one / "summaries.json") == read_json(other / "summaries.json")


def one_step(count, number):
    """Return a training step that sends a signal to its own process at one of its micro-batches."""
    original, seen = SummaryTrainer.training_step, []

    def step(self, *args, **kwargs):
        seen.append(1)
        if len(seen) == count:
            os.kill(os.getpid(), number)
        return original(self, *args, **kwargs)

    return step


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_training_changes_nothing(raw, straight, tmp_path, monkeypatch, number):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(SummaryTrainer, "training_step", one_step(3, number))  # between two halves of a step
        with pytest.raises(Interrupted, match="a checkpoint was saved"):
            study.run(loaded(raw), folder, device="cpu")
    assert list((folder / "arms/tuned/seed-0/checkpoints").glob("checkpoint-*/complete.json"))
    assert not (folder / "arms/tuned/seed-0/model").exists()
    study.run(loaded(raw), folder, device="cpu")
    same(straight, folder)
    assert not (folder / "arms/tuned/seed-0/checkpoints").exists()


def test_a_stop_while_writing_keeps_what_is_written(raw, straight, tmp_path, monkeypatch):
    folder, original, asked = tmp_path / "run", summarise.write_summaries, []
    monkeypatch.setattr(summarise, "AT_ONCE", 3)  # eight rows in three parts

    def stops(model, tokenizer, tokens, how, progress):
        asked.append(list(tokens.row_ids))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return original(model, tokenizer, tokens, how, progress)

    monkeypatch.setattr(summarise, "write_summaries", stops)
    with pytest.raises(Interrupted, match="what was finished is kept"):
        study.run(loaded(raw), folder, device="cpu")
    first, second = asked
    study.run(loaded(raw), folder, device="cpu")
    assert asked[2] == second  # it goes on where it was stopped
    again = [row for rows in asked[2:] for row in rows]
    assert not set(again) & set(first)
    assert sorted([*first, *again]) == sorted(pl.read_parquet(
        straight / "arms/tuned/seed-0/predictions.parquet")["row_id"].to_list())  # fmt: skip
    same(straight, folder)  # in parts of three or of 64: the same
    assert not list((folder / "arms/tuned/seed-0").glob("written-*"))


def test_a_checkpoint_of_other_summaries_is_not_continued(raw, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(SummaryTrainer, "training_step", one_step(3, signal.SIGINT))
        with pytest.raises(Interrupted):
            study.run(loaded(raw), folder, device="cpu")
    other = {**raw, "summarise": {**raw["summarise"], "loss_on": "all"}}
    with pytest.raises(Exception, match="half finished"):
        study.run(loaded(other), folder, device="cpu")


# ---- encoder-decoders take the same stages ----


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_an_encoder_decoder_learns_and_writes(tmp_path, kind):
    model = folder_of(kind, tmp_path / "base", task="language_model")
    words = ["the cat", "good day", "sad house", "love film", "cold night", "rain"]
    table = {"article": [f"{a} and {b} {i}" for i, a in enumerate(words) for b in words]}
    table["highlights"] = [text.split(" and ")[0] for text in table["article"]]
    pl.DataFrame(table).write_parquet(tmp_path / "rows.parquet")
    raw = study_of(str(tmp_path / "rows.parquet"), model)
    raw["summarise"] = {"max_tokens": 24, "max_summary": 8, "before": "the : ", "generation": {"beams": 2}}
    raw["training"] |= {"num_train_epochs": 6, "learning_rate": 1e-2}
    raw["arms"].append({"name": "untuned", "model": str(model), "method": "zero_shot"})
    run = study.run(loaded(raw), tmp_path / "run", device="cpu")
    losses = {}
    for arm in ("tuned", "untuned"):
        records = read_json(run / "arms" / arm / "seed-0" / "metrics.json")["records"]
        losses[arm] = next(one["value"] for one in records if one["metric"] == "loss_per_token")
    assert losses["tuned"] < losses["untuned"] - 0.5
    record = read_json(run / "data" / "summary.json")["cut"]["tuned"]["train"]
    assert record["summary_tokens_cut"] == 0
    refused = {**raw, "summarise": {**raw["summarise"], "loss_on": "all"}}
    with pytest.raises(ConfigError, match="has two sequences"):
        study.run(loaded(refused), tmp_path / "refused", device="cpu")


# ---- bad input of a whole study ----


def test_a_model_that_cannot_write_is_refused_by_name(raw, bert_folder, tmp_path):
    changed = {**raw, "arms": [{"name": "tuned", "model": str(bert_folder), "method": "full"}]}
    with pytest.raises(ModelError, match=r"BERT.*cannot write a text|no trained"):
        study.run(loaded(changed), tmp_path / "run", device="cpu")


def test_a_budget_larger_than_the_window_is_refused_with_the_number(raw, tmp_path):
    changed = {**raw, "summarise": {**raw["summarise"], "max_tokens": 64}}
    with pytest.raises(ModelError, match=r"max_tokens is 64, and .* numbers 48 positions") as caught:
        study.run(loaded(changed), tmp_path / "run", device="cpu")
    assert "summarise.max_tokens to 48 or less" in caught.value.hint


def test_rows_without_article_or_summary_are_left_out_and_counted(raw, tmp_path):
    articles, summaries = documents(12, 3)
    articles[2], summaries[5], summaries[7] = "  ", "", None
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"article": articles, "highlights": summaries}).write_parquet(path)
    from tunescope.data.summaries import load_summaries

    rows = load_summaries(loaded({**raw, "data": {**raw["data"], "path": str(path)}}).data, 0)
    assert rows.frame.height == 9
    given = {**raw["data"], "path": {"train": str(path), "test": str(path)}, "test": 0.0}
    both = load_summaries(loaded({**raw, "data": given}).data, 0)  # test rows have no label to predict either
    assert both.provenance["dropped"]["test"] == {"empty_text": 1, "null_summary": 2}
    assert "predicted only" not in " ".join(both.provenance["notes"])
    assert sum(n for reasons in rows.provenance["dropped"].values() for n in reasons.values()) == 3
    notes = " ".join(rows.provenance["notes"])
    assert "Left out, blank text: 1 of 12 rows" in notes
    assert "Left out, no summary: 2 of 12 rows" in notes
    pl.DataFrame({"article": articles, "highlights": [""] * 12}).write_parquet(path)
    with pytest.raises(DataError, match="no row has both an article and a summary"):
        load_summaries(loaded({**raw, "data": {**raw["data"], "path": str(path)}}).data, 0)


def test_a_summary_longer_than_the_budget_is_refused_with_the_number(raw, tmp_path):
    changed = {**raw, "summarise": {**raw["summarise"], "max_summary": 5}}
    with pytest.raises(
        DataError, match=r"24 of 24 summaries are longer than max_summary \(5 tokens"
    ) as caught:
        study.run(loaded(changed), tmp_path / "run", device="cpu")
    assert "Set max_summary to 6" in caught.value.hint
