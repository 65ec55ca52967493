"""Checks of what reads one pass: probes, logit lens, direct attribution, words."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
import torch

from tunescope.data.batches import collate
from tunescope.doctor.check import Bench, Line, at_most, near, same, smallest_found
from tunescope.doctor.subjects import (
    a_model,
    keyword_rows,
    random_rows,
    rows_of,
    seen,
    subject_of,
)
from tunescope.evaluation.words import left_out
from tunescope.lenses.subject import LensRows
from tunescope.models import Classifier, load
from tunescope.planted.decisive import BAD, GOOD, planted_head_model
from tunescope.planted.random_models import WORDS
from tunescope.stats.intervals import wilson
from tunescope.stats.linear_probe import fit_linear_probe

EXACT = 5e-4


def probes(bench: Bench) -> Iterable[Line]:
    """Make a task readable from one layer on, and its control readable only where its word stands."""
    model = a_model(bench.folder, "gpt2", labels=("sad", "good"))
    subject = subject_of(_deaf_until(model, 3), _deaf_until(model, 1), _first_word_rows(450))
    options = {"rows": {"n": 300}, "train_rows": 150, "control": "last", "strength": 1.0, "untrained": False}
    table = seen(subject, "probes", **options).table
    for which, first in (
        ("base", 4),
        ("tuned", 1),
    ):  # no layer of the base carries the first word to the last
        rows = table.filter((pl.col("metric") == "probe_accuracy") & (pl.col("model") == which)).sort("layer")
        readable = [
            row["layer"]
            for row in rows.iter_rows(named=True)
            if row["q"] <= 0.05 and row["value"] > row["control"]
        ]
        yield same(
            f"{which}: layers behind which the first word is read at the last (3 is the final norm)",
            list(range(first, 4)),
            readable,
        )
    control = table.filter((pl.col("metric") == "control_accuracy") & (pl.col("model") == "tuned")).sort(
        "layer"
    )
    selectivity = table.filter((pl.col("metric") == "selectivity") & (pl.col("model") == "tuned")).sort(
        "layer"
    )
    at_start = control["value"][0]
    yield Line("control task at the embeddings, accuracy", "above 0.85", f"{at_start:.3f}", at_start > 0.85)
    yield Line(
        "selectivity at the embeddings (task minus control)", "below -0.2", f"{selectivity['value'][0]:.3f}",
        selectivity["value"][0] < -0.2,
    )  # fmt: skip
    yield _smallest_probe()


def _first_word_rows(n: int) -> Any:
    """Return rows whose label is their first word, which stands nowhere else."""
    others = [word for word in WORDS if word not in ("good", "sad")]
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 2, n)
    texts = [
        " ".join([("sad", "good")[label], *generator.choice(others, size=generator.integers(3, 7))])
        for label in labels
    ]
    return rows_of(texts, labels.tolist(), ("sad", "good"), every=3)


def _deaf_until(model: Classifier, layer: int) -> Classifier:
    """Return a copy whose attention is silent before a layer: the last token cannot know the first until then."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for index in range(layer):
            projection: Any = changed.trunk.get_submodule(changed.family.path("attention_projection", index))
            projection.weight.zero_()
            projection.bias.zero_()
    return changed


def _smallest_probe() -> Line:
    def found(distance: float, trial: int) -> bool:
        generator = np.random.default_rng(trial)
        labels = generator.integers(0, 2, 600)
        features = generator.normal(size=(600, 32))
        features[:, 5] += distance * (labels - 0.5)
        probe = fit_linear_probe(features[:300], labels[:300])
        hits = int((probe.predict(features[300:]) == labels[300:]).sum())
        low = wilson(hits, 300).low
        majority = max(float(np.mean(labels[300:])), 1 - float(np.mean(labels[300:])))
        return low is not None and low > majority

    return smallest_found(
        "two classes apart on one of 32 dimensions, read above the majority's share",
        "standard deviations between the classes (300 rows to fit, 300 to score)",
        (0.2, 0.4, 0.6, 0.8, 1.2, 2.0),
        30,
        found,
    )


def logit_lens(bench: Bench) -> Iterable[Line]:
    """Plant the layer in which the answer appears, and show that the logit lens names it."""
    for family, layer in (("gpt2", 1), ("bert", 2)):
        planted_head_model(family, layer, 2, bench.folder / family)  # type: ignore[arg-type]
        model = load(str(bench.folder / family))
        subject = subject_of(model, model, keyword_rows(), "none")
        output = seen(subject, "logit_lens", rows={"n": 40})
        negative = float(
            (subject.draw(LensRows(n=40)).labels == 0).mean()
        )  # before it, the prior answers for all
        accuracy = output.table.filter(pl.col("metric") == "accuracy").sort("layer")["value"].to_list()
        wanted = [negative] * (layer + 1) + [1.0] * (3 - layer)
        yield same(f"{family}: accuracy behind embeddings and layers 0, 1, 2", wanted, accuracy)
        settled = output.table.filter(pl.col("metric") == "settled_layer")["value"].to_list()
        yield same(f"{family}: layer from which the answer stands", [float(layer)], settled)


def direct_attribution(bench: Bench) -> Iterable[Line]:
    """Show that direct shares sum to the logits, in every family of one stack and pooling by the mask."""
    from tunescope.capture.direct import direct
    from tunescope.evaluation.predict import logits_of
    from tunescope.planted.random_models import SHAPES, TWO_STACKS

    for kind in (kind for kind in SHAPES if kind not in TWO_STACKS):
        model = a_model(bench.folder, kind)
        tokens = subject_of(model, model, random_rows(16)).draw(LensRows(n=6))
        found = direct(
            model, collate(tokens, np.arange(len(tokens))).inputs(), list(tokens.row_ids), bench.seed
        )
        own = logits_of(model, tokens)
        gap = float(np.abs(found.shares.sum(1).numpy() - own).max())
        yield at_most(
            f"{kind}: sum of the shares minus the logits", 1e-4 * max(1.0, float(np.abs(own).max())), gap
        )
    truth = planted_head_model("gpt2", 1, 2, bench.folder / "planted")
    model = load(str(bench.folder / "planted"))
    output = seen(subject_of(model, model, keyword_rows(), "none"), "attribution_direct", rows={"n": 40})
    said = output.findings[0].sentence if output.findings else "nothing"
    yield same(
        f"the head that writes the answer (L{truth.layer}H{truth.head})", True, "model L1H2 writes" in said
    )


def words(bench: Bench) -> Iterable[Line]:
    """Plant words that decide, and show that leaving one out is its closed form and that they lead the lists."""
    truth = planted_head_model("gpt2", 1, 2, bench.folder / "planted")
    model, rows = load(str(bench.folder / "planted")), keyword_rows()
    options = {"rows": {"n": 30}, "gradient_rows": 6, "at_least": 3}
    output = seen(subject_of(model, model, rows, "none"), "words", **options)
    assert output.examples is not None
    known = {row: (text, label) for row, text, label in rows.frame.select("row_id", "text", "label").rows()}
    gaps = []
    for row in output.examples.iter_rows(named=True):
        text, label = known[row["row_id"]]
        wanted = truth.margin(text, label) - truth.margin(left_out(text)[row["place"]], label)
        gaps.append(row["left_out"] - wanted)
    yield at_most(
        f"leaving out each of {len(gaps)} words: distance from its closed form, logits",
        EXACT,
        float(np.abs(gaps).max()) if gaps else float("nan"),
    )
    effects = output.table.filter((pl.col("metric") == "word_effect") & (pl.col("by") == "left_out"))
    for name, planted in (("positive", GOOD), ("negative", BAD)):
        own = effects.filter(pl.col("class") == name).sort("low", descending=True)
        leading = own["word"].to_list()[: len(set(planted) & set(own["word"]))]
        met = bool(leading) and set(leading) <= set(planted)
        yield Line(
            f"words that speak most for {name}", f"only of {', '.join(planted)}", ", ".join(leading), met
        )
    failed = output.table.filter(pl.col("metric") == "incomplete_rows")["value"].to_list()
    yield near("integrated gradients that do not add up, rows", 0, sum(failed) if failed else None, 0)

    def found(strength: float, trial: int) -> bool:
        weak = copy.deepcopy(model)
        with torch.no_grad():
            projection: Any = weak.trunk.get_submodule(weak.family.path("attention_projection", 1))
            projection.weight.mul_(strength)
            generator = torch.Generator().manual_seed(trial)
            for index in (0, 1, 2):
                own: Any = weak.trunk.get_submodule(weak.family.path("mlp_projection", index))
                own.weight.add_(torch.randn(own.weight.shape, generator=generator) * 0.02)
        subject = subject_of(weak, weak, keyword_rows(120, seed=trial), "none", sampling_seed=trial)
        table = seen(subject, "words", rows={"n": 60}, gradient_rows=0, at_least=3).table
        own = table.filter(
            (pl.col("metric") == "word_effect")
            & (pl.col("by") == "left_out")
            & (pl.col("class") == "positive")
        ).sort("low", descending=True)
        return own.height > 0 and own["word"][0] in GOOD and own["low"][0] > 0

    yield smallest_found(
        "a planted word leads its class's list, clear of 0, while every MLP writes noise",
        "of the planted head's writing (60 rows)",
        (0.001, 0.003, 0.01, 0.03, 0.1),
        10,
        found,
    )
