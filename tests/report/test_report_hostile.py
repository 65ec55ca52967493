"""Foreign text on the page: shown as text, wherever it comes from, and no script runs but ours."""

from __future__ import annotations

import json

import polars as pl
import pytest
from report_browser import Page, open_page
from report_evidence import add_evidence, add_grid, place_of, prompts
from report_run import Recipe, make_run

from tunescope.files import read_json, write_json
from tunescope.report import write_report
from tunescope.report.text import for_plotly, visible
from tunescope.stats.results import Result, result_table

PWN = "document.documentElement.dataset.pwned='yes'"
IMAGE = f'<img src=x onerror="{PWN}">'
CLOSE = f"</script><script>{PWN}</script><!--"
LINK = f'<a href="javascript:{PWN}">click</a>'
TEXTS = (
    IMAGE,
    CLOSE,
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    "مرحبا \u202egnp.exe\u202c 🙂👩‍👩‍👧 \x00\x07\x1b[31m red",
    "x" * 100_000,
    "=cmd|' /C calc'!A0",
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "run"
    recipe = Recipe(
        arms=(f"full {IMAGE}", CLOSE),
        labels=(IMAGE, CLOSE, LINK, "anger\u202e", "\x1bfear", "<b>surprise</b>"),
        texts=TEXTS * 100,
        question=f"Is it safe? {CLOSE}{IMAGE}",
        accuracy=(0.3, 0.3),
    )
    make_run(folder, recipe)
    other = result_table([{"arm": CLOSE, "metric": IMAGE, "value": 1.0, "word": LINK}])
    Result("leaving_out", other, {"what": f"Words {IMAGE}", "rows": {}, "notes": [CLOSE]}).save(
        folder / "results"
    )
    _hostile_evidence(folder, recipe)
    write_report(folder)
    return folder


def _hostile_evidence(folder, recipe):
    """Put foreign text wherever audit, baselines, prompts, grids and the like carry some."""
    add_evidence(folder, recipe, column=IMAGE)
    add_grid(folder, name=CLOSE, key=IMAGE)
    place = place_of(folder, recipe.arms[0], 0)
    metrics = read_json(place / "metrics.json")
    metrics |= {
        "prompt": prompts(6, (f"{IMAGE} {{text}}", f"{CLOSE}{{text}}")),
        "notes": [LINK],
        "model": IMAGE,
    }
    del metrics["format_version"]
    write_json(place / "metrics.json", metrics)
    names = [("encoder", IMAGE), ("classifier", CLOSE)]
    matrices = [{"matrix": f"{a}.{b}", "shape": [1], "trained": 1, "of": 1} for a, b in names]
    write_json(place / "parameters.json", {"matrices": matrices})
    for name, key, value in (
        ("comparison.json", "ranking", IMAGE),
        ("data/cross_validation.json", "sentence", CLOSE),
        ("baselines/tfidf/metrics.json", "about", CLOSE),
    ):
        document = read_json(folder / name)
        del document["format_version"]
        write_json(folder / name, document | {key: value})
    other = read_json(folder / "elsewhere.json")
    del other["format_version"]
    other["data"][0] |= {"name": IMAGE, "map": {CLOSE: LINK}, "left_out": {IMAGE: 3}}
    write_json(folder / "elsewhere.json", other)


def test_the_parsed_page_holds_no_element_of_theirs(hostile):
    page = Page((hostile / "report.html").read_text(encoding="utf-8"))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"img", "iframe", "b"}
    assert all((a.get("href") or "#").startswith("#") for tag, a in page.elements if tag == "a")
    runnable = [text for a, text in page.scripts if a.get("type") != "application/json"]
    assert len(runnable) == 2
    for attributes, text in page.scripts:
        if attributes.get("type") == "application/json":
            json.loads(text)
            assert "<" not in text
    assert IMAGE in page.text.replace("\n", " ")
    assert "{{ 7 * 7 }}" in page.text


def test_control_characters_and_direction_overrides_are_made_visible(hostile):
    text = (hostile / "report.html").read_text(encoding="utf-8")
    body = text[text.index("<body>") : text.index('type="application/json"')]
    assert not [sign for sign in ("\x00", "\x07", "\x1b", "\u202e", "\u202c") if sign in body]
    assert "[U+202E]" in text


def test_long_texts_are_cut_for_display(hostile):
    page = Page((hostile / "report.html").read_text(encoding="utf-8"))
    longest = max((text for text in page.texts if text.startswith("xxxx")), key=len)
    assert len(longest) <= 303
    assert (hostile / "report.html").stat().st_size < 10_000_000


def test_no_script_of_theirs_runs_in_chromium(browser, hostile):
    opened = open_page(browser, hostile / "report.html")
    assert "data-pwned" not in opened.dom.split("<body", 1)[0]
    assert opened.console == []
    elements = Page(opened.dom).elements
    links = [a.get("href") or a.get("xlink:href") or "#" for _, a in elements]
    assert not [
        link for link in links if not link.startswith(("#", "data:image/png")) and link != "data:,"
    ]  # heatmaps
    assert not {tag for tag, _ in elements} & {"img", "iframe"}
    assert "&lt;img src=x" in opened.dom.split('class="main-svg"', 1)[1]  # label names are drawn, as text


def test_the_probe_itself_would_be_seen(browser, tmp_path):
    (tmp_path / "bad.html").write_text(f"<html><body><p>{IMAGE}</p></body></html>")
    assert "data-pwned" in open_page(browser, tmp_path / "bad.html").dom


def test_lone_surrogates_from_json_do_not_break_the_page(run_copy):
    path = run_copy / "data" / "summary.json"
    path.write_text(path.read_text().replace("3 rows without text", "\\ud800 rows without text"))
    assert "\ufffd rows without text" in write_report(run_copy).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("<b>bold</b> & co", "&lt;b&gt;bold&lt;/b&gt; &amp; co"),
        ("two\nlines\t here", "two lines here"),
        ("a" * 70, "a" * 60 + " …"),
        ("\u202eabc", "[U+202E]abc"),
    ],
)
def test_plotly_text_is_literal(given, shown):
    assert for_plotly(given) == shown


def test_visible_leaves_numbers_and_ordinary_text_alone():
    assert visible(3) == 3
    assert visible("naïve 🙂 עברית") == "naïve 🙂 עברית"


def test_texts_come_from_the_rows_by_id_not_by_order(run_copy):
    rows = pl.read_parquet(run_copy / "data" / "rows.parquet")
    rows.sort("text").write_parquet(run_copy / "data" / "rows.parquet")
    shuffled = Page(write_report(run_copy).read_text(encoding="utf-8"))
    predictions = pl.read_parquet(run_copy / "arms" / "full" / "seed-0" / "predictions.parquet")
    wrong = predictions.join(rows.select("row_id", "text"), on="row_id").filter(
        (pl.col("split") == "test") & (pl.col("prediction") != pl.col("label"))
    )
    top = wrong.with_columns(pl.max_horizontal(pl.selectors.starts_with("probability_")).alias("top"))
    for record in top.sort("top", descending=True).head(3).iter_rows(named=True):
        place = shuffled.texts.index(record["text"])
        assert record["row_id"] in shuffled.texts[place : place + 14]
