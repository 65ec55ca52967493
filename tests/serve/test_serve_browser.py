"""The bench in a real browser: what it shows is what the library computes; nothing foreign runs; it is accessible."""

from __future__ import annotations

import re
import threading
import time

import numpy as np
import pytest
from serve_run import HOSTILE, TEXT, TOKEN

from tunescope.evaluation.margins import margin
from tunescope.serve.app import make_app, make_site
from tunescope.serve.opening import open_bench
from tunescope.serve.runs import find_runs
from tunescope.serve.server import listening

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
FILLED = """([side, text]) => {
  const node = document.querySelectorAll('.side-of-bench')[side];
  if (node.dataset.text !== text) return false; // the numbers are still those of the text before
  const cells = [...node.querySelectorAll('.bench-grid button')];
  return cells.length > 0 && cells.every((cell) => cell.dataset.effect) && node.querySelector('.maps canvas') !== null
    && node.querySelector('.waiting') === null && node.querySelectorAll('.bench-top-words b').length > 0;
}"""
READ = "nodes => nodes.map((n) => [n.dataset.model, n.dataset.label, n.dataset.probability])"
SCREENS = [
    pytest.param(1300, "light", id="wide, light"),
    pytest.param(1300, "dark", id="wide, dark", marks=pytest.mark.slow),
    pytest.param(390, "light", id="phone", marks=pytest.mark.slow),
    pytest.param(390, "dark", id="phone, dark", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def served(moods):
    import uvicorn

    site, listener = make_site(find_runs([moods.parent]), "cpu", 1e9), listening(0)
    port = listener.getsockname()[1]
    config = uvicorn.Config(make_app(site, TOKEN, port), log_level="error", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()
    assert site.close()


@pytest.fixture(scope="module")
def bench(moods):
    return open_bench(moods, "full", 0, "cpu")


class Opened:
    """A page, and everything that it complained about or asked elsewhere."""

    def __init__(self, browser, served, width=1300, scheme="light", path="/bench/moods/full/0"):
        self.complaints: list[str] = []
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        self.page.on("request", lambda request: self._foreign(request.url, served))
        self.page.goto(f"{served}/?token={TOKEN}")
        self.page.goto(f"{served}{path}")

    def _foreign(self, url, served):
        if not url.startswith((served, "data:")):
            self.complaints.append(f"request {url}")

    def type(self, text, side=0):
        self.page.wait_for_selector("textarea", timeout=60_000)
        self.page.locator("textarea").nth(side).fill(text)
        # Polled from here: wait_for_function would need the unsafe-eval that the page's policy refuses.
        _until(lambda: self.page.evaluate(FILLED, [side, text]), "the bench did not fill")

    def probabilities(self, side=0):
        cells = self.page.locator(".side-of-bench").nth(side).locator(".prediction td")
        found = cells.evaluate_all(
            "nodes => nodes.map((n) => [n.dataset.model, n.dataset.label, n.dataset.probability])"
        )
        return {(model, int(label)): float(value) for model, label, value in found}


def softmax(logits):
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


def same(found, logits):
    assert len(found) == sum(map(len, logits.values()))
    for (model, label), value in found.items():
        assert value == pytest.approx(softmax(logits[model])[label], abs=2e-5), (model, label)


def test_switching_a_head_moves_the_prediction_to_what_the_library_computes(browser, served, bench):
    opened = Opened(browser, served)
    opened.type(TEXT)
    same(opened.probabilities(), bench.predict(TEXT))
    label = int(bench.predict(TEXT)["tuned"].argmax())
    for name in ("L1H2", "L0.mlp", "L1.attention"):
        cell = opened.page.locator(f'button[data-component="{name}"][data-model="tuned"]')
        before, after = bench.predict(TEXT)["tuned"], bench.switched(TEXT, [name])["tuned"]
        wanted = margin(after[None], np.array([label]))[0] - margin(before[None], np.array([label]))[0]
        assert float(cell.get_attribute("data-effect")) == pytest.approx(wanted, abs=1e-4)
    off = []
    for name in ("L1H2", "L0.mlp"):
        off.append(name)
        before = opened.probabilities()
        opened.page.click(f'button[data-component="{name}"][data-model="base"]')
        _wait_for_change(opened, before)
        same(opened.probabilities(), bench.switched(TEXT, off))
        pressed = opened.page.locator(f'button[data-component="{name}"][aria-pressed="true"]')
        assert pressed.count() == 2  # in both models
    before = opened.probabilities()
    opened.page.click("text=Switch all on")
    _wait_for_change(opened, before)
    same(opened.probabilities(), bench.predict(TEXT))
    opened.page.click("#mean")
    opened.page.wait_for_selector('#mean[aria-pressed="true"]')
    before = opened.probabilities()
    opened.page.click('button[data-component="L1H2"][data-model="tuned"]')
    _wait_for_change(opened, before)
    for _ in bench.prepare_means():
        pass
    same(opened.probabilities(), bench.switched(TEXT, ["L1H2"], "mean"))
    assert opened.complaints == []
    opened.context.close()


def _wait_for_change(opened, before):
    _until(lambda: opened.probabilities() != before, "the prediction did not move")


def _until(condition, said, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, said
        time.sleep(0.05)


@pytest.mark.slow
def test_a_pair_stands_side_by_side_and_shares_the_switches(browser, served, bench):
    opened = Opened(browser, served)
    opened.type("he was sad in the street")
    opened.page.click("text=Put beside")
    other = "she was sad in the street"
    opened.page.wait_for_selector(".side-of-bench:nth-child(2)")
    opened.type(other, side=1)
    same(opened.probabilities(0), bench.predict("he was sad in the street"))
    same(opened.probabilities(1), bench.predict(other))
    before = opened.probabilities(1)
    opened.page.locator('button[data-component="L1.mlp"][data-model="tuned"]').first.click()
    _until(lambda: opened.probabilities(1) != before, "the prediction did not move")
    same(opened.probabilities(1), bench.switched(other, ["L1.mlp"]))
    opened.page.click("text=Take it away")
    assert opened.page.locator("textarea").count() == 1
    assert opened.complaints == []
    opened.context.close()


def test_hostile_text_stays_text(browser, served):
    opened = Opened(browser, served)
    hostile = f"the cat {HOSTILE} </textarea><script>alert(2)</script> \u202eand he was sad"
    opened.type(hostile)
    page = opened.page
    assert page.locator("img, main script").count() == 0
    assert HOSTILE in page.locator(".prediction").inner_text()
    # The words are shown again once they are worked out; until then they are those of the text before.
    page.wait_for_selector(".bench-words:first-of-type >> text=alert(2)")
    assert "<script>alert(2)</script>" in page.locator(".bench-words").first.inner_text()
    assert "\u202e" not in page.locator(".deciding").inner_text()
    page.goto(f"{served}/")
    assert page.locator("img").count() == 0
    assert "<script>alert(1)</script>" in page.locator(".lead").first.inner_text()
    assert opened.complaints == []
    opened.context.close()


@pytest.mark.slow
def test_what_cannot_be_asked_is_said_and_goes_away(browser, served):
    opened = Opened(browser, served)
    opened.type(TEXT)
    opened.page.locator("textarea").fill("")
    opened.page.wait_for_selector("text=Type a text of at least one word.")
    opened.page.locator("textarea").fill("rain " * 200)
    opened.page.wait_for_selector("text=/longer than the window of 64: \\d+ tokens were cut/")
    opened.type(TEXT)
    assert re.fullmatch(r"\d+ tokens\.", opened.page.locator(".counted").inner_text())
    assert not opened.page.locator("#trouble").is_visible()
    opened.context.close()


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_pages_are_accessible_and_never_wider_than_the_screen(browser, served, width, scheme):
    opened = Opened(browser, served, width, scheme)
    opened.type("he was sad in the street")
    if width > 1000:
        opened.page.click("#beside")
        opened.type("she was sad in the street", side=1)
    opened.page.click('button[data-component="L1H2"][data-model="tuned"]')
    for path in (None, "/"):
        if path is not None:
            opened.page.goto(f"{served}{path}")
        found = axe.Axe().run(opened.page)
        assert found.violations_count == 0, found.generate_report()
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.complaints == []
    opened.context.close()


def test_the_theme_is_switched_by_a_button_and_holds_on_every_page(browser, served):
    opened = Opened(browser, served, scheme="light", path="/")
    page, paper = opened.page, "getComputedStyle(document.body).backgroundColor"
    assert (page.locator("#theme").inner_text(), page.evaluate(paper)) == ("Dark", "rgb(255, 255, 255)")
    page.locator("#theme").press("Enter")
    assert (page.locator("#theme").inner_text(), page.evaluate(paper)) == ("Light", "rgb(20, 23, 27)")
    page.goto(f"{served}/bench/moods/full/0")
    assert (page.locator("#theme").inner_text(), page.evaluate(paper)) == ("Light", "rgb(20, 23, 27)")
    page.locator("#theme").press("Enter")
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    assert opened.complaints == []
    opened.context.close()


@pytest.mark.slow
def test_the_grid_can_be_walked_and_pressed_by_keys(browser, served, bench):
    opened = Opened(browser, served)
    opened.type(TEXT)
    opened.page.locator('.bench-grid button[tabindex="0"]').nth(1).focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        opened.page.keyboard.press(key)
    assert opened.page.evaluate("document.activeElement.dataset.component") == "L0H2"
    before = opened.probabilities()
    opened.page.keyboard.press("Enter")
    _wait_for_change(opened, before)
    same(opened.probabilities(), bench.switched(TEXT, ["L0H2"]))
    opened.context.close()


def test_the_report_works_in_its_sandbox_and_its_bench_moves_to_what_the_library_computes(
    browser, served, bench, moods
):
    import json

    row = json.loads((moods / "looks" / "full" / "seed-0" / "bench" / "row.json").read_text(encoding="utf-8"))
    opened = Opened(browser, served, path="/runs/moods/report.html")
    opened.page.wait_for_selector("#bench .bench-grid button[data-effect]")
    found = {}
    for press in (None, "L1H3"):
        if press:
            opened.page.locator(f'#bench button[data-component="{press}"][data-model="tuned"]').click()
        cells = opened.page.locator("#bench-prediction td")
        values = cells.evaluate_all(
            "nodes => nodes.map((n) => [n.dataset.model, n.dataset.label, n.dataset.probability])"
        )
        found = {(model, int(label)): float(value) for model, label, value in values}
        wanted = bench.switched(row["text"], [press] if press else [])
        for (model, label), value in found.items():
            assert value == pytest.approx(softmax(wanted[model])[label], abs=1e-4)
    assert HOSTILE in opened.page.locator("#bench-prediction").inner_text()
    assert opened.complaints == []
    assert opened.page.evaluate("self.origin") == "null"
    opened.context.close()
