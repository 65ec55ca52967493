"""Options and arguments that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def _device(value: str) -> str:
    if not DEVICE.fullmatch(value):
        raise typer.BadParameter(f"expected auto, cpu, cuda, cuda:N or mps; came {value!r}")
    return value


Device = Annotated[
    str,
    typer.Option("--device", callback=_device, help="Where to compute: auto, cpu, cuda, cuda:N or mps."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON on standard output.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in training.num_train_epochs=1."),
]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model/ folder of a run, or any classifier.")]
Labels = Annotated[
    list[str] | None,
    typer.Option(metavar="MODEL=DATA", help="A label of the model and its label in the data."),
]
LabelColumn = Annotated[str, typer.Option("--label", help="The label column; language models need none.")]
Rows = Annotated[
    int | None, typer.Option("--rows", min=1, help="Keep this many rows, chosen by their content.")
]
MaxLength = Annotated[int | None, typer.Option("--max-length", help="The most tokens of a text.")]
Template = Annotated[
    str | None, typer.Option("--template", help="How fields become a text, as '{first} {second}'.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seeds the draw of rows and every random control.")]
Study = Annotated[str, typer.Argument(metavar="STUDY", help="A study file, or the name of a recipe.")]
Texts = Annotated[
    str | None,
    typer.Option(
        "--texts",
        metavar="WHICH",
        help="Texts in the report: all, examples (chosen rows) or none (row ids only); examples if not given.",
    ),
]
Profile = Annotated[
    str | None, typer.Option("--profile", metavar="NAME", help="A smaller form of the study, such as small.")
]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="A folder with train.parquet and so on, in place of the data."
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", metavar="NAME=DIR", help="A folder in place of a model: an arm's or hub name, =, DIR."
    ),
]
