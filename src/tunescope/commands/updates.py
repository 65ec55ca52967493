"""The command that reads a LoRA adapter's updates from its folder alone."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from tunescope.commands.asked import Ending, LookWish
from tunescope.errors import ConfigError

FILE = "updates.csv"
METRICS = ("frobenius", "spectral", "stable_rank", "effective_rank", "rank")
HEADINGS = ("layer", "matrix", "Frobenius", "spectral", "stable rank", "effective rank", "rank")


def print_updates(adapter: str, look: LookWish, ending: Ending) -> None:
    """Print size and rank of every update of an adapter; its base is neither needed nor read.

    Args:
        adapter: A peft LoRA adapter folder.
        look: What else was asked for: nothing of it goes with an adapter alone.
        ending: ``output`` is a folder that gets the same table as ``updates.csv``.

    Raises:
        ConfigError: Rows or lenses were asked for.
        ModelError: The folder holds no LoRA adapter, or its updates depend on the base (DoRA).
        RunError: The table cannot be written.
    """
    from tunescope.files import atomic_path
    from tunescope.lenses.weights.adapter import adapter_facts, adapter_updates

    if look.data is not None or look.lenses or look.text:
        raise ConfigError(
            "--updates reads an adapter alone, so there is no model that could look at rows.",
            hint="Leave out --updates to look at base and adapter together.",
        )
    facts, table = adapter_facts(adapter), adapter_updates(adapter)
    wide = table.pivot("metric", index=["layer", "site"], values="value", maintain_order=True)
    if ending.output is not None:
        with atomic_path(ending.output / FILE) as temporary:
            wide.write_csv(temporary)
    if ending.as_json:
        print(json.dumps({**facts, "updates": wide.to_dicts()}))
    elif not ending.quiet:
        print("\n".join([*_said(facts), *_rows(wide)]))
        if ending.output is not None:
            print(f"Table: {ending.output / FILE}")


def _said(facts: dict[str, Any]) -> list[str]:
    scale = "alpha / sqrt(r)" if facts["rank_stabilised"] else "alpha / r"
    return [
        f"{facts['adapter']}: LoRA adapter of {facts['base'] or 'a base that it does not name'}, r {facts['r']}, "
        f"alpha {facts['alpha']}: {facts['parameters']:,} parameters in {facts['matrices']} updates",
        f"  An update is {scale} times B A. How large it is beside the base's weights: "
        "tunescope compare BASE ADAPTER --lens weights",
    ]


def _rows(wide: pl.DataFrame) -> list[str]:
    """Return the table as lines of equal columns."""
    cells = [
        (
            "-" if one["layer"] is None else str(one["layer"]),
            str(one["site"]),
            *(f"{one[metric]:.4g}" for metric in METRICS),
        )
        for one in wide.to_dicts()
    ]
    widths = [max(len(row[place]) for row in (HEADINGS, *cells)) for place in range(len(HEADINGS))]
    return [
        "  " + "  ".join(
            cell.ljust(width) if place == 1 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (HEADINGS, *cells)
    ]  # fmt: skip
