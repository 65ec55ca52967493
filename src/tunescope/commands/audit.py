"""The command that audits labelled rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from transformers import PreTrainedTokenizerBase

    from tunescope.config import DataConfig
    from tunescope.data.audit import Audit

COLOURS = {"red": "bold red", "amber": "yellow", "note": "cyan"}
SHOWN_COLUMNS = 12
SHOWN_WORDS = 8


@dataclass(frozen=True)
class AuditWish:
    """What ``tunescope audit`` was asked for, as written on the command line."""

    data: str
    text: Sequence[str]
    label: str
    validation: str | None = None
    test: str | None = None
    split_column: str | None = None
    tokenizer: str | None = None
    max_length: int | None = None
    clean: Sequence[str] = ()
    encoding: str = "utf-8"
    near: bool = True
    output: Path | None = None
    quiet: bool = False
    as_json: bool = False


def audit(wish: AuditWish) -> None:
    """Audit labelled rows and print what was found, as tables or as JSON.

    Raises:
        ConfigError: An option is not valid.
        DataError: A file, column or row is not what was promised.
        ModelError: The tokenizer cannot be loaded.
    """
    from tunescope.data.audit import AuditOptions
    from tunescope.data.audit import audit as audit_rows
    from tunescope.data.load import load_rows
    from tunescope.errors import ConfigError
    from tunescope.files import write_json

    if wish.max_length is not None and wish.tokenizer is None:
        raise ConfigError(
            "--max-length counts tokens, and no tokenizer was given.", hint="Add --tokenizer FOLDER."
        )
    progress = Progress(wish.quiet)
    data = _data(wish)
    tokenizer = _tokenizer(wish.tokenizer) if wish.tokenizer else None
    rows = load_rows(data, data.seed, progress)
    options = AuditOptions(tokenizer=tokenizer, max_length=wish.max_length, near=wish.near)
    found = audit_rows(rows, options, progress)
    if wish.output is not None:
        write_json(wish.output, found.to_dict())
    if wish.as_json:
        print(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        show(found)


def _data(wish: AuditWish) -> DataConfig:
    """Return the data section that takes the files as they are and makes no split."""
    from tunescope.config import load_data
    from tunescope.config.text import parse_value

    fields = ("first", "second", *(f"field{i}" for i in range(3, len(wish.text) + 1)))
    given = {"train": wish.data, "validation": wish.validation, "test": wish.test}
    several = wish.validation is not None or wish.test is not None
    values: dict[str, Any] = {
        "path": {split: path for split, path in given.items() if path} if several else wish.data,
        "text": wish.text[0] if len(wish.text) == 1 else dict(zip(fields, wish.text, strict=False)),
        "label": wish.label,
        "split_column": wish.split_column,
        "clean": [parse_value(step) for step in wish.clean],
        "encoding": wish.encoding,
        "validation": 0,
        "test": 0,
    }
    return load_data(values)


def _tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a model folder, a tokenizer folder or a hub id."""
    from transformers import AutoTokenizer

    from tunescope.models.source import Source, hub_errors

    with hub_errors(Source(path)):
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False)


def show(found: Audit) -> None:
    """Print an audit as tables, findings last, so that they stay on the screen."""
    from rich.console import Console

    console = Console(highlight=False)
    _show_rows(console, found)
    _show_duplicates(console, found.parts["duplicates"])
    _show_columns(console, found.parts["columns"])
    _show_lengths(console, found.parts["lengths"])
    _show_words(console, found.parts["words"]["classes"])
    _show_findings(console, found)


def _table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    table = Table(title=title, title_justify="left", title_style="bold", header_style="", box=SIMPLE_HEAD)
    for place, name in enumerate(columns):
        number = place > 0 and all(not isinstance(row[place], str) or row[place][-1:] in "%" for row in rows)
        table.add_column(
            Text(name), justify="right" if number else "left", overflow="fold", no_wrap=place == 0 or number
        )
    for row in rows:
        table.add_row(*(Text(_written(cell)) for cell in row))
    console.print(table)


def _written(cell: object) -> str:
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        # what stands in a data file must not steer the terminal
        return "".join(sign if sign.isprintable() else " " for sign in str(cell))
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:.3g}" if abs(cell) < 10 else f"{cell:,.0f}"


def _show_rows(console: Console, found: Audit) -> None:
    balance = found.parts["balance"]
    splits = list(balance["counts"])
    rows = [
        [name] + [value for s in splits for value in (balance["counts"][s][name], _share(balance, s, name))]
        for name in found.rows["labels"]
    ]
    columns = ["label", *(title for s in splits for title in (s, "share"))]
    _table(console, f"{found.rows['total']:,} rows", columns, rows)


def _share(balance: Mapping[str, Any], split: str, name: str) -> str:
    shares = balance["shares"].get(split)
    return "" if shares is None else f"{100 * shares[name]:.2f} %"


def _show_duplicates(console: Console, duplicates: Mapping[str, Any]) -> None:
    rows = []
    for kind in ("exact", "normalised", "near"):
        if kind in duplicates:
            part = duplicates[kind]
            within = [part["within"][split] for split in part["within"]]
            across = [sum(one["rows"].values()) for one in part["across"].values()]
            rows.append([kind, part["repeats"], *within, *across])
    if rows:
        exact = duplicates["exact"]
        columns = ["duplicates", "repeats", *(f"in {s}" for s in exact["within"])]
        columns += [f"rows shared {pair}" for pair in exact["across"]]
        _table(console, "Repeated texts (each kind includes the one above)", columns, rows)


def _show_columns(console: Console, records: Sequence[Mapping[str, Any]]) -> None:
    rows = []
    for record in records[:SHOWN_COLUMNS]:
        if "untested" in record:
            continue
        test = record.get("test")
        loo = record["leave_one_out"]
        rows.append(
            [
                record["column"], record["distinct"], record["pure_values"],
                f"{loo['accuracy']:.3f} ({loo['right']:,}/{loo['rows']:,})",
                f"{test['accuracy']:.3f} ({test['right']:,}/{test['rows']:,})" if test else "",
                "" if record["cramers_v"] is None else record["cramers_v_corrected"],
                "" if record["q"] is None else f"{'' if record['trusted'] else '~'}{record['q']:.2g}",
            ]
        )  # fmt: skip
    columns = ["column", "values", "pure", "look-up", "on test", "Cramér's V", "q"]
    title = "Other columns against the label (look-up leaving one out; ~q: many expected counts are below 5)"
    _table(console, title, columns, rows)


def _show_lengths(console: Console, lengths: Mapping[str, Any]) -> None:
    for unit in ("words", "tokens"):
        rows = []
        for split, classes in lengths.get(unit, {}).items():
            for name, one in classes.items():
                row = [split, name, one["rows"], round(one["mean"], 1), one["median"], one["p95"], one["max"]]
                if unit == "tokens":
                    row += [one["truncated"], f"{100 * one['cut']:.1f} %"]
                rows.append(row)
        columns = ["split", "label", "rows", "mean", "median", "95 %", "longest"]
        title = "Words in a text"
        if unit == "tokens":
            columns += ["cut texts", "lost tokens"]
            title = f"Tokens in a text, cut at {lengths.get('max_length')}"
        _table(console, title, columns, rows)


def _show_words(console: Console, classes: Mapping[str, Any]) -> None:
    rows = [
        [
            name,
            ", ".join(word["word"] for word in found["frequent"][:SHOWN_WORDS]),
            ", ".join(word["word"] for word in found["typical"][:SHOWN_WORDS]),
        ]
        for name, found in classes.items()
    ]
    columns = ["label", "most frequent, without stop-words", "most typical (log-odds with a prior)"]
    _table(console, "Words", columns, rows)


def _show_findings(console: Console, found: Audit) -> None:
    from rich.table import Table
    from rich.text import Text

    many = ", ".join(f"{found.count(severity)} {severity}" for severity in COLOURS)
    console.print(Text(f"Findings: {many}", style="bold"))
    table = Table.grid(padding=(0, 1))
    for finding in found.findings:
        advice = Text(f"\n{_written(finding.advice)}", style="dim")
        word = Text(finding.severity.upper(), style=COLOURS[finding.severity])
        table.add_row(word, Text(_written(finding.sentence)).append_text(advice))
    console.print(table)
