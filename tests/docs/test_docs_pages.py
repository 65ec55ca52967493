"""The documentation: every lens explains itself, snippets run, and the built site asks nothing of a network."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from tunescope.cli import COMMANDS
from tunescope.config import recipes
from tunescope.lenses import LENSES

PROJECT = Path(__file__).resolve().parents[2]
SNIPPETS = PROJECT / "docs" / "snippets"
sys.path.append(str(PROJECT / "scripts"))

site_pages = pytest.importorskip("site_pages")


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return site_pages.pages()


def test_there_is_a_page_for_every_lens_and_every_recipe(made):
    assert {f"lenses/{name}.md" for name in LENSES} <= set(made)
    assert {f"recipes/{name}.md" for name in recipes()} <= set(made)
    for name in LENSES:
        assert f"[`{name}`]({name}.md)" in made["lenses/index.md"]


@pytest.mark.parametrize("name", LENSES)
def test_every_lens_says_formula_range_reading_cost_and_limits(name):
    first, _, sections = site_pages.parts_of(name)
    assert len(first) > 20
    assert list(sections) == list(site_pages.SECTIONS)
    assert all(len(text) > 10 for text in sections.values())


@pytest.mark.parametrize("name", LENSES)
def test_every_option_is_on_the_page_with_its_meaning(made, name):
    page = made[f"lenses/{name}.md"]
    for option, field in LENSES[name].options.model_fields.items():
        line = re.search(rf"^\| `{option}` \| (.*?) \| (.*) \|$", page, re.MULTILINE)
        assert line, option
        assert line[2], f"{option} has no description"
        plain = field.default
        if isinstance(plain, (int, str)) and not isinstance(plain, bool):
            assert line[1] == f"`{plain}`".replace("|", "\\|")


def test_defaults_of_nested_options_are_those_of_the_lens(made):
    rows = LENSES["cka"].options().rows.n
    assert f"| `rows.n` | `{rows}` |" in made["lenses/cka.md"]


def test_pages_of_commands_name_every_command_and_option(made):
    from typer.testing import CliRunner

    from tunescope.cli import app

    page = made["reference/commands.md"]
    for name, _, line in COMMANDS:
        assert f"## {name}\n" in page
        assert line.replace("|", "\\|") in page
    told = CliRunner().invoke(app, ["export", "--help"], env={"COLUMNS": "200"}).output
    for option in re.findall(r"^\s+(?:-\w, )?(--[a-z-]+)", told, re.MULTILINE):
        assert option in page or option == "--help"


def test_the_python_page_names_everything_that_is_exported(made):
    import tunescope

    page = made["reference/python.md"]
    assert all(f"## {name}\n" in page for name in tunescope.__all__ if not name.startswith("_"))
    assert ":class:" not in page
    assert "``" not in page.replace("```", "")


def test_the_navigation_names_pages_that_exist(made):
    text = (PROJECT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"([\w/-]+\.md)", str(yaml.safe_load(text)["nav"]))
    assert named
    for page in named:
        assert (PROJECT / "docs" / page).is_file() or page in made, page


def test_every_snippet_stands_on_a_page_and_is_tested():
    pages = "".join(path.read_text(encoding="utf-8") for path in (PROJECT / "docs").glob("*.md"))
    own = Path(__file__).read_text(encoding="utf-8")
    for path in SNIPPETS.iterdir():
        assert f'--8<-- "{path.name}"' in pages
        assert f'"{path.name}"' in own, f"no test runs {path.name}"


# Snippets


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, gpt2_folder) -> Path:
    """A folder with the files that the snippets name: reviews.csv, gpt2/ and tuned/, both tiny."""
    from tiny import tiny_folder

    place = tmp_path_factory.mktemp("workplace")
    (place / "gpt2").symlink_to(gpt2_folder)
    tiny_folder("gpt2", place / "tuned", layers=2, seed=1, names=["bad", "fine", "good"])
    words = make_words()
    generator = np.random.default_rng(0)
    with (place / "reviews.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["review", "sentiment"])
        for _ in range(150):
            text = " ".join(generator.choice(words, size=generator.integers(4, 12)))
            writer.writerow([text, ["bad", "fine", "good"][len(text) % 3]])
    return place


def make_words() -> list[str]:
    sys.path.append(str(PROJECT / "tests" / "lenses"))
    from subjects import WORDS  # those that the tiny tokenizers know

    return WORDS


def shell(place: Path, name: str) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": path}
    if name.endswith(".sh"):
        command = ["sh", "-eu", str(SNIPPETS / name)]
    else:
        command = [sys.executable, "-W", "error", str(SNIPPETS / name)]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_checkpoints_are_compared_opened_and_exported(workplace):
    assert "report" in shell(workplace, "compare.sh").lower()
    assert "cka" in shell(workplace, "open_run.py")
    said = shell(workplace, "compare.py")
    assert "base_tuned" not in said
    assert "resid_post" in said
    export = pytest.importorskip("tunescope.export.pictures")
    pytest.importorskip("kaleido")
    if export.browser() is not None:
        shell(workplace, "export.sh")
        assert (workplace / "paper" / "figures" / "depth.pdf").is_file()


@pytest.mark.slow
def test_own_data_go_from_a_file_to_a_report(workplace):
    shell(workplace, "own_data.sh")
    assert (workplace / "runs" / "reviews" / "report.html").is_file()


def test_the_first_command_names_a_recipe():
    assert (SNIPPETS / "quickstart.sh").read_text() == "tunescope run quickstart\n"
    assert "quickstart" in recipes()


def test_the_lens_of_the_page_measures_what_it_says(gpt2_folder, bert_folder):
    """Against states that transformers' own forward pass gives, text by text."""
    sys.path.append(str(SNIPPETS))
    sys.path.append(str(PROJECT / "tests" / "lenses"))
    import lens_norms  # the snippet "lens_norms.py"
    import torch
    from subjects import make_rows, make_subject

    from tunescope.lenses import look
    from tunescope.models import load

    subject = make_subject(load(gpt2_folder), load(gpt2_folder), make_rows(30), sampling_seed=1)
    table = look(subject, [("norms", {"rows": {"n": 12}})], {**LENSES, "norms": lens_norms.NORMS})[0].table
    tokens = subject.draw(lens_norms.NormOptions(rows={"n": 12}).rows, labelled=False)
    model = subject.tuned.model
    norms = []
    for ids in tokens.input_ids:
        with torch.no_grad():
            states = model(torch.tensor([list(ids)]), output_hidden_states=True).hidden_states
        norms.append(
            states[1][0, -1].norm().item()
        )  # behind block 0, at the last token, which this classifier reads
    row = table.filter((pl.col("model") == "tuned") & (pl.col("layer") == 0)).row(0, named=True)
    assert row["n"] == len(norms) == 12
    assert row["value"] == pytest.approx(np.mean(norms), rel=1e-5)
    assert row["high"] - row["value"] == pytest.approx(1.96 * np.std(norms, ddof=1) / 12**0.5, rel=1e-4)


# The site


class Links(HTMLParser):
    """Collects what a browser would fetch by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video"):
            self.fetched.append(found.get("src") or "")
        if tag == "link" and found.get("rel") not in ("canonical", "next", "prev"):
            self.fetched.append(found.get("href") or "")


@pytest.mark.slow
def test_the_site_builds_strictly_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(LENSES)
    for page in pages:
        links = Links()
        links.feed(page.read_text(encoding="utf-8"))
        assert links.fetched
        assert not [one for one in links.fetched if re.match(r"(https?:)?//", one)], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet
