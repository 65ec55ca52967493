"""What the geometry lenses wrote, on the page: real results of tiny models, drawn by name."""

from __future__ import annotations

from subjects import make_rows, make_subject

from tiny import tiny_folder
from tunescope.lenses import LENSES, look, save_outputs
from tunescope.models import load
from tunescope.report.page import render
from tunescope.report.read import read_run


def test_the_page_draws_both_lenses_and_the_variants_of_cka(tmp_path):
    base, tuned = (load(str(tiny_folder("gpt2", tmp_path / str(s), seed=s))) for s in (0, 1))
    rows = {"split": "validation", "n": 60}
    wanted = [
        ("cka", {"rows": rows}),
        ("spread", {"rows": rows}),
        ("dimensions", {"rows": rows, "random": 4}),
    ]
    outputs = look(make_subject(base, tuned, make_rows(150)), wanted, LENSES)
    folder = tmp_path / "run"
    save_outputs(outputs, folder / "results", {"seeds": [0], "command": "test"})
    page = render(read_run(folder))
    for key in (
        "cka-variants-0-3",
        "spikes-0-2",
        "cloud-0-4",
        "one-dimension-0-2",
        "dimension-removal-0-tuned-3",
        "dimension-removal-0-base-1",
    ):
        assert f'data-figure="{key}"' in page, key
    assert "How the pooled states" not in page  # the lens's own sentence stands there instead
    assert 'id="lens-1"' not in page  # neither is shown a second time as a plain table


def test_without_the_lenses_the_page_has_no_empty_sections(tmp_path):
    (tmp_path / "run").mkdir()
    page = render(read_run(tmp_path / "run"))
    assert 'id="spread"' not in page
    assert 'id="dimensions"' not in page
