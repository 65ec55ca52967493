"""The cleaning steps of a study, as strict models: ``data.clean`` is a list of names or mappings.

What the steps do stands in ``tunescope.data.clean``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tunescope.config.strict import Name, Strict

Bracket = Literal["()", "[]", "{}"]


class LowerStep(Strict):
    """Every letter in lower case."""

    step: Literal["lower"] = Field("lower", description="lower")


class WhitespaceStep(Strict):
    """Every run of white space becomes one blank, and none stays at the ends."""

    step: Literal["whitespace"] = Field("whitespace", description="whitespace")


class HtmlStep(Strict):
    """Every HTML tag and comment becomes a space."""

    step: Literal["html"] = Field("html", description="html")


class BracketedStep(Strict):
    """Text in brackets is removed with its brackets, nested ones too; a bracket without its partner stays."""

    step: Literal["bracketed"] = Field("bracketed", description="bracketed")
    brackets: list[Bracket] = Field(
        default=["()", "[]", "{}"], min_length=1, description="a list of '()', '[]' and '{}'"
    )


class SpecialCharactersStep(Strict):
    """Every run of characters that are no letter, mark, digit or white space becomes a space."""

    step: Literal["special_characters"] = Field("special_characters", description="special_characters")
    keep: str = Field(".,;:!?'\"-", description="the characters that stay besides, as one string")


class SpeakerTurnsStep(Strict):
    """Only the turns of one speaker, or of both, in a conversation whose turns begin with a line ``NAME:``.

    Turns of others (``Supervisor: ...``), and what stands before the first turn, are left out and counted.
    """

    step: Literal["speaker_turns"] = Field("speaker_turns", description="speaker_turns")
    keep: Literal["customer", "agent", "both"] = Field("customer", description="customer, agent or both")
    join: Literal["merged", "tagged"] = Field(
        "merged", description="merged (the turns alone) or tagged (each after its speaker's name)"
    )
    customer: list[Name] = Field(
        default=["Customer"],
        min_length=1,
        description="a list of the names that the customer's turns begin with",
    )
    agent: list[Name] = Field(
        default=["Agent"], min_length=1, description="a list of the names that the agent's turns begin with"
    )

    @model_validator(mode="after")
    def _names_differ(self) -> SpeakerTurnsStep:
        both = {name.lower() for name in self.customer} & {name.lower() for name in self.agent}
        if both:
            raise ValueError(f"{min(both)!r} names both the customer and the agent")
        return self

    @field_validator("customer", "agent")
    @classmethod
    def _no_colon(cls, value: list[str]) -> list[str]:
        for name in value:
            if name.strip() != name or ":" in name:
                raise ValueError(f"write the name alone, without blanks around it or a colon: {name!r}")
        return value


def _as_mapping(value: Any) -> Any:
    """Let a bare name stand for a step with its defaults."""
    return {"step": value} if isinstance(value, str) else value


StepName = Literal["lower", "whitespace", "html", "bracketed", "special_characters", "speaker_turns"]
_Step = Annotated[
    LowerStep | WhitespaceStep | HtmlStep | BracketedStep | SpecialCharactersStep | SpeakerTurnsStep,
    Field(discriminator="step"),
]
CleaningStep = Annotated[_Step, BeforeValidator(_as_mapping, json_schema_input_type=StepName | _Step)]

Deduplicate = Literal["exact", "normalised", "near"]
