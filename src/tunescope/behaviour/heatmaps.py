"""States of the pairs that move most, token by token: original beside rewritten, aligned, with loud dimensions."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

from tunescope.capture.hooks import read
from tunescope.capture.sites import Site
from tunescope.config.behaviour import InsideConfig
from tunescope.data.batches import collate
from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.data.tokens import tokenize
from tunescope.errors import LensError
from tunescope.models.classifier import Classifier

LOUD = 6.0  # a dimension is an outlier where some token has this many times the median dimension's root mean square


def heatmap_states(
    examples: pl.DataFrame, base: Classifier | None, tuned: Classifier, options: InsideConfig
) -> pl.DataFrame:
    """Return the states at a site of both texts of the pairs that move the tuned model most, in both models.

    Tokens are aligned by their ids; a place that one of the texts has no token at stays empty there, and the
    difference is undefined. Outlier dimensions are those that reach, at some token of these texts, six times the root
    mean square of the median dimension (Dettmers et al. 2022 call values above 6 outliers).

    Args:
        examples: Ranked pairs of one training, by suite.
        base: The model before tuning; None where there is none.
        tuned: The model after tuning.
        options: How many pairs, and which site.

    Returns:
        One row a place: arm, seed, suite, pair_id, model, site, layer, place, token, token_rewritten, original and
        rewritten (lists of D numbers, or null), outliers (list of dimensions).

    Raises:
        LensError: The site has no layer, or the models have fewer layers.
        SiteError: There is no such site.
    """
    site = Site(options.site, options.layer)
    if options.layer >= tuned.n_layers:
        raise LensError(
            f"behaviour.inside.layer is {options.layer}, and the model has the blocks 0 to {tuned.n_layers - 1}.",
            hint="Name a layer that the model has.",
        )
    chosen = examples.filter(pl.col("rewritten").is_not_null() & (pl.col("original") != pl.col("rewritten")))
    chosen = chosen.group_by("suite", maintain_order=True).head(options.pairs)
    records: list[dict[str, Any]] = []
    for name, model in (("base", base), ("tuned", tuned)):
        if model is None:
            continue
        seen = []
        pairs = []
        for row in chosen.iter_rows(named=True):
            pair = [_states(model, row[text], site) for text in ("original", "rewritten")]
            pairs.append((row, pair))
            seen += [states for _, _, states in pair]
        if not seen:
            continue
        outliers = outlier_dimensions(np.concatenate(seen))
        for row, (first, second) in pairs:
            axes = {key: row[key] for key in ("arm", "seed", "suite", "pair_id")}
            axes |= {"model": name, "site": site.name, "layer": site.layer}
            for place, (one, other) in enumerate(align(first[0], second[0])):
                records.append(
                    {
                        **axes, "place": place,
                        "token": None if one is None else first[1][one],
                        "token_rewritten": None if other is None else second[1][other],
                        "original": None if one is None else first[2][one].tolist(),
                        "rewritten": None if other is None else second[2][other].tolist(),
                        "outliers": outliers,
                    }
                )  # fmt: skip
    return pl.DataFrame(records, schema=SCHEMA)


SCHEMA: dict[str, Any] = {
    "arm": pl.String, "seed": pl.Int64, "suite": pl.String, "pair_id": pl.String, "model": pl.String,
    "site": pl.String, "layer": pl.Int64, "place": pl.Int64, "token": pl.String, "token_rewritten": pl.String,
    "original": pl.List(pl.Float32), "rewritten": pl.List(pl.Float32), "outliers": pl.List(pl.Int64),
}  # fmt: skip


def outlier_dimensions(states: np.ndarray) -> list[int]:
    """Return the dimensions of `[N, D]` states that are far louder than the median one, ascending."""
    values = np.abs(states.astype(np.float64))
    usual = float(np.median(np.sqrt((values**2).mean(axis=0))))
    return [int(place) for place in np.flatnonzero(values.max(axis=0) >= LOUD * usual)]


def align(first: Sequence[int], second: Sequence[int]) -> list[tuple[int | None, int | None]]:
    """Align two sequences of token ids: equal runs on one another, exchanged runs place by place, the rest alone."""
    found: list[tuple[int | None, int | None]] = []
    matcher = difflib.SequenceMatcher(None, list(first), list(second), autojunk=False)
    for _, a, b, c, d in matcher.get_opcodes():
        for offset in range(max(b - a, d - c)):
            found.append((a + offset if a + offset < b else None, c + offset if c + offset < d else None))
    return found


def _states(model: Classifier, text: str, site: Site) -> tuple[list[int], list[str], np.ndarray]:
    """Return token ids, tokens and states `[T, D]` of one text."""
    frame = pl.DataFrame(
        {"row_id": ["0"], "position": [0], "split": ["test"], "text": [text],
         "label": pl.Series([None], dtype=pl.Int64)}
    )  # fmt: skip
    rows = Rows(frame, LabelMap(tuple(model.labels.names)), {})
    tokens = tokenize(rows, model.tokenizer, model.max_length).first_windows()
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            state = read(model, [site], collate(tokens, np.array([0])).to(model.device).inputs())[site]
    finally:
        model.train(was_training)
    ids = tokens.input_ids[0].tolist()
    if state.ndim != 3:
        raise LensError(
            f"{site} has no states of tokens by dimension.",
            hint="Use resid_pre, resid_post, attn_out or mlp_out.",
        )
    names = [str(name) for name in model.tokenizer.convert_ids_to_tokens(ids)]
    return ids, names, state[0, : len(ids)].float().cpu().numpy()
