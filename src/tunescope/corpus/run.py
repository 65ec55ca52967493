"""One pass over a corpus: shards by either engine, then what is read off them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from tunescope.corpus.request import CorpusRequest
from tunescope.corpus.shards import predicted_shard, source_shards
from tunescope.corpus.summary import summarise
from tunescope.device import resolve_device
from tunescope.errors import RunError
from tunescope.files import atomic_path, read_json, write_json
from tunescope.fingerprints import changed_keys
from tunescope.folders import disk_errors, sweep
from tunescope.models.load import load
from tunescope.models.source import quiet_transformers
from tunescope.progress import SILENT, Progress


def run_corpus(request: CorpusRequest, progress: Progress = SILENT) -> Path:
    """Predict every row of a file, and keep what is most confident, most frequent and most moved.

    Writes ``corpus.json`` (what was asked), ``predictions/shard-*.parquet`` (see
    :func:`tunescope.corpus.shards.predicted_shard`), and off them ``top.parquet``, ``words.parquet``,
    ``flips.parquet``, ``moved.parquet`` and ``summary.json`` (:mod:`tunescope.corpus.summary`). Shards that are there
    are not computed again, whichever engine made them.

    Args:
        request: What is asked.
        progress: Where to report.

    Returns:
        The folder.

    Raises:
        ConfigError: The request is not valid.
        DataError: The file cannot be used.
        RunError: The folder holds another corpus, or Spark left a shard out.
        MissingDependencyError: PySpark or Java 17 is not there.
    """
    request.check()
    _claim(request)
    with disk_errors(request.folder):
        sweep(request.folder)
        if request.engine == "spark":
            from tunescope.corpus.spark import predict_with_spark

            predict_with_spark(request, progress)
        else:
            predict_here(request, progress)
        summarise(request, progress)
    return request.folder


def predict_here(request: CorpusRequest, progress: Progress) -> None:
    """Predict the shards that are not there yet, one after another, in this process."""
    todo, total = source_shards(request)
    lexicon, classifier = request.lexicon(), None
    with quiet_transformers(), progress.task("predicting", total, "rows") as task:
        for number, shard in enumerate(todo):
            if not request.shard(number).is_file():
                classifier = classifier or load(request.model, device=resolve_device(request.device))
                write_shard(predicted_shard(classifier, shard, request, lexicon), request.shard(number))
            task.advance(shard.height)


def write_shard(table: pl.DataFrame, path: Path) -> None:
    """Write one shard, whole or not at all."""
    with atomic_path(path) as temporary:
        table.write_parquet(temporary)


def missing_shards(request: CorpusRequest) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield the shards that are not there yet, by number."""
    for number, shard in enumerate(source_shards(request)[0]):
        if not request.shard(number).is_file():
            yield number, shard


def _claim(request: CorpusRequest) -> None:
    """Say in the folder what it is for.

    Raises:
        RunError: It is for something else.
    """
    path, identity = request.folder / "corpus.json", request.identity()
    if path.is_file():
        changes = changed_keys(read_json(path)["identity"], identity)
        if changes:
            raise RunError(
                f"{request.folder} holds another corpus: {'; '.join(changes)}.",
                hint="Choose another folder with --output, or remove that one.",
            )
        return
    if request.folder.is_dir() and any(request.folder.iterdir()):
        raise RunError(
            f"{request.folder} is not empty and holds no corpus.", hint="Choose another with --output."
        )
    write_json(path, {"identity": identity})
