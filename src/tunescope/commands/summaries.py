"""Writing summaries of articles with a model that a study tuned to summarise."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunescope.commands.asked import Ending
from tunescope.errors import DataError
from tunescope.files import read_json
from tunescope.progress import Progress

RECORD = "tunescope.json"


def writes(model: str) -> bool:
    """Whether a folder says of itself that a study tuned (or prompted) it to summarise."""
    record = Path(model) / RECORD
    return record.is_file() and read_json(record).get("task") == "summarise"


def article_of(text: str) -> str:
    """Return an article: the text itself, or with ``@`` in front the content of a file.

    Raises:
        DataError: The file is not there or is not UTF-8 text.
    """
    if not text.startswith("@"):
        return text
    path = Path(text[1:])
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"The article {path} cannot be read: {error}.", hint="Give a UTF-8 text file behind the @."
        ) from error


def print_summaries(model: str, texts: Sequence[str], ending: Ending) -> None:
    """Write a summary of every text as its study says, and print or save them.

    Raises:
        DataError: A text is empty, or its file cannot be read.
    """
    import polars as pl

    from tunescope.device import resolve_device
    from tunescope.files import atomic_path

    table = pl.DataFrame(summarise(model, texts, resolve_device(ending.device), Progress(ending.quiet)))
    if ending.output is not None:
        writer = {".parquet": "write_parquet", ".csv": "write_csv", ".jsonl": "write_ndjson"}[
            ending.output.suffix
        ]
        with atomic_path(ending.output) as temporary:
            getattr(table, writer)(temporary)
        if not ending.quiet:
            print(f"{table.height} summaries are in {ending.output}.")
    elif ending.as_json:
        sys.stdout.write(table.write_ndjson())
    else:
        for row in table.iter_rows(named=True):
            if row["article_cut"] and not ending.quiet:
                sys.stderr.write(
                    f"{row['article_cut']} of {row['article_tokens']} tokens of the article were cut.\n"
                )
            print(
                "".join(
                    letter if letter.isprintable() or letter == "\n" else " " for letter in row["summary"]
                )
            )


def summarise(model: str, texts: Sequence[str], device: str, progress: Progress) -> dict[str, list[Any]]:
    """Return columns ``summary``, ``article_tokens``, ``article_cut`` and ``ended`` in the order of the texts."""
    from tunescope.config.summaries import SummariseConfig
    from tunescope.models.summariser import open_language_model
    from tunescope.study.summarise import generation_of, options_of
    from tunescope.summaries import encode_summaries
    from tunescope.summaries.generation import write_summaries

    record = read_json(Path(model) / RECORD)
    own = SummariseConfig.model_validate(record["summarise"])
    opened = open_language_model(str(record.get("model") or model), device=device)
    kind = "encoder_decoder" if opened.is_encoder_decoder else "decoder"
    articles = [article_of(text) for text in texts]
    ids = [str(index) for index in range(len(articles))]
    tokens = encode_summaries(articles, None, ids, opened.tokenizer, kind, options_of(own))  # type: ignore[arg-type]
    found = write_summaries(opened.model, opened.tokenizer, tokens, generation_of(own, 0), progress)
    return {
        "summary": found.texts, "article_tokens": tokens.article_tokens.tolist(),
        "article_cut": tokens.article_cut.tolist(), "ended": found.ended.tolist(),
    }  # fmt: skip
