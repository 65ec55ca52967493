"""The command line: what can be asked, and how it is explained. What is done stands in ``commands``."""

from __future__ import annotations

from typing import Annotated

import typer

from tunescope import __version__
from tunescope.cli import machine, models, results, studies
from tunescope.commands.guard import guarded

EXIT_CODES = (
    "Exit codes: 0 done; 2 the study or an option is not valid; 3 the data; 4 a model; 5 a lens; "
    "6 the run folder or the disk; 7 a library is missing; 8 an expectation is not met (run --strict, test); "
    "9 the doctor found a miss; 70 a bug; "
    "130 stopped by Ctrl-C."
)

# Name, function, and its line in the list of commands, in the order of that list.
COMMANDS = (
    ("init", studies.init, "Write a commented study for a data file."),
    ("validate", studies.validate, "Check a study and estimate its cost; train nothing."),
    ("audit", studies.audit, "Look for leaks, duplicates and imbalance in labelled rows."),
    ("run", studies.run, "Tune, evaluate, look inside, and write a report."),
    ("compare", models.compare, "Look inside a base model and tuned ones."),
    ("inspect", models.inspect, "Say what one model is and does."),
    ("test", models.behaviour, "Test a model's behaviour with suites of pairs."),
    ("predict", models.predict, "Predict the labels of texts or of a file."),
    ("corpus", models.corpus, "Predict a whole corpus: confident rows, frequent words, exchanged words."),
    ("report", results.report, "Write the report of a run folder again."),
    ("export", results.export, "Write figures, tables, methods and model cards for a paper or a hub."),
    ("serve", results.serve, "Show runs, reports and the bench in a browser."),
    ("recipes", studies.recipes, "List the studies that come with tunescope, or show one."),
    ("doctor", machine.doctor, "Prove on this machine that tunescope measures right."),
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
for _name, _function, _line in COMMANDS:
    app.command(_name, short_help=_line)(guarded(_function))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"tunescope {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Options that stand before the command."""


def main() -> None:
    """Run the command line."""
    app()
