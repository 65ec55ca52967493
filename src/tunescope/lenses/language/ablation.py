"""Ablation of a language model: what its loss per token becomes without a head, a sublayer or what else is named.

An effect is the change of the log-probability of the true tokens, in nats per token, averaged over the tokens that a
row has to predict: minus the change of the loss, so that below 0 means worse, as with margins. The sweep is the exact
one of classifiers (:mod:`tunescope.lenses.ablation.sweep`), with every token of the last block computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunescope.data.tokens import Tokens
from tunescope.lenses.ablation.components import Variant, every
from tunescope.lenses.ablation.directions import directions_of
from tunescope.lenses.ablation.findings import VERBS
from tunescope.lenses.ablation.options import AblationOptions, planned, removal_variants
from tunescope.lenses.ablation.replacement import needs_statistics, statistics
from tunescope.lenses.ablation.room import require_room
from tunescope.lenses.ablation.samples import sample_rows
from tunescope.lenses.ablation.sweep import Sweep
from tunescope.lenses.ablation.sweep_store import forget, sweep_store
from tunescope.lenses.ablation.table import FEWEST_TEXTS, HEADS, SUBLAYERS, Summary, halves
from tunescope.lenses.language.language import asked, language
from tunescope.lenses.language.screen import refuse_class_options, screen_losses, tokens_at_once
from tunescope.lenses.subject import LensRows, Subject, clusters
from tunescope.models.classifier import Classifier
from tunescope.models.questions import Answers, Questions, questions
from tunescope.progress import Task
from tunescope.stats.results import Finding, result_table

METRIC = "log_likelihood_change"
METRICS = (METRIC, "kl", "flip")
TEST = (
    "paired bootstrap, sign-flip permutation; the component was picked on one half of the rows and is shown on the "
    "other, so its size is not inflated by the pick"
)
Record = dict[str, Any]


@dataclass(frozen=True)
class LanguageEffects:
    """What a sweep of one language model gave: N rows, V variants.

    Attributes:
        variants: The V changes.
        values: Per metric `[N, V]`: ``log_likelihood_change`` (nats per token), ``kl`` (from the unchanged to the
            changed distribution, nats per token), ``flip`` (share of tokens whose first answer is another).
        clean: Mean log-probability of the true tokens in the unchanged model, `[N]`.
    """

    variants: list[Variant]
    values: dict[str, np.ndarray]
    clean: np.ndarray

    def minus(self, other: LanguageEffects) -> LanguageEffects:
        """Return the paired difference from the effects of the same changes on another model."""
        values = {name: own - other.values[name] for name, own in self.values.items()}
        return LanguageEffects(self.variants, values, self.clean - other.clean)


def language_effects(
    model: Classifier, rows: Questions, reference: Tokens, options: AblationOptions, seed: int, task: Task,
    chosen: Sequence[Variant] | None = None, unfinished: Path | None = None,
) -> LanguageEffects:  # fmt: skip
    """Run the sweep of one language model; rows as they were asked, reference rows as the model would see them.

    ``chosen`` are the changes; None is all that the options ask for. Finished batches are kept in the folder
    ``unfinished``, so that the same sweep goes on after an interruption.

    Raises:
        LensError: A component is outside the model, the sweep would not fit ``memory_gb``, or an activation is not
            finite (layer and row are named).
    """
    own = language(model)
    wanted = planned(own, options) if chosen is None else list(chosen)
    require_room(own, rows.tokens, wanted, options.memory_gb)
    was_training = own.training
    own.eval()
    try:
        known = statistics(own, reference, needs_statistics(wanted), "position_mean" in options.edits, task)

        def answers(index: np.ndarray, stored: Any) -> Answers:
            targets = rows.batch(index, stored.length)
            return Answers(own, targets, stored.values["resid_post"][-1])

        names = {name: directions_of(one, own, reference) for name, one in options.directions.items()}
        at_once = tokens_at_once(own, options)
        sweep = Sweep(own, wanted, known, seed, at_once, reference, names, answers)
        kept = sweep_store(unfinished, own, wanted, (rows.tokens, rows.rows, reference), options, seed)
        values = {name: np.empty((len(rows), len(wanted))) for name in METRICS}
        clean = np.empty(len(rows))
        for index, before, after in sweep.run(rows.tokens, task, kept):
            clean[index] = before[:, 0].double().numpy()
            change = after.double()  # [V, B, 3]
            values[METRIC][index] = (change[..., 0] - before[None, :, 0].double()).T.numpy()
            values["kl"][index], values["flip"][index] = change[..., 1].T.numpy(), change[..., 2].T.numpy()
    finally:
        own.train(was_training)
    return LanguageEffects(wanted, values, clean)


def run(subject: Subject, options: AblationOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sweep base and tuned on the same tokens; return the table of effects and the effects per example.

    Raises:
        LensError: An option needs classes, a component is outside the model, or a value is not finite.
    """
    refuse_class_options(options)
    drawn, note = sample_rows(subject, options.rows, options.sample, labelled=False)
    if note is not None and note not in subject.notes:
        subject.notes.append(note)
    rows = asked(subject, drawn, "ablation")
    train = subject.draw(LensRows(split="train", n=options.reference_rows), labelled=False)
    reference = questions(language(subject.tuned), train, subject.sampling_seed).tokens
    chosen, screen_records = screen_losses(subject, options, rows, reference)
    effects = _swept(subject, options, rows, reference, chosen)
    summary = Summary(subject, METRICS, options.correction)
    shown, tuned = _with_change(effects), effects["tuned"]
    records = screen_records(tuned.variants, tuned.values[METRIC], clusters(rows.rows))
    records += _records(shown, rows, summary)
    if options.split_half:
        records += _split_half(subject, shown, rows.rows, summary)
    if options.removal is not None:
        records += _removal(subject, options, effects["tuned"], (rows, reference), summary)
    if subject.unfinished is not None:
        forget(subject.unfinished)
    table = result_table([{"class": None, **record} for record in records])
    return table, pl.concat([_examples(subject, which, found, rows) for which, found in effects.items()])


def _swept(
    subject: Subject, options: AblationOptions, rows: Questions, reference: Tokens,
    chosen: Sequence[Variant] | None = None,
) -> dict[str, LanguageEffects]:  # fmt: skip
    models = subject.models_with_logits()
    total = len(models) * (len(rows) + len(reference))
    what = "ablating heads and sublayers" if chosen is None else "removing one after another"
    with subject.progress.task(f"{subject.arm}: {what}", total, "rows") as task:
        return {
            str(which): language_effects(
                model, rows, reference, options, subject.sampling_seed, task, chosen, subject.unfinished
            )
            for which, model in models
        }


def _with_change(effects: dict[str, LanguageEffects]) -> dict[str, LanguageEffects]:
    """Return the effects of base and tuned, and their paired difference."""
    if len(effects) < 2:
        return effects
    return {**effects, "tuned_minus_base": effects["tuned"].minus(effects["base"])}


def _records(shown: dict[str, LanguageEffects], rows: Questions, summary: Summary) -> list[Record]:
    groups = clusters(rows.rows)
    records: list[Record] = []
    for which, found in shown.items():
        index = [
            place for place, one in enumerate(found.variants)
            if one.control == "none" or which != "tuned_minus_base"
        ]  # fmt: skip
        chosen = [found.variants[place] for place in index]
        for metric, values in found.values.items():
            records += summary.of(which, metric, chosen, values[:, index], groups)
    return records


def _removal(
    subject: Subject, options: AblationOptions, effects: LanguageEffects, given: tuple[Questions, Tokens],
    summary: Summary,
) -> list[Record]:  # fmt: skip
    """Rank components by the loss on one half of the rows, and return the removal curves on the other."""
    assert options.removal is not None
    rows, reference = given
    first, second = halves(rows.rows, subject.sampling_seed)
    singles = every(language(subject.tuned), (options.removal.of,), options.edits[0])
    column = {(one.name, one.edit): i for i, one in enumerate(effects.variants) if one.control == "none"}
    if all((one.name, one.edit) in column for one in singles):  # neither left out nor screened out
        index = [column[one.name, one.edit] for one in singles]
        strength = effects.values[METRIC][first][:, index].mean(0)
    else:
        ranked = _swept(subject, options, rows.take(first), reference, singles)["tuned"]
        strength = ranked.values[METRIC].mean(0)
    variants = removal_variants(options, singles, strength, subject.sampling_seed)
    shown = rows.take(second)
    return _records(_with_change(_swept(subject, options, shown, reference, variants)), shown, summary)


def _split_half(
    subject: Subject, shown: dict[str, LanguageEffects], rows: Tokens, summary: Summary
) -> list[Record]:
    """Pick the strongest head and sublayer, and the most changed head, on one half; summarise them on the other."""
    groups = clusters(rows)
    if len(set(groups.tolist())) < FEWEST_TEXTS:
        return []
    first, second = halves(rows, subject.sampling_seed)
    found: list[Record] = []
    tuned = shown["tuned"]
    for edit in dict.fromkeys(variant.edit for variant in tuned.variants):
        means = tuned.values[METRIC][first].mean(0)
        picks = [("strongest head", HEADS, means), ("strongest sublayer", SUBLAYERS, means)]
        if "tuned_minus_base" in shown:
            change = shown["tuned_minus_base"].values[METRIC][first].mean(0)
            picks.append(("most changed head", HEADS, -np.abs(change)))
        for pick, sites, values in picks:
            usable = [
                index for index, one in enumerate(tuned.variants)
                if one.control == "none" and one.scope == "one" and one.edit == edit and one.site in sites
            ]  # fmt: skip
            if usable:
                picked = tuned.variants[min(usable, key=lambda index: float(values[index]))]
                found += [
                    {**record, "pick": pick} for record in _shown(shown, picked, second, groups, summary)
                ]
    return found


def _shown(
    shown: dict[str, LanguageEffects], picked: Variant, rows: np.ndarray, groups: np.ndarray, summary: Summary
) -> list[Record]:
    """Summarise one component, and its random direction, on some rows."""
    found: list[Record] = []
    for which, effects in shown.items():
        for index, one in enumerate(effects.variants):
            same = one.name == picked.name and one.edit == picked.edit and one.scope == "one"
            if not same or one.control == "no_op" or (one.control == "random" and "minus" in which):
                continue
            values = effects.values[METRIC][rows][:, [index]]
            (record,) = summary.of(which, METRIC, [one], values, groups[rows])
            control = "split_half" if one.control == "none" else "split_half_random"
            found.append({**record, "q": None, "control": control})
    return found


def _examples(subject: Subject, which: str, effects: LanguageEffects, rows: Questions) -> pl.DataFrame:
    wanted = [index for index, variant in enumerate(effects.variants) if variant.control == "none"]
    chosen, count = [effects.variants[index] for index in wanted], len(rows)
    size = count * len(chosen)
    return pl.DataFrame({
        "arm": [subject.arm] * size, "seed": pl.Series([subject.seed] * size, dtype=pl.Int64), "model": [which] * size,
        "row_id": [row_id for row_id in rows.rows.row_ids for _ in chosen],
        "site": [variant.site for variant in chosen] * count,
        "layer": pl.Series([variant.layer for variant in chosen] * count, dtype=pl.Int64),
        "head": pl.Series([variant.head for variant in chosen] * count, dtype=pl.Int64),
        "edit": [variant.edit for variant in chosen] * count,
        "component": [variant.name for variant in chosen] * count,
        "log_likelihood": np.repeat(effects.clean, len(chosen)).astype(np.float32),
        **{name: values[:, wanted].astype(np.float32).ravel() for name, values in effects.values.items()},
    })  # fmt: skip


def findings(table: pl.DataFrame, subject: Subject) -> list[Finding]:
    """Say which head and which sublayer the tuned model's loss needs most, and which head's role changed most."""
    mine = table.filter(
        (pl.col("arm") == subject.arm)
        & pl.col("seed").eq_missing(pl.lit(subject.seed))
        & (pl.col("metric") == METRIC)
    )
    if "pick" not in mine.columns or mine.is_empty():
        return []
    edit = mine.filter(pl.col("control") == "none")["edit"].first()
    mine = mine.filter(pl.col("edit") == edit)
    found = [_strongest(mine, pick, subject) for pick in ("strongest head", "strongest sublayer")]
    if not subject.same_trunk:
        found.append(_most_changed(mine, subject))
    return [one for one in found if one is not None]


def _row(mine: pl.DataFrame, pick: str, model: str, control: str = "split_half") -> Record | None:
    rows = mine.filter((pl.col("pick") == pick) & (pl.col("model") == model) & (pl.col("control") == control))
    return None if rows.is_empty() else rows.row(0, named=True)


def _strongest(mine: pl.DataFrame, pick: str, subject: Subject) -> Finding | None:
    best, base = _row(mine, pick, "tuned"), _row(mine, pick, "base")
    random = _row(mine, pick, "tuned", "split_half_random")
    if best is None or best["value"] is None:
        return None
    beyond = random is not None and best["high"] is not None and best["high"] < random["low"]
    clear = bool(beyond and (best["p"] or 1.0) <= 0.05)
    control = f"random direction of equal norm: {_loss(random)}"
    control += "" if base is None else f"; base: {_loss(base)}"
    sentence = (
        f"{VERBS[best['edit']]} {best['component']} changes the tuned model's loss by {_loss(best)} nats per token, "
        f"the most of any {'head' if best['site'] == 'head_out' else 'sublayer'} (picked on one half of the rows, "
        "shown on the other)."
    )
    return _finding(best, sentence, control, clear, subject)


def _most_changed(mine: pl.DataFrame, subject: Subject) -> Finding | None:
    pick = "most changed head"
    most, tuned, base = (_row(mine, pick, model) for model in ("tuned_minus_base", "tuned", "base"))
    if most is None or most["value"] is None:
        return None
    sentence = (
        f"Tuning changed the role of {most['component']} most of all heads: without it the loss changes by "
        f"{_loss(base)} nats per token in the base and by {_loss(tuned)} in the tuned model (difference {_loss(most)}; "
        "picked on one half of the rows, shown on the other)."
    )
    return _finding(most, sentence, "the base's same head", (most["p"] or 1.0) <= 0.05, subject)


def _loss(row: Record | None) -> str:
    """Return a change of the loss: the table holds the change of the log-likelihood, its negative."""
    if row is None or row["value"] is None:
        return "not measured"
    ends = "" if row["low"] is None else f" [{-row['high']:+.3f}, {-row['low']:+.3f}]"
    return f"{-row['value']:+.3f}{ends}"


def _finding(row: Record, sentence: str, control: str, clear: bool, subject: Subject) -> Finding:
    return Finding(
        lens="ablation", arm=subject.arm, sentence=sentence, metric=METRIC, value=row["value"], low=row["low"],
        high=row["high"], n=row["n"], test=TEST, control=control, rows=f"{row['n']} rows",
        verdict="found" if clear else "undecided",
    )  # fmt: skip
