"""Ablation of heads, sublayers and what else is named: what the model's answer loses without it.

Effects are changes of the logit margin ``z_y - logsumexp(z_c, c != y)`` of the true class y, and of its probability,
per example and paired, so that intervals and tests are paired too. Zero ablation takes a component away; mean
ablation replaces it by its mean over real tokens and so keeps what it adds to every input alike; resampling puts
another example's value there; noise adds Gaussian noise of the component's own spread.

Formula:
    ``effect = margin without the component - margin``, mean over rows, with margin ``z_y - logsumexp(z_c, c !=
    y)``.

Range:
    Logits, any sign: below 0 the component helps the true class, above 0 it hurts.

How to read:
    Believe an effect beyond the random direction of equal norm and beyond the base's own component. The
    strongest is picked on one half of the rows and shown on the other.

Cost:
    Components times rows, started in the component's own block; heads of a block ride together. The dearest
    lens on large models: ``screen`` ranks first.

Limits:
    Says what breaks without a part, not what the part does: others may compensate. Zero puts the model where it
    has never been; the mean stays nearer to real states.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunescope.data.tokens import Tokens
from tunescope.lenses.ablation import table as tables
from tunescope.lenses.ablation.components import KIND_SITES, Scope, Variant, every
from tunescope.lenses.ablation.directions import directions_of
from tunescope.lenses.ablation.effects import Effects, empty_effects, fill
from tunescope.lenses.ablation.options import AblationOptions, Removal, planned, removal_variants
from tunescope.lenses.ablation.published import published_records, require_class
from tunescope.lenses.ablation.replacement import needs_statistics, statistics
from tunescope.lenses.ablation.room import require_room
from tunescope.lenses.ablation.samples import sample_rows
from tunescope.lenses.ablation.screen import screen
from tunescope.lenses.ablation.sweep import Sweep
from tunescope.lenses.ablation.sweep_encoder_decoder import StackSweep
from tunescope.lenses.ablation.sweep_store import forget, sweep_store
from tunescope.lenses.subject import LensRows, Subject, clusters
from tunescope.models.classifier import Classifier
from tunescope.progress import Task
from tunescope.stats.results import result_table

WHAT = (
    "Change of the true class's logit margin (and probability) when one head, attention sublayer or MLP sublayer is "
    "replaced by zero or by its mean; paired per example, base under its base head beside tuned."
)


def sweep_effects(
    model: Classifier, tokens: Tokens, reference: Tokens, options: AblationOptions, seed: int, task: Task,
    chosen: Sequence[Variant] | None = None, unfinished: Path | None = None,
) -> Effects:  # fmt: skip
    """Run the sweep of one model and return paired effects, in the order of ``tokens``.

    Args:
        model: The classifier.
        tokens: Labelled rows.
        reference: Rows for means and donors.
        options: Of the lens.
        seed: Seeds random directions, noise and donors.
        task: Is told of every row.
        chosen: The changes; None for all that the options ask for.
        unfinished: Folder in which finished batches are kept, so that the same sweep goes on after an interruption.

    Raises:
        LensError: A component is outside the model, or the sweep would not fit ``memory_gb``.
    """
    wanted = planned(model, options) if chosen is None else list(chosen)
    require_room(model, tokens, wanted, options.memory_gb)
    was_training = model.training
    model.eval()
    try:
        known = statistics(model, reference, needs_statistics(wanted), "position_mean" in options.edits, task)
        names = {name: directions_of(one, model, reference) for name, one in options.directions.items()}
        kind = StackSweep if model.is_encoder_decoder else Sweep
        sweep: Sweep | StackSweep = kind(model, wanted, known, seed, options.tokens_at_once, reference, names)
        effects = empty_effects(wanted, len(tokens), len(model.labels.names))
        kept = sweep_store(unfinished, model, wanted, (tokens, reference), options, seed)
        for index, clean, changed in sweep.run(tokens, task, kept):
            fill(effects, index, clean, changed, tokens.labels[index])
    finally:
        model.train(was_training)
    return effects


def run(subject: Subject, options: AblationOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sweep base and tuned on the same rows; return the table of effects and the effects per example.

    The base is left out where its base head is ``none``. Tuned against base is the paired difference of effects of
    the same component.

    Raises:
        LensError: There are no labelled rows, a component is outside the model, or a value is not finite.
    """
    if options.as_published is not None:
        require_class(subject, options.as_published)
    tokens, note = sample_rows(subject, options.rows, options.sample)
    if note is not None and note not in subject.notes:
        subject.notes.append(note)
    reference = subject.draw(LensRows(split="train", n=options.reference_rows), labelled=False)
    chosen, screen_records = screen(subject, options, tokens, reference)
    effects = _swept(subject, options, tokens, reference, chosen)
    tuned = effects["tuned"]
    records = screen_records(tuned.variants, tuned.margin_change, clusters(tokens))
    records += _all_records(subject, options, effects, tokens)
    examples = [
        tables.examples(subject, which, found, tokens, options.metrics) for which, found in effects.items()
    ]
    if options.split_half:
        records += tables.split_half(subject, effects, tokens)
    if options.as_published is not None:
        records += published_records(subject, effects["tuned"], tokens, options.as_published)
    if options.removal is not None:
        records += _removal_records(subject, options, effects["tuned"], tokens, reference)
    if subject.unfinished is not None:
        forget(subject.unfinished)
    return result_table(records), pl.concat(examples)


def _swept(
    subject: Subject,
    options: AblationOptions,
    tokens: Tokens,
    reference: Tokens,
    chosen: Sequence[Variant] | None,
) -> dict[str, Effects]:
    """Return the effects of the base (where it has logits) and the tuned model."""
    models = subject.models_with_logits()
    total = len(models) * (len(tokens) + len(reference))
    what = "ablating heads and sublayers" if chosen is None else "removing one after another"
    with subject.progress.task(f"{subject.arm}: {what}", total, "rows") as task:
        return {
            name: sweep_effects(
                model, tokens, reference, options, subject.sampling_seed, task, chosen, subject.unfinished
            )
            for name, model in models
        }


def _all_records(
    subject: Subject, options: AblationOptions, effects: dict[str, Effects], tokens: Tokens
) -> list[dict[str, Any]]:
    pairs_of = dict(effects)
    if len(effects) == 2:
        pairs_of["tuned_minus_base"] = effects["tuned"].minus(effects["base"])
    summary = tables.Summary(subject, options.metrics, options.correction)
    return [record for which, found in pairs_of.items() for record in summary.records(which, found, tokens)]


def _removal_records(
    subject: Subject, options: AblationOptions, effects: Effects, tokens: Tokens, reference: Tokens
) -> list[dict[str, Any]]:
    """Rank components on one half of the rows and return the removal curves on the other."""
    assert options.removal is not None
    first, second = tables.halves(tokens, subject.sampling_seed)
    singles = every(subject.tuned, (options.removal.of,), options.edits[0])
    column = {(one.name, one.edit): i for i, one in enumerate(effects.variants) if one.control == "none"}
    if all((one.name, one.edit) in column for one in singles):  # neither left out nor screened out
        strength = np.array(
            [effects.margin_change[first, column[one.name, one.edit]].mean() for one in singles]
        )
    else:
        ranked = _swept(subject, options, tokens.take(first), reference, singles)["tuned"]
        strength = ranked.margin_change.mean(0)
    variants = removal_variants(options, singles, strength, subject.sampling_seed)
    shown = tokens.take(second)
    return _all_records(subject, options, _swept(subject, options, shown, reference, variants), shown)


__all__ = ["KIND_SITES", "AblationOptions", "Effects", "Removal", "Scope", "planned", "run", "sweep_effects"]
