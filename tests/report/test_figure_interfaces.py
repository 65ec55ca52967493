"""What figures give to others: their data, one drawing of all panels, themes, what they say, the model, the stages."""

from __future__ import annotations

import re
from pathlib import Path

import plotly.graph_objects
import polars as pl
import pytest

import tunescope.report
from tunescope.files import write_json
from tunescope.report.figures import style
from tunescope.report.figures.data import figure_table
from tunescope.report.figures.style import Figure, Panel, plotly_figure
from tunescope.report.model_diagram import diagram
from tunescope.report.pipeline import pipeline
from tunescope.report.read import read_run
from tunescope.report.readings import READINGS, told


def map_panel(title: str = "a <map>") -> Panel:
    data = {
        "type": "heatmap", "x": [0, 1], "y": [0, 1], "z": [[0.25, None], [float("nan"), 1.0]],
        "hovertext": [["L0<br>0.25", ""], ["", "L1<br>&lt;1&gt;"]], "hoverinfo": "text",
    }  # fmt: skip
    layout = style.layout(
        200, xaxis=style.named_axis(["emb", "0"], "layer"), yaxis=style.named_axis(["H0", "H1"])
    )
    return Panel(title, {"data": [data], "layout": layout}, 200)


def point_panel() -> Panel:
    line = {
        "type": "scatter", "name": "tuned", "x": [-0.2, 1.2], "y": [0.5, 0.75], "text": "same",
        "error_y": {"array": [0.1, 0.05], "arrayminus": [0.2, 0.05]},
    }  # fmt: skip
    band = {"type": "scatter", "x": [0, 1], "y": [9, 9], "hoverinfo": "skip"}
    note = {"text": "here", "x": 1, "xref": "x", "y": 1.0, "yref": "y domain"}
    layout = style.layout(240, xaxis=style.named_axis(["one", "two"], "arm"), yaxis=style.axis("accuracy"))
    return Panel("points", {"data": [band, line], "layout": {**layout, "annotations": [note]}}, 240)


def test_the_data_of_a_map_names_places_and_leaves_gaps_out():
    table = figure_table(Figure("map", "", (map_panel(),), ""))
    assert table.select("panel", "x_axis", "x", "y", "z", "said").rows() == [
        ("a", "layer", "emb", "H0", 0.25, "L0; 0.25"),
        ("a", "layer", "0", "H1", 1.0, "L1; <1>"),
    ]


def test_the_data_of_points_has_intervals_and_no_decoration():
    table = figure_table(Figure("points", "", (point_panel(),), ""))
    assert table.select("series", "x", "y", "low", "high", "said").rows() == [
        ("tuned", "one", "0.5", 0.3, 0.6, "same"),
        ("tuned", "two", "0.75", 0.7, 0.8, "same"),
    ]


def test_a_table_that_was_given_is_the_data():
    given = Figure("own", "", (map_panel(),), "", table=[{"matrix": "query", "of": 9}])
    assert figure_table(given).rows(named=True) == [{"matrix": "query", "of": 9}]
    frame = pl.DataFrame({"a": [1]})
    assert figure_table(Figure("own", "", (), "", table=frame)) is frame


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_panels_side_by_side_are_one_figure_that_plotly_accepts(theme):
    panels = (map_panel(), point_panel(), map_panel("third"), point_panel())
    made = plotly_figure(Figure("all", "", panels, ""), theme)
    plotly.graph_objects.Figure(made)  # refuses what is no figure
    layout = made["layout"]
    assert [trace["xaxis"] for trace in made["data"]] == ["x", "x2", "x2", "x3", "x4", "x4"]
    places = [(layout[f"xaxis{n}"]["domain"], layout[f"yaxis{n}"]["domain"]) for n in ("", 2, 3, 4)]
    for (left, right), _ in places:
        assert 0 <= left < right <= 1.0001
    assert places[0][0][1] < places[1][0][0] < places[1][0][1] < places[2][0][0]
    assert places[3][1][1] < places[0][1][0], "the fourth panel stands on the second line"
    notes = {(note["text"], note["xref"], note["yref"]) for note in layout["annotations"]}
    assert ("here", "x2", "y2 domain") in notes
    assert ("here", "x4", "y4 domain") in notes
    assert ("third", "paper", "paper") in notes
    assert layout["paper_bgcolor"] == style.THEMES[theme]["paper"]
    assert layout["font"]["color"] == style.THEMES[theme]["soft"]
    assert panels[1].figure["layout"]["annotations"][0]["xref"] == "x", (
        "the page's own panels stay as they are"
    )


def test_a_single_panel_keeps_its_axes():
    made = plotly_figure(point_panel())
    assert set(made["layout"]) >= {"xaxis", "yaxis"}
    assert made["data"][1]["error_y"]["color"] == style.THEMES["light"]["soft"]


def test_the_themes_are_those_of_the_style_sheet():
    css = (Path(tunescope.report.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    names = {"ink": "--ink", "soft": "--ink-soft", "paper": "--paper", "line": "--line-strong"}
    for key, name in names.items():
        found = re.findall(rf"{name}: (#[0-9a-f]{{6}});", css)
        assert found == [style.THEMES["light"][key], style.THEMES["dark"][key], style.THEMES["dark"][key]]


def test_a_figure_is_told_by_its_kind_and_keeps_what_its_builder_said():
    assert told(Figure("attention-effect-0", "", (), "")).shows == READINGS["attention-effect"][0]
    assert told(Figure("attention-0", "", (), "", high="mine")).high == "mine"
    assert told(Figure("attention-0", "", (), "")).shows == READINGS["attention"][0]
    assert told(Figure("nothing-known", "", (), "")) == Figure("nothing-known", "", (), "")


def matrix(name: str, *shape: int, trained: bool = True) -> dict[str, object]:
    of = 1
    for size in shape:
        of *= size
    return {"matrix": name, "shape": list(shape), "trained": of if trained else 0, "of": of}


def test_a_model_is_read_in_the_order_of_its_modules_and_adapters_count_with_their_matrix():
    made = diagram([
        matrix("bert.embeddings.word_embeddings.weight", 9, 4, trained=False),
        matrix("bert.encoder.layer.0.attention.self.query.base_layer.weight", 4, 4, trained=False),
        matrix("bert.encoder.layer.0.attention.self.query.lora_A.default.weight", 1, 4),
        matrix("bert.encoder.layer.0.attention.self.query.lora_B.default.weight", 4, 1),
        matrix("bert.encoder.layer.0.attention.output.dense.weight", 4, 4, trained=False),
        matrix("bert.encoder.layer.0.attention.output.LayerNorm.weight", 4, trained=False),
        matrix("bert.encoder.layer.0.intermediate.dense.weight", 8, 4, trained=False),
        matrix("bert.encoder.layer.0.output.dense.weight", 4, 8, trained=False),
        matrix("classifier.weight", 3, 4),
    ])  # fmt: skip
    assert [cell.label for cell in made.blocks["block 0"].values()] == [
        "query", "attention out", "norm", "MLP in", "MLP out",
    ]  # fmt: skip
    query = made.blocks["block 0"]["attention.self.query"]
    assert (query.trained, query.of) == (8, 24)
    assert "trained in part, 8 of 24" in query.said
    assert [place for place, _ in made.cells()] == ["embeddings", *["block 0"] * 5, "head"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("h.0.attn.c_attn", "query, key, value"), ("h.0.attn.c_proj", "attention out"), ("h.0.mlp.c_proj", "MLP out"),
        ("h.0.ln_1", "norm"), ("layers.0.self_attn.q_proj", "query"), ("layers.0.mlp.down_proj", "MLP out"),
        ("layers.0.input_layernorm", "norm"), ("transformer.layer.0.attention.v_lin", "value"),
        ("layers.0.attention.query_key_value", "query, key, value"), ("layers.0.mlp.dense_4h_to_h", "MLP out"),
        ("layers.0.attention.dense", "attention out"), ("decoder.block.0.layer.0.SelfAttention.o", "attention out"),
        ("decoder.block.0.layer.2.DenseReluDense.wo", "MLP out"), ("layers.0.mlp.gate_proj", "MLP in"),
    ],
)  # fmt: skip
def test_matrices_of_all_namings_are_known(name, label):
    (cells,) = diagram([matrix(f"model.{name}.weight", 2, 2)]).blocks.values()
    assert [cell.label for cell in cells.values()] == [label]


def test_the_stages_are_added_up_by_step(tmp_path):
    stages = tmp_path / "stages"
    stages.mkdir()
    for name, notes in (
        ("data", {"seconds": 1.5}), ("audit", {"seconds": 0.5}), ("train-a-seed-0", {"seconds": 60}),
        ("train-a-seed-1", {"seconds": 30}), ("look-a-seed-0-cka", None), ("report", {"seconds": 2}),
    ):  # fmt: skip
        write_json(stages / f"{name}.json", {"stage": name, "notes": notes})
    found = pipeline(read_run(tmp_path))
    assert [(step.title, step.time) for step in found.steps] == [
        ("Data", "2.0 s"), ("Tune", "1.5 min"), ("Look inside", ""), ("Report", "2.0 s"),
    ]  # fmt: skip
    assert found.total == "1.6 min"
    assert found.stages.rows[0][0][0] == "train-a-seed-0"
    (tmp_path / "empty").mkdir()
    assert pipeline(read_run(tmp_path / "empty")) is None
