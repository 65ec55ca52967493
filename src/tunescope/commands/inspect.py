"""The command that looks at one model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunescope.commands.checkpoints import data_section, label_map, lens_configs
from tunescope.errors import ConfigError
from tunescope.progress import Progress


@dataclass(frozen=True)
class InspectionWish:
    """What ``tunescope inspect`` was asked for, as written on the command line."""

    model: str
    data: str | None = None
    text: Sequence[str] = ()
    label: str = "label"
    label_map: Sequence[str] = ()
    lenses: Sequence[str] = ()
    rows: int | None = None
    max_length: int | None = None
    template: str | None = None
    seed: int = 0
    output_dir: Path | None = None
    device: str = "auto"
    quiet: bool = False
    as_json: bool = False


def inspect(wish: InspectionWish) -> None:
    """Look at one model, print what it is, and say where the rest lies.

    Raises:
        ConfigError: Lenses are named without rows, or the column of texts is missing.
    """
    from tunescope.checkpoints import InspectRequest, inspect_folder
    from tunescope.files import read_json

    if wish.data is None and (wish.lenses or wish.text):
        raise ConfigError("--lens and --text need rows to look at.", hint="Add --data FILE.")
    if wish.data is not None and not wish.text:
        raise ConfigError(
            "--data needs --text COLUMN, the column that holds the text.", hint="Add --text COLUMN."
        )
    request = InspectRequest(
        model=wish.model,
        folder=wish.output_dir or Path("runs") / "inspect",
        data=None if wish.data is None else data_section(wish),
        label_map=label_map(wish.label_map),
        lenses=lens_configs(wish.lenses) if wish.lenses else None,
        device=wish.device,
        seed=wish.seed,
    )
    folder = inspect_folder(request, Progress(wish.quiet))
    facts = read_json(folder / "inspect.json")
    if wish.as_json:
        print(json.dumps({"folder": str(folder.resolve()), **facts}))
        return
    if not wish.quiet:
        print("\n".join(said(facts)))
        print(f"Report: {folder / 'report.html'}")


def said(facts: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that tell of a model."""
    made, tokens, counts = facts["architecture"], facts["tokenizer"], facts["parameters"]
    stored = ", ".join(f"{number:,} in {name}" for name, number in facts["precision"]["stored"].items())
    yield f"{facts['path']}: {facts['kind']}, {made['family']} ({made['model_type']})"
    for stack in made["stacks"]:
        which = "" if stack["name"] is None else f"{stack['name']}: "
        shape = f"{stack['layers']} layers x {stack['heads']} heads of {stack['head_width']}"
        yield f"  {which}{shape}, width {made['width']}"
    yield f"  norm {made['norm']}; attention {made['attention']}; at most {made['positions']:,} positions"
    yield f"  parameters: {counts['all']:,} (trunk {counts['trunk']:,}, head {counts['head']:,})"
    yield f"  head: {facts['head']['what']}; pooling: {facts['head']['pooling'] or 'none'}"
    if facts["head"]["labels"]:
        yield f"  labels: {', '.join(facts['head']['labels'])}"
    yield f"  numbers: {stored or 'not known'}; computed in {facts['precision']['computed']}"
    pad = f"{tokens['pad_token']}{' (the end token)' if tokens['pads_with_end'] else ''}"
    case = "lower case" if tokens["lower_cases"] else "case kept"
    yield f"  tokenizer: {tokens['entries']:,} entries, pad token {pad}, {case}, at most {tokens['max_length']} tokens"
    yield f"  {tokens['example']['text']!r} is {' '.join(tokens['example']['tokens'])}"
    yield f"  checked on a probe batch: {'; '.join(facts['verified'])}"
    yield f"  can: {', '.join(facts['can'])}"
    reasons: dict[str, list[str]] = {}
    for one in facts["cannot"]:
        reasons.setdefault(one["why"], []).append(one["what"])
    for why, what in reasons.items():
        yield f"  cannot: {', '.join(what)}: {why}"
    for one in facts["assumed"]:
        yield f"  assumed: {one}"
