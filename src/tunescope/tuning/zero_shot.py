"""Zero-shot: nothing is trained; a language model chooses among verbalizers of a prompt."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from tunescope.models import Classifier

MASK = "mask"
CONTENT_FREE = ("N/A", "", "[MASK]")  # Zhao et al. 2021


def fields_of(template: str) -> list[tuple[str, str | None]]:
    """Cut a template into pairs of literal text and the field after it; the last field may be None.

    Raises:
        ValueError: The template cannot be read, or a field is more than a bare name.
    """
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(
            f"prompt {template!r} cannot be read ({error}); write {{{{ and }}}} for braces that are text"
        ) from None
    for _, name, specification, conversion in parsed:
        if name is not None and (not name or specification or conversion):
            raise ValueError(f"prompt {template!r}: a field is a column's name in braces, nothing more")
    return [(literal, name) for literal, name, _, _ in parsed]


def _named(value: Any) -> Any:
    """Let labels be written as the data write them, 0 or true; they are compared as text."""
    return {str(key): text for key, text in value.items()} if isinstance(value, dict) else value


class ZeroShotOptions(BaseModel):
    """What is asked, what may be answered, and how the answer is read.

    Attributes:
        prompt: A template with ``{column}`` fields; ``{text}`` is the row's text. A masked language model
            (BERT and its relatives) needs the field ``{mask}`` where the answer stands.
        prompts: Several templates, in place of ``prompt``; one is chosen on train rows.
        verbalizers: For every label the words that stand for it, usually with a leading space.
        normalise: ``sum`` of a verbalizer's token log-probabilities, or their ``mean``, which does not favour
            short ones.
        calibration: ``none``; ``contextual`` divides by the probabilities that content-free inputs get (Zhao
            et al. 2021, arXiv 2102.09690); ``choose`` takes the better of both, chosen like the prompts.
        content_free: The inputs without content; each field of the prompt becomes this text.
        folds: Folds of the train rows, 2 or more.
        rows: The most train rows that every prompt is asked, drawn by hash of their ids.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str | None = Field(None, description="a template with {column} fields, or null where prompts are")
    prompts: list[str] | None = Field(
        None, min_length=1, description="a list of templates to choose from on train rows, or null"
    )
    verbalizers: Annotated[dict[str, str], BeforeValidator(_named)] = Field(
        min_length=2, description="a mapping from every label to the words that stand for it"
    )
    normalise: Literal["sum", "mean"] = Field(
        "sum", description="sum or mean of a verbalizer's token log-probabilities"
    )
    calibration: Literal["none", "contextual", "choose"] = Field(
        "none", description="none, contextual, or choose (the better of both on train rows)"
    )
    content_free: list[str] = Field(
        list(CONTENT_FREE), min_length=1, description="a list of texts without content"
    )
    folds: int = Field(5, ge=2, description="the number of folds of the train rows: 2 or more")
    rows: int = Field(1000, ge=1, description="the most train rows that prompts are compared on: 1 or more")

    @model_validator(mode="after")
    def _prompts_are_usable(self) -> ZeroShotOptions:
        if (self.prompt is None) == (self.prompts is None):
            raise ValueError("give one of prompt (one template) and prompts (a list of templates)")
        if len(set(self.templates)) < len(self.templates):
            raise ValueError("a prompt stands in prompts twice")
        for template in self.templates:
            fields = [name for _, name in fields_of(template) if name is not None]
            if not [name for name in fields if name != MASK]:
                raise ValueError(
                    f"prompt {template!r} names no column, so every row would get the same answer; "
                    "write {text} where the row's text belongs"
                )
            if fields.count(MASK) > 1:
                raise ValueError(f"prompt {template!r} has {{mask}} more than once; the answer stands once")
        return self

    @property
    def templates(self) -> tuple[str, ...]:
        """The prompts to choose from."""
        return (self.prompt,) if self.prompt is not None else tuple(self.prompts or ())


class ZeroShot:
    """Trains nothing; :class:`tunescope.prompting.ZeroShot` gives the predictions."""

    name = "zero_shot"
    options: type[BaseModel] = ZeroShotOptions
    frozen_trunk = True
    kind: Literal["train", "prompt"] = "prompt"

    def prepare(self, classifier: Classifier, options: BaseModel) -> None:
        """Let no parameter require gradients; there is no head either, so a study never gets here."""
        classifier.requires_grad_(False)

    def frozen_blocks(self, classifier: Classifier, options: BaseModel) -> int:
        """Return the number of blocks: all are frozen."""
        return int(classifier.model.config.num_hidden_layers)
