"""Maps on the page and in the file beside it: what is drawn, how many points, and foreign text as text."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import polars as pl
import pytest
from report_browser import Page, open_page

from tunescope.report import write_report
from tunescope.report.maps import FIGURE_POINTS
from tunescope.stats.results import Result, result_table

PWN = "document.documentElement.dataset.pwned='yes'"
IMAGE = f'<img src=x onerror="{PWN}">'
CLOSE = f"</script><script>{PWN}</script><!--"
PLACES = [("resid_post", 0), ("resid_post", 1), ("final_norm_out", 2)]


def make_maps(folder, rows=40, labels=("bad", "good"), arm="full", methods=("pca", "tsne")):
    generator = np.random.default_rng(0)
    ids = [f"row-{i}" if i else IMAGE for i in range(rows)]
    truth = [labels[i % 2] for i in range(rows)]
    frames = []
    records = []
    for site, layer in PLACES:
        for which in ("base", "tuned"):
            about = {"arm": arm, "seed": 0, "model": which, "site": site, "layer": layer, "n": rows}
            for method in methods:
                for axes in (2, 3):
                    spots = generator.normal(size=(rows, 3))
                    frames.append(pl.DataFrame({
                        "row_id": ids, "model": which, "label": truth, "prediction": [labels[0]] * rows,
                        "error": [one != labels[0] for one in truth], "kmeans": [i % 3 for i in range(rows)],
                        "hdbscan": [-1] * rows, "arm": arm, "seed": pl.Series([0] * rows, dtype=pl.Int64),
                        "site": site, "layer": layer, "method": method, "axes": axes, "x": spots[:, 0],
                        "y": spots[:, 1], "z": pl.Series(spots[:, 2] if axes == 3 else [None] * rows, dtype=pl.Float64),
                    }))  # fmt: skip
                    records.append({**about, "metric": "trustworthiness", "method": method, "axes": axes,
                                    "value": 0.9 + layer / 100, "low": 0.88, "high": 0.95, "control": 0.5})  # fmt: skip
            for metric in ("adjusted_rand", "purity"):
                records.append({**about, "metric": metric, "method": "kmeans", "value": 0.4, "low": 0.3,
                                "high": 0.5, "control": 0.01, "clusters": 3})  # fmt: skip
            records.append({**about, "metric": "silhouette", "method": "kmeans", "value": 0.2, "control": 0.1,
                            "clusters": 3})  # fmt: skip
    Result("maps", result_table(records), {"what": "Maps.", "rows": {"split": "validation"}}).save(
        folder / "results"
    )
    (folder / "results" / "examples").mkdir()
    pl.concat(frames).write_parquet(folder / "results" / "examples" / "maps.parquet")
    (folder / "data").mkdir()
    pl.DataFrame({
        "row_id": ids, "split": "validation", "text": [f"text {i} {CLOSE}{IMAGE}" for i in range(rows)],
        "label": [i % 2 for i in range(rows)], "length": [float(i) for i in range(rows)],
        IMAGE: [("red", CLOSE)[i % 2] for i in range(rows)],
    }).write_parquet(folder / "data" / "rows.parquet")  # fmt: skip
    return folder


def figures_of(page):
    return {
        a["id"]: json.loads(text)
        for a, text in page.scripts
        if a.get("type") == "application/json" and "id" in a
    }


def test_base_and_tuned_share_one_scale_and_every_method_is_drawn(tmp_path):
    folder = make_maps(tmp_path / "run")
    write_report(folder)
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    figures = figures_of(page)
    assert {f"map-0-{method}-{i}" for method in ("pca", "tsne") for i in range(1, 7)} <= set(figures)
    for place in (1, 2, 3):  # base above tuned
        ours, theirs = (figures[f"map-0-pca-{i}"]["layout"] for i in (place, place + 3))
        assert ours["xaxis"]["range"] == ours["yaxis"]["range"] == theirs["xaxis"]["range"]
        assert ours["yaxis"]["scaleanchor"] == "x"
    good = next(t for t in figures["map-0-pca-1"]["data"] if t["name"] == "good")
    assert set(good["marker"]["symbol"]) == {"x"}  # "bad" was predicted for all
    assert "base, layer 0 · trust 0.90" in page.text
    assert "Trustworthiness 0.90 to 0.92 (rows permuted: 0.50 to 0.50" in page.text
    assert "base 3 (silhouette 0.20; a normal cloud of the same covariance gives 0.10" in page.text
    assert "clusters-0-1" in figures
    assert 'id="lens-1"' not in page.text


def test_at_most_the_stated_points_are_on_the_page_and_the_sample_is_said(tmp_path):
    folder = make_maps(tmp_path / "run", rows=1200, methods=("pca",))
    write_report(folder)
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    shown = {
        key: sum(len(trace["x"]) for trace in figure["data"])
        for key, figure in figures_of(page).items() if key.startswith("map-0-pca")
    }  # fmt: skip
    assert set(shown.values()) == {FIGURE_POINTS // 6}
    assert f"{FIGURE_POINTS // 6} of 1,200 rows drawn at random (1,200 rows of validation)" in page.text


def test_the_file_beside_holds_every_layer_side_and_column(tmp_path):
    folder = make_maps(tmp_path / "run")
    write_report(folder)
    page = Page((folder / "maps.html").read_text(encoding="utf-8"))
    arm = figures_of(page)["data"]["arms"][0]
    assert [layer["name"] for layer in arm["layers"]] == ["layer 0", "layer 1", "norm"]
    columns = {column["name"]: column for column in arm["columns"]}
    assert columns["data: length"]["kind"] == "number"
    assert columns["label"]["names"] == ["bad", "good"]
    assert columns["error"]["names"] == ["right", "wrong"]
    assert columns["hdbscan"]["names"] == ["noise"]
    points = pl.read_parquet(folder / "results" / "examples" / "maps.parquet").filter(
        (pl.col("layer") == 1) & (pl.col("method") == "tsne") & (pl.col("axes") == 3)
    )
    both = points.select("x", "y", "z").to_numpy()
    for which, expected in zip(("base", "tuned"), np.split(both, 2), strict=True):
        packed = np.frombuffer(base64.b64decode(arm["layers"][1]["maps"]["tsne-3"][which]), dtype="<i2")
        reach = np.linalg.norm(both, axis=1).max()
        np.testing.assert_allclose(packed.reshape(-1, 3) / 32767 * reach, expected, atol=1e-4 * reach)


@pytest.mark.parametrize("name", ["report.html", "maps.html"])
def test_foreign_text_stays_text(name, tmp_path):
    folder = make_maps(tmp_path / "run", labels=(IMAGE, CLOSE), arm=f"full {IMAGE}")
    write_report(folder, texts="all")
    html = (folder / name).read_text(encoding="utf-8")
    page = Page(html)
    assert "img" not in {tag for tag, _ in page.elements}
    runnable = [text for a, text in page.scripts if a.get("type") != "application/json"]
    assert len(runnable) == (2 if name == "report.html" else 1)
    assert "default-src 'none'" in page.policy
    assert "unsafe" not in page.policy
    for trace in (t for key, f in figures_of(page).items() if key.startswith("map-") for t in f["data"]):
        assert not any("<img" in text for text in trace["text"])


def test_both_files_draw_in_chromium_without_a_word_in_the_console(browser, tmp_path):
    folder = make_maps(tmp_path / "run", labels=(IMAGE, CLOSE), arm=f"full {IMAGE}")
    write_report(folder)
    page = open_page(browser, folder / "report.html")
    assert page.console == []
    assert page.dom.count('class="scatterlayer') >= 6
    beside = open_page(browser, folder / "maps.html")
    assert beside.console == []
    for opened in (page, beside):
        assert "data-pwned" not in opened.dom.split("<body", 1)[0]
    found = Page(beside.dom)
    assert "img" not in {tag for tag, _ in found.elements}
    assert "trustworthiness 0.90 [0.88, 0.95]" in found.text
    assert [a["width"] != "300" for tag, a in found.elements if tag == "canvas"] == [True, True]


def test_a_run_without_maps_has_neither_section_nor_file(tmp_path):
    (tmp_path / "run").mkdir()
    write_report(tmp_path / "run")
    assert 'id="maps"' not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert not (tmp_path / "run" / "maps.html").exists()


def test_damaged_coordinates_are_named(tmp_path):
    folder = make_maps(tmp_path / "run")
    path = folder / "results" / "examples" / "maps.parquet"
    pl.read_parquet(path).drop("method").write_parquet(path)
    text = write_report(folder).read_text(encoding="utf-8")
    section = text[text.index('id="maps"') :]
    assert re.search(r"Damaged: .*maps\.parquet.*method", section[: section.index("</section>")])
    assert not (folder / "maps.html").exists()
