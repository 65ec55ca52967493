"""The doctor's own machinery: verdicts, names, grids, the record, exit codes, and what its checks cover."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tunescope import environment
from tunescope.cli import app
from tunescope.doctor.check import Bench, Check, Line, at_most, near, smallest_found
from tunescope.doctor.checks import CHECKS
from tunescope.doctor.examine import examine
from tunescope.doctor.table import keep, text_of
from tunescope.errors import ConfigError
from tunescope.lenses import LENSES
from tunescope.models.families import FAMILIES
from tunescope.planted.random_models import SHAPES, RandomModel, random_model


def good(bench: Bench):
    assert bench.folder.is_dir()
    yield Line("a number", "1", "1", True)


def bad(bench: Bench):
    yield near("a number", 1.0, 1.5, 0.1)


def broken(bench: Bench):
    yield Line("a number", "1", "1", True)
    raise ValueError("the instrument fell")


MADE = {
    "good": Check("goes well", good),
    "bad": Check("goes wrong", bad),
    "broken": Check("breaks", broken),
    "absent": Check("needs a library", good, needs=("no_such_library",)),
}


@pytest.fixture
def made(monkeypatch, tmp_path):
    monkeypatch.setattr("tunescope.doctor.checks.CHECKS", MADE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_a_miss_an_error_and_a_missing_library_are_three_things(made):
    found = examine()
    assert [one.verdict for one in found.outcomes] == ["met", "missed", "missed", "not installed"]
    assert (found.missed, found.passed, found.whole) == (["bad", "broken"], False, True)
    said = text_of(found)
    assert "planted: 1 (within 0.1); measured: 1.5: MISSED" in said
    assert "measured: error: ValueError: the instrument fell: MISSED" in said
    assert "no_such_library not installed" in said
    assert "2 of 4 truths recovered by 4 checks" in said
    assert said.endswith("MISSED: bad, broken.")


def test_a_library_that_is_missing_is_no_miss(made):
    found = examine(["good", "absent"])
    assert found.passed
    assert not found.whole
    assert text_of(found).endswith("Passed.")


def test_an_unknown_name_gets_the_nearest(made):
    with pytest.raises(ConfigError, match=r"--only: unknown check 'goood'; did you mean 'good'\?"):
        examine(["goood"])


def test_the_command_prints_json_keeps_the_record_and_ends_with_9(made):
    assert environment.doctor_record() is None
    answer = CliRunner().invoke(app, ["doctor", "--json", "-q"])
    assert answer.exit_code == 9
    document = json.loads(answer.stdout)
    assert document["checks"][1]["lines"][0]["measured"] == "1.5"
    record = environment.doctor_record()
    assert record is not None
    assert (record["passed"], record["missed"]) == (False, ["bad", "broken"])
    assert record["date"] == document["date"]
    assert environment.environment("cpu")["doctor"] == record
    assert "2 of 4 checks missed: bad, broken." in answer.stderr


def test_some_checks_alone_leave_no_record(made):
    answer = CliRunner().invoke(app, ["doctor", "--only", "good", "-q"])
    assert answer.exit_code == 0
    assert environment.doctor_record() is None
    keep(examine(["good"]))
    assert environment.doctor_record()["passed"] is True
    path = environment.doctor_record_path()
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
    assert environment.doctor_record() is None


def test_the_smallest_effect_is_the_smallest_found_nine_times_in_ten():
    tried = []

    def found(size, trial):
        tried.append(size)
        return size > 0.3 or (size == 0.3 and trial > 0) or (size == 0.2 and trial > 1)

    line = smallest_found("x", "units", (0.1, 0.2, 0.3, 0.4, 0.5), 10, found)
    assert line.smallest == {"effect": 0.3, "unit": "units", "trials": 10, "tried": [0.2, 0.3]}
    assert line.measured == "0.3 units (found at 0.2: less often, 0.3: 90%)"
    assert line.met
    assert tried.count(0.2) == 2  # given up at the second miss
    none = smallest_found("x", "units", (0.1, 0.2), 10, lambda *_: False)
    assert not none.met
    assert none.measured.startswith("none of the grid")


def test_a_number_that_is_not_there_is_a_miss():
    assert not near("x", 0.0, None, 1.0).met
    assert not at_most("x", 1.0, float("nan")).met
    assert at_most("x", 0.0, 0.0).met


def test_every_lens_has_a_plant_of_its_own_or_is_looked_at_with_one_model_twice():
    planted = {name for check in CHECKS.values() for name in check.lenses}
    assert planted <= set(LENSES)
    # These compare with further models or checkpoints, or follow another lens; identical-models sees the first.
    assert set(LENSES) - planted <= {"other_models", "steps", "watch", "flow"}


def test_a_tiny_model_can_be_made_of_every_architecture(tmp_path):
    assert {kind for family in FAMILIES for kind in family.model_types} == set(SHAPES)
    with pytest.raises(ConfigError, match="No tiny 'opt' can be made; known model types: gpt2, bert"):
        random_model(RandomModel("opt"), tmp_path)
