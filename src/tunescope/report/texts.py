"""How much of the data's own text a page may hold: all of it, chosen examples, or row ids alone.

With ``none`` a run is filtered once, when it is read, so that no builder of the page can show what it never had.
The filter keeps what it knows and withholds the rest: columns and entries that hold structure (arms, sites, metrics)
pass; sentences pass word by word where tunescope's own sources hold the word; every other string becomes a number
that stands for it, the same wherever it occurs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import polars as pl

from tunescope.errors import ConfigError, RunError
from tunescope.files import read_json, write_json
from tunescope.report.own_words import WORD, house_words, shipped_sentences, structure

if TYPE_CHECKING:
    from tunescope.report.read import RunFolder

Texts = Literal["all", "examples", "none"]
DEFAULT: Texts = "examples"
CHOICE_FILE = "report.json"  # what was chosen last for this run folder
SAID = {
    "all": "",
    "examples": "Texts: chosen examples only (--texts all shows every text in hovers and map files).",
    "none": "Texts are withheld (--texts none): rows are named by their ids, words by numbers.",
}


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


# String columns of tables that hold structure or labels, never data.
SAFE_COLUMNS = _words("""
    arm arms seed model base_head site site_other layer head class edit by component estimator direction orientation
    followed head_fit kind label labels method metric of on order original_site other part pick position prediction
    prediction_base prediction_tuned prediction_rewritten_base prediction_rewritten_tuned row_id pair pair_id scope
    similarity split stack lens suite verdict classifier unit step stage measure quantity matrix block band space
    reference correction bound source_site target_site sender receiver from_site region to_region curve of_metric
""")
# Entries of JSON files that hold structure, names of arms and files, versions or hashes.
SAFE_KEYS = SAFE_COLUMNS | _words("""
    name metrics first second better level severity splits sha256 fingerprint file path command date device
    device_name devices platform python tunescope sampling_seed base tuned grid point key train test validation
    template text_column label_column column columns row_ids corpus encoding format from given chosen chosen_on
    calibration baseline baselines precision padding task type shape variants sites edits components orders
    directions positions head_positions choose pairs tokens_of question all_but_one as_published suites methods parts
    sameness smallest padding_side budget dtype passed version machine license revision id
    family model_type norm attention positions_by pooling computed
""")
# Entries and columns that hold sentences of ours, which may quote.
PROSE = _words("""
    sentence note notes control test rows how why what about advice reason ranking said bound_reason method grouped_by
    assumption assumptions source statement rule ours theirs needed claim error message hint equivalence lookup
    verified can
""")
OWN_SLICES = ("tokens", "truncated")  # slices that tunescope makes of every run: no columns of the data
OWN_QUOTED = frozenset(
    {"tuned", "probe", "none", "base", "auto"}
)  # what sentences of ours put into quotation marks
WITHHELD = "withheld"
_QUOTED = re.compile(r"‘[^’]*’|“[^”]*”|«[^»]*»|\"[^\"]*\"|(?<!\w)'[^']*'(?!\w)")
_APART = re.compile(rf"\bL\d+(?:H\d+)?(?:\.\w+)?\b|\[{WITHHELD}\]|(?<![\w.])\d+(?:\.\d+)?e[-+]?\d+(?!\w)")


def checked_texts(asked: str) -> Texts:
    """Return the choice as it is.

    Raises:
        ConfigError: It is none of ``all``, ``examples`` and ``none``.
    """
    for known in get_args(Texts):
        if asked == known:
            return known  # type: ignore[no-any-return]
    raise ConfigError(
        f"--texts expected all, examples or none; came {asked!r}.", hint="For example --texts none."
    )


_ASKED: ContextVar[str | None] = ContextVar("texts", default=None)


@contextmanager
def asked(texts: str | None) -> Iterator[None]:
    """Let every report that is written inside the block hold the texts that were asked for on the command line.

    Raises:
        ConfigError: It is none of ``all``, ``examples`` and ``none``.
    """
    token = _ASKED.set(None if texts is None else checked_texts(texts))
    try:
        yield
    finally:
        _ASKED.reset(token)


def choose(folder: Path, wish: str | None) -> Texts:
    """Return which texts the report of a run folder holds, and keep the choice for the next time.

    Not asked, it is what was chosen last for this folder, so that a report that was written without texts is never
    written again with them by accident; else ``examples``.
    """
    path = Path(folder) / CHOICE_FILE
    wish = _ASKED.get() if wish is None else wish
    if wish is None:
        if not path.is_file():
            return DEFAULT
        return checked_texts(str(read_json(path).get("texts")))
    chosen = checked_texts(wish)
    if not Path(folder).is_dir():
        raise RunError(
            f"{folder} is not a run folder: there is no such folder.", hint="Check the path of the run."
        )
    if chosen != DEFAULT or path.is_file():
        write_json(path, {"texts": chosen})
    return chosen


@dataclass
class Withheld:
    """What a page without texts may still say, and the numbers that stand for the rest.

    Attributes:
        names: Names that are not data: arms, labels, suites, columns.
        numbers: What stands for a string, by kind and string.
    """

    names: frozenset[str]
    numbers: dict[tuple[str, str], str] = field(default_factory=dict)

    def stand_in(self, kind: str, value: str) -> str:
        """Return what stands for a string: the same number wherever it occurs."""
        if value in self.names or not value:
            return value
        place = (kind, value)
        if place not in self.numbers:
            count = sum(known == kind for known, _ in self.numbers) + 1
            self.numbers[place] = f"{kind} {count}"
        return self.numbers[place]

    def prose(self, sentence: str) -> str:
        """Return a sentence without quotations, and without words that tunescope itself does not use."""
        known = house_words() | {word for name in self.names for word in WORD.findall(name)}

        def quotation(found: re.Match[str]) -> str:
            inside = _put_back(found.group()[1:-1], marks)
            return found.group() if inside in self.names or inside in OWN_QUOTED else f"[{WITHHELD}]"

        def word(found: re.Match[str]) -> str:
            whole = found.group()
            return whole if whole in known or whole.lower() in known else f"[{WITHHELD}]"

        held, marks = _set_aside(sentence)
        return _put_back(WORD.sub(word, _QUOTED.sub(quotation, held)), marks)

    def value(self, item: Any, key: str = "") -> Any:
        """Return a value of a JSON document, key by key."""
        if isinstance(item, Mapping):
            if item.get("column") in OWN_SLICES and "group" in item:
                return {
                    **self.value({**item, "column": None}),
                    "column": item["column"],
                    "group": item["group"],
                }
            return {self._key(str(name)): self.value(one, str(name)) for name, one in item.items()}
        if isinstance(item, list):
            return [self.value(one, key) for one in item]
        if not isinstance(item, str):
            return item
        if key in PROSE:
            return self.prose(item)
        return item if key in SAFE_KEYS else self.stand_in("value", item)

    def _key(self, name: str) -> str:
        """Keep the names of entries that are ours, of arms and labels; values of the data used as names are not."""
        known = name in SAFE_KEYS or name in PROSE or name in self.names or name in structure()
        known = known or all(
            part in structure() for part in re.split(r"[/_.]+", name)
        )  # train/test, eval_f1_macro
        return name if known else self.stand_in("value", name)

    def table(self, table: pl.DataFrame) -> pl.DataFrame:
        """Return a result table whose columns of text hold numbers that stand for the text."""
        changed = [self._column(table[name]) for name in table.columns]
        return pl.DataFrame(changed) if changed else table

    def _column(self, column: pl.Series) -> pl.Series:
        holds_text = column.dtype in (pl.String, pl.Categorical) or column.dtype == pl.List(pl.String)
        if not holds_text or (column.name in SAFE_COLUMNS and column.name not in PROSE):
            return column
        if column.dtype == pl.List(pl.String):
            lists = [
                None if one is None else [self.stand_in(column.name, str(item)) for item in one]
                for one in column.to_list()
            ]
            return pl.Series(column.name, lists, dtype=pl.List(pl.String))
        cells = column.cast(pl.String).to_list()
        told = column.name in PROSE
        kept = [
            None
            if cell is None
            else self.prose(cell)
            if told
            else self.stand_in(_singular(column.name), cell)
            for cell in cells
        ]
        return pl.Series(column.name, kept, dtype=pl.String)


def withhold(run: RunFolder) -> RunFolder:
    """Return a run in which every text, word and value of the data has given way to a row id or a number."""
    known = Withheld(safe_names(_names(run)))
    value = known.value
    return replace(
        run,
        study_text=None,  # prompts, filters and lists of words may quote the data
        compare=value(run.compare),
        summary=value(run.summary),
        arms=tuple(
            replace(
                item, metrics=value(item.metrics), log=value(item.log),
                written=None if item.written is None else known.table(item.written),
            )
            for item in run.arms
        ),
        results={
            lens: replace(result, table=known.table(result.table), provenance=value(result.provenance))
            for lens, result in run.results.items()
        },
        findings=value(run.findings),
        rows=None if run.rows is None else without_texts(run.rows),
        baselines=tuple(
            replace(one, metrics=value(one.metrics), about=known.prose(one.about))
            for one in run.baselines
        ),
        left_out=value(run.left_out, "note"),
        audit=value(run.audit),
        cross_validation=value(run.cross_validation),
        comparison=value(run.comparison),
        expect=value(run.expect),
        grids=value(run.grids),
        elsewhere=value(run.elsewhere),
        inspection=value(run.inspection),
        withheld=known,
    )  # fmt: skip


def _names(run: RunFolder) -> Iterator[Any]:
    """Yield the names that are not data: arms, labels, suites, lenses, baselines, columns."""
    yield from run.arm_names
    yield from run.labels
    yield from run.results
    yield from (one.name for one in run.baselines)
    yield from (run.study or {}).keys()
    yield from (run.rows.columns if run.rows is not None else ())
    for result in run.results.values():
        for column in ("suite", "arm", "metric", "site"):
            if column in result.table.columns:
                yield from result.table[column].drop_nulls().unique().to_list()
    for item in run.arms:
        yield (item.metrics or {}).get("model")
        yield (item.metrics or {}).get("method")


def without_texts(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the data's rows as ids, splits and labels; in place of a text stands the first row that has it.

    Equal texts keep equal stand-ins, so that repeats are still counted.
    """
    kept: list[str] = [name for name in ("row_id", "position", "split") if name in rows.columns]
    if "label" in rows.columns and rows["label"].dtype.is_integer():
        kept.append("label")
    first = pl.format("row {}", pl.col("row_id").cast(pl.String).first().over("text"))
    return rows.select(*kept, first.alias("text")) if "text" in rows.columns else rows.select(kept)


def _set_aside(sentence: str) -> tuple[str, list[str]]:
    """Put aside what needs no look: sentences of recipes, places such as ``L3H7``, and numbers such as ``5.8e-05``."""
    marks: list[str] = []

    def keep(found: re.Match[str]) -> str:
        marks.append(found.group())
        return f"\x00{len(marks) - 1}\x00"

    held = shipped_sentences().sub(keep, sentence.replace("\x00", ""))
    return _APART.sub(keep, held), marks


def _put_back(sentence: str, marks: list[str]) -> str:
    return re.sub(r"\x00(\d+)\x00", lambda found: marks[int(found.group(1))], sentence)


def _singular(name: str) -> str:
    return {"original": "text", "rewritten": "text", "token_rewritten": "token", "terms": "term"}.get(
        name, name
    )


def safe_names(found: Iterable[Any]) -> frozenset[str]:
    """Return names that are not data, without empty ones."""
    return frozenset(str(one) for one in found if one is not None and str(one))
