"""Small option models and studies that the tests of the study share."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

from tunescope.config import StudyConfig, load_study


class NoOptions(BaseModel):
    pass


class LastBlocks(BaseModel):
    k: int = Field(2, ge=1, description="how many last blocks to tune: 1 or more")


class Blocks(BaseModel):
    block: int = Field(256, ge=4, description="rows in a block: 4 or more")
    edits: list[str] = Field(["zero"], description="a list of edits")


METHODS: dict[str, type[BaseModel]] = {"full": NoOptions, "head_only": NoOptions, "last_k": LastBlocks}
LENSES: dict[str, type[BaseModel]] = {"cka": Blocks, "ablation": Blocks}

GOOD = """\
name: demo
data:
  path: reviews.csv
  text: review
  label: stars
arms:
  - {name: all, model: gpt2}
  - name: last
    model: gpt2
    method: last_k
    k: 3
lenses: [cka]
"""


def load(text: str, folder: Path, *overrides: str) -> StudyConfig:
    """Load the study ``text`` as a file of ``folder``."""
    file = folder / "study.yaml"
    file.write_text(text, encoding="utf-8")
    return load_study(file, overrides, methods=METHODS, lenses=LENSES)
