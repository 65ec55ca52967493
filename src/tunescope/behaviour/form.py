"""The form of a suite file: templates with slots, pairs, a lexicon or a perturbation, and what should hold.

A suite is a mapping::

    suite: negation                      # its name; the file's if not given
    kind: directional                    # minimum_functionality, invariance or directional
    about: A negated feeling loses its class.
    slots:
      person: [I, we]
      feeling: {joy: [happy, glad], sadness: [sad, unhappy]}    # groups
    templates:
      - {original: "{person} feel {feeling}.", rewritten: "{person} do not feel {feeling}.", label_from: feeling}
    expect: {change: down, by: 0.1}      # of the margin of the label; directional suites only
    tolerated: 0.05                      # share of failures

In place of ``templates`` stands ``lexicon`` (a name or a file), ``perturb`` (typos, casing, ...) or ``pairs`` (a
table). A template has ``text`` and ``label`` (minimum functionality), ``original`` and ``rewritten``, or ``text`` and
``vary``: a slot in groups, whose values at the same place of two groups make a pair, in both directions.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from tunescope.behaviour.suite import Expected, Kind, Suite, pair_table
from tunescope.config.check import note_errors
from tunescope.config.problems import Problems, unknown
from tunescope.config.strict import Name, NotNegative, Strict, no_boolean
from tunescope.config.text import read_document
from tunescope.errors import ConfigError

MOST_CASES = 200_000
SOURCES = ("templates", "pairs", "lexicon", "perturb")


class TemplateForm(Strict):
    """One template of a suite file."""

    text: Name | None = Field(None, description="a text with slots in braces, or null")
    original: Name | None = Field(None, description="the first text of a pair, with slots in braces, or null")
    rewritten: Name | None = Field(
        None, description="the second text of a pair, with slots in braces, or null"
    )
    vary: Name | None = Field(
        None, description="the name of a slot in groups whose values make the pairs, or null"
    )
    label: Name | None = Field(None, description="the label of the text, or null")
    label_from: Name | None = Field(None, description="the name of a slot whose group is the label, or null")

    @model_validator(mode="after")
    def _one_form(self) -> TemplateForm:
        if (self.text is None) == (self.original is None) or (self.original is None) != (
            self.rewritten is None
        ):
            raise ValueError("a template has 'text', or 'original' and 'rewritten'")
        if self.vary is not None and self.text is None:
            raise ValueError("'vary' belongs to 'text'")
        if self.label is not None and self.label_from is not None:
            raise ValueError("'label' and 'label_from' exclude each other")
        return self


class ExpectForm(Strict):
    """Which way a directional pair should move."""

    label: Name | None = Field(None, description="the class that is looked at, or null for that of the text")
    change: Literal["up", "down"] = Field(description="up or down")
    by: NotNegative = Field(0.0, description="the least size of the change: 0 or more")
    of: Literal["margin", "probability"] = Field("margin", description="margin or probability")


class PairsForm(Strict):
    """A table of pairs."""

    path: Name = Field(description="a file of pairs (csv, parquet, ...)")
    original: Name = Field("original", description="the column that holds the first text")
    rewritten: Name = Field("rewritten", description="the column that holds the second text")
    label: Name | None = Field(None, description="the column that holds the label, or null")
    direction: Name | None = Field(None, description="the column that says the direction, or null")
    term: Name | None = Field(None, description="the column that holds the changed term, or null")
    clusters: list[Name] = Field(
        default_factory=list, description="a list of columns whose values group the pairs"
    )


class SuiteForm(Strict):
    """A suite file."""

    suite: Name | None = Field(None, description="the name of the suite, or null for that of the file")
    kind: Kind = Field("invariance", description="minimum_functionality, invariance or directional")
    about: Name | None = Field(None, description="one sentence that says what the suite tests, or null")
    slots: dict[Name, list[Name] | dict[Name, list[Name]]] = Field(
        default_factory=dict,
        description="a mapping from the names of slots to lists of texts, or to lists by group",
    )
    templates: list[TemplateForm] | None = Field(
        None, min_length=1, description="a list of one or more templates"
    )
    pairs: PairsForm | None = Field(None, description="a mapping with path and columns, or null")
    lexicon: Name | None = Field(
        None, description="the name or file of a lexicon that rewrites the rows, or null"
    )
    perturb: Name | None = Field(None, description="the name of a perturbation of the rows, or null")
    expect: ExpectForm | None = Field(None, description="a mapping with change, by, of and label, or null")
    tolerated: Annotated[float, BeforeValidator(no_boolean)] = Field(
        0.05, ge=0, lt=1, description="the share of failures that may be: 0 or more, below 1"
    )

    @model_validator(mode="after")
    def _one_source(self) -> SuiteForm:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            came = "none" if not given else " and ".join(given)
            raise ValueError(f"a suite has exactly one of {', '.join(SOURCES)}; came {came}")
        if (self.kind == "directional") != (self.expect is not None):
            raise ValueError("'expect' belongs to directional suites, and they need it")
        if self.kind == "minimum_functionality" and self.templates is None:
            raise ValueError("a minimum functionality suite is made of templates with a text and a label")
        return self

    @property
    def expected(self) -> Expected | None:
        """What a directional suite expects."""
        one = self.expect
        return None if one is None else Expected(one.label, one.change, one.by, one.of)


def read_form(path: Path) -> tuple[SuiteForm, Problems]:
    """Read a suite file.

    Returns:
        The form, and where each key was written.

    Raises:
        ConfigError: The file is missing or not valid; every problem is told with file, line and key.
    """
    if not path.is_file():
        raise ConfigError(
            f"There is no suite file {path}.", hint="Give a builtin suite by name, or a YAML file."
        )
    document = read_document(path)
    problems = Problems(document.origins, list(document.problems), subject="The suite is")
    form = None
    try:
        form = SuiteForm.model_validate(document.value)
    except ValidationError as error:
        note_errors(error, SuiteForm, document.value, (), problems)
    if form is not None:
        for key, text in _slot_problems(form):
            problems.add(key, text)
    _raise(problems)
    assert form is not None
    return form, problems


def _raise(problems: Problems) -> None:
    try:
        problems.raise_all()
    except ConfigError as error:
        raise ConfigError(error.message, hint="Correct these keys of the suite file and try again.") from None


def _slot_problems(form: SuiteForm) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what does not fit between templates and slots."""
    for index, template in enumerate(form.templates or []):
        key = ("templates", str(index))
        for name in ("text", "original", "rewritten"):
            text = getattr(template, name)
            if text is None:
                continue
            try:
                wanted = slots_of(text)
            except ValueError as error:
                yield (
                    (*key, name),
                    f"not a template: {error}; write {{{{ and }}}} for braces that are no slot",
                )
                continue
            for slot in wanted:
                if slot not in form.slots:
                    yield (*key, name), unknown("slot", slot, form.slots)
        for name in ("vary", "label_from"):
            slot = getattr(template, name)
            if slot is not None and not isinstance(form.slots.get(slot), dict):
                yield (
                    (*key, name),
                    f"the slot {slot!r} has no groups; write it as {{group: [texts], group: [texts]}}",
                )
        if template.vary is not None and isinstance(form.slots.get(template.vary), dict):
            sizes = {group: len(texts) for group, texts in form.slots[template.vary].items()}  # type: ignore[union-attr]
            if len(sizes) < 2 or len(set(sizes.values())) > 1:
                shown = ", ".join(f"{group} {size}" for group, size in sizes.items())
                yield (
                    (*key, "vary"),
                    f"the groups of {template.vary!r} need equally many texts, two groups or more; came {shown}",
                )
        if form.kind == "minimum_functionality" and (
            template.text is None or (template.label is None and template.label_from is None)
        ):
            yield key, "a minimum functionality template has 'text', and 'label' or 'label_from'"
        if form.kind != "minimum_functionality" and template.text is not None and template.vary is None:
            yield (
                key,
                f"a template of {form.kind} makes pairs: give 'original' and 'rewritten', or 'text' and 'vary'",
            )


def slots_of(text: str) -> list[str]:
    """Return the names of the slots of a template, each once.

    Raises:
        ValueError: The braces do not match, or a slot has no name.
    """
    found = []
    for _, name, spec, conversion in string.Formatter().parse(text):
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            raise ValueError(f"the slot {{{name}}} is not a plain name")
        found.append(name)
    return list(dict.fromkeys(found))


def suite_from_templates(form: SuiteForm, name: str) -> Suite:
    """Return the suite that templates and slots make: every combination of the slots that a template uses.

    Raises:
        ConfigError: The templates unfold into too many cases.
    """
    records: list[dict[str, Any]] = []
    for template in form.templates or []:
        for record in _cases(template, form.slots):
            records.append(record)
            if len(records) > MOST_CASES:
                raise ConfigError(
                    f"The suite {name!r} unfolds into more than {MOST_CASES:,} cases.",
                    hint="Use fewer slots in a template, or shorter lists.",
                )
    number = len(form.templates or [])
    about = form.about or f"{number} template{'' if number == 1 else 's'}"
    return Suite(
        name, form.kind, about, pair_table(records), expected=form.expected, tolerated=form.tolerated,
        counts={"templates": len(form.templates or [])},
    )  # fmt: skip


Slots = Mapping[str, Sequence[str] | Mapping[str, Sequence[str]]]


def _cases(template: TemplateForm, slots: Slots) -> Iterator[dict[str, Any]]:
    texts = [text for text in (template.text, template.original, template.rewritten) if text is not None]
    used = [
        slot
        for slot in dict.fromkeys(name for text in texts for name in slots_of(text))
        if slot != template.vary
    ]
    for chosen in itertools.product(*(_choices(slots[slot]) for slot in used)):
        fill = {slot: text for slot, (_, text) in zip(used, chosen, strict=True)}
        groups = {slot: group for slot, (group, _) in zip(used, chosen, strict=True)}
        filled = " / ".join(fill.values())
        common = {"label": groups.get(template.label_from or "", template.label), "template": texts[0]}
        if template.vary is None:
            first = (template.text or template.original or "").format(**fill)
            second = None if template.rewritten is None else template.rewritten.format(**fill)
            yield {
                **common,
                "original": first,
                "rewritten": second,
                "terms": list(fill.values()),
                "text": filled,
            }
            continue
        values = slots[template.vary]
        assert isinstance(values, Mapping)
        assert template.text is not None
        for one, other in itertools.permutations(values, 2):
            for first, second in zip(values[one], values[other], strict=True):
                yield {
                    **common, "original": template.text.format(**fill, **{template.vary: first}),
                    "rewritten": template.text.format(**fill, **{template.vary: second}),
                    "direction": f"{one} to {other}", "terms": [first], "text": filled,
                    "name": " / ".join(sorted((first, second))),
                }  # fmt: skip


def _choices(values: Sequence[str] | Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Return (group, text) of every value of a slot; the group is empty where there are none."""
    if isinstance(values, Mapping):
        return [(group, text) for group, texts in values.items() for text in texts]
    return [("", text) for text in values]
