from __future__ import annotations

import errno
import json
import multiprocessing
from pathlib import Path

import pytest

from tunescope.errors import RunError
from tunescope.folders import disk_errors, sweep, whole_folder
from tunescope.progress import Progress
from tunescope.runs import RunFolder, Stage


class Listening(Progress):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class Pipeline:
    """Two stages whose work is counted: 'train' writes a folder, 'look' reads it and writes a file."""

    def __init__(self, path: Path, rate: float = 0.1, edits: int = 1) -> None:
        self.run = RunFolder(path)
        self.train = Stage("train", {"training": {"learning_rate": rate}}, ("model",))
        self.look = Stage("look", {"edits": edits}, ("results/cka.parquet",), after=("train",))
        self.run.declare([self.train, self.look])
        self.did: list[str] = []
        self.progress = Listening()

    def go(self) -> list[str]:
        self.run.do(self.train, self._train, self.progress)
        self.run.do(self.look, self._look, self.progress)
        return self.did

    def _train(self) -> None:
        self.did.append("train")
        with whole_folder(self.run.path / "model") as folder:
            (folder / "weights").write_text(json.dumps(dict(self.train.inputs["training"])))

    def _look(self) -> None:
        self.did.append("look")
        path = self.run.path / "results" / "cka.parquet"
        path.parent.mkdir(exist_ok=True)
        path.write_text((self.run.path / "model" / "weights").read_text() * self.look.inputs["edits"])


def test_second_run_does_nothing(tmp_path):
    assert Pipeline(tmp_path).go() == ["train", "look"]
    again = Pipeline(tmp_path)
    assert all(decision.fresh for decision in again.run.plan())
    assert again.go() == []


def test_changed_input_says_the_key_and_runs_what_follows(tmp_path):
    Pipeline(tmp_path).go()
    changed = Pipeline(tmp_path, rate=0.2)
    reasons = {decision.stage.name: decision.reasons for decision in changed.run.plan()}
    assert reasons == {"train": ("training.learning_rate: 0.1 -> 0.2",), "look": ("train changes",)}
    assert changed.go() == ["train", "look"]
    assert "0.2" in (tmp_path / "results" / "cka.parquet").read_text()


def test_change_of_a_later_stage_leaves_the_earlier_alone(tmp_path):
    Pipeline(tmp_path).go()
    assert Pipeline(tmp_path, edits=2).go() == ["look"]


@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damaged_output_is_named_and_rebuilt_alone(tmp_path, damage):
    Pipeline(tmp_path).go()
    path = tmp_path / "model" / "weights"
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] if damage == "cut" else whole[:-1] + b"!")
    again = Pipeline(tmp_path)
    assert again.go() == ["train"]  # the same weights came back, so 'look' still holds
    word = "missing" if damage == "gone" else "damaged"
    assert again.progress.lines == [f"  model/weights is {word}: rebuilding"]
    assert path.read_bytes() == whole


def test_rebuilding_with_another_result_runs_what_read_the_old_one(tmp_path):
    Pipeline(tmp_path).go()
    (tmp_path / "model" / "weights").write_text("broken")
    again = Pipeline(tmp_path)
    again._train = lambda: (again.did.append("train"), (tmp_path / "model").mkdir(exist_ok=True),
                            (tmp_path / "model" / "weights").write_text("other"))[0]  # fmt: skip
    assert again.go() == ["train", "look"]
    assert (tmp_path / "results" / "cka.parquet").read_text() == "other"


def test_damaged_record_is_rebuilt(tmp_path):
    Pipeline(tmp_path).go()
    (tmp_path / "stages" / "look.json").write_text("{half")
    again = Pipeline(tmp_path)
    assert again.run.decide(again.look).reasons == ("stages/look.json is damaged: rebuilding",)
    assert again.go() == ["look"]


def test_stage_that_fails_is_not_done(tmp_path):
    first = Pipeline(tmp_path)

    def fail():
        (tmp_path / "results").mkdir()
        (tmp_path / "results" / "cka.parquet").write_text("half")
        raise KeyboardInterrupt

    first._look = fail
    with pytest.raises(KeyboardInterrupt):
        first.go()
    again = Pipeline(tmp_path)
    assert again.go() == ["look"]
    assert (tmp_path / "results" / "cka.parquet").read_text() == '{"learning_rate": 0.1}'


def test_stage_that_writes_less_than_it_declared_is_an_error(tmp_path):
    first = Pipeline(tmp_path)
    first._train = lambda: None
    with pytest.raises(RunError, match="The stage train ended without writing model"):
        first.go()


def test_higher_code_version_runs_the_stage_again(tmp_path):
    Pipeline(tmp_path).go()
    again = Pipeline(tmp_path)
    again.look = Stage("look", {"edits": 1}, ("results/cka.parquet",), after=("train",), version=2)
    again.run.declare([again.look])
    assert again.run.decide(again.look).reasons == ("its code is version 2, was 1",)


def test_stage_that_left_the_study_is_set_aside_and_comes_back(tmp_path):
    Pipeline(tmp_path).go()
    shorter = Pipeline(tmp_path)
    del shorter.run.stages["look"]
    assert shorter.run.set_aside() == ["look"]
    assert not (tmp_path / "results").exists()
    longer = Pipeline(tmp_path)
    assert longer.run.bring_back() == ["look"]
    assert longer.go() == []
    assert (tmp_path / "results" / "cka.parquet").is_file()


def test_stage_set_aside_with_other_inputs_stays_there(tmp_path):
    Pipeline(tmp_path).go()
    shorter = Pipeline(tmp_path)
    del shorter.run.stages["look"]
    shorter.run.set_aside()
    longer = Pipeline(tmp_path, edits=3)
    assert longer.run.bring_back() == []
    assert longer.go() == ["look"]


def test_many_changed_keys_are_counted(tmp_path):
    run = RunFolder(tmp_path)
    old = Stage("data", {f"key{n}": n for n in range(7)}, ("rows",))
    run.declare([old])
    run.do(old, lambda: (tmp_path / "rows").write_text("x") and {})
    new = Stage("data", {f"key{n}": n + 1 for n in range(7)}, ("rows",))
    assert run.decide(new).reasons[-1] == "and 3 more changes"


def _hold(path, ready, done):
    with RunFolder(path).locked():
        ready.set()
        done.wait(30)


def test_folder_in_use_is_refused_with_process_host_and_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, done))
    holder.start()
    try:
        assert ready.wait(30)
        expected = rf"in use by another run \(process {holder.pid} on .+, since 20.+\)"
        with pytest.raises(RunError, match=expected), RunFolder(tmp_path).locked():
            pass
    finally:
        done.set()
        holder.join()
    with RunFolder(tmp_path).locked():
        pass


def test_lock_of_a_killed_process_does_not_stay(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, done))
    holder.start()
    assert ready.wait(30)
    holder.kill()
    holder.join()
    with RunFolder(tmp_path).locked():
        pass


def test_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").write_text("x")
    with (
        pytest.raises(RunError, match=r"not empty and is not a run folder \(it holds holiday\.jpg\)"),
        RunFolder(tmp_path).locked(),
    ):
        pass
    with (
        pytest.raises(RunError, match="is a file, not a folder"),
        RunFolder(tmp_path / "holiday.jpg").locked(),
    ):
        pass


def _write_and_fail(path, error):
    with whole_folder(path) as folder:
        (folder / "part").write_text("half")
        raise error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/0: file write failed"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path, error):
    with pytest.raises(RunError, match=r"The disk is full: .*model could not be written"):
        _write_and_fail(tmp_path / "model", error)
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="shape mismatch"), disk_errors(tmp_path):
        raise RuntimeError("shape mismatch")


def test_whole_folder_keeps_the_old_one_until_the_new_one_is_whole(tmp_path):
    with whole_folder(tmp_path / "model") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(ValueError, match="stop"):
        _write_and_fail(tmp_path / "model", ValueError("stop"))
    assert (tmp_path / "model" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_sweep_removes_what_a_killed_process_left(tmp_path):
    (tmp_path / "arms" / ".model.1234abcd.part").mkdir(parents=True)
    (tmp_path / "arms" / "log.jsonl").write_text("{}")
    sweep(tmp_path)
    assert [path.name for path in (tmp_path / "arms").iterdir()] == ["log.jsonl"]


def test_what_lies_beside_a_stage_moves_with_it_and_is_never_checked(tmp_path):
    def declared() -> tuple[RunFolder, Stage]:
        run = RunFolder(tmp_path)
        stage = Stage("train", {}, ("arm/model",), beside=("arm/tensorboard",))
        run.declare([stage])
        return run, stage

    def work() -> None:
        for name in ("model", "tensorboard"):
            (tmp_path / "arm" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "arm" / name / "file").write_text(name)

    run, stage = declared()
    run.do(stage, work)
    (tmp_path / "arm" / "tensorboard" / "file").write_text("more events")
    run, stage = declared()
    assert run.decide(stage).fresh
    RunFolder(tmp_path).set_aside()
    assert not (tmp_path / "arm").exists()
    run, stage = declared()
    run.do(stage, work)  # trained anew, and then set aside again over what lies there
    RunFolder(tmp_path).set_aside()
    run, stage = declared()
    assert run.bring_back() == ["train"]
    assert (tmp_path / "arm" / "tensorboard" / "file").read_text() == "tensorboard"
