"""What an argument of compare stands for: steps, seeds, runs, arms, single folders."""

from __future__ import annotations

import pytest

from tunescope.errors import ModelError
from tunescope.foreign import pairs_of


def model(folder):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def run(folder, arms, seeds):
    for arm in arms:
        for seed in seeds:
            model(folder / "arms" / arm / f"seed-{seed}" / "model")
    return folder


def shown(pairs):
    return [(one.tuned.arm, one.tuned.seed, one.tuned.path) for one in pairs.pairs]


def test_single_models_have_no_seed_and_share_the_base(tmp_path):
    one, two = model(tmp_path / "one"), model(tmp_path / "two")
    pairs = pairs_of("gpt2", [str(one), str(two)])
    assert shown(pairs) == [("one", None, str(one)), ("two", None, str(two))]
    assert {pair.base for pair in pairs.pairs} == {"gpt2"}
    assert not pairs.bases_of_run


def test_a_folder_of_checkpoints_is_its_last_step_by_number_and_carries_the_others(tmp_path):
    for step in (900, 1000, 90):
        model(tmp_path / "out" / f"checkpoint-{step}")
    (pair,) = pairs_of("gpt2", [str(tmp_path / "out")]).pairs
    assert pair.tuned.path == str(tmp_path / "out" / "checkpoint-1000")
    assert pair.tuned.steps == str(tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text(
        "{}"
    )  # Trainer's save_model puts the kept model beside its steps
    (pair,) = pairs_of("gpt2", [str(tmp_path / "out")]).pairs
    assert (pair.tuned.path, pair.tuned.steps) == (str(tmp_path / "out"), str(tmp_path / "out"))


def test_steps_that_a_shell_lists_as_text_are_sorted_as_numbers_and_the_last_has_the_steps(tmp_path):
    paths = [str(model(tmp_path / "out" / f"checkpoint-{step}")) for step in (1000, 90, 900)]
    other = str(model(tmp_path / "other"))
    pairs = pairs_of("gpt2", [paths[0], other, paths[1], paths[2]])
    assert [pair.tuned.arm for pair in pairs.pairs] == [
        "out-checkpoint-90", "other", "out-checkpoint-900", "out-checkpoint-1000",
    ]  # fmt: skip
    assert [pair.tuned.steps for pair in pairs.pairs] == [None, None, None, str(tmp_path / "out")]


def test_named_seeds_take_their_numbers_from_their_paths_else_from_their_places(tmp_path):
    first, second = model(tmp_path / "seed-3" / "model"), model(tmp_path / "seed-1" / "model")
    pairs = pairs_of("gpt2", [f"lora={first},{second}"])
    assert shown(pairs) == [("lora", 3, str(first)), ("lora", 1, str(second))]
    a, b = model(tmp_path / "a"), model(tmp_path / "b")
    assert shown(pairs_of("gpt2", [f"lora={a},{b}"])) == [("lora", 0, str(a)), ("lora", 1, str(b))]
    assert shown(pairs_of("gpt2", [f"lora={a}"])) == [("lora", None, str(a))]


def test_a_run_is_every_arm_and_seed_and_an_arm_its_seeds_sorted_as_numbers(tmp_path):
    folder = run(tmp_path / "run", ("full", "lora"), (10, 2))
    found = shown(pairs_of("gpt2", [str(folder)]))
    assert [(arm, seed) for arm, seed, _ in found] == [("full", 2), ("full", 10), ("lora", 2), ("lora", 10)]
    arm = shown(pairs_of("gpt2", [str(folder / "arms" / "lora")]))
    assert [(name, seed) for name, seed, _ in arm] == [("lora", 2), ("lora", 10)]
    twice = shown(pairs_of("gpt2", [str(folder / "arms" / "lora"), str(folder / "arms" / "lora")]))
    assert [name for name, _, _ in twice] == ["lora", "lora", "lora-again-1", "lora-again-1"]


def test_two_runs_are_paired_by_arm_and_seed_and_what_has_no_counterpart_is_said(tmp_path):
    before = run(tmp_path / "before", ("full", "lora"), (0, 1))
    after = run(tmp_path / "after", ("full", "last"), (1, 2))
    pairs = pairs_of(str(before), [str(after)])
    (pair,) = pairs.pairs
    assert (pair.base, pair.tuned.path) == tuple(
        str(one / "arms/full/seed-1/model") for one in (before, after)
    )
    assert pairs.bases_of_run
    assert pairs.notes == (
        f"Models are paired with those of {before} by arm and seed.",
        f"Without a counterpart in {before}, and left out: full seed 2, last seed 1, last seed 2.",
    )


def test_runs_of_one_arm_each_are_paired_by_seed_whatever_the_arms_are_called(tmp_path):
    before, after = run(tmp_path / "before", ("full",), (0, 1)), run(tmp_path / "after", ("lora",), (0, 1))
    pairs = pairs_of(str(before), [str(after)])
    assert [(pair.tuned.arm, pair.tuned.seed) for pair in pairs.pairs] == [("lora", 0), ("lora", 1)]
    assert [pair.base for pair in pairs.pairs] == [
        str(before / f"arms/full/seed-{seed}/model") for seed in (0, 1)
    ]


def test_what_cannot_be_meant_is_refused_in_a_line(tmp_path):
    folder = run(tmp_path / "before", ("full", "lora"), (0,))
    with pytest.raises(ModelError, match=r"none of them has the arm and seed of last seed 5"):
        pairs_of(str(folder), [str(run(tmp_path / "after", ("last", "more"), (5,)))])
    (tmp_path / "compared" / "arms" / "x" / "seed-0").mkdir(parents=True)
    with pytest.raises(
        ModelError, match=r"holds no models .*\nNext: Give the run of a study that trained some"
    ):
        pairs_of("gpt2", [str(tmp_path / "compared")])
    with pytest.raises(ModelError, match=r"lists several folders without a name.*\nNext: Name the arm"):
        pairs_of("gpt2", ["one,two"])
    with pytest.raises(ModelError, match="'a/b' cannot be an arm's name"):
        pairs_of("gpt2", ["a/b=one,two"])
    with pytest.raises(ModelError, match="lora= names no folder"):
        pairs_of("gpt2", ["lora="])
