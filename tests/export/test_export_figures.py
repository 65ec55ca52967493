"""Figures for a paper, drawn by the system's browser: vector files with their fonts, at the width that was asked."""

from __future__ import annotations

import re
import struct
from xml.etree import ElementTree

import pytest

from tunescope.export import ExportOptions, export_run
from tunescope.export.paper import FONT, POINT, for_paper
from tunescope.export.pictures import browser
from tunescope.report.figures.style import Panel, Scale, axis, layout, named_axis

pytest.importorskip("kaleido")
HOSTILE = "<img src=x onerror=alert(1)> ‮gnp"
WIDTH = 3.3


def heatmap() -> Panel:
    names = ["a", HOSTILE]
    data = [{"type": "heatmap", "z": [[0.1, 0.9], [0.5, 0.2]], "showscale": False, "zmin": 0, "zmax": 1}]
    drawn = layout(240, xaxis=named_axis(names, "predicted"), yaxis=named_axis(names, "true " * 30))
    title = "base <b>against</b> tuned, with a title that is far longer than one column of a paper is wide"
    return Panel(title, {"data": data, "layout": drawn}, 240)


def curves(colours: tuple[str, ...]) -> Panel:
    data = [
        {"type": "scatter", "x": [0, 1], "y": [0, n], "line": {"color": c}} for n, c in enumerate(colours)
    ]
    return Panel("", {"data": data, "layout": layout(900, xaxis=axis("layer"), yaxis=axis("accuracy"))}, 900)


def sizes(node) -> list[float]:
    if isinstance(node, dict):
        own = [
            v["size"] for k, v in node.items() if k.endswith("font") and isinstance(v, dict) and "size" in v
        ]
        return own + [size for value in node.values() for size in sizes(value)]
    return [size for item in node for size in sizes(item)] if isinstance(node, list) else []


def test_text_is_between_six_and_eight_points_at_every_width():
    for inches in (2.0, WIDTH, 6.75):
        drawing = for_paper(heatmap(), None, inches)
        assert drawing.width == round(inches * 96)
        found = sizes(drawing.figure)
        assert found
        assert all(6 * POINT <= size <= 8 * POINT + 1e-9 for size in found)
        assert drawing.figure["layout"]["font"]["family"] == FONT


def test_long_titles_break_into_lines_and_stay_text():
    drawing = for_paper(heatmap(), None, WIDTH).figure["layout"]
    lines = drawing["title"]["text"].split("<br>")
    assert len(lines) > 1
    assert "&lt;b&gt;" in drawing["title"]["text"]
    assert "<br>" in drawing["yaxis"]["title"]["text"]


def test_a_shared_scale_becomes_a_colour_bar():
    scale = Scale("cividis", "0", "0.5", "1")
    assert for_paper(heatmap(), scale, WIDTH).figure["data"][0]["showscale"] is True
    assert for_paper(heatmap(), None, WIDTH).figure["data"][0]["showscale"] is False


def test_colours_that_nothing_names_are_named_below():
    arms = [("one", "#0072b2"), ("two", "#d55e00"), ("three", "#009e73")]
    plain, named = for_paper(curves(("#0072b2", "#d55e00")), None, WIDTH), None
    named = for_paper(curves(("#0072b2", "#d55e00")), None, WIDTH, arms)
    shown = [trace["name"] for trace in named.figure["data"] if trace.get("showlegend")]
    assert shown == ["one", "two"]
    assert named.figure["layout"]["height"] > plain.figure["layout"]["height"]
    alone = for_paper(curves(("#0072b2",)), None, WIDTH, arms)
    assert not any(trace.get("showlegend") for trace in alone.figure["data"])


def test_tall_drawings_fit_a_column_and_rows_of_names_keep_their_room():
    assert for_paper(curves(("#000000",)), None, WIDTH).height <= WIDTH * 96
    many = layout(900, xaxis=axis("x"), yaxis=named_axis([str(n) for n in range(40)]))
    assert for_paper(Panel("", {"data": [], "layout": many}, 900), None, WIDTH).height >= 40 * 6 * POINT


def test_texts_that_would_run_out_of_the_column_are_smaller_or_broken():
    for text, lines in (("short", 1), ("x" * 45 + " y", 1), ("many words " * 20, 4)):
        note = {
            "text": text,
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "showarrow": False,
            "font": {"size": 12},
        }
        panel = Panel("", {"data": [], "layout": layout(200, annotations=[note])}, 200)
        made = for_paper(panel, None, WIDTH).figure["layout"]["annotations"][0]
        parts = made["text"].split("<br>")
        assert len(parts) >= lines
        assert max(map(len, parts)) * 0.5 * made["font"]["size"] <= WIDTH * 96
        assert made["font"]["size"] >= 6 * POINT


def test_numbers_that_do_not_fit_their_cells_are_left_out():
    def cells(text: str) -> dict:
        data = [{"type": "heatmap", "z": [[0.1] * 6], "text": [[text] * 6], "texttemplate": "%{text}"}]
        return for_paper(Panel("", {"data": data, "layout": layout(200)}, 200), None, WIDTH).figure["data"][0]

    assert "texttemplate" in cells("0.1")
    assert "texttemplate" in cells("-0.123")
    assert "texttemplate" not in cells("-6.3e-06 [1, 2]")


def test_lanes_keep_the_height_of_the_page():
    lanes = layout(900, xaxis=axis("x"), yaxis=axis(domain=[0, 0.4]), yaxis2=axis(domain=[0.6, 1]))
    assert for_paper(Panel("", {"data": [], "layout": lanes}, 900), None, WIDTH).height > 2 * WIDTH * 96 * 0.9


@pytest.fixture(scope="module")
def drawn(made_run, tmp_path_factory):
    if browser() is None:
        pytest.skip("needs Chromium or Chrome, which is not installed here")
    options = ExportOptions(width="3.3in", figures=("depth", "confusion"), tables=False)
    return export_run(made_run, tmp_path_factory.mktemp("drawn") / "paper", options)


def test_every_figure_is_there_in_every_format(drawn):
    names = {path.stem for path in (drawn / "figures").glob("*.pdf")}
    assert names == {"depth", "confusion-1", "confusion-2"}
    for kind in ("svg", "png"):
        assert {path.stem for path in (drawn / "figures").glob(f"*.{kind}")} == names
    index = (drawn / "figures" / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in index for name in names)


def test_pdf_pages_have_the_width_and_their_fonts(drawn):
    for path in (drawn / "figures").glob("*.pdf"):
        data = path.read_bytes()
        box = re.search(rb"/MediaBox ?\[ ?0 0 ([\d.]+) ([\d.]+) ?\]", data)
        assert float(box[1]) / 72 == pytest.approx(WIDTH, abs=0.02)
        embedded = len(re.findall(rb"/FontFile[23]?\b", data))
        assert embedded >= 1
        assert data.count(b"/FontDescriptor ") >= embedded


def test_svg_is_xml_without_scripts_and_with_text(drawn):
    for path in (drawn / "figures").glob("*.svg"):
        root = ElementTree.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert float(root.attrib["width"]) == round(WIDTH * 96)
        tags = {element.tag.split("}")[1] for element in root.iter()}
        assert "text" in tags
        assert not tags & {"script", "foreignObject"}
        pictures = list(root.iter("{http://www.w3.org/2000/svg}image"))  # cells of a heatmap
        links = [
            value for element in pictures for key, value in element.attrib.items() if key.endswith("href")
        ]
        assert all(link.startswith("data:image/png;base64,") for link in links)
        assert not re.search(r"(href|src)=[\"'](https?:|file:)", path.read_text(encoding="utf-8"))


def test_png_has_300_dots_an_inch(drawn):
    for path in (drawn / "figures").glob("*.png"):
        width = struct.unpack(">I", path.read_bytes()[16:20])[0]
        assert width == pytest.approx(WIDTH * 300, abs=4)
