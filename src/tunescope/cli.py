"""The command line: what can be asked, and how it is explained. What is done stands in ``commands``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from tunescope import __version__
from tunescope.commands.guard import guarded

EXIT_CODES = (
    "Exit codes: 0 done; 2 the study or an option is not valid; 3 the data; 4 a model; 5 a lens; "
    "6 the run folder or the disk; 7 a library is missing; 8 an expectation is not met (run --strict, test); 70 a bug; "
    "130 stopped by Ctrl-C."
)

app = typer.Typer(
    name="tunescope",
    help="Tune language models on your labelled text, and see what tuning changed inside.\n\n"
    "First example: tunescope run quickstart",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def _device(value: str) -> str:
    if not DEVICE.fullmatch(value):
        raise typer.BadParameter(f"expected auto, cpu, cuda, cuda:N or mps; came {value!r}")
    return value


def _version(wanted: bool) -> None:
    if wanted:
        print(f"tunescope {__version__}")
        raise typer.Exit


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
Study = Annotated[str, typer.Argument(metavar="STUDY", help="A study file, or the name of a recipe.")]


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Options that stand before the command."""


@app.command(short_help="Write a commented study for a data file.")
@guarded
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


@app.command(short_help="Check a study and estimate its cost; train nothing.")
@guarded
def validate(study: Study, overrides: Overrides = None, quiet: Quiet = False) -> None:
    """Check a study, its data and its models, and estimate memory, time and precision; train nothing.

    Example: tunescope validate study.yaml
    """
    from tunescope.commands import studies

    studies.validate_study(study, overrides or [], quiet)


@app.command(short_help="Look for leaks, duplicates and imbalance in labelled rows.")
@guarded
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


@app.command(short_help="Tune, evaluate, look inside, and write a report.")
@guarded
def run(
    study: Study,
    overrides: Overrides = None,
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
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Tune, evaluate and look inside, and write a report; again, it does only what is missing.

    Example: tunescope run study.yaml --set training.num_train_epochs=1
    """
    from tunescope.commands import studies

    request = studies.RunRequest(
        study, overrides or [], output_dir, device, quiet or as_json, as_json, workers, strict, keep_store,
        restart,
    )  # fmt: skip
    studies.run_study(request)


@app.command(short_help="Look inside a base model and tuned ones.")
@guarded
def compare(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model before tuning: a folder or hub id.")],
    tuned: Annotated[
        list[str],
        typer.Argument(metavar="TUNED", help="One or more tuned models or peft adapter folders."),
    ],
    data: Annotated[str, typer.Option(help="Labelled rows: a file, glob, folder or hub id.")],
    text: Annotated[list[str], typer.Option(help="The text column; give it twice for a pair.")],
    label: Annotated[str, typer.Option(help="The label column; language models need none.")] = "label",
    label_map: Labels = None,
    lens: Annotated[
        list[str] | None,
        typer.Option(help="A lens by name, or with options: '{lens: cka, ...}'; all if not given."),
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Keep this many rows, chosen by their content.")] = None,
    max_length: Annotated[int | None, typer.Option(help="The most tokens of a text.")] = None,
    template: Annotated[
        str | None, typer.Option(help="How fields become a text, as '{first} {second}'.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds the draw of rows and every random control.")] = 0,
    output_dir: Annotated[
        Path | None, typer.Option(help="Where to write; runs/compare if not given.")
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Look inside a base model and tuned ones that were trained anywhere, on the same rows.

    Example: tunescope compare gpt2 my-model --data reviews.csv --text review --label stars
    """
    from tunescope.commands import checkpoints

    wish = checkpoints.ComparisonWish(
        base, tuned, data, text, label, label_map or [], lens or [], rows, max_length, template, seed,
        output_dir, device, quiet or as_json, as_json,
    )  # fmt: skip
    checkpoints.compare(wish)


@app.command("test", short_help="Test a model's behaviour with suites of pairs.")
@guarded
def behaviour(
    model: Model,
    suite: Annotated[
        list[str], typer.Option(help="Suites, parted by commas: gender, typos, my.yaml, eec=FILE.")
    ],
    base: Annotated[str | None, typer.Option(help="The model before tuning; needs --label.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Rows that suites rewrite: a file, glob or folder.")
    ] = None,
    text: Annotated[str, typer.Option(help="The text column of the rows.")] = "text",
    label: Annotated[str | None, typer.Option(help="The label column of the rows.")] = None,
    label_map: Labels = None,
    expect: Annotated[Path | None, typer.Option(help="Rules; exit code 8 if one is not met.")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="The most touched rows of a suite.")] = None,
    options: Overrides = None,
    output_dir: Annotated[Path | None, typer.Option(help="Where to write; runs/test if not given.")] = None,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Test how a model behaves when words are exchanged, and whether tuning widened it.

    Example: tunescope test my-model --base gpt2 --data tweets.csv --label emotion --suite gender,race,typos
    """
    from tunescope.commands import test as command

    wish = command.TestWish(
        model, suite, base, data, text, label, label_map or [], expect, rows, options or [], output_dir, device,
        quiet or as_json, as_json,
    )  # fmt: skip
    command.test(wish)


@app.command(short_help="Predict the labels of texts or of a file.")
@guarded
def predict(
    model: Model,
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT", help="Texts to classify.")] = None,
    data: Annotated[str | None, typer.Option(help="A file of rows to classify, instead of texts.")] = None,
    text: Annotated[str | None, typer.Option(help="The text column of the file.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write a .parquet, .csv or .jsonl file.")] = None,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Predict the labels of texts, or of the rows of a file in their order.

    Example: tunescope predict runs/demo/arms/full/seed-0/model "What a lovely film."
    """
    from tunescope.commands import checkpoints

    wish = checkpoints.PredictionWish(model, texts or [], data, text, output, device, quiet, as_json)
    checkpoints.predict(wish)


@app.command(short_help="Write the report of a run folder again.")
@guarded
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder that run or compare wrote.")],
) -> None:
    """Write the report of a run folder again, from its tables alone.

    Example: tunescope report runs/quickstart
    """
    from tunescope.commands import studies

    studies.render_report(run)


@app.command(short_help="List the studies that come with tunescope.")
@guarded
def recipes(as_json: AsJson = False) -> None:
    """List the studies that come with tunescope.

    Example: tunescope recipes
    """
    from tunescope.commands import studies

    studies.list_recipes(as_json)


@app.command(short_help="Say what is installed on this machine.")
@guarded
def doctor(
    env: Annotated[
        bool, typer.Option("--env", help="Describe versions, devices, caches and extras.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what tunescope finds on this machine: versions, devices, threads, caches, optional libraries.

    Example: tunescope doctor --env
    """
    from tunescope import doctor as look
    from tunescope.errors import ConfigError

    if not env:
        raise ConfigError("Expected what to look at.", hint="Run `tunescope doctor --env`.")
    print(look.environment_json() if as_json else look.environment_text())


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
