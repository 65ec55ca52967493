"""How information flows to the answer: attention rollout, and a graph of direct effects of parts on parts.

The rollout says which tokens can reach the place that the head of the model reads. The graph says which part's output
matters to which other part (:mod:`tunescope.capture.edges`); its control is a random direction with the sender's norm.

Formula:
    Rollout: ``R_l = (r I + (1 - r) A_l) R_{l-1}``, A_l the mean pattern of a layer's heads. Edge from a sender
    a to a receiver B: ``way_B . (B(x) - B(x - a))``, what B writes towards the answer because of a, all else
    held.

Range:
    Rollout 0 to 1, a row sums to 1; edges in logits, any sign.

How to read:
    Rollout says which tokens can be seen from the place that is read; edges which parts feed which. Compare
    with the random direction of the sender's norm.

Cost:
    One pass for the rollout; the edges run every receiver anew for every sender, which costs most.

Limits:
    Rollout knows nothing of values, norms and MLPs. What a part does through two others is in no single edge:
    ablation has the last word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field

from tunescope.capture.direct import Pooled
from tunescope.capture.edges import LOGITS, Component, Edges, contrast_slopes, direct_edges, names
from tunescope.capture.hooks import reading
from tunescope.capture.sites import Site
from tunescope.data.batches import batches
from tunescope.data.tokens import Tokens
from tunescope.lenses.attention.kept import token_names
from tunescope.lenses.flow.answer import answer_of, shortened
from tunescope.lenses.flow.rollout import Rollout
from tunescope.lenses.language.language import is_language
from tunescope.lenses.subject import LensRows, Subject, clusters
from tunescope.models.classifier import Classifier
from tunescope.progress import Task
from tunescope.seeds import derive_seed
from tunescope.stats.intervals import bootstrap_means
from tunescope.stats.results import Finding, result_table
from tunescope.stats.tests import benjamini_hochberg, sign_flip_p

WHAT = (
    "Which tokens reach the place that the head reads through all layers' attention (rollout), and which part's output "
    "matters to which other part on its way to the answer (direct effects, one edge at a time; the rest held fixed)."
)
ROLLED = ("rollout_entropy", "rollout_first", "rollout_last")
APART = "rollout_jensen_shannon"
PERMUTATIONS = 1999
Record = dict[str, Any]


class FlowOptions(BaseModel):
    """Options of the lens ``flow``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: LensRows = Field(default_factory=lambda: LensRows(n=32), description="which rows to look at")
    longest: int = Field(
        64, ge=2,
        description="tokens of a row in the graph at most: 2 or more; longer texts are left out, a language model's "
        "texts are shortened",
    )  # fmt: skip
    residual: float = Field(
        0.5, ge=0, le=1, description="weight of the residual stream in the rollout: 0 to 1, as published 0.5"
    )
    edges: bool = Field(True, description="also the graph of direct effects, which costs most")
    texts: int = Field(4, ge=0, description="texts whose rollout is kept token by token: 0 or more")


def run(subject: Subject, options: FlowOptions) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Return rollout and edges of both models, and the rollout of a few texts token by token.

    Raises:
        LensError: No row has a label.
        SiteError: The model's parts do not add up.
    """
    tokens = subject.draw(options.rows, labelled=not is_language(subject))
    models = {"base": subject.base, "tuned": subject.tuned}
    with subject.progress.task(f"{subject.arm}: attention rollout", 2 * len(tokens), "rows") as task:
        rolled = {which: _rolled(model, tokens, options.residual, task) for which, model in models.items()}
    records = _of_rollout(rolled, clusters(tokens), subject)
    short = shortened(subject, tokens, options.longest) if options.edges else tokens
    if options.edges and len(short):
        with_answer: dict[str, Classifier] = dict(subject.models_with_logits())
        title = f"{subject.arm}: direct effects"
        with subject.progress.task(title, len(with_answer) * len(short), "rows") as task:
            found = {
                which: [_row(model, short, row, subject, task) for row in range(len(short))]
                for which, model in with_answer.items()
            }
        records += _of_edges(found, clusters(short), subject)
    return result_table(records), _kept(rolled, tokens, subject, options.texts)


def _rolled(model: Classifier, tokens: Tokens, residual: float, task: Task) -> list[np.ndarray]:
    """Return each row's rollout at the place that pooling reads, [layers, T]."""
    out: list[np.ndarray] = [np.zeros(0)] * len(tokens)
    sites = [Site("attn_pattern", layer) for layer in range(model.n_layers)]
    for batch in batches(tokens, max_tokens=1024):
        moved = batch.to(model.device)
        pooled, rolled = Pooled.of(model, moved.attention_mask), Rollout(residual)
        size = moved.attention_mask.shape[1]
        weights = torch.zeros(len(batch), size, dtype=torch.float64, device=model.device)
        weights.scatter_add_(1, pooled.places, pooled.weights)
        found: list[torch.Tensor] = []

        def take(
            _site: Site, pattern: torch.Tensor, rolled: Rollout = rolled, weights: Any = weights
        ) -> None:
            found.append(torch.einsum("bq,bqk->bk", weights, rolled.add(pattern).double()))  # noqa: B023

        with torch.inference_mode(), reading(model, sites, take):
            model(**moved.inputs())
        stacked = torch.stack(found, 1).cpu().numpy()
        for place, row in enumerate(batch.index):
            out[int(row)] = stacked[place, :, : len(tokens.input_ids[int(row)])]
        task.advance(len(batch))
    return out


def _of_rollout(rolled: Mapping[str, list[np.ndarray]], groups: np.ndarray, subject: Subject) -> list[Record]:
    """Return statistics of the rollout over texts, layer by layer."""
    values = {which: _statistics(rows) for which, rows in rolled.items()}
    records: list[Record] = []
    for metric in ROLLED:
        before, after = (values[which][metric] for which in ("base", "tuned"))
        for which, own in (("base", before), ("tuned", after), ("tuned_minus_base", after - before)):
            records += _levels(
                own, groups, subject, {"model": which, "metric": metric, "site": "attn_pattern"}
            )
    apart = np.array([
        [_jensen_shannon(one[layer], other[layer]) for layer in range(len(one))]
        for one, other in zip(rolled["base"], rolled["tuned"], strict=True)
    ])  # fmt: skip
    about = {"model": "base_tuned", "metric": APART, "site": "attn_pattern"}
    return [*records, *_levels(apart, groups, subject, about)]


def _statistics(rows: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Return what each row's rollout says, [rows, layers]."""

    def entropy(one: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(one > 0, np.log(one), 0.0)
        return np.asarray(-(one * logs).sum(-1) / np.log(max(2, one.shape[-1])))

    return {
        "rollout_entropy": np.array([entropy(one) for one in rows]),
        "rollout_first": np.array([one[:, 0] for one in rows]),
        "rollout_last": np.array([one[:, -1] for one in rows]),
    }


def _jensen_shannon(first: np.ndarray, second: np.ndarray) -> float:
    """Return bits, 0 to 1."""
    middle = (first + second) / 2

    def part(one: np.ndarray) -> float:
        there = one > 0
        return float((one[there] * np.log2(one[there] / middle[there])).sum())

    return max(0.0, (part(first) + part(second)) / 2)


def _levels(values: np.ndarray, groups: np.ndarray, subject: Subject, about: Record) -> list[Record]:
    intervals = bootstrap_means(values, groups, seed=subject.sampling_seed)
    own = {"arm": subject.arm, "seed": subject.seed, **about}
    return [
        {
            **own,
            "layer": layer,
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "n": one.n,
            "note": one.note,
        }
        for layer, one in enumerate(intervals)
    ]


def _row(model: Classifier, tokens: Tokens, row: int, subject: Subject, task: Task) -> Edges:
    generator = torch.Generator().manual_seed(derive_seed(subject.sampling_seed, "flow", tokens.row_ids[row]))
    inputs, slopes = answer_of(model, tokens, row)
    if slopes is None:
        slopes = contrast_slopes(model, int(tokens.labels[row]))
    found = direct_edges(model, inputs, slopes, generator)
    task.advance(1)
    return found


def _of_edges(found: Mapping[str, list[Edges]], groups: np.ndarray, subject: Subject) -> list[Record]:
    """Return every edge's mean effect over texts, its mean size, and the random direction's beside each."""
    one = found["tuned"][0]
    there = np.flatnonzero(~np.isnan(one.effects.numpy().ravel()))
    pairs = [divmod(int(index), len(one.receivers)) for index in there]
    values = {
        which: np.stack([row.effects.numpy().ravel()[there] for row in rows]) for which, rows in found.items()
    }
    random = {
        which: np.abs(np.stack([row.random.numpy().ravel()[there] for row in rows])).mean(0)
        for which, rows in found.items()
    }
    if len(values) == 2:
        values["tuned_minus_base"] = values["tuned"] - values["base"]
    records: list[Record] = []
    for which, own in values.items():
        p = sign_flip_p(own, groups, permutations=PERMUTATIONS, seed=subject.sampling_seed)
        q = benjamini_hochberg(p)
        intervals = bootstrap_means(own, groups, seed=subject.sampling_seed)
        about = {"arm": subject.arm, "seed": subject.seed, "model": which, "metric": "direct_effect"}
        about["base_head"] = None if which == "tuned" else subject.base_head
        for index, (sender, receiver) in enumerate(pairs):
            mean = intervals[index]
            records.append({
                **about, **_edge(one.senders[sender], one.receivers[receiver]), "value": mean.value, "low": mean.low,
                "high": mean.high, "n": mean.n, "p": p[index], "q": q[index], "note": mean.note,
                "size": float(np.abs(own[:, index]).mean()),
                "control": None if which not in random else float(random[which][index]),
            })  # fmt: skip
    return records


def _edge(sender: Component, receiver: Component) -> Record:
    first, second = names([sender, receiver])
    return {
        "site": receiver.site, "layer": receiver.layer, "head": receiver.head, "from_site": sender.site,
        "from_layer": sender.layer, "from_head": sender.head, "sender": first, "receiver": second,
    }  # fmt: skip


def _kept(
    rolled: Mapping[str, list[np.ndarray]], tokens: Tokens, subject: Subject, texts: int
) -> pl.DataFrame | None:
    """Return the rollout behind the last layer of some texts, token by token."""
    parts = []
    for row in range(min(texts, len(tokens))):
        named = token_names(subject, tokens.input_ids[row])
        for which, rows in rolled.items():
            parts.append(pl.DataFrame({
                "arm": [subject.arm] * len(named), "seed": pl.Series([subject.seed] * len(named), dtype=pl.Int64),
                "model": [which] * len(named), "row_id": [tokens.row_ids[row]] * len(named),
                "key": list(range(len(named))), "key_token": named, "value": rows[row][-1],
            }))  # fmt: skip
    return pl.concat(parts) if parts else None


def findings(table: pl.DataFrame, subject: Subject) -> Sequence[Finding]:
    """Say which edge between two parts matters most to the tuned model's answer, and how it was in the base."""
    own = table.filter(
        (pl.col("arm") == subject.arm) & pl.col("seed").eq_missing(pl.lit(subject.seed))
        & (pl.col("metric") == "direct_effect") & pl.col("value").is_not_null()
    )  # fmt: skip
    if own.is_empty():
        return []
    between = own.filter(
        (pl.col("model") == "tuned") & (pl.col("site") != LOGITS.site) & (pl.col("from_site") != "embeddings")
    ).sort(pl.col("value").abs(), "sender", "receiver", descending=[True, False, False])
    if between.is_empty() or not between["value"][0]:
        return []
    most = between.row(0, named=True)
    same = own.filter(
        (pl.col("model") == "base")
        & (pl.col("sender") == most["sender"])
        & (pl.col("receiver") == most["receiver"])
    )
    base = "" if same.is_empty() else f"; in the base it is {same['value'][0]:+.3f}"
    clear = most["q"] <= 0.05 and abs(most["value"]) > most["control"]
    sentence = (
        f"The strongest edge between two parts of the tuned model is {most['sender']} → {most['receiver']}: through it "
        f"alone {most['sender']} moves the answer by {most['value']:+.3f} logits [{most['low']:+.3f}, "
        f"{most['high']:+.3f}]{base}."
    )
    return [
        Finding(
            lens="flow", arm=subject.arm, sentence=sentence, metric="direct_effect", value=most["value"],
            low=most["low"], high=most["high"], n=most["n"],
            test="sign flips over texts, Benjamini-Hochberg over all edges; picked and shown on the same rows",
            control=f"a random direction of the sender's norm: {most['control']:.3f} on average in size",
            rows=f"{most['n']} rows",
            verdict="task not learned" if subject.learned is False else ("found" if clear else "undecided"),
        )
    ]  # fmt: skip
