"""What one inspected model is: its shape, parameters, head and tokenizer, as the page says them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tunescope.report.quality import Piece
from tunescope.report.read import RunFolder, reading
from tunescope.report.text import listed, plural


@dataclass(frozen=True)
class Facts:
    """The section: one line a fact, and what cannot be done with the model, with the reason."""

    rows: tuple[tuple[str, str], ...]
    cannot: tuple[tuple[str, str], ...]


def facts(run: RunFolder) -> Facts | None:
    """Return what the inspected model is; None where no single model was inspected.

    Raises:
        RunError: ``inspect.json`` lacks a part.
    """
    found = run.inspection
    if found is None:
        return None
    with reading(run.folder, "inspect.json"):
        why: dict[str, list[str]] = {}
        for one in found.get("cannot") or []:
            why.setdefault(str(one["why"]), []).append(str(one["what"]))
        return Facts(tuple(_rows(found)), tuple((listed(what), reason) for reason, what in why.items()))


def shape(run: RunFolder) -> list[Piece]:
    """Return one sentence with the size of the inspected model, as pieces; empty where none was inspected."""
    found = run.inspection
    if found is None:
        return []
    with reading(run.folder, "inspect.json"):
        made, count = found["architecture"], int(found["parameters"]["all"])
        stacks = " and ".join(_stack(one) for one in made["stacks"])
        return [
            (f"{str(found['kind'])[:1].upper()}{str(found['kind'])[1:]} with ", False),
            (f"{count:,}", True),
            (f" parameters: {stacks}, width {int(made['width'])}.", False),
        ]


def _stack(one: Mapping[str, Any]) -> str:
    which = "" if one.get("name") is None else f"{one['name']} of "
    return f"{which}{plural(int(one['layers']), 'layer')} with {plural(int(one['heads']), 'head')} each"


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    made, counts, tokens, head = (found[name] for name in ("architecture", "parameters", "tokenizer", "head"))
    yield "Architecture", f"{made['family']} ({made['model_type']}), {'; '.join(map(_stack, made['stacks']))}"
    yield "Norm", str(made["norm"])
    yield (
        "Attention",
        f"{made['attention']}, at most {int(made['positions']):,} positions ({made['positions_by']})",
    )
    yield "Parameters", f"{counts['all']:,}: trunk {counts['trunk']:,}, head {counts['head']:,}"
    yield "Head", f"{head['what']}; pooling: {head['pooling'] or 'none'}"
    if head["labels"]:
        yield "Labels", listed([str(one) for one in head["labels"]])
    stored = ", ".join(f"{count:,} in {name}" for name, count in found["precision"]["stored"].items())
    yield "Numbers", f"{stored or 'not known'}; computed in {found['precision']['computed']}"
    case = "lower case" if tokens["lower_cases"] else "case kept"
    pad = f"{tokens['pad_token']}{', the end token' if tokens['pads_with_end'] else ''}"
    yield (
        "Tokenizer",
        f"{tokens['entries']:,} entries, pad token {pad}; {case}; at most {tokens['max_length']} tokens",
    )
    yield "Checked on a probe batch", "; ".join(map(str, found["verified"]))
    yield "Can be used for", listed(map(str, found["can"]))
