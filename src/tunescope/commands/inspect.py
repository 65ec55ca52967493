"""The command that looks at one model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunescope.commands.asked import Ending, LookWish, label_map
from tunescope.errors import ConfigError
from tunescope.progress import Progress


@dataclass(frozen=True)
class InspectionWish:
    """What ``tunescope inspect`` was asked for, as written on the command line."""

    model: str
    look: LookWish
    ending: Ending = field(default_factory=Ending)


def inspect(wish: InspectionWish) -> None:
    """Look at one model, print what it is, and say where the rest lies.

    Raises:
        ConfigError: Lenses are named without rows, or the column of texts is missing.
    """
    from tunescope.checkpoints import InspectRequest, inspect_folder
    from tunescope.files import read_json

    look, ending = wish.look, wish.ending
    if look.data is None and (look.lenses or look.text):
        raise ConfigError("--lens and --text need rows to look at.", hint="Add --data FILE.")
    if look.data is not None and not look.text:
        raise ConfigError(
            "--data needs --text COLUMN, the column that holds the text.", hint="Add --text COLUMN."
        )
    request = InspectRequest(
        model=wish.model,
        folder=ending.output or Path("runs") / "inspect",
        data=None if look.data is None else look.section(),
        label_map=label_map(look.label_map),
        lenses=look.chosen(),
        device=ending.device,
        seed=look.seed,
    )
    folder = inspect_folder(request, Progress(ending.quiet))
    facts = read_json(folder / "inspect.json")
    if ending.as_json:
        print(json.dumps({"folder": str(folder.resolve()), **facts}))
        return
    if not ending.quiet:
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
