"""Loading a study: defaults, extends, overrides, paths, and back to YAML."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.studies import GOOD, LENSES, METHODS, load
from tunescope.config import (
    DataConfig,
    dump_study,
    load_data,
    load_lenses,
    load_study,
    recipes,
    stated_defaults,
    study_document,
)
from tunescope.errors import ConfigError


def test_a_study_is_complete_without_hidden_defaults(tmp_path):
    study = load(GOOD, tmp_path)
    document = yaml.safe_load(dump_study(study))
    assert document["data"]["validation"] == 0.1
    assert document["arms"][0] == {
        "name": "all", "model": "gpt2", "revision": None, "method": "full", "pooling": None,
        "base_head": "probe", "training": {}, "scratch": None, "head": "softmax", "train_share": 1.0,
        "grid": None, "point": {}, "note": None, "summarise": {},
    }  # fmt: skip
    assert document["arms"][1]["k"] == 3
    assert document["lenses"] == [{"lens": "cka", "block": 256, "edits": ["zero"]}]
    assert set(document["training"]) == set(stated_defaults())
    assert document["training"]["learning_rate"] == 5e-5
    assert document["seeds"] == [0]


def test_the_resolved_study_loads_again_as_the_same_study(tmp_path):
    study = load(GOOD, tmp_path)
    assert load(dump_study(study), tmp_path) == study


WORDS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12
).filter(lambda text: not text.startswith("planted:"))
TRICKY = st.sampled_from(
    ["no", "yes", "null", "1e-4", "007", "1_000", "~", "2024-01-01", "12:30", "=", "<<", "0x1f"]
)
LABELS = st.one_of(WORDS, TRICKY, st.integers(-5, 5), st.booleans())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.one_of(WORDS, TRICKY),
    text=st.one_of(WORDS, TRICKY, st.dictionaries(st.one_of(WORDS, TRICKY), WORDS, min_size=1, max_size=3)),
    labels=st.one_of(
        st.none(),
        st.lists(LABELS, min_size=1, max_size=4, unique_by=str),
        st.dictionaries(LABELS, st.one_of(WORDS, TRICKY), min_size=1, max_size=4),
    ),
    rate=st.floats(1e-12, 1.0),
    rows=st.one_of(st.none(), st.integers(1, 10**9), st.just({"train": 3, "test": 2})),
    seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3, unique=True),
    question=st.one_of(st.none(), st.text(st.characters(exclude_categories=("Cs",)), max_size=30)),
)
def test_any_study_survives_yaml(tmp_path, path, text, labels, rate, rows, seeds, question):
    values = {
        "name": "demo",
        "question": question,
        "data": {"path": path, "text": text, "label": "x", "labels": labels, "rows": rows},
        "arms": [{"name": "a", "model": "gpt2", "method": "last_k", "training": {"learning_rate": rate}}],
        "seeds": seeds,
        "lenses": ["cka"],
    }
    study = load_study(values, methods=METHODS, lenses=LENSES)
    assert load(dump_study(study), tmp_path) == study
    # and any other YAML reader reads the same values
    assert yaml.safe_load(dump_study(study)) == study_document(study)


def test_words_of_yaml_1_1_stay_words_and_exponents_are_numbers(tmp_path):
    text = GOOD + "training: {learning_rate: 1e-4, eval_strategy: no, bf16: yes}\n"
    study = load(text.replace("label: stars", "label: stars\n  labels: {0: no, 1: yes, 2: off}"), tmp_path)
    assert study.data.labels == {0: "no", 1: "yes", 2: "off"}
    assert study.training["learning_rate"] == pytest.approx(1e-4)
    assert study.training["eval_strategy"] == "no"
    assert study.training["bf16"] is True


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("training.num_train_epochs=1", lambda s: s.training["num_train_epochs"] == 1.0),
        ("arms.all.training.learning_rate=1e-4", lambda s: s.arms[0].training == {"learning_rate": 1e-4}),
        ("arms.1.k=5", lambda s: s.arms[1].options == {"k": 5}),
        ("arms.last.name=other", lambda s: s.arms[1].name == "other"),
        ("lenses.cka.block=64", lambda s: s.lenses[0].options["block"] == 64),
        ("lenses=[cka, {lens: ablation, edits: [mean]}]", lambda s: s.lenses[1].options["edits"] == ["mean"]),
        ("seeds=[1, 2]", lambda s: s.seeds == [1, 2]),
        ("data.rows.train=10", lambda s: s.data.rows == {"train": 10}),
        ("data.labels={0: no, 1: yes}", lambda s: s.data.labels == {0: "no", 1: "yes"}),
        ("question=What = changes?", lambda s: s.question == "What = changes?"),
        ("data.max_length=", lambda s: s.data.max_length is None),
    ],
)
def test_overrides(tmp_path, override, found):
    assert found(load(GOOD, tmp_path, override))


def test_an_arm_whose_name_has_dots_can_be_overridden(tmp_path):
    study = load(GOOD.replace("name: last", "name: v1.2"), tmp_path, "arms.v1.2.k=7")
    assert study.arms[1].options == {"k": 7}


def test_the_arms_training_overrides_the_studys(tmp_path):
    study = load(GOOD, tmp_path, "training.weight_decay=0.1", "arms.all.training.learning_rate=1e-3")
    assert study.training_of(study.arms[0])["learning_rate"] == 1e-3
    assert study.training_of(study.arms[0])["weight_decay"] == 0.1
    assert study.training_of(study.arms[1])["learning_rate"] == 5e-5


def test_extends_merges_mappings_and_replaces_the_rest(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "base.yaml").write_text(GOOD + "training: {weight_decay: 0.1, learning_rate: 1e-3}\n")
    study = load(
        "extends: base/base.yaml\nname: child\ntraining: {learning_rate: 2e-3}\nlenses: [ablation]\n",
        tmp_path,
    )
    assert study.name == "child"
    assert study.data.text == "review"
    assert (study.training["weight_decay"], study.training["learning_rate"]) == (0.1, 2e-3)
    assert [lens.lens for lens in study.lenses] == ["ablation"]


def test_a_problem_in_an_extended_file_names_that_file(tmp_path):
    (tmp_path / "base.yaml").write_text(GOOD.replace("  label: stars", "  lable: stars"))
    with pytest.raises(ConfigError) as caught:
        load("extends: base.yaml\nseeds: [-1]\n", tmp_path)
    assert f"{tmp_path / 'base.yaml'}:5: data.lable: unknown key 'lable'; did you mean 'label'?" in str(
        caught.value
    )
    assert f"{tmp_path / 'study.yaml'}:2: seeds.0: expected a list" in str(caught.value)


def test_extends_in_a_circle_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(ConfigError, match=r"extends goes in a circle: a\.yaml -> b\.yaml -> a\.yaml"):
        load_study(tmp_path / "a.yaml", methods=METHODS, lenses=LENSES)


@pytest.mark.parametrize("wanted", ["nowhere.yaml", "no-such-recipe", "3", "''"])
def test_extends_must_lead_somewhere(tmp_path, wanted):
    with pytest.raises(
        ConfigError, match=r"study\.yaml:1: extends: (there is no file|expected a study file)"
    ):
        load(f"extends: {wanted}\n{GOOD}", tmp_path)


def test_extends_in_a_mapping_may_name_a_file(tmp_path):
    (tmp_path / "base.yaml").write_text(GOOD)
    values = {"extends": str(tmp_path / "base.yaml"), "name": "child"}
    assert load_study(values, methods=METHODS, lenses=LENSES).name == "child"


def test_paths_beside_the_study_hold_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "reviews.csv").write_text("review,stars\n")
    (tmp_path / "gpt2").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    study = load(GOOD, tmp_path)
    assert study.data.path == str(tmp_path / "reviews.csv")
    assert study.arms[0].model == str(tmp_path / "gpt2")


def test_a_path_of_the_extended_file_is_beside_that_file(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "base.yaml").write_text(GOOD)
    (folder / "reviews.csv").write_text("review,stars\n")
    study = load("extends: base/base.yaml\n", tmp_path)
    assert study.data.path == str(folder / "reviews.csv")


def test_a_path_in_an_override_is_in_the_current_folder(tmp_path, monkeypatch):
    for folder in (tmp_path, tmp_path / "here"):
        folder.mkdir(exist_ok=True)
        (folder / "other.csv").write_text("review,stars\n")
    monkeypatch.chdir(tmp_path / "here")
    study = load(GOOD, tmp_path, "data.path=other.csv")
    assert study.data.path == str(tmp_path / "here" / "other.csv")


@pytest.mark.parametrize(
    "path", ["stanfordnlp/imdb", "https://example.org/a.csv", "planted:reviews", "/no/where.csv"]
)
def test_paths_that_are_not_there_stay_as_they_are(tmp_path, path):
    assert load(GOOD, tmp_path, f"data.path={path}").data.path == path


def test_globs_and_splits_are_anchored_too(tmp_path):
    (tmp_path / "part-1.csv").write_text("")
    study = load(GOOD, tmp_path, "data.path={train: [part-*.csv, gone.csv]}")
    assert study.data.path == str(tmp_path / "x") or study.data.path == {"train": ["part-*.csv", "gone.csv"]}
    study = load(GOOD.replace("path: reviews.csv", "path: {train: [part-*.csv, gone.csv]}"), tmp_path)
    assert study.data.path == {"train": [str(tmp_path / "part-*.csv"), "gone.csv"]}


def test_scratch_is_filled_with_its_defaults(tmp_path):
    study = load(GOOD.replace("name: all, model: gpt2", "name: all, model: scratch"), tmp_path)
    assert study.arms[0].scratch is not None
    assert (study.arms[0].scratch.n_layer, study.arms[0].scratch.vocab_size) == (4, 2000)


def test_an_empty_section_is_as_if_it_were_not_there(tmp_path):
    study = load(GOOD.replace("lenses: [cka]", "lenses:\ntraining:\n"), tmp_path)
    assert study.lenses == []


def test_anchors_and_merge_keys_work(tmp_path):
    text = GOOD.replace(
        "- {name: all, model: gpt2}", "- &one {name: all, model: gpt2}\n  - {<<: *one, name: two}"
    )
    assert [arm.name for arm in load(text, tmp_path).arms] == ["all", "two", "last"]


def test_data_and_lenses_can_be_read_alone():
    assert load_data({"path": Path("a.csv"), "text": "t", "label": "l"}) == DataConfig(
        path="a.csv", text="t", label="l"
    )
    assert load_lenses(["cka", {"lens": "ablation", "block": 8}], LENSES)[1].options == {
        "block": 8,
        "edits": ["zero"],
    }
    with pytest.raises(ConfigError, match=r"^The data options are not valid\. rows: expected how many"):
        load_data({"path": "a.csv", "text": "t", "label": "l", "rows": 0})
    with pytest.raises(ConfigError, match="unknown lens 'ckaa'; did you mean 'cka'"):
        load_lenses(["ckaa"], LENSES)


def test_recipes_are_files_by_name():
    for name, file in recipes().items():
        assert file.is_file()
        assert file.stem == name
