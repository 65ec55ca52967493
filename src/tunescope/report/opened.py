"""A run folder as an object to work with: tables, figures and findings by arm and lens, readable in notebooks."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from tunescope.errors import LensError, RunError
from tunescope.files import write_atomic
from tunescope.report import evidence
from tunescope.report.drawn import Theme, drawn, html_table, write_table
from tunescope.report.figures.style import Figure
from tunescope.report.page import REPORT_NAME
from tunescope.report.read import RunFolder, read_run
from tunescope.report.sections import SECTIONS
from tunescope.stats.results import Finding, Result, load_findings

if TYPE_CHECKING:
    import plotly.graph_objects

STRIP = "answer"  # the anchor of the depth strip, which is a run's own figure
SHOWN = 8  # findings and figures that a repr lists


def load_run(folder: str | Path) -> Run:
    """Open a run folder: what ``run``, ``compare`` or ``inspect`` wrote.

    Args:
        folder: The folder.

    Raises:
        RunError: There is no such folder, or a file in it is damaged.
    """
    return Run(Path(folder))


class Run:
    """A finished run: ``run["cka"].table``, ``run["full"]["cka"].figure()``, ``run.findings``, ``run.report``.

    It stands wherever a path is expected, so ``Path(run)`` is its folder.

    Args:
        folder: The run folder.

    Raises:
        RunError: There is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise RunError(
                f"There is no run folder {folder}.", hint="Give the folder that the run was written to."
            )

    def __fspath__(self) -> str:
        """Return the folder as a path."""
        return os.fspath(self.folder)

    @cached_property
    def files(self) -> RunFolder:
        """Everything that the report is made from."""
        return read_run(self.folder)

    @property
    def name(self) -> str:
        """The study's or comparison's name."""
        return self.files.name

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms in the study's order."""
        return self.files.arm_names

    @property
    def lenses(self) -> tuple[str, ...]:
        """The lenses that have a result."""
        return tuple(self.files.results)

    @property
    def report(self) -> Path:
        """The page.

        Raises:
            RunError: It was not written.
        """
        path = self.folder / REPORT_NAME
        if not path.is_file():
            raise RunError(
                f"{self.folder} has no {REPORT_NAME}.", hint=f"Write it: tunescope report {self.folder}"
            )
        return path

    @property
    def findings(self) -> list[Finding]:
        """Sentences with numbers and intervals."""
        path = self.folder / "findings.json"
        return load_findings(path) if path.is_file() else []

    @property
    def metrics(self) -> pl.DataFrame:
        """Every metric of every arm, seed and split, one a row."""
        records = [
            {
                "arm": one.arm,
                "seed": one.seed,
                **{key: record[key] for key in record if _is_plain(record[key])},
            }
            for one in self.files.arms
            for record in (one.metrics or {}).get("records", [])
        ]
        return pl.DataFrame(records, infer_schema_length=None)

    def __getitem__(self, name: str) -> Any:
        """Return a lens by its name (:class:`RunLens`), or an arm by its own (:class:`RunArm`).

        Raises:
            LensError: The run has neither.
        """
        if name in self.lenses:
            return RunLens(self, name)
        if name in self.arms:
            return RunArm(self, name)
        raise LensError(
            f"{self.folder} has no lens and no arm {name!r}; its lenses are {', '.join(self.lenses) or 'none'}, "
            f"its arms {', '.join(self.arms) or 'none'}.",
        )

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the lenses."""
        return iter(self.lenses)

    def figures(self) -> list[Figure]:
        """Return every figure of the report, in the page's order."""
        return [figure for _, _, figure in evidence.all_figures(self.files)]

    def figure(self, name: str | None = None, theme: Theme = "light") -> plotly.graph_objects.Figure:
        """Return a figure of the report for Plotly: the depth strip, or another by its name.

        Raises:
            LensError: There is no such figure.
        """
        placed = evidence.all_figures(self.files)
        found = [one for anchor, _, one in placed if (anchor == STRIP if name is None else one.key == name)]
        if not found:
            known = ", ".join(one.key for _, _, one in placed) or "none"
            raise LensError(
                f"{self.folder} has no figure {name or 'of all depths'!r}; its figures are {known}."
            )
        return drawn(found[0], theme)

    def save(self, path: str | Path) -> Path:
        """Write a copy of the page, or every finding as a table (``.csv``, ``.parquet``, ``.jsonl``).

        Raises:
            RunError: The ending is none of these, or the place cannot be written.
        """
        target = Path(path)
        if target.suffix == ".html":
            write_atomic(target, self.report.read_bytes())
            return target
        return write_table(
            pl.DataFrame([asdict(one) for one in self.findings], infer_schema_length=None), target
        )

    def __repr__(self) -> str:
        """Say what the run holds."""
        lines = [f"{type(self).__name__}({str(self.folder)!r}): {self.name}"]
        lines += [
            f"  arms: {', '.join(self.arms) or 'none'}",
            f"  lenses: {', '.join(self.lenses) or 'none'}",
        ]
        lines += [f"  - {sentence}" for sentence in self._sentences()]
        return "\n".join(lines)

    def _sentences(self) -> list[str]:
        found = [one.sentence for one in self.findings]
        more = len(found) - SHOWN
        return found[:SHOWN] + ([f"and {more} more findings"] if more > 0 else [])

    def _repr_html_(self) -> str:
        """Show it in a notebook: text and tables alone, every word of data escaped."""
        said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self._sentences())
        head = (
            f"<p><strong>{html.escape(self.name)}</strong> <code>{html.escape(str(self.folder))}</code></p>"
        )
        about = html_table([("arms", ", ".join(self.arms)), ("lenses", ", ".join(self.lenses))])
        return f"{head}{about}<ul>{said}</ul>" if said else f"{head}{about}<p>No findings.</p>"


class RunArm:
    """One arm of a run: ``arm["cka"].table`` has its rows alone.

    Args:
        run: The run.
        arm: The arm.
    """

    def __init__(self, run: Run, arm: str) -> None:
        self.run, self.arm = run, arm

    def __getitem__(self, lens: str) -> RunLens:
        """Return what a lens saw of this arm.

        Raises:
            LensError: There is no such lens.
        """
        if lens not in self.run.lenses:
            raise LensError(
                f"{self.arm} has no lens {lens!r}; the lenses are {', '.join(self.run.lenses) or 'none'}."
            )
        return RunLens(self.run, lens, self.arm)

    @property
    def findings(self) -> list[Finding]:
        """Sentences about this arm."""
        return [one for one in self.run.findings if one.arm == self.arm]

    @property
    def metrics(self) -> pl.DataFrame:
        """Every metric of this arm."""
        table = self.run.metrics
        return table.filter(pl.col("arm") == self.arm) if table.height else table

    def __repr__(self) -> str:
        """Say what is known of the arm."""
        lines = [f"RunArm({self.arm!r}) of {self.run.folder}: lenses {', '.join(self.run.lenses) or 'none'}"]
        return "\n".join([*lines, *(f"  - {one.sentence}" for one in self.findings[:SHOWN])])

    def _repr_html_(self) -> str:
        said = "".join(f"<li>{html.escape(one.sentence)}</li>" for one in self.findings[:SHOWN])
        return f"<p><strong>{html.escape(self.arm)}</strong></p><ul>{said}</ul>"


class RunLens:
    """What one lens saw: ``.table``, ``.figure()``, ``.save()``, ``.findings``, ``.provenance``.

    Args:
        run: The run.
        lens: The lens.
        arm: The arm whose rows alone are meant, or None for all.
    """

    def __init__(self, run: Run, lens: str, arm: str | None = None) -> None:
        self.run, self.lens, self.arm = run, lens, arm

    @property
    def table(self) -> pl.DataFrame:
        """The tidy table: ``arm, seed, model, ..., metric, value, low, high, n, p, q`` and the lens's own axes."""
        table = self.run.files.results[self.lens].table
        return (
            table
            if self.arm is None or "arm" not in table.columns
            else table.filter(pl.col("arm") == self.arm)
        )

    @property
    def result(self) -> Result:
        """The whole result as it was saved, checked against its checksum."""
        return Result.load(self.run.folder / "results", self.lens)

    @property
    def provenance(self) -> dict[str, Any]:
        """Which rows, options, seeds, version and command it came from."""
        return self.run.files.results[self.lens].provenance

    @property
    def findings(self) -> list[Finding]:
        """Sentences made from it."""
        return [one for one in self.run.findings if one.lens == self.lens and self.arm in (None, one.arm)]

    def figures(self) -> list[Figure]:
        """Return the report's figures of this lens (of one arm where one was chosen)."""
        anchors = [one.anchor for one in SECTIONS if one.lens == self.lens] or [self.lens]
        placed = [
            (title, one) for anchor, title, one in evidence.all_figures(self.run.files) if anchor in anchors
        ]
        return [one for title, one in placed if self.arm is None or title.split(", ")[0] in ("", self.arm)]

    def figure(self, name: str | None = None, theme: Theme = "light") -> plotly.graph_objects.Figure:
        """Return a figure of this lens for Plotly: its first, or another by its name.

        Raises:
            LensError: It has none, or none of that name.
        """
        found = self.figures()
        chosen = [one for one in found if name is None or one.key == name]
        if not chosen:
            known = ", ".join(one.key for one in found)
            hint = f"Its figures are {known}." if known else "Read its .table."
            raise LensError(
                f"The lens {self.lens} has no figure{f' {name!r}' if name else ''} here.", hint=hint
            )
        return drawn(chosen[0], theme)

    def save(self, path: str | Path) -> Path:
        """Write the table (``.csv``, ``.parquet``, ``.jsonl``), or its first figure (``.html``).

        Raises:
            RunError: The ending is none of these, or the place cannot be written.
        """
        target = Path(path)
        if target.suffix == ".html":
            write_atomic(target, self.figure().to_html(include_plotlyjs=True))
            return target
        return write_table(self.table, target)

    def __repr__(self) -> str:
        """Say what the result holds."""
        table = self.table
        whose = f" of {self.arm}" if self.arm else ""
        axes = ", ".join(name for name in table.columns if table[name].null_count() < table.height)
        lines = [f"RunLens({self.lens!r}){whose}: {table.height:,} rows", f"  columns: {axes}"]
        return "\n".join([*lines, *(f"  - {one.sentence}" for one in self.findings[:SHOWN])])

    def _repr_html_(self) -> str:
        table = self.table
        what = str(self.provenance.get("what") or "")
        said = "".join(f"<li>{html.escape(one.sentence)}</li>" for one in self.findings[:SHOWN])
        about = html_table([("rows", f"{table.height:,}"), ("columns", ", ".join(table.columns))])
        return f"<p><strong>{html.escape(self.lens)}</strong> {html.escape(what)}</p>{about}<ul>{said}</ul>"


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
