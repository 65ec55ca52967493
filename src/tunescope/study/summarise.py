"""What the stages of a study that summarises do: rows, counts, training, and writing and measuring summaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunescope.capture.verify import verify
from tunescope.config import ArmConfig, StudyConfig
from tunescope.config.summaries import SummariseConfig
from tunescope.data.rows import Rows
from tunescope.data.split import hash_order
from tunescope.data.summaries import Pairs, load_summaries
from tunescope.data.tokens import Tokens
from tunescope.errors import ConfigError, DataError, ModelError
from tunescope.files import atomic_path, write_json
from tunescope.folders import remove, whole_folder
from tunescope.lenses import Subject
from tunescope.lenses.language.language import WITHOUT_CLASSES
from tunescope.models.adapted import RECORD
from tunescope.models.language import LanguageModel
from tunescope.models.load import position_limit
from tunescope.models.summariser import open_language_model
from tunescope.runs import Stage
from tunescope.seeds import derive_seed
from tunescope.stats.intervals import bootstrap_means
from tunescope.study.context import ROWS, Context, is_prompted
from tunescope.study.fit import kept_of
from tunescope.study.measure import cost
from tunescope.study.unfinished import note_end, note_start
from tunescope.summaries import SummaryOptions, SummaryTokens, encode_summaries, score_summaries, wordnet
from tunescope.summaries.generation import GenerationOptions, write_summaries
from tunescope.summaries.metrics import MetricOptions, summarise_scores
from tunescope.summaries.rows import PARTS
from tunescope.summaries.training import losses_per_token, pad_id, train_summaries
from tunescope.training import TrainOptions
from tunescope.tuning import trainable

AT_ONCE = 64  # rows whose summaries are kept together, so that an interrupted evaluation goes on after them
LOSS = "loss_per_token"
NO_AUDIT = "The data was not audited: the audit is about labels, and summaries have none."


# ---- what can be refused before anything is computed ----


def check_summaries(study: StudyConfig) -> None:
    """Refuse lenses that cannot look at language models, and synonyms where WordNet is absent.

    Raises:
        ConfigError: With the first of the lenses.
        MissingDependencyError: WordNet's data is asked for and not installed.
    """
    if study.summarise is not None and study.summarise.meteor == "synonym":
        wordnet()
    for index, lens in enumerate(study.lenses):
        if lens.lens not in WITHOUT_CLASSES:
            raise ConfigError(
                f"The study cannot be run. lenses.{index}: {lens.lens} needs classes, and task: summarise has none.",
                hint=f"Take it out; the lenses that look at language models are {', '.join(WITHOUT_CLASSES)}.",
            )


def check_pairs(study: StudyConfig, rows: Rows) -> None:
    """Refuse a study whose rows lack a split that it writes summaries for, or train rows that it needs.

    Raises:
        DataError: With the split.
    """
    wanted: dict[str, str] = {}
    for arm in study.arms:
        wanted |= dict.fromkeys(study.summarise_of(arm).splits, "summarise.splits")
    if any(not is_prompted(arm) for arm in study.arms):
        wanted["train"] = "training"
    for split, why in wanted.items():
        if split not in rows.splits:
            raise DataError(
                f"There are no {split} rows, which {why} needs; the splits with rows are {', '.join(rows.splits)}.",
                hint="Look at data.path, data.validation and data.test.",
            )


# ---- rows and counts ----


def make_rows(context: Context) -> None:
    """Read, split and identify articles and summaries."""
    load_summaries(context.study.data, context.study.data.seed, context.progress).save(context.path / ROWS)
    context.forget_rows()


def make_counts(context: Context) -> None:
    """Count rows and tokens, and what the budget cuts of every arm's articles and summaries."""
    rows, cut = context.rows(), {}
    for arm in context.study.arms:
        model = open_base(context, arm)
        splits = [*(["train"] if not is_prompted(arm) else []), *context.study.summarise_of(arm).splits]
        cut[arm.name] = {split: encoded(context, arm, model, split, True).account() for split in splits}
    summary = {**rows.summary(), "cut": cut}
    summary["notes"] = [*summary["notes"], *([NO_AUDIT] if context.study.audit else [])]
    write_json(context.path / "data" / "summary.json", summary)


def open_base(context: Context, arm: ArmConfig) -> LanguageModel:
    """Open an arm's model before tuning.

    Raises:
        ModelError: It cannot write, or it has fewer positions than the budget wants.
    """
    model = open_language_model(context.model_path(arm), device=context.device, revision=arm.revision)
    limit = position_limit(model.model.config, model.family)
    own = context.study.summarise_of(arm)
    if own.max_tokens > limit:
        raise ModelError(
            f"arms.{arm.name}: max_tokens is {own.max_tokens}, and {arm.model} numbers {limit} positions.",
            hint=f"Set summarise.max_tokens to {limit} or less.",
        )
    return model


def options_of(own: SummariseConfig, **changed: Any) -> SummaryOptions:
    """Return how a section says articles and summaries become tokens."""
    values = {
        "max_tokens": own.max_tokens, "max_summary": own.max_summary, "prompt": own.prompt, "before": own.before,
        "loss": own.loss_on, "end": own.end_token, "cut": own.cut,
    }  # fmt: skip
    return SummaryOptions(**{**values, **changed})


def encoded(
    context: Context, arm: ArmConfig, model: LanguageModel, split: str, with_summaries: bool, **changed: Any
) -> SummaryTokens:
    """Return a split's rows as an arm's model reads them, with their summaries or for generation."""
    pairs, own = Pairs.of(context.rows(), split), context.study.summarise_of(arm)
    if own.cut == "end" and "cut" in changed:  # its summaries may be of any length, and are wanted whole
        changed = {"max_summary": own.max_tokens, **changed}
    options = options_of(own, **changed)
    kind = "encoder_decoder" if model.is_encoder_decoder else "decoder"
    summaries = pairs.summaries if with_summaries else None
    return encode_summaries(pairs.articles, summaries, pairs.row_ids, model.tokenizer, kind, options)  # type: ignore[arg-type]


# ---- training ----


def make_training(context: Context, arm: ArmConfig, seed: int, stage: Stage) -> dict[str, Any]:
    """Tune one arm with one seed on summaries, or continue where it was stopped."""
    folder = context.arm_folder(arm, seed)
    model = open_base(context, arm)
    if is_prompted(arm):
        with whole_folder(folder / "model") as target:
            own = context.study.summarise_of(arm).model_dump(mode="json")
            write_json(target / RECORD, {"task": "summarise", "model": arm.model, "summarise": own})
        write_json(folder / "parameters.json", {"matrices": []})
        total = sum(one.numel() for one in model.parameters())
        return {"steps": 0, "parameters": total, "trainable_parameters": 0, "devices": [context.device]}
    model.seed = derive_seed(seed, "head")
    method, options = context.method(arm)
    method.prepare(model, options)
    if arm.method != "full":
        freeze_vocabulary(model)
    train = encoded(context, arm, model, "train", True)
    if arm.train_share < 1:
        order = np.argsort(hash_order(train.row_ids, context.study.data.seed, "train_share"), kind="stable")
        train = train.take(np.sort(order[: max(1, round(arm.train_share * len(train)))]))
    has_validation = "validation" in context.rows().splits
    validation = encoded(context, arm, model, "validation", True) if has_validation else None
    write_json(folder / "parameters.json", {"matrices": trainable(model)})
    note_start(context.run, stage, folder / "checkpoints")
    record = {
        "study": context.study.name, "arm": arm.name, "method": arm.method, "base": arm.model, "task": "summarise",
        "summarise": context.study.summarise_of(arm).model_dump(mode="json"),
    }  # fmt: skip
    told = TrainOptions(
        training=context.study.training_of(arm), seed=seed, device=context.device,
        keep_checkpoints=context.keep_checkpoints, fingerprint=context.run.fingerprint(stage), record=record,
    )  # fmt: skip
    log = train_summaries(model, train, validation, folder, told, context.progress)
    note_end(folder / "checkpoints")
    return kept_of(log, context)


def freeze_vocabulary(model: LanguageModel) -> None:
    """Freeze the vocabulary's embeddings and the head, which usually are one matrix: no method but full means them."""
    model.head.requires_grad_(False)
    model.trunk.get_input_embeddings().requires_grad_(False)


# ---- writing and measuring ----


def make_evaluation(context: Context, arm: ArmConfig, seed: int, stage: Stage) -> None:
    """Write a summary for every wanted row, and measure it against the reference."""
    own, folder = context.study.summarise_of(arm), context.arm_folder(arm, seed)
    path = context.model_path(arm) if is_prompted(arm) else str(folder / "model")
    model = open_language_model(
        path, device=context.device, revision=arm.revision if is_prompted(arm) else None
    )
    unfinished = folder / f"written-{context.run.fingerprint(stage)[:12]}"
    tables, records = [], []
    cut: dict[str, Any] = {}
    for split in own.splits:
        pairs = Pairs.of(context.rows(), split)
        tokens = encoded(context, arm, model, split, False)
        written = _written(context, model, tokens, generation_of(own, seed), unfinished / split)
        # The loss is taken of whole summaries in every arm, however the arm itself cuts.
        asked = encoded(context, arm, model, split, True, cut="article", loss="summary")
        losses = losses_per_token(model, asked, context.progress, own.generation.rows_at_once)
        measure = MetricOptions(meteor=own.meteor, seed=derive_seed(seed, "metrics"))
        scores = score_summaries(
            written["generated"].to_list(), pairs.summaries, pairs.articles, pairs.row_ids, measure
        )
        measured = scores.with_columns(pl.Series(LOSS, losses))
        records += [
            {"split": split, "class": None, **record} for record in summarise_scores(measured, measure)
        ]
        records.append({"split": split, "class": None, **mean_record(LOSS, losses, measure)})
        records.append(
            {"split": split, "class": None, **mean_record("ended", written["ended"].to_numpy(), measure)}
        )
        cut[split] = tokens.account()
        tables.append(
            written.join(measured, on="row_id", how="left", maintain_order="left").with_columns(
                pl.lit(split).alias("split"), pl.Series("reference", pairs.summaries, pl.String)
            )
        )
    with atomic_path(folder / "predictions.parquet") as temporary:
        pl.concat(tables).write_parquet(temporary)
    _write_metrics(context, arm, seed, records, cut)
    remove(unfinished)


def generation_of(own: SummariseConfig, seed: int) -> GenerationOptions:
    """Return how a section says summaries are written."""
    how = own.generation
    return GenerationOptions(
        beams=how.beams, sample=how.sample, temperature=how.temperature, top_p=how.top_p,
        seed=derive_seed(seed, "summaries"), min_tokens=how.min_new_tokens, length_penalty=how.length_penalty,
        ban_repeats=how.no_repeat_ngram_size, rows_at_once=how.rows_at_once,
    )  # fmt: skip


def _written(
    context: Context, model: LanguageModel, tokens: SummaryTokens, how: GenerationOptions, folder: Path
) -> pl.DataFrame:
    """Write summaries in parts that are kept, so that an interrupted run goes on with the next one."""
    order = np.argsort([-len(ids) for ids in tokens.input_ids], kind="stable")
    parts = []
    for start in range(0, len(order), AT_ONCE):
        path = folder / f"part-{start // AT_ONCE:05d}.parquet"
        if not path.is_file():
            own = tokens.take(order[start : start + AT_ONCE])
            found = write_summaries(model.model, model.tokenizer, own, how, context.progress)
            path.parent.mkdir(parents=True, exist_ok=True)
            table = pl.DataFrame({
                "row_id": found.row_ids, "article_tokens": own.article_tokens, "article_cut": own.article_cut,
                "generated": found.texts, "new_tokens": found.new_tokens, "ended": found.ended,
            })  # fmt: skip
            with atomic_path(path) as temporary:
                table.write_parquet(temporary)
        parts.append(pl.read_parquet(path))
    rows = pl.DataFrame({"row_id": tokens.row_ids})
    return rows.join(pl.concat(parts), on="row_id", how="left", maintain_order="left")


def mean_record(metric: str, values: np.ndarray, options: MetricOptions) -> dict[str, Any]:
    """Return the mean of finite values with a bootstrap interval over rows, as a record of a result."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    interval = bootstrap_means(known[:, None], resamples=options.resamples, seed=options.seed)[0]
    return {"metric": metric, **interval.record()}


def _write_metrics(
    context: Context, arm: ArmConfig, seed: int, records: list[dict[str, Any]], cut: dict[str, Any]
) -> None:
    own, price = context.study.summarise_of(arm), cost(context, arm, seed)
    notes = [*([arm.note] if arm.note else [])]
    if own.generation.no_repeat_ngram_size and own.cut == "article":
        notes.append(
            f"no {own.generation.no_repeat_ngram_size}-gram of the article may be copied (no_repeat_ngram_size)"
        )
    content = {
        "task": "summarise", "arm": arm.name, "seed": seed, "method": arm.method, "model": arm.model, "grid": None,
        "point": {}, "train_share": arm.train_share, "records": records, "confusion": {}, "majority": {},
        "seconds": price["seconds"], "trainable_parameters": price["trainable_parameters"],
        "parameters": price["parameters"], "cost": price, "slices": [], "reliability": {}, "threshold": None,
        "truncated": {}, "prompt": None, "prior": None, "notes": notes, "cut": cut,
        "summarise": own.model_dump(mode="json"), "baseline": {"majority": {}, "learned": None},
    }  # fmt: skip
    write_json(context.arm_folder(arm, seed) / "metrics.json", content)


# ---- lenses ----


def summary_subject(context: Context, arm: ArmConfig, seed: int) -> Subject:
    """Return base and tuned language model on the rows as they are trained on: article, prompt and summary."""
    path = str(context.arm_folder(arm, seed) / "model")
    base, tuned = verify(open_base(context, arm)), verify(open_language_model(path, device=context.device))
    splits = {
        split: texts_of(encoded(context, arm, tuned, split, True, cut="article"), pad_id(tuned))
        for split in context.rows().splits
    }
    if "validation" not in splits:  # where lenses look by default
        splits["validation"] = splits["test"]
    what = "The article" if tuned.is_encoder_decoder else "Article, prompt and summary together"
    notes = [f"{what} are the text that is looked at, cut as the budget says; effects are in nats per token."]
    notes += [f"{arm.name}: {arm.note}"] if arm.note else []
    return Subject(
        arm.name, seed, base, tuned, "own", splits, sampling_seed=derive_seed(context.study.seeds[0], "rows of lenses"),
        progress=context.progress, notes=notes, texts=context.rows().frame.select("row_id", "text"),
    )  # fmt: skip


def texts_of(tokens: SummaryTokens, pad: int) -> Tokens:
    """Return encoded pairs as plain encoded texts without labels; their parts are those of the sequence."""
    return Tokens(
        tokens.row_ids, tokens.input_ids, None, np.full(len(tokens), -1, dtype=np.int64), tokens.kept, pad,
        parts=tokens.parts(), part_names=PARTS,
    )  # fmt: skip
