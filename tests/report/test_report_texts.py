"""The option ``texts``: with ``none`` no text, word or value of the data reaches the page or the files beside it."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re

import polars as pl
import pytest
import yaml
from report_evidence import add_evidence, add_grid, place_of, prompts
from report_run import Recipe, make_run

from tunescope.errors import ConfigError
from tunescope.files import read_json, write_json
from tunescope.report import write_report
from tunescope.report.own_words import ROOT, shipped_sentences
from tunescope.report.read import read_run
from tunescope.report.texts import Withheld, asked, choose
from tunescope.stats.results import Result, result_table

SECRET = "Qzxvwkjp"
RECIPES = ROOT / "recipes"
LABELS = ("no", "yes")


def everything(path):
    """Return a page as a reader or a script could get at it: unescaped, packed figures unpacked."""
    text = path.read_text(encoding="utf-8")
    for packed in re.findall(r'data-packed="gzip"[^>]*>([^<]+)<', text):
        text += gzip.decompress(base64.b64decode(packed)).decode("ascii")
    text = re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found.group(1), 16)), text)
    return html.unescape(text)


def make_secret_run(folder):
    """Put the secret into every column of the data and wherever results, findings and the audit quote it."""
    recipe = Recipe(labels=LABELS, texts=tuple(f"{SECRET} wrote the text number {i}" for i in range(300)),
                    accuracy=(0.8, 0.6))  # fmt: skip
    make_run(folder, recipe)
    rows = pl.read_parquet(folder / "data" / "rows.parquet").with_columns(
        author=pl.format(f"{SECRET} author {{}}", pl.col("label")), city=pl.lit(f"{SECRET}town")
    )
    rows.write_parquet(folder / "data" / "rows.parquet")
    add_evidence(folder, recipe)
    add_grid(folder)
    place = place_of(folder, "full", 0)
    metrics = read_json(place / "metrics.json")
    del metrics["format_version"]
    metrics["prompt"] = prompts(2, (f"{SECRET}: {{text}}", f"Like '{SECRET}': {{text}}"))
    metrics["notes"] = [f"three rows begin with {SECRET}"]
    write_json(place / "metrics.json", metrics)
    ids = rows.filter(pl.col("split") == "test")["row_id"].to_list()
    _words(folder, ids)
    _maps(folder, ids[:40])
    _steps_and_watch(folder, ids[:12])
    _bench(folder, ids[0])
    findings = read_json(folder / "findings.json")["findings"]
    said = f"The word that decides most is '{SECRET}', then {SECRET} again: it moves the margin by 0.300."
    findings.insert(0, {**findings[0], "lens": "words", "sentence": said, "control": f"the word {SECRET}a"})
    write_json(folder / "findings.json", {"findings": findings})
    return folder


def _words(folder, ids):
    base = {
        "arm": "full",
        "seed": 0,
        "class": "yes",
        "control": 0.0,
        "q": 0.01,
        "n": 9,
        "low": 0.1,
        "high": 0.5,
    }
    records = [
        {**base, "model": model, "metric": metric, "value": 0.3, "word": f"{SECRET}{i}", "by": "left_out",
         "row_id": ids[0], "prediction": "yes", "place": i}
        for model in ("base", "tuned") for metric in ("word_effect", "example") for i in range(4)
    ]  # fmt: skip
    about = {"what": "Words left out.", "rows": {"split": "test", "n": 9}, "notes": [f"left out: '{SECRET}'"]}
    Result("words", result_table(records), about).save(folder / "results")
    other = [
        {
            "arm": "full",
            "metric": "count",
            "value": 1.0,
            "phrase": f"{SECRET} phrase",
            "note": f"as in {SECRET}",
        }
    ]
    Result("phrases", result_table(other), {"what": f"Phrases such as “{SECRET}”.", "rows": {}}).save(
        folder / "results"
    )


def _maps(folder, ids):
    points = [
        {"row_id": row, "model": model, "label": "yes", "prediction": "no", "error": True, "kmeans": i % 2,
         "hdbscan": -1, "arm": "full", "seed": 0, "site": "resid_post", "layer": 0, "method": "pca", "axes": axes,
         "x": float(i), "y": float(-i), "z": 0.5 if axes == 3 else None}
        for model in ("base", "tuned") for axes in (2, 3) for i, row in enumerate(ids)
    ]  # fmt: skip
    records = [
        {"arm": "full", "seed": 0, "model": model, "site": "resid_post", "layer": 0, "n": len(ids), "method": "pca",
         "axes": axes, "metric": "trustworthiness", "value": 0.9, "low": 0.8, "high": 1.0, "control": 0.5}
        for model in ("base", "tuned") for axes in (2, 3)
    ]  # fmt: skip
    Result("maps", result_table(records), {"what": "Maps.", "rows": {"split": "test"}}).save(
        folder / "results"
    )
    (folder / "results" / "examples").mkdir(exist_ok=True)
    pl.DataFrame(points).write_parquet(folder / "results" / "examples" / "maps.parquet")


def _steps_and_watch(folder, ids):
    """Put the secret into the tokens whose maps play while the model is trained, and into notes on its steps."""
    points = [
        {"row_id": row, "model": "tuned", "label": "yes", "prediction": "no", "error": True, "kmeans": 0, "hdbscan": 0,
         "arm": "full", "seed": 0, "site": "resid_post", "layer": 1, "method": "pca", "axes": 2, "x": float(i),
         "y": float(step), "z": None, "step": step, "said": f"{SECRET} said"}
        for step in (0, 5) for i, row in enumerate(ids)
    ]  # fmt: skip
    records = [
        {"arm": "full", "seed": 0, "model": "tuned", "site": "resid_post", "layer": 1, "n": len(ids), "method": "pca",
         "axes": 2, "metric": "trustworthiness", "value": 0.9, "low": 0.8, "high": 1.0, "control": 0.5, "step": step}
        for step in (0, 5)
    ]  # fmt: skip
    steps = {"what": f"Steps of '{SECRET}'.", "rows": {"split": "test"}}
    Result("steps", result_table(records), steps).save(folder / "results")
    pl.DataFrame(points).write_parquet(folder / "results" / "examples" / "steps.parquet")
    heads = [
        {"arm": "full", "seed": 0, "model": "base_tuned", "lens": "attention", "metric": "jensen_shannon",
         "site": "attn_pattern", "layer": 0,
         "head": head, "step": step, "value": 0.1 * step, "of_metric": None}
        for head in (0, 1) for step in (0, 5)
    ]  # fmt: skip
    Result("watch", result_table(heads), {"what": "Watched.", "rows": {}}).save(folder / "results")
    maps = [
        {"lens": "attention", "model": "tuned", "row_id": ids[0], "layer": 0, "head": 0, "step": step, "query": query,
         "key": key, "value": 0.5, "query_token": f"{SECRET}{query}", "text": f"{SECRET} text"}
        for step in (0, 5) for query in (0, 1) for key in (0, 1)
    ]  # fmt: skip
    pl.DataFrame(maps).write_parquet(folder / "results" / "examples" / "watch.parquet")


def _bench(folder, row_id):
    off = {"heads": [[[0.0, 1.0]]], "attention": [[0.0, 1.0]], "mlp": [[0.0, 1.0]]}
    model = {
        "logits": [0.1, 0.9],
        "words": [[0.0, 0.5]],
        "off": {"zero": off, "mean": off},
        "tokens": [SECRET],
    }
    place = folder / "looks" / "full" / "seed-0" / "bench"
    place.mkdir(parents=True)
    write_json(place / "row.json", {
        "arm": "full", "seed": 0, "base_head": "probe", "labels": list(LABELS), "layers": 1, "heads": 1,
        "row_id": row_id, "label": 1, "text": f"{SECRET} here", "pieces": [SECRET], "cut": False, "words": [[0, 8]],
        "chosen": "the first drawn validation row", "models": {"base": model, "tuned": model}, "swap": f"{SECRET}b",
    })  # fmt: skip


@pytest.fixture(scope="module")
def secret_run(tmp_path_factory):
    return make_secret_run(tmp_path_factory.mktemp("texts") / "run")


def test_without_texts_the_secret_is_nowhere_and_row_ids_are(secret_run):
    path = write_report(secret_run, texts="none")
    files = ("report.html", "maps.html", "steps.html", "watch.html")
    pages = {name: everything(secret_run / name) for name in files}
    assert sorted(one.name for one in secret_run.glob("watch-*.gif"))
    for name, text in pages.items():
        assert SECRET.lower() not in text.lower(), (
            name,
            text[text.lower().index(SECRET.lower()) - 200 :][:400],
        )
    ids = pl.read_parquet(secret_run / "data" / "rows.parquet").filter(pl.col("split") == "test")["row_id"][
        :1
    ]
    assert ids[0] in pages["report.html"]
    assert ids[0] in pages["maps.html"]
    assert "Texts are withheld" in pages["report.html"]
    assert 'id="bench-rows"' in pages["report.html"]
    assert "Damaged" not in pages["report.html"]  # nothing broke because it was withheld
    assert path.stat().st_size < 10_000_000


def test_with_all_texts_the_secret_is_where_it_belongs(secret_run):
    write_report(secret_run, texts="all")
    assert f"{SECRET} wrote the text number" in everything(secret_run / "report.html")
    assert f"{SECRET} wrote the text number" in everything(secret_run / "maps.html")
    assert f"{SECRET} author" in everything(secret_run / "maps.html")
    assert f"{SECRET} here" in everything(secret_run / "report.html")
    assert f"{SECRET}1" in everything(secret_run / "watch.html")


def test_examples_are_chosen_rows_and_no_hover_of_every_row(secret_run):
    write_report(secret_run, texts="examples")
    assert f"{SECRET} wrote the text number" in everything(secret_run / "report.html")
    assert "wrote the text number" not in everything(secret_run / "maps.html")


def test_what_was_chosen_last_holds_until_another_choice(run_copy):
    write_report(run_copy, texts="none")
    text = pl.read_parquet(run_copy / "data" / "rows.parquet")["text"].to_list()
    withheld = everything(write_report(run_copy))
    assert [one for one in text[::40] if one in withheld] == []
    assert read_json(run_copy / "report.json")["texts"] == "none"
    with asked("none"):
        assert choose(run_copy, None) == "none"
    assert choose(run_copy, None) == "none"  # it is kept


def test_another_word_is_refused(run_copy):
    with pytest.raises(ConfigError, match="--texts expected all, examples or none; came 'some'"):
        write_report(run_copy, texts="some")
    with pytest.raises(ConfigError, match="came 'no'"), asked("no"):
        pass


def test_repeats_are_counted_without_texts_as_with_them(run_copy):
    path = run_copy / "data" / "rows.parquet"
    rows = pl.read_parquet(path).with_columns(
        text=pl.when(pl.int_range(pl.len()) < 9).then(pl.lit("same")).otherwise("text")
    )
    rows.write_parquet(path)
    held = read_run(run_copy, "none").rows
    assert held["text"].n_unique() == rows["text"].n_unique()
    assert held["text"][8] == f"row {rows['row_id'][0]}"


def test_sentences_keep_numbers_names_and_words_of_ours():
    held = Withheld(frozenset({"minilm", "anger"}))
    said = "Zeroing head L0H5 of minilm changes the margin for anger by -0.78 [-1.24, -0.37] logits (n = 32)."
    assert held.prose(said) == said
    assert held.prose(f"The word '{SECRET}' and {SECRET}.") == "The word [withheld] and [withheld]."
    assert held.prose("marked 'tuned'") == "marked 'tuned'"


@pytest.mark.parametrize(
    "number", ["5.8e-05", "1e-12", "-1.5E+3".lower(), "5.8e-05 [1.0e-6, 2e-4]", "p = 1.5e-07."]
)
def test_numbers_of_any_size_are_kept(number):
    assert Withheld(frozenset()).prose(number) == number


def test_words_that_look_like_numbers_or_hold_them_are_withheld():
    held = Withheld(frozenset())
    assert held.prose(f"5.8e-05{SECRET}") == "5.8[withheld]"
    assert held.prose(f"the word '5.8e-05' of {SECRET}1e5") == "the word [withheld] of [withheld]"


def test_claims_of_the_recipes_are_said_whole_and_a_study_of_ones_own_only_in_words_of_ours():
    study = yaml.safe_load((RECIPES / "emotion-gpt2.yaml").read_text(encoding="utf-8"))
    held = Withheld(frozenset())
    for claim in study["claims"]:
        assert held.prose(claim["statement"]) == claim["statement"]
        assert held.prose(f"seed 0 ({claim['reported']})") == f"seed 0 ({claim['reported']})"
        assert held.prose(f"'{claim['statement']}' {SECRET}") == "[withheld] [withheld]"
    assert held.prose(f"The word {SECRET} decides by 3.1e-04.") == "The word [withheld] decides by 3.1e-04."


def test_a_prompt_or_a_list_of_words_in_a_recipe_is_no_sentence_of_ours():
    arms = yaml.safe_load((RECIPES / "imdb-lora.yaml").read_text(encoding="utf-8"))["arms"]
    prompts = [prompt for arm in arms if isinstance(arm, dict) for prompt in arm.get("prompts", [])]
    assert len(prompts) >= 3
    assert not [one for one in prompts if shipped_sentences().search(one)]


def test_stand_ins_are_the_same_wherever_a_string_occurs():
    held = Withheld(frozenset())
    table = held.table(pl.DataFrame({"word": ["a", "b", "a", None], "arm": ["x"] * 4, "value": [1.0] * 4}))
    assert table["word"].to_list() == ["word 1", "word 2", "word 1", None]
    assert table["arm"].to_list() == ["x"] * 4
    assert held.value({"word": "qzx", "sentence": "by 0.3", "counts": {"qzx": 2}}) == {
        "word": "value 1", "sentence": "by 0.3", "counts": {"value 1": 2}
    }  # fmt: skip


def test_the_file_of_the_choice_is_json_with_a_version(run_copy):
    choose(run_copy, "none")
    assert json.loads((run_copy / "report.json").read_text()) == {"format_version": 1, "texts": "none"}
