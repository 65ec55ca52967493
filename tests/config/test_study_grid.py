"""Grids: a list where a field takes none becomes trials, each an arm of its own."""

from __future__ import annotations

import itertools
import re

import pytest
import yaml
from pydantic import BaseModel, Field

from config.studies import GOOD, METHODS, load
from tunescope.config import dump_study, load_study
from tunescope.config.grid import takes_list
from tunescope.errors import ConfigError


class Peft(BaseModel):
    peft: dict[str, object] = Field(default_factory=dict, description="a mapping of peft's own options")


class Prompt(BaseModel):
    prompts: list[str] = Field(description="a list of prompts")


ALL = {**METHODS, "lora": Peft, "zero_shot": Prompt}


def study(arms, **more):
    raw = {"name": "demo", "data": {"path": "x.csv", "text": "t", "label": "l"}, "arms": arms, **more}
    return load_study(raw, methods=ALL, lenses={})


def test_a_list_becomes_every_combination_in_the_order_of_the_file():
    arm = {
        "name": "a", "model": "scratch", "method": "last_k", "k": [1, 2],
        "training": {"learning_rate": [1e-4, 5e-4]}, "scratch": {"n_layer": [2, 4], "n_head": 4},
    }  # fmt: skip
    found = study([{"name": "plain", "model": "gpt2"}, arm]).arms
    assert found[0].grid is None
    trials = found[1:]
    assert [one.point for one in trials] == [
        {"k": k, "training.learning_rate": rate, "scratch.n_layer": layers}
        for k, rate, layers in itertools.product([1, 2], [1e-4, 5e-4], [2, 4])
    ]
    assert trials[0].name == "a-k1-learning_rate0.0001-n_layer2"
    assert len({one.name for one in trials}) == 8
    for one in trials:
        assert one.grid == "a"
        assert one.options["k"] == one.point["k"]
        assert one.training["learning_rate"] == one.point["training.learning_rate"]
        assert one.scratch.n_layer == one.point["scratch.n_layer"]


def test_a_list_of_the_study_reaches_every_trained_arm_that_does_not_say_it_itself():
    found = study(
        [
            {"name": "a", "model": "gpt2"},
            {"name": "own", "model": "gpt2", "training": {"learning_rate": 0.5}},
            {"name": "none", "model": "gpt2", "method": "zero_shot", "prompts": ["{text}"]},
        ],
        training={"learning_rate": [0.1, 0.2], "num_train_epochs": 4},
    )
    assert [arm.name for arm in found.arms] == ["a-learning_rate0.1", "a-learning_rate0.2", "own", "none"]
    assert found.training_of(found.arms[1])["learning_rate"] == 0.2
    assert found.training_of(found.arms[2])["learning_rate"] == 0.5
    assert all(found.training_of(arm)["num_train_epochs"] == 4 for arm in found.arms)


def test_fields_that_are_lists_need_a_list_of_lists():
    plain = {"target_modules": ["c_attn", "c_proj"], "layers_to_transform": [10, 11], "r": 8}
    (one,) = study([{"name": "a", "model": "gpt2", "method": "lora", "peft": plain}]).arms
    assert one.options["peft"] == plain
    both = {**plain, "target_modules": [["c_attn"], ["c_attn", "c_proj"]], "r": [4, 8]}
    trials = study([{"name": "a", "model": "gpt2", "method": "lora", "peft": both}]).arms
    assert [one.point["peft.target_modules"] for one in trials] == [["c_attn"]] * 2 + [
        ["c_attn", "c_proj"]
    ] * 2
    assert trials[0].name == "a-target_modulesc_attn-r4" or trials[0].name == "a-target_modules-c_attn-r4"
    several = {"name": "z", "model": "gpt2", "method": "zero_shot", "prompts": ["{text} a", "{text} b"]}
    assert [arm.grid for arm in study([several]).arms] == [None]


@pytest.mark.parametrize(
    ("annotation", "takes"),
    [(int, False), (list[int], True), (str | None, False), (str | list[str], True), (dict[str, int], False)],
)
def test_what_takes_a_list_is_read_from_its_type(annotation, takes):
    assert takes_list(annotation) is takes


def test_nested_fields_and_learning_curves_are_axes_too():
    arm = {
        "name": "a", "model": "gpt2", "train_share": [0.1, 1.0],
        "training": {"early_stopping": {"patience": [1, 2]}},
    }  # fmt: skip
    trials = study([arm]).arms
    assert [(one.train_share, one.training["early_stopping"]["patience"]) for one in trials] == [
        (0.1, 1), (0.1, 2), (1.0, 1), (1.0, 2),
    ]  # fmt: skip


def test_the_resolved_study_holds_the_trials_and_loads_as_the_same(tmp_path):
    found = load(GOOD.replace("k: 3", "k: [1, 2]"), tmp_path)
    assert [arm.name for arm in found.arms] == ["all", "last-k1", "last-k2"]
    assert load(dump_study(found), tmp_path) == found
    assert yaml.safe_load(dump_study(found))["arms"][1]["point"] == {"k": 1}
    assert load(GOOD, tmp_path, "arms.last.k=[1, 2]") == found


def test_long_names_stay_names_and_stay_different():
    rates = [0.000123456789, 0.000123456788]
    arm = {"name": "x" * 50, "model": "gpt2", "training": {"learning_rate": rates}}
    names = [one.name for one in study([arm]).arms]
    assert len(set(names)) == 2
    assert all(len(name) <= 64 for name in names)


@pytest.mark.parametrize(
    ("old", "new", "line", "text"),
    [
        ("k: 3", "k: [1, 0]", 11, r"arms\.last\.k: expected .*1 or more; came the number 0"),
        ("k: 3", "k: []", 11, r"arms\.last\.k: an empty list tries nothing"),
        ("k: 3", "k: [1, 1]", 11, r"arms\.last\.k: .*the number 1 stands in it twice"),
        ("k: 3", "kk: [1, 2]", 11, r"arms\.last\.kk: unknown key 'kk'; did you mean 'k'"),
        ("k: 3", "k: [1, 2]\n    pooling: maen", 12, r"arms\.last\.pooling: expected last, mean"),
        (
            "k: 3",
            f"k: {list(range(1, 102))}",
            8,
            r"arms\.last: .* 101 trials and 1 seed .*trainings allows 100",
        ),
    ],
)
def test_a_bad_value_of_a_grid_is_told_once_with_its_line(tmp_path, old, new, line, text):
    with pytest.raises(ConfigError) as caught:
        load(GOOD.replace(old, new, 1), tmp_path)
    message = str(caught.value)
    assert re.search(rf"study\.yaml:{line}: {text}", message), message
    assert len(re.findall(text, message)) == 1


def test_seeds_count_and_more_trainings_can_be_allowed(tmp_path):
    wide = GOOD.replace("k: 3", f"k: {list(range(1, 60))}") + "seeds: [0, 1]\n"
    with pytest.raises(ConfigError, match=r"59 trials and 2 seeds brings the trainings of grids to 118"):
        load(wide, tmp_path)
    assert len(load(wide, tmp_path, "selection.most_trainings=118").arms) == 60
