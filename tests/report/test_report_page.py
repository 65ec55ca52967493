"""The page of a whole run: complete, self-contained, under a policy that its own scripts satisfy."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest
from report_browser import open_page

from tunescope.files import read_json
from tunescope.report import write_report
from tunescope.report.text import short_path

SECTIONS = (
    "answer", "findings", "planted", "arms", "data", "training", "metrics", "errors", "cka", "ablation",
    "limits", "reproduce",
)  # fmt: skip


def test_the_page_is_one_file_beside_the_run_and_small(whole_run):
    path = write_report(whole_run)
    assert path == whole_run / "report.html"
    assert path.stat().st_size < 10_000_000
    assert not list(whole_run.glob(".*.part"))


def test_every_section_is_there_and_nothing_is_missing(page):
    ids = [attributes.get("id") for _, attributes in page.elements]
    assert [name for name in SECTIONS if name not in ids] == []
    assert len([i for i in ids if i]) == len({i for i in ids if i}), "an id is used twice"
    missing = [attributes for _, attributes in page.elements if attributes.get("class") == "missing"]
    assert len(missing) == 1  # the line for browsers without scripts


def test_the_contents_lead_to_sections_that_exist(page):
    ids = {attributes.get("id") for _, attributes in page.elements}
    targets = [a["href"][1:] for tag, a in page.elements if tag == "a" and a.get("href", "").startswith("#")]
    assert len(targets) > 8
    assert set(targets) <= ids


def test_the_answer_holds_the_numbers_of_the_metrics_files(whole_run, page):
    for arm in ("full", "head-only"):
        metrics = read_json(whole_run / "arms" / arm / "seed-0" / "metrics.json")
        found = next(r for r in metrics["records"] if (r["split"], r["metric"]) == ("test", "accuracy"))
        assert f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]" in page.text
    majority = metrics["majority"]["test"]
    assert f"always answering the most frequent class (joy) reaches {majority['accuracy']:.3f}" in page.text
    assert "On 600 test rows, full reaches accuracy" in page.text


def test_the_title_is_the_question(page):
    question = "Does tuning every layer read emotions better than tuning the head alone, and where?"
    assert page.texts.count(question) == 2  # the window's title and the heading


def test_nothing_is_loaded_from_anywhere(page):
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        for name in ("src", "srcset", "data", "action", "poster", "background", "xlink:href"):
            assert name not in attributes, (tag, name)
        assert not (attributes.get("href") or "#").lower().startswith(("http", "//", "javascript", "data"))
    for style in page.styles:
        assert "url(" not in style
        assert "@import" not in style


def test_the_policy_allows_exactly_the_scripts_and_styles_of_the_page(page):
    directives = dict(part.split(" ", 1) for part in page.policy.split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["img-src"] == "data:"
    assert "unsafe" not in page.policy
    assert "http" not in page.policy
    run = {_hash(text) for a, text in page.scripts if a.get("type") != "application/json"}
    assert run == set(directives["script-src"].split())
    assert len(run) == 2
    assert {_hash(text) for text in page.styles} | {_hash("")} == set(directives["style-src"].split())


def test_no_markup_carries_script_or_style_in_attributes(page):
    names = {name for _, attributes in page.elements for name in attributes}
    assert "style" not in names
    assert not {name for name in names if name.startswith("on")}


def test_every_figure_has_data_that_is_json_and_a_caption_with_rows(page):
    figures = [json.loads(text) for a, text in page.scripts if a.get("type") == "application/json"]
    plots = [a["data-figure"] for _, a in page.elements if "data-figure" in a]
    ids = [a["id"] for a, _ in page.scripts if a.get("type") == "application/json"]
    assert plots == ids
    assert len(figures) > 20
    assert all(figure["data"] for figure in figures)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("figure") == tags.count("figcaption")
    assert "on 1,024 rows of validation (stratified sample)" in page.text
    assert "over 512 rows of validation (stratified sample)" in page.text


def test_the_trust_bar_counts_what_is_in_the_tables(page, whole_run):
    from tunescope.stats.results import Result

    q = Result.load(whole_run / "results", "ablation").table["q"].drop_nulls()
    assert f"{(q <= 0.05).sum():,} of {q.len():,} at q ≤ 0.05" in page.text
    assert "16,000 train · 2,000 validation · 600 test" in page.text
    assert "no text in more than one split" in page.text or "in more than one split" in page.text


def test_planted_stands_beside_recovered_tuned_before_base(page):
    text = page.text
    first = text.index(
        "noise share full labels of test rows that the model contradicts tuned 0.080 0.083 [0.064"
    )
    assert first < text.index("noise share full base 0.080")
    assert (
        "gender gap ambiguous full pairs that differ in gender alone tuned 0.445 0.310 [0.270, 0.360] 0.050"
        in text
    )
    assert "200 no" in text  # the interval does not hold what was planted


def test_limits_are_made_from_what_is_in_the_run(page):
    assert "One seed: every interval here is about rows." in page.text
    assert "Its logits come from a probe" in page.text
    assert (
        "Base logits marked 'tuned'" not in page.text
    )  # tuned rows name their own head; that is not the base's


def test_chromium_draws_every_open_figure_without_a_word_in_the_console(browser, whole_run):
    opened = open_page(browser, whole_run / "report.html")
    assert opened.console == []
    assert "could not be drawn" not in opened.dom.split("<script", 1)[0]
    plots = re.findall(r'<div class="[^"]*" data-figure=[^>]*>', opened.dom)
    drawn = [plot for plot in plots if 'data-drawn="done"' in plot and "js-plotly-plot" in plot]
    folded = re.findall(r"<details class=\"fold\">.*?</details>", opened.dom, flags=re.S)
    hidden = sum(part.count("data-figure=") for part in folded)
    assert len(drawn) > 20
    assert len(drawn) + hidden == len(plots)
    assert opened.dom.count('class="main-svg"') >= len(drawn)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("distilbert/distilbert-base-uncased", "distilbert/distilbert-base-uncased"),
        ("/home/a/site-packages/minilm/model", "minilm/model"),
        ("/runs/x/checkpoint-500", "x/checkpoint-500"),
        ("/weights/gpt2-mini", "gpt2-mini"),
        ("C:\\weights\\gpt2-mini", "gpt2-mini"),
        ("scratch", "scratch"),
    ],
)
def test_a_local_folder_is_named_by_its_end(name, shown):
    assert short_path(name) == shown
