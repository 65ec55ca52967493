"""What stands beside the arms of a study that summarises: baselines without a model, and paired comparisons."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from tunescope.data.summaries import Pairs
from tunescope.files import atomic_path, write_json
from tunescope.folders import whole_folder
from tunescope.seeds import derive_seed
from tunescope.stats.intervals import bootstrap_means
from tunescope.stats.multiboot import LEAST_FOR_METHODS, few_seeds_note, multi_bootstrap
from tunescope.stats.tests import benjamini_hochberg, sign_flip_p
from tunescope.study.context import Context
from tunescope.study.summarise import LOSS
from tunescope.study.summary_stages import COMPARISON
from tunescope.summaries import lead, oracle, random_sentences, score_summaries
from tunescope.summaries.metrics import METRICS, MetricOptions, summarise_scores

RESAMPLES = 2000
COMPARED = ("rouge1", "rouge2", "rougeL", "rougeLsum", "meteor", LOSS)
ABOUT = {
    "lead-3": "the first three sentences of the article",
    "random-3": "three sentences of the article, drawn by row id",
    "oracle": "the article's sentences that overlap most with the reference, at most three, picked greedily: it has "
    "seen the reference, so it says about what copying sentences could reach",
}


def make_baselines(context: Context) -> None:
    """Write and measure summaries that need no model, on the rows that the arms write for."""
    study = context.study
    assert study.summarise is not None
    seed = study.seeds[0]
    measure = MetricOptions(meteor=study.summarise.meteor, seed=derive_seed(seed, "metrics"))
    with whole_folder(context.path / "baselines") as folder:
        for name, about in ABOUT.items():
            tables, records = [], []
            for split in study.summarise.splits:
                pairs = Pairs.of(context.rows(), split)
                texts = [
                    _baseline(name, row, article, summary, seed)
                    for row, article, summary in zip(
                        pairs.row_ids, pairs.articles, pairs.summaries, strict=True
                    )
                ]
                scores = score_summaries(texts, pairs.summaries, pairs.articles, pairs.row_ids, measure)
                measured = summarise_scores(scores, measure)
                records += [{"split": split, "class": None, **record} for record in measured]
                tables.append(
                    scores.with_columns(
                        pl.lit(split).alias("split"), pl.Series("generated", texts, pl.String)
                    )
                )
            (folder / name).mkdir()
            with atomic_path(folder / name / "predictions.parquet") as temporary:
                pl.concat(tables).write_parquet(temporary)
            write_json(folder / name / "metrics.json", {"baseline": name, "about": about, "records": records})


def _baseline(name: str, row_id: str, article: str, summary: str, seed: int) -> str:
    if name == "lead-3":
        return lead(article)
    return random_sentences(article, row_id, seed) if name == "random-3" else oracle(article, summary)


def make_comparison(context: Context) -> None:
    """Compare arms with one another and with lead-3 on the same rows; over seeds, a row's scores are averaged."""
    study = context.study
    records = []
    for split in dict.fromkeys(split for arm in study.arms for split in study.summarise_of(arm).splits):
        scores = {arm.name: _scores(context, arm.name, split) for arm in study.arms}
        scores = {name: table for name, table in scores.items() if table is not None}
        path = context.path / "baselines" / "lead-3" / "predictions.parquet"
        beside = pl.read_parquet(path).filter(pl.col("split") == split) if path.is_file() else None
        pairs = list(combinations(scores, 2))
        tables: dict[str, Any] = dict(scores)
        if beside is not None and beside.height:
            tables["lead-3"] = beside
            pairs += [(name, "lead-3") for name in scores]
        for first, second in pairs:
            records += _compared(first, second, tables, split, derive_seed(study.seeds[0], "comparison"))
    known = [index for index, record in enumerate(records) if record["p"] is not None]
    for index, q in zip(known, benjamini_hochberg(np.array([records[i]["p"] for i in known])), strict=True):
        records[index]["q"] = float(q)
    about = (
        "Differences of means over the same rows (first minus second; seeds averaged per row first), bootstrap "
        "intervals over rows, sign-flip tests, p corrected over all comparisons (Benjamini-Hochberg)."
    )
    arms = _over_seeds(context) if len(study.seeds) >= LEAST_FOR_METHODS else []
    write_json(context.path / COMPARISON, {"about": about, "records": records, "arms": arms})


def _over_seeds(context: Context) -> list[dict[str, Any]]:
    """Return every arm's means with intervals of seeds and rows, on the rows where every seed's summary has a value."""
    study = context.study
    found = []
    for arm in study.arms:
        tables = _tables(context, arm.name)
        for split in study.summarise_of(arm).splits:
            own = [table.filter(pl.col("split") == split).sort("row_id") for table in tables]
            for metric in (*METRICS, LOSS):
                each = np.array(
                    [table[metric].cast(pl.Float64).fill_null(np.nan).to_numpy() for table in own]
                )
                each = each[:, np.isfinite(each).all(axis=0)]
                if each.shape[1] < 2:
                    continue
                generator = np.random.default_rng(derive_seed(study.seeds[0], "comparison"))
                n = each.shape[1]
                weights = generator.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).T / n
                interval = multi_bootstrap(each.mean(axis=1), each @ weights, n).interval
                low, high = (None if end is None else max(end, 0.0) for end in (interval.low, interval.high))
                found.append({
                    "arm": arm.name, "split": split, "metric": metric, **interval.record(), "low": low, "high": high,
                    "note": interval.note or few_seeds_note(len(own)),
                })  # fmt: skip
    return found


def _tables(context: Context, arm: str) -> list[pl.DataFrame]:
    """Return what an arm wrote and how it scored, one table a seed."""
    return [
        pl.read_parquet(context.path / "arms" / arm / f"seed-{seed}" / "predictions.parquet")
        for seed in context.study.seeds
    ]


def _scores(context: Context, arm: str, split: str) -> pl.DataFrame | None:
    """Return a row's scores, averaged over seeds."""
    own = pl.concat(_tables(context, arm)).filter(pl.col("split") == split)
    if not own.height:
        return None
    return own.group_by("row_id", maintain_order=True).agg(pl.col(list(COMPARED)).mean())


def _compared(first: str, second: str, tables: dict[str, Any], split: str, seed: int) -> list[dict[str, Any]]:
    joined = tables[first].join(tables[second], on="row_id", suffix="_second", maintain_order="left")
    found = []
    for metric in COMPARED:
        if f"{metric}_second" not in joined.columns:
            continue  # a baseline has no loss
        change = (joined[metric] - joined[f"{metric}_second"]).fill_nan(None).drop_nulls().to_numpy()
        interval = bootstrap_means(change[:, None], seed=seed)[0]
        p = float(sign_flip_p(change, seed=seed)) if len(change) else None
        found.append(
            {
                "split": split,
                "metric": metric,
                "first": first,
                "second": second,
                **interval.record(),
                "p": p,
                "q": None,
            }
        )
    return found
