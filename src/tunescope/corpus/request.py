"""What is asked of a corpus, and where its shards lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunescope.errors import ConfigError
from tunescope.fingerprints import data_digests, model_digest
from tunescope.rewriting import Lexicon, load_lexicon

ENGINES = ("polars", "spark")
NO_FLIPS = "none"
SHARD_ROWS = 4096
LOCAL_MASTER = "local[2,4]"  # two tasks at a time; a task that fails is tried four times


@dataclass(frozen=True)
class CorpusRequest:
    """One pass of a classifier over a file of texts.

    Attributes:
        model: A model folder or hub id.
        data: A .parquet, .csv, .tsv or .jsonl file.
        text: Its column of texts.
        label: Its column of true classes, or None: words are then counted by predicted class.
        folder: Where to write.
        engine: ``polars`` (this process) or ``spark``.
        master: Where Spark computes, as ``spark://host:7077``; None is two tasks on this machine.
        top: How many most confident rows of a class are kept.
        words: How many most frequent words of a class are kept.
        stop_words: Whether function words count too.
        flip: A lexicon by name or file whose words are exchanged in every row that holds one, or ``none``.
        max_length: The most tokens of a text; None is the model's own.
        shard_rows: Rows of a shard: the unit of work, of resuming, and of batches.
        device: Where to compute.
    """

    model: str
    data: Path
    text: str
    folder: Path
    label: str | None = None
    engine: str = "polars"
    master: str | None = None
    top: int = 100
    words: int = 20
    stop_words: bool = False
    flip: str = "gender"
    max_length: int | None = None
    shard_rows: int = SHARD_ROWS
    device: str = "auto"

    def check(self) -> None:
        """Refuse what cannot be done, before anything is read.

        Raises:
            ConfigError: There is no such engine or lexicon, or a count is below 1.
        """
        if self.engine not in ENGINES:
            raise ConfigError(
                f"--engine expected {' or '.join(ENGINES)}; came {self.engine!r}.",
                hint="Leave it out for polars.",
            )
        if self.master is not None and self.engine != "spark":
            raise ConfigError("--master is for --engine spark alone.", hint="Add --engine spark.")
        for name in ("top", "words", "shard_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"--{name.replace('_', '-')} expected at least 1; came {getattr(self, name)}.",
                    hint="Leave it out for the usual number.",
                )
        self.lexicon()

    def lexicon(self) -> Lexicon | None:
        """Return the lexicon whose words are exchanged, or None."""
        return None if self.flip == NO_FLIPS else load_lexicon(self.flip)

    @property
    def shards(self) -> Path:
        """The folder of finished shards."""
        return self.folder / "predictions"

    def shard(self, number: int) -> Path:
        """The file of one shard."""
        return self.shards / f"shard-{number:05d}.parquet"

    def identity(self) -> dict[str, Any]:
        """Return all that a shard's numbers depend on; neither engine nor device is part of it."""
        lexicon = self.lexicon()
        return {
            "model": str(self.model),
            "model_digest": model_digest(self.model),
            "data": data_digests(str(self.data)),
            "text": self.text,
            "label": self.label,
            "max_length": self.max_length,
            "shard_rows": self.shard_rows,
            "flip": None if lexicon is None else {"name": lexicon.name, "digest": lexicon.digest},
        }
