"""What a recipe says of the study that it repeats: its claims with rules for verdicts, its slips, its origin."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tunescope.config.expect import Axis, NumberOf
from tunescope.config.strict import Count, Name, NotNegative, Number, Strict, no_boolean

REPRODUCED, NOT_REPRODUCED, UNLEARNED = "reproduced", "not reproduced", "task not learned"
NOT_TESTABLE, ARTEFACT = "not testable here", "artefact of "
VERDICTS = f"{REPRODUCED}, {NOT_REPRODUCED}, {NOT_TESTABLE}, or '{ARTEFACT}' and of what"
Take = Literal["only", "greatest", "least", "mean", "largest"]


def _is_verdict(value: str) -> str:
    said = value in (REPRODUCED, NOT_REPRODUCED, NOT_TESTABLE) or (
        value.startswith(ARTEFACT) and len(value) > len(ARTEFACT)
    )
    if not said:
        raise ValueError("it is none of these words")
    return value


VerdictWord = Annotated[Name, AfterValidator(_is_verdict)]


class ClaimNumber(NumberOf):
    """One number of a run; of several that match, the one that ``take`` says."""

    without: dict[Name, Axis | float | bool] = Field(
        default_factory=dict,
        description="a mapping from columns of the lens's table to values that are left out, for example {layer: 0}",
    )
    take: Take = Field(
        "only",
        description="only (exactly one number matches), greatest, least, mean, or largest (in absolute value): which "
        "of several numbers is meant",
    )


class Condition(Strict):
    """A bound on a number, or on a number minus another; it holds where the whole interval keeps it."""

    number: ClaimNumber | None = Field(
        None, description="a mapping that says which number, or null for the claim's own"
    )
    minus: ClaimNumber | None = Field(
        None, description="a mapping that says which number is taken off first, or null"
    )
    times: Annotated[float, BeforeValidator(no_boolean)] = Field(
        1.0, description="what 'minus' is multiplied by before it is taken off: a number"
    )
    size: bool = Field(False, description="true for the absolute values of both numbers")
    lower: Number | None = Field(None, description="the least that it may be, or null")
    upper: Number | None = Field(None, description="the most that it may be, or null")
    judge: Literal["interval", "value"] = Field(
        "interval", description="interval (all of it must keep the bounds) or value (the number alone)"
    )

    @model_validator(mode="after")
    def _has_a_bound(self) -> Condition:
        if self.lower is None and self.upper is None:
            raise ValueError("a condition needs a bound: lower, upper or both")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ValueError(f"lower ({self.lower:g}) is above upper ({self.upper:g})")
        return self


class VerdictRule(Strict):
    """A verdict, and what must hold for it."""

    verdict: VerdictWord = Field(description=VERDICTS)
    when: list[Condition] = Field(min_length=1, description="a list of conditions that all must hold")
    because: Name = Field(description="what the conditions mean, in words")


class ClaimConfig(Strict):
    """One claim as it was published, the number that tests it, and the rules that give the verdict.

    The first of ``verdicts`` whose conditions all hold is the verdict; where none holds it is *not reproduced*. Without
    an arm in ``number`` every trained arm is judged; with several seeds they must agree. ``rule`` names one of the
    rules that are code, for claims that no bound on one number says.
    """

    claim: Name = Field(description="a short name of the claim, such as 1 or accuracy")
    statement: Name = Field(description="what was claimed, in a sentence")
    reported: Name = Field(description="what they reported, with its number where there is one")
    source: Name = Field(description="where it was reported: section, table or figure")
    published: Number | None = Field(None, description="the published number, or null")
    number: ClaimNumber | None = Field(
        None, description="a mapping that says which number of the run it is, or null"
    )
    also: dict[Name, ClaimNumber] = Field(
        default_factory=dict, description="a mapping from words to further numbers that stand beside it"
    )
    arms: list[Name] | None = Field(
        None, description="the arms that it is judged for, or null for all that were trained"
    )
    rule: Name | None = Field(
        None, description="the name of a rule that is code, in place of 'verdicts', or null"
    )
    options: dict[Name, Number] = Field(
        default_factory=dict, description="a mapping from the options of 'rule' to numbers"
    )
    verdicts: list[VerdictRule] = Field(
        default_factory=list, description="a list of verdicts with conditions, the first that holds counts"
    )
    otherwise: Name = Field(
        "none of the conditions holds", description="why it is not reproduced where no verdict holds"
    )
    lower: Number | None = Field(None, description="the least of the expected band, or null")
    upper: Number | None = Field(None, description="the most of the expected band, or null")
    set_after: Name | None = Field(
        None,
        description="which numbers were known when its bounds were set, or null where none were; the page says it",
    )
    learned: bool = Field(
        True, description="whether the verdict needs a model that learned its task: true or false"
    )
    not_testable: Name | None = Field(
        None, description="why it cannot be tested here, in place of a verdict, or null"
    )
    needed: Name | None = Field(
        None, description="what would be needed to test it as it was published, or null"
    )

    @model_validator(mode="after")
    def _is_judged_somehow(self) -> ClaimConfig:
        ways = [self.rule is not None, bool(self.verdicts), self.not_testable is not None]
        if sum(ways) != 1:
            raise ValueError("a claim has exactly one of 'verdicts', 'rule' and 'not_testable'")
        if self.verdicts and self.number is None:
            raise ValueError("'verdicts' judge a number: say which under 'number'")
        if self.options and self.rule is None:
            raise ValueError("'options' belong to 'rule'")
        return self

    @property
    def numbers(self) -> list[ClaimNumber]:
        """Every number that the claim reads."""
        found = [self.number, *self.also.values()]
        found += [one for rule in self.verdicts for condition in rule.when
                  for one in (condition.number, condition.minus)]  # fmt: skip
        return [one for one in found if one is not None]


class PublishedDifference(Strict):
    """A key in which the published form of a study differs from the corrected one, and why."""

    key: Name = Field(description="the dotted key, for example arms.gpt2.pooling")
    because: Name = Field(description="what was published, and what is wrong with it")
    corrected: str = Field("", description="its value in the corrected form; a run writes it")
    published: str = Field("", description="its value here; a run writes it")


class ShapeConfig(Strict):
    """The size of a model, for arithmetic where the model itself is not there."""

    parameters: Count = Field(description="all parameters: 1 or more")
    embeddings: Count = Field(description="those of the embeddings: 1 or more")
    width: Count = Field(description="the width of the residual stream: 1 or more")
    layers: Count = Field(description="the number of blocks: 1 or more")
    heads: Count = Field(description="the attention heads of a block: 1 or more")


class CostConfig(Strict):
    """What the arithmetic of a recipe's cost assumes, so that it can be had without data and models."""

    rows: dict[Literal["train", "validation", "test"], Count] = Field(
        description="a mapping from split to its number of rows"
    )
    tokens: Count = Field(description="the tokens of a row on average, after truncation: 1 or more")
    longest: Count = Field(description="the tokens of the longest row after truncation: 1 or more")
    shapes: dict[Name, ShapeConfig] = Field(description="a mapping from models to their sizes")
    data_mb: NotNegative = Field(0.0, description="the data on disk, in MB: 0 or more")


class RecipeConfig(Strict):
    """Where a recipe comes from and what it needs."""

    study: Name = Field(description="the study that it repeats: number, title and authors")
    form: Literal["corrected", "as published", "variant"] = Field(
        "corrected", description="corrected, as published or variant: which form of the study this is"
    )
    unpinned: Name | None = Field(None, description="why data or a model has no commit of the hub, or null")
    columns: dict[Name, list[Name]] = Field(
        default_factory=dict,
        description="a mapping from columns to other names that a folder (--data) may give them",
    )
    splits: dict[Literal["train", "validation", "test"], Literal["train", "validation", "test"]] = Field(
        default_factory=dict,
        description="a mapping from splits of the study to those of a folder (--data) that they are read from; "
        "empty means each by its own name",
    )
    cost: CostConfig | None = Field(
        None, description="a mapping with what its cost is computed from, or null"
    )
