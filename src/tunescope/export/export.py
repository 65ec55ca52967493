"""``tunescope export``: which files it makes, in which order, and the manifest that says what they are."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunescope import __version__
from tunescope.errors import ConfigError, RunError
from tunescope.export import captions, cards, figures, methods, tables
from tunescope.export.pictures import FORMATS, Format, draw, require_kaleido
from tunescope.files import read_json, write_atomic, write_json
from tunescope.progress import SILENT, Progress
from tunescope.report.read import RunFolder, read_run
from tunescope.report.texts import DEFAULT, Texts, checked_texts

MANIFEST = "export.json"
FOLDER = "export"
LEAST_WIDTH, MOST_WIDTH = 1.5, 20.0  # inches
_INCHES = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72.27}  # TeX's points, as papers state widths


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and how.

    Attributes:
        width: Width of a figure, as a paper states it: ``3.3in``, ``8.4cm``, ``84mm`` or ``239pt``.
        texts: How much of the rows' texts may leave: ``all``, ``examples`` or ``none``.
        figures: ``open`` (those that the page shows without unfolding), ``all``, ``none``, or figures' keys and
            sections.
        formats: Kinds of figure files.
        tables: Whether tables are written.
    """

    width: str = "3.3in"
    texts: Texts = DEFAULT
    figures: tuple[str, ...] = ("open",)
    formats: tuple[Format, ...] = FORMATS
    tables: bool = True


@dataclass
class _Written:
    """Files written so far, for the manifest."""

    to: Path
    files: list[dict[str, Any]] = field(default_factory=list)

    def write(self, name: str, content: str | bytes, what: str) -> None:
        """Write one file, whole or not at all."""
        data = content.encode("utf-8", errors="replace") if isinstance(content, str) else content
        write_atomic(self.to / name, data)
        digest = hashlib.sha256(data).hexdigest()
        self.files.append({"path": name, "bytes": len(data), "sha256": digest, "what": what})


def export_run(
    folder: Path,
    to: Path | None = None,
    options: ExportOptions = ExportOptions(),
    progress: Progress = SILENT,
) -> Path:
    """Write what a paper and a model hub need from a run folder, and return the folder of these files.

    Every file is whole or absent; ``export.json`` names them all with their checksums and is written last. An export
    into a folder of an earlier one replaces it: files of that one are removed first, so that nothing of another run
    or of other texts stays behind. Nothing is computed from a model and nothing is downloaded.

    Args:
        folder: What ``tunescope run`` or ``tunescope compare`` wrote.
        to: Where the files go; ``export/`` in the run folder where None.
        options: What is exported.
        progress: Told how far it is.

    Raises:
        ConfigError: The width, a figure's key or ``texts`` is not known.
        MissingDependencyError: Figures are wanted, and kaleido or a browser is missing.
        RunError: The folder is no run, is damaged, or cannot be written; or ``to`` holds files that no export wrote.
    """
    inches = width_in_inches(options.width)
    run = read_run(Path(folder), texts=checked_texts(options.texts))
    target = Path(to) if to is not None else Path(folder) / FOLDER
    chosen = figures.choose(run, options.figures)
    if chosen:
        require_kaleido()
    _clear(target)
    written = _Written(target)
    if options.tables:
        for name, content, what in _with_progress(tables.files(run), tables.count(run), "tables", progress):
            written.write(name, content, what)
    for name, content, what in _papers(run):
        written.write(name, content, what)
    if chosen:
        count = sum(len(one.figure.panels) for one in chosen) * len(options.formats)
        with progress.task("figures", count, "files") as task:

            def sink(name: str, format_: Format, content: bytes) -> None:
                written.write(f"figures/{name}.{format_}", content, f"figure {name}")
                task.advance()

            draw(figures.jobs(run, chosen, inches), options.formats, sink)
        written.write("figures/README.md", captions.captions(run, chosen), "what each figure shows")
    write_json(target / MANIFEST, _manifest(run, options, inches, written))
    return target


def width_in_inches(width: str) -> float:
    """Return a width such as ``3.3in``, ``8.4cm``, ``84mm`` or ``239pt`` in inches.

    Raises:
        ConfigError: It is no length, or outside 1.5 to 20 inches.
    """
    text = width.strip().lower()
    unit = text[-2:]
    try:
        inches = float(text[:-2]) * _INCHES[unit]
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"The width {width!r} is no length: expected a number and in, cm, mm or pt.",
            hint="For example --width 3.3in (one column of many proceedings) or --width 6.75in (two columns).",
        ) from error
    if not math.isfinite(inches) or not LEAST_WIDTH <= inches <= MOST_WIDTH:
        raise ConfigError(
            f"The width {width!r} is {inches:.2f} inches; figures have between {LEAST_WIDTH} and {MOST_WIDTH:.0f}.",
            hint="For example --width 3.3in (one column of many proceedings) or --width 6.75in (two columns).",
        )
    return inches


def _papers(run: RunFolder) -> Iterator[tuple[str, str, str]]:
    """Yield the texts: methods, references and model cards."""
    told = methods.methods(run)
    yield "methods.md", told.text, "a methods section, from what was run"
    yield "references.bib", told.bibtex, "the works that methods.md cites"
    for name, content in cards.model_cards(run):
        yield name, content, "a model card for the Hugging Face hub"


def _with_progress(
    items: Iterator[tuple[str, str, str]], count: int, name: str, progress: Progress
) -> Iterator[tuple[str, str, str]]:
    with progress.task(name, count, "tables") as task:
        for item in items:
            yield item
            task.advance()


def _clear(target: Path) -> None:
    """Remove the files of an earlier export, by its manifest.

    Raises:
        RunError: The folder holds something that no export wrote.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise RunError(f"{target} is a file; an export needs a folder.", hint="Choose another with --to.")
    manifest = target / MANIFEST
    if not manifest.is_file():
        if any(target.iterdir()):
            raise RunError(
                f"{target} is not empty, and no export wrote what is in it ({MANIFEST} is not there).",
                hint="Choose a new folder with --to, or empty this one.",
            )
        return
    inside = target.resolve()
    for entry in read_json(manifest).get("files") or []:
        path = (target / str(entry.get("path"))).resolve()
        if path.is_relative_to(inside) and path.is_file():
            path.unlink()
    manifest.unlink()


def _manifest(run: RunFolder, options: ExportOptions, inches: float, written: _Written) -> dict[str, Any]:
    return {
        "run": run.name,
        "tunescope": __version__,
        "options": {
            "width": options.width,
            "inches": round(inches, 4),
            "texts": options.texts,
            "figures": list(options.figures),
            "formats": list(options.formats),
            "tables": options.tables,
        },
        "files": written.files,
    }
