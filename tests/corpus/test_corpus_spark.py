"""A corpus through a real standalone Spark of two workers, one of which is ended while it computes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from tunescope.corpus import CorpusRequest, run_corpus
from tunescope.corpus.spark import JAVA, java_version, require_spark
from tunescope.errors import MissingDependencyError

SHARDS = 40
NOUNS = ("cat", "house", "film", "rain", "night")
needs_spark = pytest.mark.skipif(
    find_spec("pyspark") is None or (java_version() or 0) < JAVA,
    reason=f"the Spark engine needs pyspark and Java {JAVA}",
)


@pytest.fixture(scope="module")
def asked(tmp_path_factory, gpt2_folder):
    """The corpus as one process computes it, its last shard shorter than the others."""
    folder = tmp_path_factory.mktemp("spark")
    texts = [
        f"{('he', 'she', 'they')[row % 3]} saw {NOUNS[row % 5]} {row} {'very ' * (row % 7)}well"
        for row in range(SHARDS * 8 - 3)
    ]
    pl.DataFrame({"text": texts}).write_parquet(folder / "rows.parquet")
    request = CorpusRequest(
        str(gpt2_folder), folder / "rows.parquet", "text", folder / "here", shard_rows=8, top=5, device="cpu"
    )
    run_corpus(request)
    return request


@pytest.fixture
def cluster():
    """A Master and two Workers as processes of their own: their address and the two processes."""
    import pyspark

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = [str(Path(pyspark.__file__).parent / "bin" / "spark-class"), "org.apache.spark.deploy"]
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "OMP_NUM_THREADS": "1"}

    def process(name: str, *arguments: str) -> subprocess.Popen:
        command = [start[0], f"{start[1]}.{name}", "--host", "127.0.0.1", "--webui-port", "0", *arguments]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )  # fmt: skip

    address = f"spark://127.0.0.1:{port}"
    running = [process("master.Master", "--port", str(port))]
    _until(lambda: _answers(port), "the Master answers")
    running += [process("worker.Worker", "--cores", "1", "--memory", "1100m", address) for _ in range(2)]
    yield address, running[1:]
    for one in running:
        if one.poll() is None:
            os.killpg(one.pid, signal.SIGKILL)
            one.wait()


def _answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def _until(met, what: str, seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, f"waited {seconds} s until {what}"
        time.sleep(0.02)


def _started(request: CorpusRequest, folder: Path, address: str) -> subprocess.Popen:
    command = [
        sys.executable, "-m", "tunescope", "corpus", request.model, "--data", str(request.data),
        "--output", str(folder), "--engine", "spark", "--master", address, "--shard-rows", "8",
        "--top", "5", "--device", "cpu",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SPARK_LOCAL_IP": "127.0.0.1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _has_python(worker: subprocess.Popen) -> bool:
    """Whether a worker's executor has started Python, which is where the model computes."""
    shown = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True)
    lines = [line.split(None, 2) for line in shown.stdout.splitlines()]
    parents = {int(pid): (int(parent), name) for pid, parent, name in lines}

    def under(pid: int) -> bool:
        while pid in parents and pid > 1:
            if pid == worker.pid:
                return True
            pid = parents[pid][0]
        return False

    return any("python" in name and under(pid) for pid, (_, name) in parents.items())


@pytest.mark.slow
@needs_spark
def test_two_workers_give_the_same_rows_even_when_one_is_ended(asked, cluster, tmp_path):
    address, workers = cluster
    job = _started(asked, tmp_path / "spark", address)
    shards = tmp_path / "spark" / "predictions"
    _until(lambda: job.poll() is not None or _has_python(workers[0]), "the first worker computes")
    _until(lambda: job.poll() is not None or len(list(shards.glob("shard-*"))) >= 2, "two shards are done")
    done = len(list(shards.glob("shard-*")))
    os.killpg(workers[0].pid, signal.SIGKILL)  # the worker; its executor and Python end with it
    workers[0].wait()
    said, _ = job.communicate(timeout=900)
    assert job.returncode == 0, said
    assert 2 <= done < SHARDS, "the worker must be ended while shards are left"
    assert len(list(shards.glob("shard-*.parquet"))) == SHARDS
    for path in sorted(asked.shards.glob("*.parquet")):
        assert pl.read_parquet(shards / path.name).equals(pl.read_parquet(path)), path.name
    for name in ("top", "words", "flips", "moved"):
        own = pl.read_parquet(tmp_path / "spark" / f"{name}.parquet")
        assert own.equals(pl.read_parquet(asked.folder / f"{name}.parquet")), name
    assert not (tmp_path / "spark" / "rows").exists()


def test_without_java_the_engine_says_what_to_install(monkeypatch, tmp_path):
    pytest.importorskip("pyspark", reason="the Spark engine needs pyspark")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert java_version() is None
    with pytest.raises(MissingDependencyError, match="needs Java 17 or newer; there is no java"):
        require_spark()


def test_an_old_java_is_refused(monkeypatch, tmp_path):
    pytest.importorskip("pyspark", reason="the Spark engine needs pyspark")
    (tmp_path / "bin").mkdir()
    java = tmp_path / "bin" / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="java is version 8"):
        require_spark()
