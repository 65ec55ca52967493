"""The command on a whole corpus."""

from __future__ import annotations

import json

import polars as pl

from tunescope.corpus import CorpusRequest, run_corpus
from tunescope.files import read_json
from tunescope.progress import Progress


def corpus(request: CorpusRequest, quiet: bool, as_json: bool) -> None:
    """Predict a corpus and say what was found and where it is.

    Args:
        request: What is asked.
        quiet: Show no progress.
        as_json: Print the summary as JSON.
    """
    folder = run_corpus(request, Progress(quiet or as_json))
    summary = read_json(folder / "summary.json")
    if as_json:
        print(json.dumps({"folder": str(folder.resolve()), **summary}))
        return
    if quiet:
        return
    shares = ", ".join(f"{name} {count:,}" for name, count in summary["predicted"].items())
    print(f"{summary['rows']:,} rows predicted: {shares}.")
    if summary["accuracy"] is not None:
        print(f"Accuracy on {summary['labelled']:,} labelled rows: {summary['accuracy']:.4f}.")
    table = pl.read_parquet(folder / "words.parquet")
    for name, words in table.group_by("class", maintain_order=True):
        print(f"Words of {name[0]}: {', '.join(words['word'].head(10))}.")
    if request.flip != "none":
        _print_flips(pl.read_parquet(folder / "flips.parquet"), summary, request.flip)
    print(f"Results: {folder}")


def _print_flips(flips: pl.DataFrame, summary: dict[str, object], name: str) -> None:
    own = flips.filter((pl.col("class") == "all") & (pl.col("direction") == "all"))
    if not own.height:
        print(f"No row holds a word of the lexicon {name}.")
        return
    print(f"{summary['touched']:,} rows hold words of the lexicon {name}; exchanged:")
    for line in own.iter_rows(named=True):
        between = "" if line["low"] is None else f" [{line['low']:.4f}, {line['high']:.4f}]"
        print(f"  {line['metric'].replace('_', ' ')} {line['value']:.4f}{between}")
