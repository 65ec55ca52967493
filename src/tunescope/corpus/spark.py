"""The same shards through PySpark: one shard a task, one model a Python worker.

Numbers cannot depend on how Spark parts the work, because a shard is always predicted whole and alone, by the same
function as without Spark. Shards go out as files and come back as files, each whole or absent, so that a task that
dies with its worker leaves nothing and is simply done again elsewhere. The folder must be seen by every worker.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from tunescope.corpus.request import LOCAL_MASTER, CorpusRequest
from tunescope.errors import MissingDependencyError, RunError
from tunescope.folders import remove
from tunescope.progress import Progress

if TYPE_CHECKING:
    import pyarrow as pa

JAVA = 17
WHOLE_FILE = str(1 << 40)  # bytes: no file is parted, and no two share a task
SENT = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HF_HUB_OFFLINE", "HF_HOME", "TOKENIZERS_PARALLELISM")
_LOADED: dict[str, Any] = {}  # one model a Python worker


def predict_with_spark(request: CorpusRequest, progress: Progress) -> None:
    """Predict the shards that are not there yet in Spark's workers.

    A worker that is lost is no error: Spark gives its shards to another.

    Raises:
        MissingDependencyError: PySpark or Java 17 is not there.
        RunError: A shard is not there at the end.
    """
    require_spark()
    from tunescope.corpus.run import missing_shards, write_shard

    staged = request.folder.resolve() / "rows"
    remove(staged)
    numbers = []
    for number, shard in missing_shards(request):
        numbers.append(number)
        write_shard(shard.with_columns(pl.lit(number).alias("shard")), staged / f"shard-{number:05d}.parquet")
    if numbers:
        progress.say(f"  {len(numbers)} shards through Spark at {request.master or LOCAL_MASTER}")
        _run(request, staged)
    remove(staged)
    missing = [number for number in numbers if not request.shard(number).is_file()]
    if missing:
        raise RunError(
            f"Spark ended, but {len(missing)} of {len(numbers)} shards are not in {request.shards}.",
            hint="Every Spark worker must see that folder under that path; choose a shared one with --output.",
        )


def require_spark() -> None:
    """Check that PySpark and Java are there.

    Raises:
        MissingDependencyError: One is not, or Java is older than 17.
    """
    try:
        import pyspark  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "--engine spark needs PySpark, which is not installed.", hint="pip install 'tunescope[spark]'"
        ) from error
    version = java_version()
    if version is None or version < JAVA:
        raise MissingDependencyError(
            f"--engine spark needs Java {JAVA} or newer; "
            + ("there is no java." if version is None else f"java is version {version}."),
            hint="Install a Java runtime (on Debian: apt install openjdk-17-jre-headless), or set JAVA_HOME.",
        )


def java_version() -> int | None:
    """Return the main version of the Java that Spark would start, or None where there is none."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None or not Path(java).exists():
        return None
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found.group(1)) if found else None


def _run(request: CorpusRequest, staged: Path) -> None:
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    request = _absolute(request)
    session = _session(request)
    try:
        rows = session.read.parquet(f"file://{staged}")
        done = rows.mapInArrow(shard_task(request), "shard long, rows long").toArrow().to_pylist()
    except (Py4JJavaError, PySparkException) as error:
        raise RunError(
            f"Spark could not predict the shards: {_reason(error)}.",
            hint="What was finished is kept; the same command goes on from there.",
        ) from error
    finally:
        session.stop()
    if sorted(one["shard"] for one in done) != _numbers(staged):
        raise RunError("Spark did not give every shard exactly once.", hint="Run the same command again.")


def _session(request: CorpusRequest) -> Any:
    from pyspark.sql import SparkSession

    os.environ.setdefault(
        "PYSPARK_PYTHON", sys.executable
    )  # Spark reads it nowhere else when Python starts it
    builder = (
        SparkSession.builder.appName("tunescope corpus")
        .master(request.master or LOCAL_MASTER)
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.task.maxFailures", "4")
        .config("spark.sql.files.maxPartitionBytes", WHOLE_FILE)
        .config("spark.sql.files.openCostInBytes", WHOLE_FILE)
        .config("spark.sql.execution.pyspark.udf.faulthandler.enabled", "true")
    )
    for name in SENT:
        if name in os.environ:
            builder = builder.config(f"spark.executorEnv.{name}", os.environ[name])
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    return session


def shard_task(request: CorpusRequest) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return what a task does with its rows: predict each shard among them, write it, and say how many rows it has."""

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        from tunescope.corpus.run import write_shard
        from tunescope.corpus.shards import predicted_shard

        held: list[pa.RecordBatch] = list(batches)
        if not held:
            return
        rows = pl.from_arrow(pa.Table.from_batches(held))
        assert isinstance(rows, pl.DataFrame)
        for (number,), shard in rows.group_by(["shard"], maintain_order=True):
            whole = shard.drop("shard").sort("position")
            done = predicted_shard(_model(request), whole, request, request.lexicon())
            write_shard(done, request.shard(int(number)))  # type: ignore[call-overload]
            yield pa.RecordBatch.from_pydict(
                {"shard": pa.array([number], pa.int64()), "rows": pa.array([done.height], pa.int64())}
            )

    return work


def _model(request: CorpusRequest) -> Any:
    from tunescope.device import resolve_device
    from tunescope.models.load import load
    from tunescope.models.source import quiet_transformers

    if request.model not in _LOADED:
        _LOADED.clear()
        with quiet_transformers():
            _LOADED[request.model] = load(request.model, device=resolve_device(request.device))
    return _LOADED[request.model]


def _absolute(request: CorpusRequest) -> CorpusRequest:
    """Return the request with paths that mean the same from another process's folder."""
    model = str(Path(request.model).resolve()) if Path(request.model).is_dir() else request.model
    flip = str(Path(request.flip).resolve()) if Path(request.flip).is_file() else request.flip
    return dataclasses.replace(request, model=model, flip=flip, folder=request.folder.resolve())


def _numbers(staged: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("shard-")) for path in staged.glob("shard-*.parquet"))


def _reason(error: Exception) -> str:
    """Return the line of a long Java trace that says what went wrong in Python."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("tunescope.errors.")]
    raised = [
        line
        for line in lines
        if re.match(r"[\w.]*(Error|Exception|Warning)\b.*:", line) and "py4j" not in line
    ]
    return (own[-1].partition(": ")[2] if own else (raised or lines or ["unknown"])[-1])[:300].rstrip(".")
