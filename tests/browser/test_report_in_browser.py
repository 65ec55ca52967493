"""The report of a run with many lenses in a real browser: figures, data, copies, themes, paging, accessibility."""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from browser.conftest import LENSES
from tunescope.report.evidence import all_figures
from tunescope.report.figures.data import figure_table
from tunescope.report.read import read_run

pytestmark = pytest.mark.slow
DRAW_ALL = """async () => {
  const wait = (time) => new Promise((done) => setTimeout(done, time));
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  const plots = [...document.querySelectorAll(".plot")];
  for (const plot of plots) { plot.scrollIntoView(); await wait(20); }
  for (let turn = 0; turn < 1200 && plots.some((plot) => plot.dataset.drawn !== "done"); turn += 1) await wait(50);
  window.scrollTo(0, 0);
  const missing = (plot) => plot.dataset.drawn !== "done" || !plot.querySelector(".main-svg");
  return plots.filter(missing).map((one) => one.dataset.figure);
}"""
# axe reads the page's own elements; the inside of a drawing has its text alternative beside it.
AXE = {"context": {"exclude": [[".plot > div"]]}, "options": {"resultTypes": ["violations"]}}


@dataclass
class Opened:
    """A page with what the browser said while it was open."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


def open_report(browser: Any, folder: Path, scheme: str, width: int) -> Opened:
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 1000})
    opened = Opened(context.new_page())
    opened.page.set_default_timeout(60_000)
    opened.page.on("console", lambda message: opened.said.append(f"{message.type}: {message.text}"))
    opened.page.on("pageerror", lambda error: opened.said.append(f"error: {error}"))
    opened.page.on("request", lambda request: opened.asked.append(request.url))
    opened.page.goto((folder / "report.html").as_uri())
    return opened


@pytest.fixture(scope="module")
def report(browser, rich_run):
    opened = open_report(browser, rich_run, "light", 1280)
    opened.not_drawn = opened.page.evaluate(DRAW_ALL)
    yield opened
    opened.page.context.close()


@pytest.fixture(scope="module")
def placed(rich_run):
    return all_figures(read_run(rich_run))


def download(page: Any, key: str, kind: str) -> bytes:
    with page.expect_download() as found:
        page.locator(f'figure[data-key="{key}"] [data-save="{kind}"]').click()
    assert found.value.suggested_filename == f"{key}.{kind}"
    return Path(found.value.path()).read_bytes()


def test_every_section_renders_without_an_error_or_a_request(report, rich_run, placed):
    assert report.not_drawn == []
    assert report.said == []
    assert report.asked == [(rich_run / "report.html").as_uri()]
    anchors = {anchor for anchor, _, _ in placed}
    wanted = {"direct" if name == "attribution_direct" else name.replace("_", "-") for name in LENSES}
    assert wanted <= anchors, "a lens drew nothing"
    for anchor in anchors - {"answer"}:
        assert report.page.locator(f"#{anchor} .plot .main-svg").count() > 0, anchor
    on_page = report.page.eval_on_selector_all("figure[data-key]", "all => all.map((one) => one.dataset.key)")
    assert sorted(on_page) == sorted(figure.key for _, _, figure in placed)


def test_every_figure_says_what_it_shows_how_to_read_it_and_what_was_measured(placed):
    lacking = [
        (one.key, name)
        for _, _, one in placed
        for name in ("shows", "how", "high", "measured")
        if not getattr(one, name)
    ]
    assert lacking == []


def test_the_data_of_a_figure_is_the_same_from_the_page_and_from_python(report, placed):
    sections = {anchor: figure for anchor, _, figure in placed}  # the last of each section
    assert len(sections) > 15
    for figure in sections.values():
        text = download(report.page, figure.key, "csv").decode("utf-8-sig")
        header, *rows = list(csv.reader(io.StringIO(text)))
        table = figure_table(figure)
        assert header == table.columns
        assert len(rows) == table.height > 0
        for row, wanted in zip(rows, table.iter_rows(), strict=True):
            assert [_value(cell) for cell in row] == [
                _value("" if cell is None else str(cell)) for cell in wanted
            ]


def _value(cell: str) -> float | str:
    try:
        return float(f"{float(cell):.4g}")
    except ValueError:
        return cell.removeprefix("'")


def test_no_text_of_a_table_is_a_formula(report, placed):
    key = next(figure.key for _, _, figure in placed if figure.key == "confusion")
    text = download(report.page, key, "csv").decode("utf-8-sig")
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert "'=good" in cells
    assert not [cell for cell in cells if cell[:1] in "=+@" and cell]


def test_copies_are_made_under_the_policy(report, placed):
    key, title = next((one.key, one.title) for _, _, one in placed if one.key.startswith("heads-"))
    drawing = ElementTree.fromstring(download(report.page, key, "svg").decode("utf-8"))
    texts = [node.text for node in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert title in texts
    assert drawing.findall("{http://www.w3.org/2000/svg}svg"), "the panels are not in the drawing"
    picture = download(report.page, key, "png")
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = int.from_bytes(picture[16:20], "big"), int.from_bytes(picture[20:24], "big")
    assert (width, height) == (2 * float(drawing.get("width")), 2 * float(drawing.get("height")))
    assert len(picture) > 10_000
    assert report.said == []


def test_the_switch_turns_page_and_figures_dark_and_back(report):
    page = report.page
    ink = "document.querySelector('.plot[data-drawn=done]')._fullLayout.font.color"
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(f"[{ink}, {paper}]")
    assert page.locator("#theme").inner_text() == "Dark"
    page.locator("#theme").press("Enter")
    dark = page.evaluate(f"[{ink}, {paper}]")
    assert dark == ["#b9c1ca", "rgb(20, 23, 27)"]
    assert light == ["#4c5560", "rgb(255, 255, 255)"]
    themes = page.eval_on_selector_all(".plot", "all => [...new Set(all.map((one) => one.dataset.theme))]")
    assert themes == ["dark"]
    page.locator("#theme").press("Enter")
    assert page.evaluate(f"[{ink}, {paper}]") == light


def test_a_figures_table_is_paged_by_keyboard(report, placed):
    figure = next(one for _, _, one in placed if one.key.startswith("cka-"))
    rows = figure_table(figure).height
    assert rows > 25
    place = report.page.locator(f'figure[data-key="{figure.key}"]')
    button = place.locator("[data-table]")
    button.focus()
    button.press("Enter")
    table = place.locator(".figure-data table")
    table.wait_for()
    assert table.locator("tbody tr").count() == 25
    first = table.locator("tbody tr").first.inner_text()
    pages = place.locator(".pager")
    assert pages.locator("span").inner_text() == f"rows 1 to 25 of {rows}"
    pages.get_by_text("Next").press("Enter")
    assert pages.locator("span").inner_text() == f"rows 26 to {min(50, rows)} of {rows}"
    assert table.locator("tbody tr").first.inner_text() != first
    pages.get_by_text("Last").press("Enter")
    assert pages.get_by_text("Next").get_attribute("aria-disabled") == "true"
    pages.get_by_text("First").press("Enter")
    assert table.locator("tbody tr").first.inner_text() == first
    button.press("Enter")
    assert place.locator(".figure-data").count() == 0


def test_long_tables_of_the_page_are_paged_and_sorting_starts_at_the_first_page(report):
    page = report.page
    long = page.locator("table.sortable:has(tbody tr[hidden])").first
    total = long.locator("tbody tr").count()
    assert total > 25
    assert long.locator("tbody tr:visible").count() == 25
    pages = long.locator("xpath=ancestor::div[contains(@class, 'scroll')]/following-sibling::div[1]")
    pages.get_by_text("Next").press("Enter")
    assert pages.locator("span").inner_text().startswith("rows 26")
    long.locator("th .sort").first.press("Enter")
    assert pages.locator("span").inner_text() == f"rows 1 to 25 of {total}"
    shown = long.locator("tbody tr:visible td:first-child").evaluate_all(
        "all => all.map((one) => one.dataset.key)"
    )
    assert shown == sorted(shown)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser, rich_run, scheme, width):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    ).Axe()
    opened = open_report(browser, rich_run, scheme, width)
    opened.page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    found = axe.run(opened.page, **AXE).response["violations"]
    opened.page.context.close()
    told = [
        (one["id"], node["html"][:200], node["failureSummary"][:200])
        for one in found
        for node in one["nodes"][:2]
    ]
    assert told == []


def test_a_narrow_screen_scrolls_in_one_direction(browser, rich_run):
    opened = open_report(browser, rich_run, "light", 390)
    opened.page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    opened.page.wait_for_timeout(500)
    wide = opened.page.evaluate("""() => [...document.querySelectorAll("main *")].filter((one) =>
      one.getBoundingClientRect().right > innerWidth + 1 && !one.closest(".scroll, pre, svg, .unseen"))
      .map((one) => one.outerHTML.slice(0, 120))""")
    assert wide == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390
    opened.page.context.close()


def test_on_paper_the_page_is_light_and_without_buttons(browser, rich_run):
    opened = open_report(browser, rich_run, "dark", 1280)
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.page.locator(".saves:visible, .pager:visible, .contents:visible").count() == 0
    hidden = opened.page.locator("tr[hidden]").count()
    assert hidden > 0
    assert (
        opened.page.locator("tr[hidden]").first.evaluate("one => getComputedStyle(one).display")
        == "table-row"
    )
    opened.page.context.close()
