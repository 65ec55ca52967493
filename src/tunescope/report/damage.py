"""A damaged result spoils its own section and no other: what could not be shown, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import polars as pl

from tunescope.errors import FormatError, RunError
from tunescope.report.read import RunFolder
from tunescope.report.run_files import first_line

Made = TypeVar("Made")


@dataclass
class Damage:
    """What is damaged in a run folder.

    Attributes:
        told: By section or file: what is wrong with it, each once.
    """

    told: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, run: RunFolder) -> Damage:
        """Return what reading the folder found."""
        return cls(dict(run.damaged))

    @contextmanager
    def noting(self, section: str) -> Iterator[None]:
        """Note what a section cannot be made from; another format is no damage."""
        try:
            yield
        except FormatError:
            raise
        except RunError as error:
            self.note(section, error.message)
        except (
            pl.exceptions.PolarsError,
            KeyError,
            TypeError,
            ValueError,
            IndexError,
            AttributeError,
        ) as error:
            # What a file of the right form but with other content leads to.
            self.note(
                section, f"could not be made from its files ({type(error).__name__}: {first_line(error)})"
            )

    def note(self, section: str, said: str) -> None:
        """Keep what is wrong, each message once."""
        if said not in self.told.values():
            self.told[section] = said

    def made(self, section: str, build: Callable[[], Made], otherwise: Made) -> Made:
        """Return what ``build`` returns, or ``otherwise`` where its files are damaged."""
        with self.noting(section):
            return build()
        return otherwise
