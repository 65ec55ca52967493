"""A study that summarises, end to end: stages, files, arms side by side, refusals, and continuing."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from planted_summaries import PROMPT, documents, write_model

from tunescope import study
from tunescope.commands.asked import Ending
from tunescope.commands.summaries import print_summaries, writes
from tunescope.config import dump_study, load_study
from tunescope.config.text import parse_value
from tunescope.errors import ConfigError, DataError
from tunescope.files import read_json
from tunescope.report.page import write_report
from tunescope.runs import RunFolder

DOC = Path(__file__).parents[2] / "docs" / "study-004-artefacts.md"
CLAIM = {
    "statement": "The decoding writes what the model learnt.", "reported": "no repeated bigram", "source": "the code",
    "number": {"metric": "rouge2", "split": "test", "arm": "lora"},
    "also": {"with the ban:": {"metric": "rouge2", "split": "test", "arm": "published"}},
    "verdicts": [{
        "verdict": "artefact of a ban on the article's bigrams", "because": "without the ban ROUGE-2 is higher",
        "when": [{"minus": {"metric": "rouge2", "split": "test", "arm": "published"}, "lower": 0.0}],
    }],
    "otherwise": "with and without the ban the intervals overlap", "learned": False,
}  # fmt: skip
HOSTILE = "<script>alert(1)</script>"


def loaded(raw):
    return load_study(raw, methods=study.METHODS, lenses=study.LENSES, refused=study.REFUSED_METHODS)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("articles")
    model = write_model(folder / "base", width=32)
    articles, summaries = documents(40, 1)
    articles = [f"{HOSTILE} {article}" for article in articles]
    pl.DataFrame({"article": articles, "highlights": summaries}).write_parquet(folder / "rows.parquet")
    published = {
        "max_summary": 4,  # fewer than the references have: what is cut is not refused
        "cut": "end",
        "loss_on": "all",
        "end_token": False,
        "generation": {"no_repeat_ngram_size": 2},
    }
    return {
        "name": "tiny", "task": "summarise",
        "data": {"path": str(folder / "rows.parquet"), "text": "article", "summary": "highlights",
                 "validation": 0.2, "test": 0.2},
        "summarise": {"max_tokens": 32, "max_summary": 6, "prompt": PROMPT},
        "arms": [
            {"name": "zero", "model": str(model), "method": "zero_shot"},
            {"name": "lora", "model": str(model), "method": "lora"},
            {"name": "published", "model": str(model), "method": "full", "summarise": published},
        ],
        "training": {"max_steps": 4, "per_device_train_batch_size": 8, "learning_rate": 1e-2},
        "lenses": ["weights"],
        "claims": [{"claim": "ban", **CLAIM}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(raw, tmp_path_factory):
    return study.run(loaded(raw), tmp_path_factory.mktemp("run") / "tiny", device="cpu")


def rows_of(run):
    return dict(pl.read_parquet(run / "data" / "rows.parquet").select("row_id", "text").rows())


def metrics_of(run, arm):
    return read_json(run / "arms" / arm / "seed-0" / "metrics.json")


def test_every_arm_has_summaries_and_metrics_with_intervals(run):
    for arm in ("zero", "lora", "published"):
        found = {record["metric"]: record for record in metrics_of(run, arm)["records"]}
        for metric in ("rouge1", "rouge2", "rougeLsum", "meteor", "copy_rate", "loss_per_token"):
            assert (found[metric]["split"], found[metric]["n"]) == ("test", 8)
            assert found[metric]["low"] <= found[metric]["value"] <= found[metric]["high"]
        table = pl.read_parquet(run / "arms" / arm / "seed-0" / "predictions.parquet")
        assert table.height == 8
        assert table["new_tokens"].max() <= 6
        articles = rows_of(run)  # what is decoded is only what is new, never the article before it
        assert not any(
            text.startswith(articles[key][:12]) for key, text in table.select("row_id", "generated").rows()
        )


def test_the_budget_keeps_summaries_and_the_published_cut_loses_them(run):
    cut = read_json(run / "data" / "summary.json")["cut"]
    assert cut["lora"]["train"]["summary_tokens_cut"] == 0 < cut["lora"]["train"]["article_tokens_cut"]
    assert cut["published"]["train"]["summaries_lost"] == 24
    assert cut["published"]["train"]["summary_tokens_cut"] == cut["published"]["train"]["summary_tokens"]


def test_lora_leaves_the_vocabulary_alone(run):
    trained = [
        one for one in read_json(run / "arms/lora/seed-0/parameters.json")["matrices"] if one["trained"]
    ]
    assert trained
    assert all("lora_" in one["matrix"] for one in trained)


def test_arms_and_lead_3_are_compared_on_the_same_rows(run):
    records = read_json(run / "summaries.json")["records"]
    assert {(one["first"], one["second"]) for one in records} == {
        ("zero", "lora"), ("zero", "published"), ("lora", "published"),
        ("zero", "lead-3"), ("lora", "lead-3"), ("published", "lead-3"),
    }  # fmt: skip
    own = {arm: pl.read_parquet(run / f"arms/{arm}/seed-0/predictions.parquet") for arm in ("zero", "lora")}
    change = (own["zero"]["loss_per_token"] - own["lora"]["loss_per_token"]).mean()
    record = next(
        one
        for one in records
        if (one["first"], one["second"], one["metric"]) == ("zero", "lora", "loss_per_token")
    )
    assert record["value"] == pytest.approx(change)
    assert not [one for one in records if one["second"] == "lead-3" and one["metric"] == "loss_per_token"]


def test_the_page_shows_it_and_hostile_articles_stay_text(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    for said in (
        "On 8 test articles",
        "lead-3",
        "oracle",
        "What was cut",
        "ROUGE-Lsum",
        "every summary whole",
    ):
        assert said in page
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_page_is_written_again_from_stored_results_alone(run, tmp_path, monkeypatch):
    run = Path(shutil.copytree(run, tmp_path / "run"))
    before = (run / "report.html").read_text(encoding="utf-8")
    named = [
        line.split("|") for line in DOC.read_text(encoding="utf-8").splitlines() if "| summarised |" in line
    ]
    assert len(named) >= 7
    for cells in named:  # the files that the table of study 004's artefacts names
        file = cells[5].strip().replace("ARM", "lora").replace("seed-N", "seed-0")
        assert (run / file).is_file(), cells[1]
    monkeypatch.setattr("tunescope.models.summariser.open_language_model", None)  # no model is opened
    (run / "report.html").unlink()
    write_report(run)
    again = (run / "report.html").read_text(encoding="utf-8")
    assert section_of(again) == section_of(before)
    assert (
        "with and without the ban the intervals overlap" in again
        or "without the ban ROUGE-2 is higher" in again
    )


def section_of(page):
    return page[page.index('<section id="summaries">') :].split("</section>")[0]


def test_it_is_done_once_and_a_generation_setting_does_not_train_again(raw, run):
    config = loaded({**raw, "summarise": {**raw["summarise"], "generation": {"beams": 2}}})
    from tunescope.study.context import Context
    from tunescope.study.stages import declare

    folder = RunFolder(run)
    declare(Context(loaded(raw), folder))
    assert all(decision.fresh for decision in folder.plan())
    declare(Context(config, folder))
    stale = {decision.stage.name for decision in folder.plan() if not decision.fresh}
    assert not [name for name in stale if name.startswith("train-")]
    assert any(name.startswith("evaluate-") for name in stale)


def test_predict_writes_a_summary_of_a_text_and_of_a_file(run, tmp_path, capsys):
    articles, _ = documents(1, 9)
    (tmp_path / "article.txt").write_text(articles[0], encoding="utf-8")
    for arm in ("zero", "lora"):
        model = str(run / "arms" / arm / "seed-0" / "model")
        assert writes(model)
        said = []
        for text in (articles[0], f"@{tmp_path / 'article.txt'}"):
            print_summaries(model, [text], Ending(device="cpu", quiet=True))
            said.append(capsys.readouterr().out)
        assert said[0] == said[1] != "\n"
    with pytest.raises(DataError, match="cannot be read"):
        print_summaries(model, ["@nowhere.txt"], Ending(device="cpu", quiet=True))


def test_the_complete_study_reads_back_as_itself(raw):
    config = loaded(raw)
    assert loaded(parse_value(dump_study(config))) == config
    assert config.summarise_of(config.arms[2]).cut == "end"
    assert config.summarise_of(config.arms[1]).cut == "article"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": [{"name": "a", "model": "m", "method": "head_only"}]}, "'head_only' cannot be used: a language"),
        ({"arms": [{"name": "a", "model": "m", "method": "bitfit"}]}, "not available for task: summarise"),
        ({"arms": [{"name": "a", "model": "m", "summarise": {"cute": 1}}]}, "arms.a.summarise.cute"),
        ({"task": "classify", "arms": [{"name": "a", "model": "m"}]}, "data.summary belongs to task: summarise"),
        ({"prior": "uniform"}, "prior is about classes"),
        ({"summarise": {"max_tokens": 10, "max_summary": 10}}, "leaves nothing of max_tokens"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(raw, change, message):
    with pytest.raises(ConfigError, match=message):
        loaded({**raw, **change})


def test_lenses_of_classes_are_refused_before_anything_runs(raw, tmp_path):
    with pytest.raises(ConfigError, match="words needs classes"):
        study.run(loaded({**raw, "lenses": ["words"]}), tmp_path / "run", device="cpu")


def test_the_page_has_no_columns_of_accuracy_and_no_section_of_errors(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    table = page[page.index('<section id="arms">') : page.index('<section id="data">')]
    assert "Trained parameters" in table
    assert "Accuracy" not in table
    assert "Macro F1" not in table
    for gone in (
        '<section id="errors">',
        "CKA was not measured",
        "Ablation was not run",
        "truncation was not counted",
    ):
        assert gone not in page
    assert "of texts at most" in page


def test_the_stages_say_how_many_rows_there_were(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "rows: train 24, validation 8 and test 8" in page
