"""Extends and profiles: laws of the merge, lists changed by name, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.studies import GOOD, LENSES, METHODS
from tunescope.config import load_study, study_document
from tunescope.config.extend import differing, extended, on_top, with_profile
from tunescope.config.problems import Origin
from tunescope.config.text import Document, read_document
from tunescope.errors import ConfigError

KEYS = st.sampled_from("abcd")
VALUES = st.one_of(st.integers(0, 3), st.none(), st.lists(st.integers(0, 2), max_size=2))
TREES = st.recursive(VALUES, lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)
STUDIES = st.dictionaries(KEYS, TREES, max_size=4)


def merged(base, over):
    return on_top(Document(base), Document(over), Origin()).value


@given(base=STUDIES, over=STUDIES)
def test_merging_keeps_what_is_not_said_and_takes_what_is(base, over):
    assert merged(base, {}) == base
    assert merged({}, over) == over
    assert merged(base, base) == base
    once = merged(base, over)
    assert merged(once, over) == once
    assert all(once[key] == base[key] for key in base.keys() - over.keys())
    assert all(once[key] == value for key, value in over.items() if not isinstance(value, dict))


@given(base=STUDIES, over=STUDIES)
def test_two_studies_differ_exactly_in_what_changed(base, over):
    assert differing(base, base) == {}
    found = differing(base, merged(base, over))
    assert bool(found) == (merged(base, over) != base)


def load(folder, text, base=GOOD, profile=None, *overrides):
    (folder / "base.yaml").write_text(base, encoding="utf-8")
    file = folder / "child.yaml"
    file.write_text(f"extends: base.yaml\n{text}", encoding="utf-8")
    return load_study(file, overrides, methods=METHODS, lenses=LENSES, profile=profile)


def test_a_mapping_over_a_list_changes_its_items_by_name(tmp_path):
    study = load(tmp_path, (
        "arms:\n  last: {k: 1, training: {learning_rate: 1e-3}}\n  all: null\n"
        "  +more: {model: gpt2, method: head_only}\n"
        "lenses:\n  cka: {block: 128}\n  +ablation: {edits: [mean]}\n"
    ))  # fmt: skip
    assert [arm.name for arm in study.arms] == ["last", "more"]
    assert study.arms[0].options == {"k": 1}
    assert study.arms[0].training["learning_rate"] == 1e-3
    assert study.arms[0].model == "gpt2"
    assert [(lens.lens, lens.options["block"]) for lens in study.lenses] == [("cka", 128), ("ablation", 256)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arms: {lats: {k: 1}}\n", r"child\.yaml:2: arms\.lats: unknown name 'lats'; did you mean 'last'\?"),
        ("arms: {+last: {model: gpt2}}\n", r"arms\.last: it is there already; write 'last' without '\+'"),
        ("arms: {last: 3}\n", r"arms\.last: expected a mapping or null; came the number 3"),
        ("arms: {last: {kk: 1}}\n", r"child\.yaml:2: arms\.last\.kk: unknown key 'kk'"),
        ("arms: {last: {k: 0}}\n", r"child\.yaml:2: arms\.last\.k: expected how many last blocks"),
    ],
)
def test_items_that_are_not_there_and_keys_that_are_unknown_are_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_a_profile_stands_above_the_study_and_below_overrides(tmp_path):
    text = "profiles: {small: {data: {rows: 7, seed: 3}, arms: {last: {k: 1}}}}\n"
    assert load(tmp_path, text).data.rows is None
    small = load(tmp_path, text, GOOD, "small", "data.seed=5")
    assert (small.data.rows, small.data.seed, small.arms[1].options["k"]) == (7, 5, 1)
    assert "profiles" not in study_document(small)
    with pytest.raises(ConfigError, match="unknown profile 'smal'; did you mean 'small'"):
        load(tmp_path, text, GOOD, "smal")
    with pytest.raises(ConfigError, match="This study has no profiles"):
        load(tmp_path, "", GOOD, "small")
    with pytest.raises(
        ConfigError, match=r"child\.yaml:2: data\.rowz: unknown key 'rowz'; did you mean 'rows'"
    ):
        load(tmp_path, "profiles: {small: {data: {rowz: 7}}}\n", GOOD, "small")


def test_profiles_of_both_files_merge(tmp_path):
    base = GOOD + "profiles: {small: {data: {rows: 7, seed: 3}}}\n"
    study = load(tmp_path, "profiles: {small: {data: {rows: 5}}}\n", base, "small")
    assert (study.data.rows, study.data.seed) == (5, 3)
    with pytest.raises(ConfigError, match="profiles: expected a mapping"):
        load(tmp_path, "profiles: [small]\n")


def test_a_circle_is_refused_and_a_wrong_name_gets_the_nearest(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(ConfigError, match=r"extends goes in a circle: a\.yaml -> a\.yaml"):
        load_study(tmp_path / "a.yaml", methods=METHODS, lenses=LENSES)
    (tmp_path / "b.yaml").write_text("extends: quickstrat\n")
    with pytest.raises(ConfigError) as caught:
        load_study(tmp_path / "b.yaml", methods=METHODS, lenses=LENSES)
    assert caught.value.hint == "Did you mean 'quickstart'?"


PUBLISHED = "as_published:\n  - {key: data.validation, because: there was none}\ndata: {validation: 0.0}\n"


def test_a_published_form_explains_every_difference_and_knows_both_values(tmp_path):
    one = load(tmp_path, PUBLISHED, GOOD + "# nothing more\n").as_published[0]
    assert (one.key, one.corrected, one.published) == ("data.validation", "-", "0.0")
    with pytest.raises(
        ConfigError, match="seeds: the published form differs here; give the reason under as_published"
    ):
        load(tmp_path, PUBLISHED + "seeds: [3]\n")
    with pytest.raises(ConfigError, match=r"as_published\.data\.test: it is the same in the corrected form"):
        load(tmp_path, PUBLISHED.replace("validation, because", "test, because"))


def test_the_resolved_form_keeps_both_values(tmp_path):
    from tunescope.config import dump_study

    study = load(tmp_path, PUBLISHED)
    (tmp_path / "resolved.yaml").write_text(dump_study(study), encoding="utf-8")
    assert load_study(tmp_path / "resolved.yaml", methods=METHODS, lenses=LENSES) == study


@pytest.mark.parametrize(
    "slip", ["data: {repeats_cross_splits: true}\n", "arms: {all: {pooling: last_padded}}\n"]
)
def test_a_published_slip_is_refused_elsewhere(tmp_path, slip):
    with pytest.raises(ConfigError, match="this repeats a published slip; list the key under 'as_published'"):
        load(tmp_path, slip)


def test_every_key_keeps_the_place_where_it_was_written(tmp_path):
    (tmp_path / "base.yaml").write_text(GOOD, encoding="utf-8")
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\narms:\n  last:\n    k: 2\n", encoding="utf-8")
    document = with_profile(extended(read_document(child), child, (child,), {}), None)
    assert str(document.origins["arms", "1", "k"]).endswith("child.yaml:4")
    assert str(document.origins["arms", "1", "method"]).endswith("base.yaml:10")
    assert str(document.origins["arms", "0", "name"]).endswith("base.yaml:7")
