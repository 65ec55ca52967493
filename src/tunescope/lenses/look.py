"""Looking at one subject through several lenses, and writing what was seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel

from tunescope.errors import LensError
from tunescope.files import atomic_path, read_json, write_json
from tunescope.lenses.language.language import refuse_other_shapes, refuse_without_classes
from tunescope.lenses.language.lenses import for_subject
from tunescope.lenses.reading import ReadingLens, read_pass
from tunescope.lenses.several_seeds import SeveralSeeds
from tunescope.lenses.subject import LensRows, Subject
from tunescope.lenses.suitable import require_same_tokens
from tunescope.stats.results import Finding, Result, joined_tables

Findings = Callable[[pl.DataFrame, Subject], Sequence[Finding]]
# Called by a study once an arm of two seeds or more, after every seed was looked at; its table and findings join the
# lens's own. Stages know of it: it is done again where any of the seeds is.
AcrossSeeds = Callable[[SeveralSeeds, Any], "LensOutput | None"]


@dataclass(frozen=True)
class ReadLens:
    """A lens that only reads: it shares one forward pass with the others that look at the same rows.

    Attributes:
        options: The pydantic model of its options; it has a field ``rows``.
        what: One sentence for the report.
        start: Makes the lens for a subject, its options and the number of rows.
        findings: Makes sentences from its table.
        across_seeds: Compares the seeds of one arm, or None where the lens has nothing to compare.
        two_stacks: Whether it can look at encoder-decoders; its tables then have a column ``stack``.
    """

    options: type[BaseModel]
    what: str
    start: Callable[[Subject, Any, int], ReadingLens]
    findings: Findings
    across_seeds: AcrossSeeds | None = None
    two_stacks: bool = False


@dataclass(frozen=True)
class Lens:
    """A lens that runs the models itself; ``run`` gives its table, and a table of examples or None.

    ``across_seeds`` and ``two_stacks`` are as in :class:`ReadLens`.
    """

    options: type[BaseModel]
    what: str
    run: Callable[[Subject, Any], tuple[pl.DataFrame, pl.DataFrame | None]]
    findings: Findings
    across_seeds: AcrossSeeds | None = None
    two_stacks: bool = False


@dataclass(frozen=True)
class LensOutput:
    """What one lens saw of one subject.

    Attributes:
        lens: Its name.
        table: The tidy result.
        examples: The same per example, or None.
        findings: Sentences made from it.
        provenance: Which rows, which options, what to know.
    """

    lens: str
    table: pl.DataFrame
    examples: pl.DataFrame | None
    findings: list[Finding]
    provenance: dict[str, Any] = field(default_factory=dict)

    def save_part(self, folder: Path) -> None:
        """Write it into a folder of its own, from which :func:`save_outputs` can merge it with others later.

        Raises:
            RunError: The folder cannot be written.
        """
        self.table.write_parquet(folder / "table.parquet")
        if self.examples is not None:
            self.examples.write_parquet(folder / "examples.parquet")
        findings = [dataclasses.asdict(finding) for finding in self.findings]
        write_json(folder / "about.json", {"findings": findings, "provenance": self.provenance})

    @classmethod
    def load_part(cls, folder: Path, lens: str) -> LensOutput:
        """Read what :meth:`save_part` wrote.

        Raises:
            RunError: A file is missing or damaged.
        """
        about = read_json(folder / "about.json")
        examples = folder / "examples.parquet"
        return cls(
            lens=lens,
            table=pl.read_parquet(folder / "table.parquet"),
            examples=pl.read_parquet(examples) if examples.is_file() else None,
            findings=[Finding(**finding) for finding in about["findings"]],
            provenance=about["provenance"],
        )


def look(
    subject: Subject, wanted: Sequence[tuple[str, Mapping[str, Any]]], lenses: Mapping[str, Lens | ReadLens]
) -> list[LensOutput]:
    """Look at a subject through lenses, given as (name, options); reading lenses share one pass a row selection.

    Raises:
        LensError: There is no such lens, or a lens cannot give a true answer.
    """
    unknown = [name for name, _ in wanted if name not in lenses]
    if unknown:
        raise LensError(f"There is no lens {unknown[0]!r}; the lenses are {', '.join(lenses)}.")
    require_same_tokens(subject)
    if subject.tuned.is_encoder_decoder:
        _require_two_stacks(subject, [name for name, _ in wanted], lenses)
    refuse_without_classes(subject, [name for name, _ in wanted])
    refuse_other_shapes(subject, [name for name, _ in wanted])
    parsed: list[tuple[str, Lens | ReadLens, Any]] = [
        (
            name,
            for_subject(subject, name, lenses[name]),
            lenses[name].options.model_validate(dict(options)),
        )
        for name, options in wanted
    ]
    tables: dict[str, tuple[pl.DataFrame, pl.DataFrame | None]] = {}
    selections: dict[LensRows, list[tuple[str, ReadLens, Any]]] = {}
    for name, lens, options in parsed:
        if isinstance(lens, ReadLens):
            selections.setdefault(options.rows, []).append((name, lens, options))
    for rows, members in selections.items():
        tokens = subject.draw(rows, labelled=False)
        readers = [lens.start(subject, options, len(tokens)) for _, lens, options in members]
        first = [one for one in (reader.before() for reader in readers) if one is not None]
        if first:
            read_pass(subject, tokens, first)
        read_pass(subject, tokens, readers)
        tables |= {
            name: (reader.table(), reader.examples())
            for (name, _, _), reader in zip(members, readers, strict=True)
        }
    for name, lens, options in parsed:
        if isinstance(lens, Lens):
            tables[name] = lens.run(subject, options)
    outputs = []
    for name, lens, options in parsed:
        table, examples = tables[name]
        made = [] if subject.identical else lens.findings(table, subject)
        findings = [dataclasses.replace(one, seed=subject.seed) for one in made]
        about = _about(subject, lens, options)
        about["notes"] = _notes_of(name, about["notes"], set(lenses) - {subject.arm})
        outputs.append(LensOutput(name, table, examples, findings, about))
    return outputs


def _notes_of(lens: str, notes: Sequence[str], lenses: set[str]) -> list[str]:
    """Return what concerns one lens: notes that begin with a lens's name and a colon belong to that lens alone."""
    own = f"{lens}: "
    return [
        note[len(own) :][:1].upper() + note[len(own) + 1 :] if note.startswith(own) else note
        for note in notes
        if note.startswith(own) or note.partition(": ")[0] not in lenses
    ]


def _require_two_stacks(
    subject: Subject, wanted: Sequence[str], lenses: Mapping[str, Lens | ReadLens]
) -> None:
    """Refuse lenses that know one stack of blocks alone."""
    not_yet = [name for name in wanted if not lenses[name].two_stacks]
    if not_yet:
        able = ", ".join(name for name, lens in lenses.items() if lens.two_stacks) or "none"
        raise LensError(
            f"{subject.arm}: the lens {not_yet[0]} cannot yet look at an encoder-decoder such as "
            f"{subject.tuned.family.name}; the lenses that can: {able}.",
            hint="Take it out of this study's lenses, or give the arm a model of one stack.",
        )


def _about(subject: Subject, lens: Lens | ReadLens, options: BaseModel) -> dict[str, Any]:
    rows = getattr(options, "rows", None)
    return {
        "what": lens.what,
        "rows": rows.model_dump(mode="json") if rows is not None else {},
        "options": options.model_dump(mode="json"),
        "sampling_seed": subject.sampling_seed,
        "notes": [*subject.notes, *_first_windows(subject, rows)],
    }


def _first_windows(subject: Subject, rows: LensRows | None) -> list[str]:
    """Say that of texts in several windows the lenses read the first, where windows slide."""
    known = subject.splits if rows is None else {rows.split: subject.splits[rows.split]}
    slid = [tokens for tokens in known.values() if tokens.windows is not None]
    if not slid:
        return []
    more = sum(int((tokens.n_windows > 1).sum()) for tokens in slid)
    return [
        f"{subject.arm}: first window only; windows slide, and {more:,} of {sum(map(len, slid)):,} {'/'.join(known)} "
        "rows have more than one"
    ]


def save_outputs(outputs: Sequence[LensOutput], folder: Path, about: Mapping[str, Any]) -> list[Finding]:
    """Write one result a lens, over all subjects, and return their findings in the order of the subjects.

    Args:
        outputs: What every lens saw of every subject.
        folder: The run's ``results`` folder; tables per example go to ``results/examples``.
        about: What stands in every provenance (version, command, seeds).
    """
    for name in dict.fromkeys(output.lens for output in outputs):
        mine = [output for output in outputs if output.lens == name]
        notes = list(dict.fromkeys(note for output in mine for note in output.provenance["notes"]))
        table = joined_tables(output.table for output in mine)
        Result(name, table, {**mine[0].provenance, **about, "notes": notes}).save(folder)
        examples = [output.examples for output in mine if output.examples is not None]
        if examples:
            with atomic_path(folder / "examples" / f"{name}.parquet") as temporary:
                pl.concat(examples, how="diagonal_relaxed").write_parquet(temporary)
    return [finding for output in outputs for finding in output.findings]
