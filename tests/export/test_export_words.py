"""Hostile text in tables, Markdown and file names is shown, never obeyed."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunescope.export.tables import to_csv, to_latex
from tunescope.export.words import code, latex, markdown, slug
from tunescope.report.text import FORMULA_SIGNS, cell

HOSTILE = [
    r"\input{/etc/passwd}", r"100% of $x_1^2$ & #{}~", r"\end{tabular}\write18{id}", "<script>alert(1)</script>",
    "=HYPERLINK(\"http://x\")", "@SUM(A1)", "+1", "-2", "\t=1", "a\r\n=cmd", "‮gnp.exe", "../../etc", "`$(id)`",
    "[x](javascript:1) ![y](http://z) @smith2020", "line\nbreak", "",
]  # fmt: skip
MACROS = re.compile(
    r"\\textbackslash\{\}|\\textasciicircum\{\}|\\textasciitilde\{\}|\\textless\{\}|\\textgreater\{\}|\\textbar\{\}"
    r"|\\textquotedbl\{\}|\\textquotesingle\{\}|\\textasciigrave\{\}|\\ldots\{\}|\\[{}$&#_%]"
    r"|\$(-|\\pm|\\leq|\\geq|\\times|\\cdot|\^\{\\circ\}|\\rightarrow)\$|\\par"
)


def plain_latex(text: str) -> str:
    """What is left of escaped text without the macros that stand for one sign each."""
    return MACROS.sub("", text)


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_latex_obeys_is_left(text):
    left = plain_latex(latex(text))
    assert not set(left) & set("\\{}$&#^_%<>|\"'`\n")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_no_text_at_all_is_obeyed_by_latex(text):
    assert not set(plain_latex(latex(text)).replace("~", "")) & set("\\{}$&#^_%<>|\"'`\n")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_no_cell_is_a_formula_and_csv_reads_it_back(text):
    assert not cell(text).startswith(FORMULA_SIGNS)
    rows = list(csv.reader(io.StringIO(to_csv(pl.DataFrame({"a": [text], "n": [1]})), newline="")))
    assert rows == [["a", "n"], [cell(text), "1"]]


def test_numbers_stay_numbers_in_csv():
    table = pl.DataFrame(
        {"low": [-0.25, None, float("nan")], "label": ["-x", "b", None], "many": [["=1", "b"], [], None]}
    )
    rows = list(csv.reader(io.StringIO(to_csv(table), newline="")))
    assert rows[1:] == [["-0.25", "'-x", "'=1; b"], ["", "b", ""], ["", "", ""]]


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_marks(text):
    shown = markdown(text)
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)(?:\\\\)*[<>\[\]`*@$]", shown)
    assert code(text).count("`") == 2


@pytest.mark.parametrize("text", [*HOSTILE, "...", "a" * 300, "ärm one"])
def test_names_of_files_are_one_harmless_part(text):
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}", slug(text))


def table() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "arm": HOSTILE, "value": [0.5] * len(HOSTILE), "low": [-0.25] * len(HOSTILE),
            "high": [0.75] * len(HOSTILE), "p": [0.0004] * len(HOSTILE), "seed": [1] * len(HOSTILE),
        }
    )  # fmt: skip


def test_latex_tables_are_booktabs_with_intervals():
    text = to_latex(table().head(2), "A 95 % interval_", "tab:x")
    assert r"\caption{A 95 \% interval\_}" in text
    assert r"\begin{tabular}{lrrr}" in text
    assert "arm & value [low, high] & p & seed" in text
    assert r"0.500 [$-$0.250, 0.750] & $<$ 0.001 & 1 \\" in text
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert all(line.count(" & ") == 3 for line in text.splitlines() if line.endswith(r"\\"))


def test_long_latex_tables_are_cut_and_say_so():
    text = to_latex(pl.DataFrame({"n": range(300)}), "Many", "tab:many")
    assert "% The first 200 of 300 rows." in text
    assert text.count(r"\\") == 201


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("lualatex") is None, reason="needs lualatex, which is not installed here")
def test_hostile_tables_compile(tmp_path):
    page = (
        r"\documentclass{article}\usepackage{booktabs,textcomp}\begin{document}"
        + to_latex(table(), "x", "t")
        + r"\end{document}"
    )
    (tmp_path / "t.tex").write_text(page, encoding="utf-8")
    subprocess.run(
        ["lualatex", "-halt-on-error", "-interaction=batchmode", "t.tex"], cwd=tmp_path, check=True
    )
    assert (tmp_path / "t.pdf").is_file()
