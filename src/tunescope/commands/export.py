"""The command ``export``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tunescope.errors import ConfigError
from tunescope.progress import Progress


@dataclass(frozen=True)
class ExportRequest:
    """What ``tunescope export`` was asked for."""

    run: Path
    to: Path | None
    width: str
    texts: str
    figures: tuple[str, ...]
    formats: tuple[str, ...]
    tables: bool
    quiet: bool
    as_json: bool


def export(request: ExportRequest) -> None:
    """Write figures, tables, methods, references and model cards of a run, and say where they are.

    Raises:
        ConfigError: An option is not known.
    """
    from tunescope.export import ExportOptions, export_run
    from tunescope.export.export import MANIFEST
    from tunescope.export.pictures import FORMATS
    from tunescope.files import read_json

    for name in request.formats:
        if name not in FORMATS:
            raise ConfigError(
                f"There is no figure format {name!r}; the formats are {', '.join(FORMATS)}.",
                hint="For example --format pdf.",
            )
    options = ExportOptions(
        width=request.width,
        texts=request.texts,  # type: ignore[arg-type]  # read_run refuses another word
        figures=request.figures,
        formats=tuple(one for one in FORMATS if one in request.formats),
        tables=request.tables,
    )
    target = export_run(request.run, request.to, options, Progress(request.quiet))
    files = read_json(target / MANIFEST)["files"]
    if request.as_json:
        print(json.dumps({"export": str(target.resolve()), "files": len(files)}))
    elif not request.quiet:
        print(f"Export: {target} ({len(files)} files; {MANIFEST} lists them)")
