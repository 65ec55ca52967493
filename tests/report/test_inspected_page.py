"""The page of one inspected model: nothing that speaks of a comparison, its facts, its weights, and refusals."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from report_browser import Page

from tunescope.checkpoints.statistics import matrix_statistics
from tunescope.files import write_json
from tunescope.report import alone, write_report
from tunescope.report.evidence import all_figures
from tunescope.report.figures import attention_parts, style
from tunescope.report.limits import limits
from tunescope.report.read import read_run
from tunescope.stats.results import Result, result_table

PATH = "models/small"
WHY = "it says what changed between two models, and there is one"
FACTS = {
    "path": PATH, "revision": None, "kind": "classifier", "adapter_of": None,
    "architecture": {
        "family": "GPT-2", "model_type": "gpt2", "width": 8, "norm": "before each sublayer, and a final one",
        "attention": "causal", "positions": 64, "positions_by": "learned or relative embeddings",
        "stacks": [{"name": None, "layers": 3, "heads": 2, "head_width": 4}],
    },
    "parameters": {"all": 12345, "trunk": 12000, "head": 345, "vectors": 10, "matrices": []},
    "head": {"what": "classifier of 2 classes, softmax", "logits": 2, "pooling": "last", "labels": ["no", "yes"]},
    "precision": {"stored": {"F32": 12345}, "computed": "float32"},
    "tokenizer": {
        "entries": 99, "pad_token": "<end>", "pads_with_end": True, "lower_cases": False, "max_length": 64,
    },
    "verified": ["shapes of every site"], "can": ["lens words", "predict"],
    "cannot": [{"what": "lens cka", "why": WHY}], "assumed": [], "name": "small", "refused": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(0)
    return {
        (part, layer): rng.normal(scale=1 + layer, size=(8, 12))
        for part in ("query", "key")
        for layer in range(3)
    }


@pytest.fixture(scope="module")
def inspected(tmp_path_factory, weights):
    folder = tmp_path_factory.mktemp("inspected") / "run"
    records = [
        {"arm": "small", "seed": None, "model": "tuned", "site": part, "layer": layer, "n": values.size, **record}
        for (part, layer), values in weights.items() for record in matrix_statistics(values)
    ]  # fmt: skip
    (folder / "results").mkdir(parents=True)
    Result(
        "weight_statistics", result_table(records), {"what": "Size and rank.", "rows": {}, "notes": []}
    ).save(folder / "results")
    write_json(folder / "inspect.json", FACTS)
    write_json(folder / "findings.json", {"findings": []})
    write_json(folder / "compare.json", {
        "name": "small, inspected", "command": "tunescope inspect", "inspected": PATH, "kind": "classifier",
        "base": "none: one model was looked at", "tuned": {"small": PATH}, "notes": [], "assumptions": [],
        "refused": [{"arm": "small", "lens": "cka", "why": WHY}], "logged_metrics": [], "seed": 0,
    })  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def told(inspected):
    return Page(write_report(inspected).read_text(encoding="utf-8"))


def test_the_page_says_what_the_model_is_and_nothing_of_a_comparison(told):
    assert "Classifier with 12,345 parameters: 3 layers with 2 heads each, width 8." in told.text
    assert "Labels no and yes" in told.text
    for word in (
        "Comparison",
        "on the same rows",
        "each is one training",
        " base ",
        "Nothing was trained here",
    ):
        assert word not in told.text, word
    assert "Damaged" not in told.text


def test_a_refused_lens_has_its_section_with_the_reason(told):
    assert ("section", {"id": "cka"}) in told.elements
    assert f"small: left out, because {WHY}" in told.text


def test_the_weights_have_one_section_whose_cells_are_numpys(inspected, weights, told):
    placed = [one for anchor, _, one in all_figures(read_run(inspected)) if anchor == "weight-statistics"]
    assert [one.key for one in placed] == ["weight-statistics-0"]
    deviation, _, rank = (panel.figure["data"][0] for panel in placed[0].panels)
    for row, part in enumerate(("query", "key")):
        for layer in range(3):
            matrix = weights[part, layer]
            assert deviation["z"][row][layer] == pytest.approx(matrix.std())
            stable = np.linalg.norm(matrix) ** 2 / np.linalg.norm(matrix, 2) ** 2
            assert rank["z"][row][layer] == pytest.approx(stable * (8**0.5 + 12**0.5) ** 2 / (8 * 12))
    assert told.text.count("What the weights are like") == 1
    assert "looked at" not in " ".join(limits(read_run(inspected)))  # entries of a matrix are no rows


@pytest.mark.parametrize(("seeds", "said"), [((None, None), True), ((0, 1), False)])
def test_one_training_is_said_only_where_there_is_one(tmp_path, seeds, said):
    pairs = [{"arm": "full", "seed": seed, "base": "b", "tuned": f"t{seed}"} for seed in seeds]
    write_json(
        tmp_path / "compare.json", {"name": "two", "base": "b", "tuned": {"full": "t"}, "pairs": pairs}
    )
    assert ("each is one training" in " ".join(limits(read_run(tmp_path)))) is said


def test_a_damaged_description_spoils_its_own_section(inspected, tmp_path):
    run = tmp_path / "run"
    (run / "results").mkdir(parents=True)
    (run / "compare.json").write_bytes((inspected / "compare.json").read_bytes())
    write_json(run / "inspect.json", {"architecture": {}, "parameters": {}})
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "inspect.json does not hold what it should: no entry" in page.text
    assert "How to reproduce" in page.text


def test_saved_tables_hold_no_formula(tmp_path):
    from tunescope.report.drawn import write_table

    table = pl.DataFrame({"word": ["=1+1", "good", None], "value": [-1.5, 2.0, 0.0]})
    found = pl.read_csv(write_table(table, tmp_path / "words.csv"))
    assert found["word"].to_list() == ["'=1+1", "good", None]
    assert found["value"].to_list() == [-1.5, 2.0, 0.0]
    write_table(table, tmp_path / "words.parquet")
    assert pl.read_parquet(tmp_path / "words.parquet").equals(table)


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("Red: the head helps. Compare tuned with base: what is red only in tuned was new.", "Red: the head helps."),
        ("Heads set to zero; paired, base under its head beside tuned.", "Heads set to zero."),
        ("The head on the stream after every block, base and tuned.", "The head on the stream after every block."),
        ("Zeroing L0H1 costs the tuned model 0.2 logits.", "Zeroing L0H1 costs the model 0.2 logits."),
        ("Grey: base; coloured: tuned.", "Grey: base; coloured: tuned."),  # nothing else would be left
    ],
)  # fmt: skip
def test_words_of_one_model_name_no_other(said, left):
    assert alone.words(said) == left


def test_titles_of_one_model_name_no_other():
    panels = tuple(
        style.Panel(title, {"data": [], "layout": {}}, 10)
        for title in (
            "tuned, head set to zero",
            "control: random direction, tuned",
            "tuned",
            "attention set to zero",
        )
    )
    made = alone.figure(
        style.Figure("heads-0", "Heads, layer by layer: tuned", panels, "On 5 rows. Grey: base.")
    )
    assert made.title == "Heads, layer by layer"
    assert [one.title for one in made.panels] == [
        "head set to zero", "control: random direction", "", "attention set to zero",
    ]  # fmt: skip
    assert made.caption == "On 5 rows."


def test_a_whole_map_of_one_model_stands_alone():
    cells = [
        {"model": model, "query": query, "key": key, "value": 0.25 * (query + key), "query_token": f"t{query}"}
        for model in ("base", "tuned") for query in (0, 1) for key in (0, 1)
    ]  # fmt: skip
    both = pl.DataFrame(cells)
    assert [one.title for one in attention_parts.map_panels(both)][:2] == ["base", "tuned"]
    (one,) = attention_parts.map_panels(both.filter(pl.col("model") == "tuned"))
    assert (one.title, one.figure["data"][0]["z"]) == ("attention", [[0.0, 0.25], [0.25, 0.5]])
