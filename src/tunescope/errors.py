"""The one tree of errors that tunescope raises on purpose.

Every message says what was expected, what came, and (as ``hint``) the next step. The command line prints
``str(error)`` and exits with the class's ``exit_code``; Python callers catch :class:`TunescopeError`.
"""

from __future__ import annotations


class TunescopeError(Exception):
    """The root of every error that tunescope raises on purpose.

    Args:
        message: What was expected and what came, with file, column, row or key.
        hint: The next step for the reader; printed on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nNext: {self.hint}"


class ConfigError(TunescopeError):
    """The study file, an override or a command-line option is not valid."""

    exit_code = 2


class DataError(TunescopeError):
    """A data file, column, row or label is not what was promised."""

    exit_code = 3


class ModelError(TunescopeError):
    """A model folder, hub id, family, head or adapter cannot be used."""

    exit_code = 4


class SiteError(ModelError):
    """A site does not exist in this model, or a family's table does not describe it truly."""


class EditError(ModelError):
    """An edit does not fit its site, or hit nothing."""


class LensError(TunescopeError):
    """A lens cannot give a true answer for these inputs."""

    exit_code = 5


class RunError(TunescopeError):
    """The run folder is in use, cannot be written, or holds what it should not."""

    exit_code = 6


class FormatError(RunError):
    """A file or run folder was written in a format that this version of tunescope does not read."""


class MissingDependencyError(TunescopeError):
    """An optional library is not installed; the hint is the install command."""

    exit_code = 7


class ExpectationError(TunescopeError):
    """A run finished, but an expectation of its study was not met."""

    exit_code = 8


class DoctorError(TunescopeError):
    """The doctor planted a truth that tunescope did not recover on this machine."""

    exit_code = 9


class Interrupted(TunescopeError):
    """The user stopped the work; what was finished is kept and ``run`` continues from it."""

    exit_code = 130
