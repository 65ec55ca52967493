"""What a study asks of its models' behaviour: suites, rows, the bound of equivalence, and what is looked at inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tunescope.config.strict import Count, Name, Positive, Seed, Split, Strict, no_boolean

Corpus = Literal["eec", "winobias", "pairs"]
Correction = Literal["holm", "bh"]

DEFAULT_BOUND = 0.1
DEFAULT_REASON = (
    "a mean change of 0.1 in logit margin multiplies the odds of the class by at most 1.11, which moves a probability "
    "of 0.5 to at most 0.525"
)


class SuiteConfig(Strict):
    """One suite: a builtin by name, a file of the suite form, or a corpus of pairs with its columns."""

    suite: Name = Field(
        description="the name of a builtin suite (gender, race, ...), a suite file (YAML), or the name of a corpus"
    )
    corpus: Corpus | None = Field(
        None,
        description="eec, winobias or pairs: what the file at 'path' is; null for builtins and suite files",
    )
    path: Name | None = Field(None, description="the file of the corpus, or null")
    by: Literal["gender", "race"] = Field(
        "gender", description="gender or race: what the pairs of eec differ in"
    )
    original: Name = Field("original", description="the column of a table of pairs that holds the first text")
    rewritten: Name = Field("rewritten", description="the column that holds the second text")
    label: Name | None = Field(None, description="the column that holds the label, or null")
    direction: Name | None = Field(
        None, description="the column that says the direction of each pair, or null"
    )
    term: Name | None = Field(None, description="the column that holds the changed term, or null")
    clusters: list[Name] = Field(
        default_factory=list, description="a list of columns whose values say which pairs belong together"
    )
    label_map: dict[Name, Name] = Field(
        default_factory=dict, description="a mapping from the labels of the file to the model's"
    )

    @model_validator(mode="after")
    def _corpus_has_a_file(self) -> SuiteConfig:
        if (self.corpus is None) != (self.path is None):
            raise ValueError("'corpus' and 'path' belong together: what the file is, and where it lies")
        return self


class BehaviourRows(Strict):
    """Which rows of the study the suites that rewrite rows look for their terms in."""

    split: Split = Field(
        "validation", description="the split whose rows are rewritten: train, validation or test"
    )
    n: Count | None = Field(
        None, description="the most touched rows of a suite, drawn by row id, or null for all"
    )


class InsideConfig(Strict):
    """Heatmaps of a site for the pairs that move most."""

    pairs: Count = Field(2, description="how many pairs of each suite are looked into: 1 or more")
    site: Name = Field("resid_post", description="the name of a site with a layer, for example resid_post")
    layer: Annotated[int, BeforeValidator(no_boolean)] = Field(0, ge=0, description="the layer: 0 or more")
    remove_outliers: bool = Field(
        False, description="true or false: whether outlier dimensions are left out of the heatmaps"
    )


class MediationConfig(Strict):
    """Which components carry the change, on the pairs of equal token count that move most."""

    suites: list[Name] | None = Field(
        None, min_length=1, description="a list of the suites whose change is followed, or null for all"
    )
    pairs: Count = Field(64, description="the most pairs of each suite that are patched: 1 or more")
    components: list[Literal["heads", "attention", "mlp", "layer", "dimensions"]] = Field(
        default=["heads", "attention", "mlp", "layer", "dimensions"], min_length=1,
        description="a list of heads, attention, mlp, layer and dimensions: what is patched",
    )  # fmt: skip
    dimension_layers: list[Annotated[int, BeforeValidator(no_boolean), Field(ge=0)]] | None = Field(
        None, min_length=1,
        description="a list of the blocks behind which single dimensions are patched, from 0, or null for the last",
    )  # fmt: skip


class BehaviourConfig(Strict):
    """Suites of behaviour, and how they are judged."""

    suites: list[SuiteConfig] = Field(
        min_length=1, description="a list of suites: names, files, or mappings with 'suite'"
    )
    rows: BehaviourRows = Field(
        default_factory=lambda: BehaviourRows.model_validate({}), description="a mapping with split and n"
    )
    bound: Positive = Field(
        DEFAULT_BOUND,
        description="the mean change of the logit margin that would not matter: a number above 0",
    )
    bound_reason: Name | None = Field(
        None, description="why that change would not matter; needed where bound is not the default"
    )
    cut: Annotated[float, BeforeValidator(no_boolean)] = Field(
        0.10, gt=0, lt=1, description="the change of a probability that counts as large: above 0, below 1"
    )
    correction: Correction = Field("bh", description="holm or bh: the correction over the terms of a suite")
    controls: bool = Field(True, description="true or false: whether neutral and random replacements are run")
    resamples: Annotated[int, BeforeValidator(no_boolean)] = Field(
        2000, ge=200, description="the bootstrap resamples: 200 or more"
    )
    seed: Seed = Field(
        0, description="what seeds perturbations, controls and resamples: a whole number from 0"
    )
    inside: InsideConfig | None = Field(
        None,
        description="a mapping with pairs, site and layer: heatmaps of the pairs that move most, or null",
    )

    mediation: MediationConfig | None = Field(
        None, description="a mapping with pairs and components: which components carry the change, or null"
    )

    @field_validator("suites", mode="before")
    @classmethod
    def _names_are_suites(cls, value: Any) -> Any:
        return (
            [{"suite": one} if isinstance(one, str) else one for one in value]
            if isinstance(value, list)
            else value
        )

    @field_validator("suites")
    @classmethod
    def _suites_differ(cls, value: list[SuiteConfig]) -> list[SuiteConfig]:
        seen: set[str] = set()
        for one in value:
            if one.suite.lower() in seen:
                raise ValueError(f"two suites are named {one.suite!r}; each needs its own name")
            seen.add(one.suite.lower())
        return value

    @model_validator(mode="after")
    def _bound_is_reasoned(self) -> BehaviourConfig:
        if self.bound != DEFAULT_BOUND and self.bound_reason is None:
            raise ValueError(
                f"a bound of {self.bound:g} needs its reason: say in bound_reason why it would not matter"
            )
        return self

    @property
    def reason(self) -> str:
        """Why a change within the bound would not matter."""
        return self.bound_reason or DEFAULT_REASON


def anchored_suites(suites: Any, anchor: Callable[[str], str]) -> Any:
    """Return the suites of a study file with the paths in them made whole; names of builtins stay as they are.

    Args:
        suites: The list as it stands in the file.
        anchor: From a path to the path that holds everywhere.
    """
    if not isinstance(suites, list):
        return suites
    found: list[Any] = []
    for one in suites:
        if isinstance(one, str) and ("/" in one or "." in one):
            found.append(anchor(one))
        elif isinstance(one, dict):
            changed = dict(one)
            for key in ("suite", "path"):
                if isinstance(one.get(key), str) and ("/" in one[key] or "." in one[key]):
                    changed[key] = anchor(one[key])
            found.append(changed)
        else:
            found.append(one)
    return found
