"""Invented results of the lenses, in the exact formats of real ones."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from tunescope.stats.results import Finding, Result, result_table, save_findings

LAYERS, HEADS = 6, 8
SITES = [("embeddings", -1), *(("resid_post", layer) for layer in range(LAYERS)), ("final_norm_out", LAYERS)]
PARTS = [
    *(("head_out", layer, head) for layer in range(LAYERS) for head in range(HEADS)),
    *((site, layer, None) for site in ("attn_out", "mlp_out") for layer in range(LAYERS)),
]


def save_results(
    folder: Path, arms: tuple[str, ...], labels: tuple[str, ...], seeds: tuple[int, ...]
) -> None:
    """Write results/ and findings.json."""
    rng = np.random.default_rng(1)
    for lens, records, what in (
        (
            "cka",
            cka_records(rng, arms, seeds),
            "Unbiased linear CKA between the pooled states of all layers.",
        ),
        ("ablation", ablation_records(rng, arms, labels, seeds), "What the margin loses without a part."),
        ("planted", PLANTED, "Truths planted in the generated corpus, beside what this run recovered."),
    ):
        rows = {} if lens == "planted" else {"split": "validation", "n": 2000, "how": "stratified sample"}
        about = {
            "what": what,
            "rows": rows,
            "seeds": list(seeds),
            "notes": [],
            "command": "tunescope run emotion.yaml",
        }
        Result(lens, result_table(records), about).save(folder / "results")
    save_findings(
        [
            Finding(
                lens, arms[arm], sentence, metric, *bounds, n=n, control=control, verdict=verdict,
                test="paired bootstrap, sign-flip permutation", rows=f"{n} rows",
            )
            for lens, arm, sentence, metric, bounds, n, control, verdict in FINDINGS
        ],
        folder / "findings.json",
    )  # fmt: skip


def cka_records(
    rng: np.random.Generator, arms: tuple[str, ...], seeds: tuple[int, ...]
) -> list[dict[str, Any]]:
    records = []
    for arm, seed, model, first, second in product(
        arms, seeds, ("base", "tuned", "base_tuned"), SITES, SITES
    ):
        away = abs(first[1] - second[1]) * 0.11
        moved = 0.085 * (max(first[1], second[1]) + 1) if arm == arms[0] else 0.0
        drift = {"base": 0.0, "tuned": 0.3, "base_tuned": 1.0}[model] * moved
        value = float(np.exp(-away - drift**1.4))
        half = 0.0 if value == 1.0 else 0.02 + 0.01 * rng.random()
        records.append({
            "arm": arm, "seed": seed, "model": model, "site": first[0], "layer": first[1],
            "site_other": second[0], "layer_other": second[1], "metric": "cka", "n": 1024,
            "value": value, "low": value - half, "high": min(value + half, 1.0),
            "control": 0.01 * rng.normal(), "method": "jackknife", "note": None,
        })  # fmt: skip
    return records


def ablation_records(
    rng: np.random.Generator, arms: tuple[str, ...], labels: tuple[str, ...], seeds: tuple[int, ...]
) -> list[dict[str, Any]]:
    models, metrics = ("base", "tuned", "tuned_minus_base"), ("margin_change", "probability_change")
    records = []
    for arm, seed, model, edit, part, metric in product(
        arms, seeds, models, ("zero", "mean"), PARTS, metrics
    ):
        size = 1.0 if arm == arms[0] else 0.45
        scale = {"base": 0.4, "tuned": size, "tuned_minus_base": size - 0.4}[model]
        for control, label in (("none", None), *(("none", name) for name in labels), ("random", None)):
            axes = {
                "arm": arm, "seed": seed, "model": model, "edit": edit, "site": part[0], "layer": part[1],
                "head": part[2], "metric": metric, "control": control, "class": label,
                "component": component_name(*part), "scope": "one", "step": None, "order": None,
            }  # fmt: skip
            records.append(axes | effect(rng, axes, scale))
    return records


def component_name(site: str, layer: int, head: int | None) -> str:
    return f"L{layer}H{head}" if head is not None else f"L{layer}.{site.removesuffix('_out')}"


def effect(rng: np.random.Generator, axes: dict[str, Any], scale: float) -> dict[str, Any]:
    site, layer, head = axes["site"], axes["layer"], axes["head"]
    if axes["model"] == "base":  # arms of one base share what was measured on it
        words = (axes["edit"], axes["control"], site, axes["class"] or "", axes["metric"])
        rng = np.random.default_rng([layer, head or 0, *map(len, words)])
    typical = {"head_out": 0.06, "attn_out": 0.5, "mlp_out": 0.8}[site] * (1 + layer / 3) * abs(scale)
    value = rng.normal(0, typical) if site == "head_out" else -abs(rng.normal(typical, typical / 2))
    if (site, layer, head) == ("head_out", 4, 3) and axes["model"] != "base":
        value = -1.9 * scale
    value *= {"zero": 1.0, "mean": 0.7}[axes["edit"]] * (
        0.12 if axes["metric"] == "probability_change" else 1.0
    )
    value *= 0.08 if axes["control"] == "random" else 1.0
    half = abs(value) * 0.2 + 0.02
    p = float(min(1.0, np.exp(-abs(value) * 14))) if axes["control"] == "none" else None
    base_head = {"base": "probe", "tuned": "tuned"}.get(axes["model"], "tuned and probe")
    return {
        "base_head": base_head, "n": 512 if axes["class"] is None else 85,
        "value": float(value), "low": float(value - half), "high": float(value + half),
        "p": p, "q": None if p is None else min(1.0, p * 1.6), "note": None,
    }  # fmt: skip


PLANTED: list[dict[str, Any]] = [
    {
        "arm": "full", "seed": 0, "model": model, "metric": metric, "planted": planted,
        "value": value - drop, "low": low and low - drop, "high": high and high - drop,
        "n": n, "control": 0.05, "how": how,
    }
    for model, drop in (("base", 0.06), ("tuned", 0.0))
    for metric, planted, value, low, high, n, how in (
        ("top_word_plain", 1.0, 0.91, 0.87, 0.94, 400, "plain sentences where the planted word weighs most"),
        ("noise_share", 0.08, 0.083, 0.064, 0.105, 600, "labels of test rows that the model contradicts"),
        ("gender_gap_ambiguous", 0.445, 0.31, 0.27, 0.36, 200, "pairs that differ in gender alone"),
        ("top_words", 1.0, 0.92, None, None, 24, "of the words that weigh most"),
    )
]  # fmt: skip


FINDINGS: tuple[tuple[Any, ...], ...] = (
    ("cka", 0, "Tuning changed representations most at layer 5: CKA 0.43 [0.40, 0.46].", "cka",
     (0.43, 0.40, 0.46), 1024, "rows shuffled: 0.004", "found"),
    ("ablation", 0, "Zeroing head L4H3 changes the margin by −1.90 [−2.31, −1.49] logits in the "
     "tuned model, the largest loss of any head.", "margin_change",
     (-1.9, -2.31, -1.49), 512, "random direction of equal norm: −0.15", "found"),
    ("ablation", 0, "Tuning changed the role of head L4H3 most: its effect on the margin went from −0.08 in "
     "the base to −1.90.", "margin_change_difference",
     (-1.82, -2.2, -1.4), 512, "base under its probe head", "found"),
    ("ablation", -1, "The heads of layer 0 make no difference larger than 0.05 logits.", "margin_change",
     (0.01, -0.03, 0.04), 512, "random direction of equal norm: 0.00", "equivalent"),
    ("cka", -1, "The second arm leaves all layers alone.", "cka", (1.0, 1.0, 1.0), 1024, None, "undecided"),
    ("ablation", -1, "A sixth finding, folded away.", "margin_change", (None, None, None), 512, None,
     "task not learned"),
)  # fmt: skip
