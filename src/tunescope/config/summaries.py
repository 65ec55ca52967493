"""The ``summarise:`` section of a study: how articles and summaries become tokens, and how summaries are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from tunescope.config.strict import Count, Number, Positive, Strict

Measured = Literal["validation", "test"]
MeteorVariant = Literal["exact", "stem", "synonym"]

SHARED = ("meteor", "baselines")  # one for all arms, or they could not be compared

SUMMARY_METHODS = ("zero_shot", "full", "last_k", "lora")
OTHER_METHODS = {
    "head_only": "a language model's head is its embedding of the vocabulary, and there is no head of a task to train",
}
NOT_YET = "it is not available for task: summarise; use " + ", ".join(SUMMARY_METHODS)


class GenerationConfig(Strict):
    """How summaries are written; the names are those of transformers where it has one."""

    beams: Count = Field(1, description="the number of beams: 1 (greedy) or more")
    sample: bool = Field(False, description="true to draw tokens, false to take the likeliest")
    temperature: Positive = Field(1.0, description="what divides the logits before drawing: above 0")
    top_p: Positive = Field(
        1.0, le=1, description="the probability of the likeliest tokens drawn from: above 0, at most 1"
    )
    min_new_tokens: int = Field(
        0, ge=0, description="the fewest new tokens before the end token may come: 0 or more"
    )
    length_penalty: Number = Field(1.0, description="a number; above 0 favours longer beams")
    no_repeat_ngram_size: int = Field(
        0,
        ge=0,
        description="the length of the n-grams that may not stand twice, the article of a decoder-only model "
        "included, so that it forbids copying: 0 for none",
    )
    rows_at_once: Count = Field(8, description="how many summaries are written at once: 1 or more")

    @model_validator(mode="after")
    def _drawing_has_one_beam(self) -> GenerationConfig:
        if self.sample and self.beams > 1:
            raise ValueError("sample: true draws token by token; set beams to 1")
        if not self.sample and (self.temperature != 1.0 or self.top_p != 1.0):
            raise ValueError("temperature and top_p belong to sample: true")
        return self


class SummariseConfig(Strict):
    """How articles and summaries become tokens, what is learnt of them, and how summaries are written."""

    max_tokens: Count = Field(
        512, description="the budget: the most tokens of article, prompt and summary together: 1 or more"
    )
    max_summary: Count = Field(
        128,
        description="the most tokens of a summary with its end token, and of what is written: 1 or more; longer "
        "summaries are refused, never cut",
    )
    prompt: str = Field(
        "\nTL;DR:", description="the text between article and summary, for decoder-only models"
    )
    before: str = Field("", description="the text in front of the article, such as 'summarize: ' for T5")
    loss_on: Literal["summary", "all"] = Field(
        "summary", description="summary (and its end token) or all tokens: what the loss is taken of"
    )
    end_token: bool = Field(
        True,
        description="true or false: whether a summary closes with the end token, so that a model learns to stop",
    )
    cut: Literal["article", "end"] = Field(
        "article",
        description="article (its end is cut and the summary always kept), or end (as published: article, prompt "
        "and summary are cut together, so that long articles lose their summaries)",
    )
    generation: GenerationConfig = Field(
        default_factory=lambda: GenerationConfig.model_validate({}),
        description="a mapping that says how summaries are written",
    )
    splits: list[Measured] = Field(
        default=["test"],
        min_length=1,
        description="a list of validation, test or both: the rows that summaries are written for",
    )
    baselines: bool = Field(
        True, description="true or false: whether lead-3, random-3 and the oracle stand beside the arms"
    )

    meteor: MeteorVariant = Field(
        "stem",
        description="exact (equal words), stem (and equal stems) or synonym (and synonyms by WordNet's data, which "
        "must be installed): what METEOR matches",
    )

    @field_validator("splits")
    @classmethod
    def _each_once(cls, value: list[Measured]) -> list[Measured]:
        if len(set(value)) < len(value):
            raise ValueError("a split stands in it twice")
        return value

    @model_validator(mode="after")
    def _fits(self) -> SummariseConfig:
        if self.max_summary >= self.max_tokens:
            raise ValueError(
                f"max_summary ({self.max_summary}) leaves nothing of max_tokens ({self.max_tokens}) for the article"
            )
        if self.generation.min_new_tokens > self.max_summary:
            raise ValueError(
                f"generation.min_new_tokens ({self.generation.min_new_tokens}) is more than max_summary "
                f"({self.max_summary})"
            )
        return self

    def changed(self, own: dict[str, Any]) -> SummariseConfig:
        """Return this section with an arm's own fields in place of the shared ones.

        Raises:
            pydantic.ValidationError: A field is unknown or does not fit.
            ValueError: A field is one for all arms.
        """
        for name in SHARED:
            if name in own:
                raise ValueError(
                    f"summarise.{name} is one for all arms, so that they can be compared; take it out of the arm"
                )
        values = self.model_dump()
        given = own.get("generation")
        merged = {**values, **own}
        if isinstance(given, dict):
            merged["generation"] = {**values["generation"], **given}
        return SummariseConfig.model_validate(merged)


class WithoutOptions(Strict):
    """A method without options of its own: a zero-shot arm that summarises, whose prompt ``summarise`` says."""


def summary_methods(
    methods: Mapping[str, type[BaseModel]], refused: Mapping[str, str]
) -> tuple[dict[str, type[BaseModel]], dict[str, str]]:
    """Return the tuning methods of a study that summarises, and those that cannot serve, each with the reason."""
    usable: dict[str, type[BaseModel]] = {
        name: WithoutOptions if name == "zero_shot" else options
        for name, options in methods.items()
        if name in SUMMARY_METHODS
    }
    others = {name: OTHER_METHODS.get(name, NOT_YET) for name in methods if name not in usable}
    return usable, {**refused, **others}
