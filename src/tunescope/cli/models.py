"""Commands that begin with a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunescope.cli.options import (
    AsJson,
    Device,
    LabelColumn,
    Labels,
    MaxLength,
    Model,
    Overrides,
    Quiet,
    Rows,
    Seed,
    Template,
    Texts,
)


def compare(
    base: Annotated[
        str,
        typer.Argument(
            metavar="BASE", help="The model before tuning: a folder, hub id, or a run to hold runs against."
        ),
    ],
    tuned: Annotated[
        list[str],
        typer.Argument(
            metavar="TUNED",
            help="Tuned models, peft adapters, folders of checkpoint-*, runs, or seeds as NAME=FOLDER,FOLDER.",
        ),
    ],
    data: Annotated[str, typer.Option(help="Labelled rows: a file, glob, folder or hub id.")],
    text: Annotated[list[str], typer.Option(help="The text column; give it twice for a pair.")],
    label: LabelColumn = "label",
    label_map: Labels = None,
    lens: Annotated[
        list[str] | None,
        typer.Option(
            help="A lens by name, or '{lens: cka, ...}', or all; weights, cka, logit_lens, ablation if not given."
        ),
    ] = None,
    rows: Rows = None,
    max_length: MaxLength = None,
    template: Template = None,
    seed: Seed = 0,
    output_dir: Annotated[
        Path | None, typer.Option(help="Where to write; runs/compare if not given.")
    ] = None,
    base_head: Annotated[
        str | None,
        typer.Option(metavar="HEAD", help="What gives the base its logits: probe, tuned, own or none."),
    ] = None,
    device: Device = "auto",
    texts: Texts = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Look inside a base model and tuned ones that were trained anywhere, on the same rows.

    The same command again does only what is missing.

    Example: tunescope compare gpt2 my-model --data reviews.csv --text review --label stars
    """
    from tunescope.commands import checkpoints
    from tunescope.commands.asked import Ending, LookWish
    from tunescope.report.texts import asked

    look = LookWish(data, text, label, label_map or [], lens or [], rows, max_length, template, seed)
    ending = Ending(output_dir, device, quiet or as_json, as_json)
    wish = checkpoints.ComparisonWish(base, tuned, look, base_head, ending)
    with asked(texts):
        checkpoints.compare(wish)


def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model folder or hub id.")],
    data: Annotated[str | None, typer.Option(help="Rows to look at: a file, glob, folder or hub id.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="The text column; give it twice for a pair.")] = None,
    label: LabelColumn = "label",
    label_map: Labels = None,
    lens: Annotated[
        list[str] | None, typer.Option(help="A lens by name, or with options: '{lens: spread, ...}'.")
    ] = None,
    rows: Rows = None,
    max_length: MaxLength = None,
    template: Template = None,
    updates: Annotated[
        bool,
        typer.Option("--updates", help="Only a LoRA adapter's updates, from its folder without the base."),
    ] = False,
    seed: Seed = 0,
    output_dir: Annotated[
        Path | None, typer.Option(help="Where to write; runs/inspect if not given.")
    ] = None,
    device: Device = "auto",
    texts: Texts = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say what one model is, what its weights are like, and with --data what it does with rows.

    Of a LoRA adapter --updates tells size and rank of each update, without its base.

    Example: tunescope inspect my-model --data reviews.csv --text review --label stars
    """
    from tunescope.commands import inspect as command
    from tunescope.commands.asked import Ending, LookWish
    from tunescope.report.texts import asked

    look = LookWish(data, text or [], label, label_map or [], lens or [], rows, max_length, template, seed)
    ending = Ending(output_dir, device, quiet or as_json, as_json)
    if updates:
        from tunescope.commands.updates import print_updates

        print_updates(model, look, ending)
        return
    with asked(texts):
        command.inspect(command.InspectionWish(model, look, ending))


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
    texts: Texts = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Test how a model behaves when words are exchanged, and whether tuning widened it.

    Example: tunescope test my-model --base gpt2 --data tweets.csv --label emotion --suite gender,race,typos
    """
    from tunescope.commands import test as command
    from tunescope.report.texts import asked

    wish = command.TestWish(
        model, suite, base, data, text, label, label_map or [], expect, rows, options or [], output_dir, device,
        quiet or as_json, as_json,
    )  # fmt: skip
    with asked(texts):
        command.test(wish)


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
    from tunescope.commands.asked import Ending

    ending = Ending(output, device, quiet, as_json)
    checkpoints.predict(checkpoints.PredictionWish(model, texts or [], data, text, ending))


def corpus(
    model: Model,
    data: Annotated[Path, typer.Option(help="A .parquet, .csv, .tsv or .jsonl file of any size.")],
    text: Annotated[str, typer.Option(help="The text column.")] = "text",
    label: Annotated[
        str | None, typer.Option(help="The column of true classes; words are else counted by prediction.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where to write; runs/corpus if not given.")] = None,
    engine: Annotated[str, typer.Option(help="polars (this machine) or spark.")] = "polars",
    master: Annotated[
        str | None,
        typer.Option(help="Where Spark computes, as spark://host:7077; this machine if not given."),
    ] = None,
    top: Annotated[int, typer.Option(help="The most confident rows of a class.")] = 100,
    words: Annotated[int, typer.Option(help="The most frequent words of a class.")] = 20,
    stop_words: Annotated[bool, typer.Option("--stop-words", help="Count function words too.")] = False,
    flip: Annotated[
        str, typer.Option(metavar="LEXICON", help="Exchange words in every row: a lexicon, a file, or none.")
    ] = "gender",
    max_length: MaxLength = None,
    shard_rows: Annotated[int, typer.Option(help="Rows that are computed and kept together.")] = 4096,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Predict every row of a file of any size; keep the most confident rows, frequent words and effects of words.

    The same command again does only what is missing.

    Example: tunescope corpus my-model --data tweets.parquet --text text --label emotion
    """
    from tunescope.commands import corpus as command
    from tunescope.corpus import CorpusRequest

    request = CorpusRequest(
        model, data, text, output or Path("runs") / "corpus", label, engine, master, top, words, stop_words, flip,
        max_length, shard_rows, device,
    )  # fmt: skip
    command.corpus(request, quiet, as_json)
