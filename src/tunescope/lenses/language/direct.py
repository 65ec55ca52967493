"""Direct attribution in a language model: which part wrote the logit of the true token.

As for classifiers (:mod:`tunescope.capture.direct`), with the norms' scales fixed at every token; a part's share is
that in the true token's logit over the mean of all other tokens', averaged over the tokens that a row has to predict. A
masked model's head holds a nonlinearity and a norm of its own; both are held fixed too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from tunescope.capture.direct import (
    NEARLY_ZERO,
    Direct,
    Path,
    Pooled,
    keeper,
    path_sites,
    require_finite,
)
from tunescope.capture.direct_parts import components_of
from tunescope.capture.hooks import reading
from tunescope.capture.sites import Site
from tunescope.data.batches import batches
from tunescope.errors import LensError, SiteError
from tunescope.lenses.language.language import asked, language
from tunescope.lenses.logits.attribution_direct import (
    MOST_TOKENS,
    TOLERANCE,
    DirectOptions,
    Shares,
    difference_records,
    examples,
    level_records,
    tested_records,
)
from tunescope.lenses.subject import Subject, Which, clusters
from tunescope.models.classifier import right_padded
from tunescope.models.language import LanguageModel
from tunescope.models.questions import NOTHING, Questions
from tunescope.progress import Task
from tunescope.seeds import derive_seed
from tunescope.stats.intervals import bootstrap_means
from tunescope.stats.results import result_table

Record = dict[str, Any]


@torch.no_grad()
def direct_tokens(
    model: LanguageModel,
    inputs: dict[str, torch.Tensor],
    targets: torch.Tensor,
    row_ids: Sequence[str],
    seed: int,
) -> Direct:
    """Run one batch and split the true tokens' contrasts into what every part wrote into them directly.

    Args:
        model: The model, in evaluation mode.
        inputs: Token ids and mask of B rows, padded.
        targets: What is asked, int64 [B, T]; -1 where nothing is.
        row_ids: Their ids.
        seed: Seeds the random directions.

    Returns:
        Shares with C = 1: the mean, over a row's asked tokens, of the true token's logit minus the mean of the others.

    Raises:
        SiteError: An activation is NaN or infinite, or the head is of an unknown form.
    """
    values: dict[Site, torch.Tensor] = {}
    with reading(model, path_sites(model), keeper(values)):
        hidden = model.hidden(**inputs)
    mask = right_padded(inputs["input_ids"], inputs["attention_mask"])[1]
    require_finite(values, mask, row_ids)
    wanted = (targets != NOTHING).to(hidden.device)
    generators = [torch.Generator().manual_seed(derive_seed(seed, "direct", row_id)) for row_id in row_ids]
    slopes, constant, contrast = token_slopes(
        model, hidden[wanted], targets[targets != NOTHING].to(hidden.device)
    )
    weights = wanted.double() / wanted.sum(1, keepdim=True).clamp(min=1)  # [B, T]
    way = torch.zeros(*wanted.shape, 1, model.width, dtype=torch.float64, device=hidden.device)
    way[wanted] = (slopes * weights[wanted][:, None])[:, None]
    places = torch.arange(wanted.shape[1], device=hidden.device).expand(wanted.shape)
    path = Path(model, Pooled(places, weights), values, generators)
    shares, random = path.back(way)

    def averaged(numbers: torch.Tensor) -> torch.Tensor:
        spread = torch.zeros(wanted.shape, dtype=torch.float64, device=hidden.device)
        spread[wanted] = numbers
        return (spread * weights).sum(1, keepdim=True)  # [B, 1]

    shares.append(averaged(constant) + path.constant)
    return Direct(
        components_of(model), torch.stack(shares, dim=1), torch.stack(random, dim=1), averaged(contrast)
    )


def token_slopes(
    model: LanguageModel, states: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return slopes [A, D] and constants [A] of the true tokens' contrasts in states [A, D], and the contrasts [A]."""
    seen: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
    linear = [one for one in model.head.modules() if isinstance(one, nn.Linear)]
    norms = [one for one in model.head.modules() if isinstance(one, nn.LayerNorm)]
    if (len(linear), len(norms)) not in ((1, 0), (2, 1)):
        raise SiteError(
            f"{model.family.name}: the language-model head has {len(linear)} linear layers and {len(norms)} layer "
            "norms; only one linear layer, or two with a nonlinearity and a norm between, can be split into shares."
        )
    with contextlib.ExitStack() as stack:
        for module in [*linear, *norms]:
            hook = module.register_forward_hook(lambda m, given, out: seen.__setitem__(m, (given[0], out)))
            stack.callback(hook.remove)
        logits: torch.Tensor = model.head(states)
    size = logits.shape[-1]

    def contrasted(rows: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        return (rows.double() * size - total.double()) / (size - 1)

    last = linear[-1]
    slopes = contrasted(last.weight[targets], last.weight.sum(0))
    bias = last.bias
    constant = slopes.new_zeros(len(slopes)) if bias is None else contrasted(bias[targets], bias.sum())
    own = logits.gather(-1, targets[:, None])[:, 0]
    contrast = contrasted(own, logits.double().sum(-1))
    if norms:
        given = seen[norms[0]][0].double()
        before = seen[linear[0]][1].double()
        constant = constant + slopes @ norms[0].bias.double()
        slopes = (
            slopes
            * norms[0].weight.double()
            / torch.sqrt(given.var(-1, unbiased=False) + norms[0].eps)[:, None]
        )
        slopes = slopes - slopes.mean(-1, keepdim=True)
        small = before.abs() < NEARLY_ZERO
        slopes = slopes * torch.where(small, torch.ones_like(before), given / torch.where(small, 1.0, before))
        constant = constant + slopes @ linear[0].bias.double()
        slopes = slopes @ linear[0].weight.double()
    return slopes, constant, contrast


def read_token_shares(model: LanguageModel, rows: Questions, seed: int, task: Task) -> Shares:
    """Split the true tokens' contrasts of every row.

    Raises:
        LensError: The shares do not sum to the contrasts.
        SiteError: An activation is NaN, or the head cannot be split.
    """
    found = Shares(components_of(model), len(rows), 1)
    for batch in batches(rows.tokens, max_tokens=MOST_TOKENS):
        moved = batch.to(model.device).inputs()
        targets = rows.batch(batch.index, moved["input_ids"].shape[1])
        split = direct_tokens(model, moved, targets, batch.row_ids, seed)
        found.shares[batch.index] = split.shares.cpu().numpy()
        found.random[batch.index] = split.random.cpu().numpy()
        found.logits[batch.index] = split.logits.cpu().numpy()
        task.advance(len(batch))
    if found.gap > TOLERANCE * max(1.0, float(np.abs(found.logits).max())):
        raise LensError(
            f"{model.family.name}: the shares of its parts do not sum to the true tokens' logits (off by "
            f"{found.gap:.2g}), so they say nothing about who wrote them.",
            hint="The family's table does not describe this model; see docs/adding-an-architecture.md.",
        )
    return found


def run(subject: Subject, options: DirectOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split the true tokens' logits in both models.

    Raises:
        LensError: The shares do not sum to the logits.
        SiteError: An activation is NaN, or the head cannot be split.
    """
    rows = asked(subject, subject.draw(options.rows, labelled=False), "attribution_direct")
    if options.tokens == "last":
        rows = replace(rows, targets=[_last_alone(one) for one in rows.targets])
    _say(subject, options)
    models = subject.models_with_logits()
    read: dict[Which, Shares] = {}
    with subject.progress.task(f"{subject.arm}: direct attribution", len(rows) * len(models), "rows") as task:
        for which, model in models:
            read[which] = read_token_shares(language(model), rows, subject.sampling_seed, task)
    groups = clusters(rows.rows)
    records: list[Record] = []
    contrasts = {which: found.shares[:, :, 0] for which, found in read.items()}
    for which, found in read.items():
        about = {"arm": subject.arm, "seed": subject.seed, "model": which}
        about["base_head"] = subject.base_head if which == "base" else None
        random = bootstrap_means(found.random[:, :, 0], groups, seed=subject.sampling_seed)
        made: list[Record] = [
            {"metric": "sum_gap", "value": found.gap, "n": len(rows), "control": "none"},
            *tested_records(found.components, contrasts[which], groups, subject),
            *(
                {**one, "control": "random"}
                for one in level_records(found.components[:-1], random, "contrast")
            ),
        ]
        records += [{**about, "class": None, **record} for record in made]
    if len(read) == 2:
        made = difference_records(read["tuned"].components, contrasts, groups, subject)
        records += [{"class": None, **one} for one in made]
    return result_table(records), examples(subject, rows.rows, read, contrasts)


def _last_alone(targets: np.ndarray) -> np.ndarray:
    """Keep the last asked token of a row alone."""
    kept = np.full_like(targets, NOTHING)
    last = np.flatnonzero(targets != NOTHING)[-1]
    kept[last] = targets[last]
    return kept


def _say(subject: Subject, options: DirectOptions) -> None:
    where = (
        "the last token to predict"
        if options.tokens == "last"
        else "every token to predict, averaged over a row"
    )
    note = (
        f"attribution_direct: shares in the true token's logit over the mean of all other tokens', at {where}; what a "
        "part does by changing what later blocks compute is not in them."
    )
    if note not in subject.notes:
        subject.notes.append(note)
