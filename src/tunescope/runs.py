"""The run folder: its lock, and stages that are whole, current and undamaged, or done again.

A stage is a named piece of work with declared inputs and outputs. Its *fingerprint* is the SHA-256 of its
inputs, of the version of its code and of the fingerprints of the stages before it; it is known before
anything runs. Its record, ``stages/NAME.json``, is written last: a stage without a record was not finished.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tunescope.errors import RunError
from tunescope.files import read_json, require_format, sha256_of, write_json
from tunescope.fingerprints import changed_keys, sha256_of_json
from tunescope.folders import disk_errors, remove
from tunescope.progress import SILENT, Progress

MARKS = ("stages", "study.yaml", "study.resolved.yaml", "compare.json", ".lock")
SET_ASIDE = "set-aside"
Work = Callable[[], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Stage:
    """A piece of work whose result is a set of files.

    Attributes:
        name: A name that can be a file's name, for example ``train-full-seed-0``.
        inputs: Everything the result depends on, apart from the stages before; JSON-able.
        outputs: Files and folders that the work writes, relative to the run folder.
        after: Names of the stages whose outputs it reads.
        version: Raised by whoever changes what the stage's code computes.
        beside: Files that the work may leave too and that no stage reads, such as a tracker's: they are moved
            with the outputs when the stage leaves the study, and never checked.
    """

    name: str
    inputs: Mapping[str, Any]
    outputs: tuple[str, ...]
    after: tuple[str, ...] = ()
    version: int = 1
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """Whether a stage will run, and why; no reasons means it is fresh."""

    stage: Stage
    reasons: tuple[str, ...]

    @property
    def fresh(self) -> bool:
        """Whether the stage's outputs can be used as they are."""
        return not self.reasons


@dataclass
class RunFolder:
    """The folder that a study produces.

    Attributes:
        path: The folder.
        stages: Stages declared so far, by name, in order.
    """

    path: Path
    stages: dict[str, Stage] = field(default_factory=dict)
    _checked: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.path = Path(self.path)

    # ---- one run at a time ----

    @contextlib.contextmanager
    def locked(self) -> Iterator[RunFolder]:
        """Hold the folder for this process; works on Linux, macOS and Windows.

        Raises:
            RunError: Another run holds it, it holds other things than a run, or it cannot be written.
        """
        self._refuse_other_folder()
        require_format(self.path)
        is_new = not self.path.exists()
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock, owner = FileLock(self.path / ".lock"), self.path / ".owner.json"
        try:
            with disk_errors(self.path):
                lock.acquire(timeout=0)
        except Timeout as error:
            raise RunError(
                f"The output folder {self.path} is in use by another run ({_owner(owner)}).",
                hint="Wait until it is done, stop it, or choose another folder with --output-dir.",
            ) from error
        try:
            write_json(owner, {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()})
            yield self
        finally:
            owner.unlink(missing_ok=True)
            lock.release()
            if is_new and not any(entry.name != ".lock" for entry in self.path.iterdir()):
                remove(self.path)  # nothing came of it, so nothing is left behind

    def _refuse_other_folder(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file, not a folder.", hint="Choose another with --output-dir.")
        if not self.path.is_dir() or any((self.path / mark).exists() for mark in MARKS):
            return
        others = sorted(entry.name for entry in self.path.iterdir())
        if others:
            raise RunError(
                f"{self.path} is not empty and is not a run folder (it holds {', '.join(others[:5])}).",
                hint="Choose an empty or new folder with --output-dir.",
            )

    # ---- what is fresh ----

    def declare(self, stages: Iterable[Stage]) -> None:
        """Add stages in an order in which each comes after those it reads."""
        for stage in stages:
            missing = [name for name in stage.after if name not in self.stages]
            if missing:
                raise ValueError(
                    f"Stage {stage.name!r} comes after {missing[0]!r}, which is not declared yet."
                )
            self.stages[stage.name] = stage

    def fingerprint(self, stage: Stage) -> str:
        """Return the SHA-256 of all that the stage's result depends on."""
        before = {name: self.fingerprint(self.stages[name]) for name in stage.after}
        document = {"stage": stage.name, "version": stage.version, "inputs": stage.inputs, "after": before}
        return sha256_of_json(document)

    def record(self, name: str) -> dict[str, Any] | None:
        """Return the record of a finished stage, or None where there is none that can be read."""
        path = self.path / "stages" / f"{name}.json"
        if not path.is_file():
            return None
        try:
            return read_json(path)
        except RunError:
            return None  # a damaged record is the same as none: the stage runs again

    def decide(self, stage: Stage) -> Decision:
        """Say whether a stage must run, with the reasons in words."""
        record = self.record(stage.name)
        if record is None:
            name = f"stages/{stage.name}.json"
            damaged = (self.path / name).exists()
            return Decision(stage, (f"{name} is damaged: rebuilding" if damaged else "not done yet",))
        reasons = []
        if record.get("fingerprint") != self.fingerprint(stage):
            reasons = list(self._changes(stage, record)) or ["what it depends on changed"]
        if not reasons and self._checked.get(stage.name) != record:  # checksums once a session
            reasons = list(self._damage(record))
        if not reasons:
            self._checked[stage.name] = record
            reasons = list(self._changed_before(stage, record))
        return Decision(stage, tuple(reasons))

    def plan(self) -> list[Decision]:
        """Decide on every declared stage before anything runs."""
        return [self.decide(stage) for stage in self.stages.values()]

    def _changes(self, stage: Stage, record: Mapping[str, Any]) -> Iterator[str]:
        yield from changed_keys(record.get("inputs", {}), stage.inputs)
        if record.get("version") != stage.version:
            yield f"its code is version {stage.version}, was {record.get('version')}"
        before = record.get("after", {})
        for name in stage.after:
            if before.get(name, {}).get("fingerprint") != self.fingerprint(self.stages[name]):
                yield f"{name} changes"
        for name in before:
            if name not in stage.after:
                yield f"{name} no longer comes before it"

    def _damage(self, record: Mapping[str, Any]) -> Iterator[str]:
        for relative, expected in record.get("outputs", {}).items():
            path = self.path / relative
            if not path.is_file():
                yield f"{relative} is missing: rebuilding"
            elif path.stat().st_size != expected["size"] or sha256_of(path) != expected["sha256"]:
                yield f"{relative} is damaged: rebuilding"

    def _changed_before(self, stage: Stage, record: Mapping[str, Any]) -> Iterator[str]:
        """A stage before this one was rebuilt from equal inputs, and gave other outputs."""
        for name in stage.after:
            now = self.record(name)
            if now is not None and now["digest"] != record["after"].get(name, {}).get("digest"):
                yield f"{name} was rebuilt with another result"

    # ---- doing the work ----

    def do(self, stage: Stage, work: Work, progress: Progress = SILENT) -> bool:
        """Run a stage's work unless it is fresh, and record its outputs.

        Args:
            stage: A declared stage.
            work: Writes the outputs; may return notes (JSON-able) that the record keeps, such as timings.
            progress: Told of damaged files.

        Returns:
            Whether the work was done.

        Raises:
            RunError: The work did not write an output that it declared, or the disk is full.
        """
        decision = self.decide(stage)
        if decision.fresh:
            return False
        for reason in decision.reasons:
            if reason.endswith(": rebuilding"):
                progress.say(f"  {reason}")
        self.begin(stage)
        start = time.monotonic()
        with disk_errors(self.path):
            notes = work()
        self.finish(stage, {"seconds": round(time.monotonic() - start, 3), **(notes or {})})
        return True

    def begin(self, stage: Stage) -> None:
        """Remove record and outputs of a stage that is about to run, so that old and new never mix."""
        with disk_errors(self.path):
            (self.path / "stages" / f"{stage.name}.json").unlink(missing_ok=True)
            self._checked.pop(stage.name, None)
            for relative in stage.outputs:
                remove(self.path / relative)

    def finish(self, stage: Stage, notes: Mapping[str, Any] | None = None) -> None:
        """Record the outputs of a stage whose work is done.

        Raises:
            RunError: An output is not there.
        """
        files = {}
        for relative in stage.outputs:
            found = list(_files(self.path / relative))
            if not found:
                raise RunError(f"The stage {stage.name} ended without writing {relative}.")
            for path in found:
                name = path.relative_to(self.path).as_posix()
                files[name] = {"sha256": sha256_of(path), "size": path.stat().st_size}
        before = {}
        for name in stage.after:
            record = self.record(name) or {}
            before[name] = {"fingerprint": record.get("fingerprint"), "digest": record.get("digest")}
        content = {
            "stage": stage.name, "fingerprint": self.fingerprint(stage), "version": stage.version,
            "inputs": dict(stage.inputs), "after": before, "outputs": files,
            "digest": sha256_of_json(files), "beside": list(stage.beside), "finished": _now(),
            "notes": dict(notes or {}),
        }  # fmt: skip
        write_json(self.path / "stages" / f"{stage.name}.json", content)
        self._checked[stage.name] = self.record(stage.name) or {}

    def notes(self, name: str) -> dict[str, Any]:
        """Return the notes that a finished stage left, such as its seconds."""
        return dict((self.record(name) or {}).get("notes", {}))

    # ---- stages that left the study ----

    def set_aside(self) -> list[str]:
        """Move the outputs of stages that are no longer declared into ``set-aside/``; return their names."""
        moved = []
        for path in sorted((self.path / "stages").glob("*.json")):
            if path.stem not in self.stages:
                self._move(path.stem, self.path, self.path / SET_ASIDE)
                moved.append(path.stem)
        return moved

    def bring_back(self) -> list[str]:
        """Move declared stages that were set aside with the same fingerprint back; return their names."""
        kept = RunFolder(self.path / SET_ASIDE)
        back = []
        for name, stage in self.stages.items():
            record = kept.record(name)
            if record and self.record(name) is None and record.get("fingerprint") == self.fingerprint(stage):
                self._move(name, kept.path, self.path)
                back.append(name)
        return back

    def _move(self, name: str, source: Path, target: Path) -> None:
        with disk_errors(self.path):
            record = RunFolder(source).record(name) or {}
            for relative in [*record.get("outputs", {}), *record.get("beside", []), f"stages/{name}.json"]:
                if not (source / relative).exists():
                    continue
                (target / relative).parent.mkdir(parents=True, exist_ok=True)
                remove(target / relative)
                os.replace(source / relative, target / relative)
                _prune((source / relative).parent, source)


def _files(path: Path) -> Sequence[Path]:
    if path.is_dir():
        return sorted(inner for inner in path.rglob("*") if inner.is_file())
    return [path] if path.is_file() else []


def _prune(folder: Path, stop: Path) -> None:
    while folder != stop and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _owner(path: Path) -> str:
    try:
        about = read_json(path)
    except RunError:
        return "it has not said which"
    return f"process {about['pid']} on {about['host']}, since {about['since']}"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
