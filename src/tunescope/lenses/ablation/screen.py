"""Attribution patching as a screen before an exact ablation: it ranks, and never reports.

The first-order estimate of a change is the gradient of the margin at a component's output times what the edit adds
there (Nanda 2023). Of the corrections of AtP* (Kramár et al. 2024, arXiv 2403.00745) GradDrop is made: the backward
pass is repeated with the gradient through each block's sublayers dropped in turn, and the sizes are averaged, so that
a direct and an indirect effect that cancel do not hide a component. Their other correction, QK fix, replaces the
gradient through the softmax at *query and key* nodes; the components here are what attention and MLP write, none is a
query or a key, and it does not apply to them.

A gradient is not an effect: only components that were run exactly stand in the table.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from tunescope.capture.hooks import attach
from tunescope.capture.patch_stacks import store_stacks
from tunescope.capture.sites import Site, first_tensor, locate
from tunescope.capture.stored import store
from tunescope.data.tokens import Tokens
from tunescope.lenses.ablation.components import Variant
from tunescope.lenses.ablation.directions import directions_of
from tunescope.lenses.ablation.options import AblationOptions, planned
from tunescope.lenses.ablation.replacement import needs_statistics, statistics, stored_site
from tunescope.lenses.ablation.sweep import Sweep, equal_length_batches, reads_neurons
from tunescope.lenses.ablation.sweep_encoder_decoder import StackSweep
from tunescope.lenses.subject import Subject
from tunescope.models.classifier import Classifier
from tunescope.models.encoder_decoder import StackName
from tunescope.progress import Task
from tunescope.stats.intervals import bootstrap_means, group_sums, jackknife

OUTPUTS = {
    "head_out": "attn_out",
    "cross_head_out": "cross_attn_out",
    "mlp_neurons": "mlp_out",
}  # where a part's change lands on the residual path
SUBLAYERS = ("attn_out", "cross_attn_out", "mlp_out")
GROUPS = 20  # of the delete-a-group jackknife
MODEL = "tuned"
# What the gradients are of: from the positions of a batch's rows and the batch's inputs, one number summed over rows.
Score = Callable[[np.ndarray, dict[str, torch.Tensor]], torch.Tensor]
Block = tuple[StackName | None, int]
Records = list[dict[str, Any]]
Checked = Callable[[Sequence[Variant], np.ndarray, np.ndarray], Records]
VERIFIED_ALONE = "over the components that were run exactly alone"


def screened(variants: Sequence[Variant]) -> list[Variant]:
    """Return the variants that a screen ranks: single components, without controls, of the first edit."""
    singles = [one for one in variants if one.scope == "one" and one.control == "none"]
    return [one for one in singles if one.edit == singles[0].edit]


def estimates(
    sweep: Sweep | StackSweep, tokens: Tokens, task: Task, score: Score | None = None
) -> np.ndarray:
    """Return first-order estimates of the change of the true class's margin, or of another score, [1 + L, N, V].

    The first is plain attribution patching; the others drop the gradient through one block's sublayers each, of an
    encoder-decoder the encoder's blocks first.
    """
    model, variants = sweep.model, sweep.variants
    score = score or margins_of(model, tokens.labels)
    found = np.empty((1 + len(_blocks(model)), len(tokens), len(variants)), dtype=np.float32)
    for batch in equal_length_batches(tokens, sweep.tokens_at_once):
        inputs = batch.to(model.device).inputs()
        with torch.inference_mode():
            if isinstance(sweep, StackSweep):
                stored: Any = store_stacks(model, inputs, reads_neurons(variants))
                replacer = sweep.replacer(tokens, batch)
            else:
                stored = store(model, inputs, reads_neurons(variants))
                replacer = sweep.replacer(tokens, batch, stored)
        places = torch.arange(stored.length, device=model.device)
        gradients = _gradients(model, functools.partial(score, batch.index, inputs))
        for column, variant in enumerate(variants):
            parts = []
            for part in variant.parts:
                with torch.inference_mode():
                    delta = replacer.delta(variant, part, stored.at(stored_site(part)), places)
                site = replace(part.site, name=OUTPUTS.get(part.site.name, part.site.name))
                parts.append(torch.stack([(one[site] * delta).sum((1, 2)) for one in gradients]))
            found[:, batch.index, column] = torch.stack(parts).sum(0).cpu().numpy()
        task.advance(len(batch.index))
    return found


def margins_of(model: Classifier, every: np.ndarray) -> Score:
    """Return what sums the logit margin of the true class over a batch's rows."""

    def score(index: np.ndarray, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = model(**inputs)
        labels = torch.as_tensor(every[index], device=model.device)[:, None]
        others = logits.scatter(1, labels, float("-inf"))
        return (logits.gather(1, labels)[:, 0] - others.logsumexp(1)).sum()

    return score


def _gradients(model: Classifier, score: Callable[[], torch.Tensor]) -> list[dict[Site, torch.Tensor]]:
    """Return the score's gradient at every output on the residual path: whole, and with each block dropped."""
    gate = dict.fromkeys(_blocks(model), 1.0)
    with torch.enable_grad(), _watched(model, gate) as values:
        total = score()
        sites = list(values)
        found = []
        for dropped in (None, *_blocks(model)):
            gate.update({block: 0.0 if block == dropped else 1.0 for block in gate})
            grads = torch.autograd.grad(total, [values[site] for site in sites], retain_graph=True)
            found.append({
                site: torch.zeros_like(grad) if _dropped(site, dropped) else grad
                for site, grad in zip(sites, grads, strict=True)
            })  # fmt: skip
    return found


def _blocks(model: Classifier) -> list[Block]:
    """Return every block of a model by its stack (None where there is one) and number."""
    return [(stack.name, layer) for stack in model.stacks for layer in range(stack.n_layers)]


def _dropped(site: Site, block: Block | None) -> bool:
    """Whether a site is a sublayer's output of the block whose gradient is dropped."""
    return (site.stack, site.layer) == block and site.name in SUBLAYERS


@contextlib.contextmanager
def _watched(model: Classifier, gate: dict[Block, float]) -> Iterator[dict[Site, torch.Tensor]]:
    """Keep the outputs on the residual path, and let each block's gate scale the gradient through its sublayers."""
    values: dict[Site, torch.Tensor] = {}

    def embeddings(site: Site, value: Any) -> torch.Tensor:
        values[site] = first_tensor(value, site).detach().requires_grad_()
        return values[site]

    def keep(site: Site, gated: bool, value: Any) -> None:
        tensor = first_tensor(value, site)
        if gated:
            assert site.layer is not None
            tensor.register_hook(lambda grad, block=(site.stack, site.layer): grad * gate[block])
        values[site] = tensor

    with contextlib.ExitStack() as stack:
        for one in model.stacks:
            first = Site("embeddings", stack=one.name)
            stack.callback(attach(locate(model, first), functools.partial(embeddings, first)).remove)
        for name, layer in _blocks(model):
            for kind in (
                "attn_out",
                *(["cross_attn_out"] if name == "decoder" else []),
                "mlp_out",
                "resid_post",
            ):
                site = Site(kind, layer, name)
                hook = attach(
                    locate(model, site),
                    lambda value, site=site: keep(site, site.name != "resid_post", value),
                )
                stack.callback(hook.remove)
        yield values


def scores(found: np.ndarray) -> np.ndarray:
    """Return what components are ranked by, [V]: the mean over dropped blocks of the size of the mean over rows.

    The component's own block gives nothing and is left out of the mean by its divisor, as in the paper: L - 1.
    """
    dropped = np.abs(found[1:].mean(1, dtype=np.float64))
    return np.asarray(dropped.sum(0) / max(1, len(dropped) - 1))


def kept_names(variants: Sequence[Variant], ranks: np.ndarray, verify: int) -> list[str]:
    """Return the names of the components to be run exactly, the best first."""
    return [variants[index].name for index in np.argsort(-ranks, kind="stable")[:verify]]


def quality(
    found: np.ndarray, exact: np.ndarray, variants: Sequence[Variant], verify: int, groups: np.ndarray
) -> list[dict[str, Any]]:
    """Say how a screen ranked: its rank correlation with exact effects, and the largest effect that it missed.

    Args:
        found: What :func:`estimates` gave, [1 + L, N, V].
        exact: Exact changes of the margin, [N, V].
        variants: The V components.
        verify: How many the screen passes on.
        groups: A number a row; equal texts share one.

    Returns:
        Records: ``screen_rank_correlation`` of sizes (jackknife interval over rows) for AtP with GradDrop and for
        plain AtP; ``screen_worst_miss``, the exact effect of the strongest component that was not passed on (with
        its interval), or 0 where nothing was missed; ``screen_worst_miss_rank``, its rank among exact effects.
    """
    records = []
    for by, estimate in (
        ("graddrop", scores),
        ("plain", lambda part: np.abs(part[0].mean(0, dtype=np.float64))),
    ):
        value, low, high = _agreement(found, exact, estimate, groups)
        records.append(
            {"metric": "screen_rank_correlation", "value": value, "low": low, "high": high, "by": by}
        )
    size = np.abs(exact.mean(0))
    best = kept_names(variants, scores(found), verify)
    missed = [index for index, one in enumerate(variants) if one.name not in best]
    worst = max(missed, key=lambda index: float(size[index]), default=None)
    if worst is not None:
        (interval,) = bootstrap_means(exact[:, [worst]], groups, seed=0)
        rank = 1 + int((size > size[worst]).sum())
        about = {"component": variants[worst].name, "site": variants[worst].site, "by": "graddrop"}
        records += [
            {**about, "metric": "screen_worst_miss", "value": interval.value, "low": interval.low,
             "high": interval.high},
            {**about, "metric": "screen_worst_miss_rank", "value": float(rank)},
        ]  # fmt: skip
    return [{**one, "model": MODEL, "n": len(exact), "step": verify} for one in records]


def _agreement(
    found: np.ndarray, exact: np.ndarray, estimate: Any, groups: np.ndarray
) -> tuple[float, float, float]:
    """Return Spearman's correlation of a score with the size of exact mean effects, and its jackknife interval."""
    _, which = np.unique(groups, return_inverse=True)
    count = min(GROUPS, int(which.max()) + 1)

    def correlation(rows: np.ndarray) -> float:
        one, other = rankdata(estimate(found[:, rows])), rankdata(np.abs(exact[rows].mean(0)))
        return (
            float("nan") if np.ptp(one) == 0 or np.ptp(other) == 0 else float(np.corrcoef(one, other)[0, 1])
        )

    every = np.arange(len(exact))
    value = correlation(every)
    left_out = np.array([correlation(every[which % count != part]) for part in range(count)])
    _, sizes = group_sums(exact[:, :1], which % count)
    low, high = jackknife(np.array([value]), left_out[:, None], sizes)
    return value, max(-1.0, float(low[0])), min(1.0, float(high[0]))


def screen(
    subject: Subject, options: AblationOptions, tokens: Tokens, reference: Tokens, score: Score | None = None
) -> tuple[list[Variant] | None, Checked]:
    """Return which changes are left by a screen (None: all that are asked for), and what says how good it was.

    The second is given what was run exactly afterwards: the changes, their effects [N, V] and the rows' groups [N].

    Args:
        subject: Its tuned model is screened.
        options: Of the lens.
        tokens: The rows, as the model sees them.
        reference: Rows for means.
        score: What the gradients are of; None for the true class's margin.

    Raises:
        LensError: A component is outside the model, or a value is not finite.
    """
    asked = options.screen
    if asked is None:
        return None, lambda *_: []
    wanted = planned(subject.tuned, options)
    ranked = screened(wanted)
    found = _estimated(subject, options, ranked, (tokens, reference), score)
    kept = kept_names(ranked, scores(found), asked.verify)
    dropped = {one.name for one in ranked} - set(kept)
    note = (
        f"ablation: attribution patching (GradDrop) screened {len(ranked)} components of the tuned model; "
        + (
            "all were run exactly to check it."
            if asked.check
            else f"only the {len(kept)} best were run exactly and are shown. What was screened out was not measured."
        )
    )
    if note not in subject.notes:
        subject.notes.append(note)
    chosen = [one for one in wanted if asked.check or one.scope != "one" or one.name not in dropped]

    def checked(variants: Sequence[Variant], effects: np.ndarray, groups: np.ndarray) -> Records:
        place = {(one.name, one.edit): i for i, one in enumerate(variants) if one.control == "none"}
        known = [i for i, one in enumerate(ranked) if (one.name, one.edit) in place]
        exact = effects[:, [place[ranked[i].name, ranked[i].edit] for i in known]]
        told = quality(found[:, :, known], exact, [ranked[i] for i in known], asked.verify, groups)
        about = {"arm": subject.arm, "seed": subject.seed, "base_head": "tuned", "edit": ranked[0].edit}
        return [
            {**one, **about, "control": "none", "note": None if asked.check else VERIFIED_ALONE}
            for one in told
        ]

    return chosen, checked


def _estimated(
    subject: Subject, options: AblationOptions, ranked: Sequence[Variant], rows: tuple[Tokens, Tokens],
    score: Score | None,
) -> np.ndarray:  # fmt: skip
    """Return the tuned model's estimates of some changes, as :func:`estimates` does."""
    model, (tokens, reference) = subject.tuned, rows
    with subject.progress.task(f"{subject.arm}: screening", len(tokens) + len(reference), "rows") as task:
        was_training = model.training
        model.eval()
        try:
            known = statistics(
                model, reference, needs_statistics(ranked), "position_mean" in options.edits, task
            )
            names = {name: directions_of(one, model, reference) for name, one in options.directions.items()}
            kind = StackSweep if model.is_encoder_decoder else Sweep
            sweep: Sweep | StackSweep = kind(
                model, ranked, known, subject.sampling_seed, options.tokens_at_once, reference, names
            )
            return estimates(sweep, tokens, task, score)
        finally:
            model.train(was_training)
