"""Commands that begin with a study or with data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunescope.cli.options import (
    AsJson,
    DataFolder,
    Device,
    Models,
    Overrides,
    Profile,
    Quiet,
    Study,
    Texts,
)


def init(
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="A data file, glob, folder of text files or hub id.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="The text column; give it twice for a pair.")] = None,
    label: Annotated[str | None, typer.Option(help="The label column.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to tune: a folder, a hub id or scratch.")
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", help="The study to write, or - to print.")
    ] = "study.yaml",
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a study.")] = False,
) -> None:
    """Look at a data file and write a commented study for it.

    Example: tunescope init reviews.csv
    """
    from tunescope.commands import studies
    from tunescope.errors import ConfigError

    if schema:
        studies.print_schema()
    elif data is None:
        raise ConfigError(
            "Expected a data file; came nothing.", hint="For example: tunescope init reviews.csv"
        )
    else:
        studies.write_study(data, text or [], label, output, model)


def validate(
    study: Study,
    overrides: Overrides = None,
    profile: Profile = None,
    data: DataFolder = None,
    model: Models = None,
    quiet: Quiet = False,
) -> None:
    """Check a study, its data and its models, and estimate memory, time and precision; train nothing.

    Example: tunescope validate study.yaml
    """
    from tunescope.commands import studies
    from tunescope.commands.recipes import Places, Wanted

    studies.validate_study(Wanted(study, overrides or [], profile, Places(data, model or [])), quiet)


def audit(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Labelled rows: a file, glob, folder or hub id.")
    ],
    text: Annotated[list[str], typer.Option(help="The text column; give it twice for a pair.")],
    label: Annotated[str, typer.Option(help="The label column.")],
    validation: Annotated[str | None, typer.Option(help="A file of validation rows; DATA is train.")] = None,
    test: Annotated[str | None, typer.Option(help="A file of test rows; DATA is train.")] = None,
    split_column: Annotated[str | None, typer.Option(help="The column that names each row's split.")] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", "--model", help="Count its tokens too: a model folder or hub id."),
    ] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="Where texts are cut, in tokens.")] = None,
    clean: Annotated[
        list[str] | None,
        typer.Option(metavar="STEP", help="A cleaning step, as 'lower' or '{step: speaker_turns, ...}'."),
    ] = None,
    encoding: Annotated[str, typer.Option(help="The encoding of text files.")] = "utf-8",
    near: Annotated[bool, typer.Option(help="Look for near duplicates.")] = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the JSON to this file too.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Look for leaks, duplicates, conflicting labels, telling columns and imbalance in labelled rows.

    Example: tunescope audit train.csv --test test.csv --text review --label stars
    """
    from tunescope.commands import audit as command

    wish = command.AuditWish(
        data, text, label, validation, test, split_column, tokenizer, max_length, clean or [], encoding, near,
        output, quiet or as_json, as_json,
    )  # fmt: skip
    command.audit(wish)


def run(
    study: Study,
    overrides: Overrides = None,
    profile: Profile = None,
    data: DataFolder = None,
    model: Models = None,
    output_dir: Annotated[Path | None, typer.Option(help="The run folder; runs/NAME if not given.")] = None,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Trainings at the same time; one for each visible CUDA device if not given, else 1."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with exit code 8 if an expectation is not met or undecided.")
    ] = False,
    keep_store: Annotated[
        bool, typer.Option("--keep-store", help="Keep what frozen blocks gave (store/) for the next run.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Drop half-finished trainings that belong to another study.")
    ] = False,
    texts: Texts = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Tune, evaluate and look inside, and write a report; again, it does only what is missing.

    Example: tunescope run study.yaml --set training.num_train_epochs=1
    """
    from tunescope.commands import studies
    from tunescope.commands.recipes import Places, Wanted
    from tunescope.report.texts import asked

    wanted = Wanted(study, overrides or [], profile, Places(data, model or []))
    request = studies.RunRequest(
        wanted, output_dir, device, quiet or as_json, as_json, workers, strict, keep_store, restart
    )
    with asked(texts):
        studies.run_study(request)


def recipes(
    action: Annotated[
        str | None,
        typer.Argument(metavar="[show|download]", help="Show a recipe, or fetch its data and models."),
    ] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The recipe.")] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Where download writes.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the studies that come with tunescope, show one, or fetch what it needs.

    Example: tunescope recipes show emotion-gpt2
    """
    from tunescope.commands import recipes as command

    command.recipe_command(action, name, to, as_json)
