"""Documents whose summary is the sentence after a marker: the budget lets a model learn it, as published none does."""

from __future__ import annotations

import polars as pl
import pytest
from planted_summaries import PIECED, PROMPT, documents, write_model

from tunescope import study
from tunescope.config import load_study
from tunescope.files import read_json

WINDOW = 30  # tokens; a document has 29, its prompt 1, its summary 7 and its end 1

PUBLISHED = {
    "as-published-cut": {"cut": "end", "loss_on": "all", "end_token": False},
    "as-published-decoding": {"generation": {"beams": 2, "no_repeat_ngram_size": 2}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    model = str(write_model(folder / "base", pieces=True))
    for split, count, seed in (("train", 4000, 0), ("validation", 40, 1), ("test", 100, 2)):
        articles, summaries = documents(count, seed, sentences=4, length=3, vocabulary=PIECED)
        frame = pl.DataFrame({"article": articles, "highlights": summaries})
        frame.write_parquet(folder / f"{split}.parquet")
    arms = [{"name": "budget", "model": model, "method": "full"}]
    arms += [
        {"name": name, "model": model, "method": "full", "summarise": how} for name, how in PUBLISHED.items()
    ]
    raw = {
        "name": "planted", "task": "summarise",
        "data": {"path": {split: str(folder / f"{split}.parquet") for split in ("train", "validation", "test")},
                 "text": "article", "summary": "highlights"},
        "summarise": {"max_tokens": WINDOW, "max_summary": 8, "prompt": PROMPT, "splits": ["test"]},
        "arms": arms,
        "training": {"num_train_epochs": 4, "per_device_train_batch_size": 64, "learning_rate": 3e-3,
                     "warmup_steps": 0.1, "lr_scheduler_type": "constant_with_warmup", "adam_beta2": 0.98},
        "lenses": [],
    }  # fmt: skip
    config = load_study(raw, methods=study.METHODS, lenses=study.LENSES, refused=study.REFUSED_METHODS)
    return study.run(config, folder / "run", device="cpu")


def rouge1(run, arm):
    records = read_json(run / "arms" / arm / "seed-0" / "metrics.json")["records"]
    return next(one for one in records if (one["split"], one["metric"]) == ("test", "rouge1"))


@pytest.mark.slow
def test_with_the_budget_the_planted_sentence_is_written(run):
    found = rouge1(run, "budget")
    assert found["low"] >= 0.9, found


@pytest.mark.slow
@pytest.mark.parametrize("arm", PUBLISHED)
def test_the_published_settings_hide_it(run, arm):
    found = rouge1(run, arm)
    assert found["high"] < 0.5, found


@pytest.mark.slow
def test_the_ban_forbids_every_word_of_several_tokens_that_the_model_was_shown(run):
    # Its second token may not follow its first again, so no word of the summary can be written, whatever was learnt.
    written = pl.read_parquet(run / "arms" / "as-published-decoding" / "seed-0" / "predictions.parquet")
    articles = dict(pl.read_parquet(run / "data" / "rows.parquet").select("row_id", "text").rows())
    for row_id, text, tokens, cut in written.select(
        "row_id", "generated", "article_tokens", "article_cut"
    ).rows():
        shown, left = set(), tokens - cut
        for word in articles[row_id].split():
            left -= 2 if word in PIECED else 1
            shown |= {word} if left >= 0 and word in PIECED else set()
        assert len(shown) >= 6
        assert text
        assert not shown & set(text.split()), row_id


@pytest.mark.slow
def test_what_was_cut_is_said(run):
    cut = read_json(run / "data" / "summary.json")["cut"]
    assert cut["budget"]["train"]["summary_tokens_cut"] == 0
    assert cut["as-published-cut"]["train"]["summaries_lost"] == 4000
