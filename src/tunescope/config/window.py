"""Which part of a text that is longer than the model's window is read: one rule for all arms of a study."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from tunescope.config.strict import Count, Strict

Keep = Literal["head", "tail", "head_tail", "sliding"]
WINDOW_EXPECTED = "head, tail, head_tail, or a mapping such as {keep: sliding, stride: 64, most: 8}"
MOST_WINDOWS = 8


class WindowConfig(Strict):
    """What is kept of a text that does not fit; in a study a bare word, or a mapping with ``keep``.

    ``head`` keeps the first tokens, ``tail`` the last, ``head_tail`` the first half and the last half of what
    fits (the odd token goes to the head). ``sliding`` reads the text in several windows, each with all special
    tokens, and averages their logits; what no window reaches is counted as cut.
    """

    keep: Keep = Field("head", description="head, tail, head_tail or sliding")
    stride: Count | None = Field(
        None,
        description="how many tokens of text lie between the starts of two sliding windows (1 or more), or null "
        "for half of what fits",
    )
    most: Count | None = Field(
        None, description=f"the most sliding windows of a text (1 or more), or null for {MOST_WINDOWS}"
    )

    @model_validator(mode="before")
    @classmethod
    def _bare_word(cls, value: Any) -> Any:
        return {"keep": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _only_sliding_has_more(self) -> WindowConfig:
        if self.keep != "sliding" and (self.stride is not None or self.most is not None):
            raise ValueError(f"stride and most belong to keep: sliding, and keep is {self.keep!r}")
        return self

    @property
    def most_windows(self) -> int:
        """The most windows of a text: ``most`` where it is given; 1 where nothing slides."""
        if self.keep != "sliding":
            return 1
        return MOST_WINDOWS if self.most is None else self.most
