"""The default base head: a logistic regression on the frozen trunk's features."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from torch import nn

from tunescope import processes
from tunescope.data.batches import Batch
from tunescope.data.packed import PackedBatch
from tunescope.data.tokens import Tokens
from tunescope.errors import ModelError
from tunescope.models.activations import fast_activations
from tunescope.models.classifier import Classifier
from tunescope.models.heads import LinearHead
from tunescope.models.packed import model_batches
from tunescope.models.store import ActivationStore
from tunescope.models.windows import mean_by_row
from tunescope.progress import SILENT, Progress

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
ROWS = 4000


def features(
    classifier: Classifier,
    tokens: Tokens,
    progress: Progress = SILENT,
    store: ActivationStore | None = None,
) -> np.ndarray:
    """Return the pooled final hidden states of every row, [N, D] float32, in the order of ``tokens``.

    A row of several windows gets the mean of their vectors. With a ``store`` they are read from it where they
    are, and otherwise computed and kept there.

    Raises:
        RunError: They are to be kept, and do not fit the store's disk or budget.
    """
    known = None if store is None else store.pooled(classifier, tokens)
    if known is not None:
        return known
    keeps = store is not None and store.has_room(
        classifier, tokens, "pooled"
    )  # before the work, not after it
    out = np.empty((len(tokens), classifier.width), dtype=np.float32)
    with (
        progress.task("features of the frozen trunk", len(tokens), "rows") as task,
        processes.shared(len(tokens), [classifier], _help, classifier, tokens) as team,
    ):
        for batch, found in _each_batch(classifier, tokens, team):
            out[batch.index] = found
            task.advance(len(batch.row_ids))
    if store is not None and keeps:
        store.keep_pooled(classifier, tokens, out)
    return out


def _each_batch(
    classifier: Classifier, tokens: Tokens, team: processes.Team | None
) -> Iterator[tuple[Batch | PackedBatch, np.ndarray]]:
    """Yield every batch with its features; several processes compute them in turns."""

    def features_of_batch(batch: Batch | PackedBatch) -> np.ndarray:
        inputs = batch.to(classifier.device).inputs()
        row_of = inputs.pop("row_of", None)  # the mean of windows' features: a linear head's mean of logits
        found: np.ndarray = mean_by_row(classifier.pooled(**inputs), row_of).float().cpu().numpy()
        return found

    with torch.inference_mode(), fast_activations(classifier):
        yield from processes.in_turns(model_batches(classifier, tokens), features_of_batch, team)


def _help(team: processes.Team, classifier: Classifier, tokens: Tokens) -> None:
    """Compute this process's batches for the leader."""
    for _ in _each_batch(classifier, tokens, team):
        pass


def fit_probe(
    base: Classifier,
    tokens: Tokens,
    *,
    rows: int = ROWS,
    seed: int = 0,
    progress: Progress = SILENT,
    store: ActivationStore | None = None,
) -> Classifier:
    """Give a base trunk a head that was fitted on its own frozen features of train rows.

    Features are standardised, a multinomial logistic regression with L2 penalty is fitted (strength chosen by
    3-fold cross-validation on these rows alone), and the standardisation is folded into the linear layer.

    Args:
        base: A classifier whose head is replaced; the trunk is shared, not copied.
        tokens: Labelled *train* rows.
        rows: At most this many rows, drawn evenly from every class.
        seed: Seeds the draw and the folds.
        progress: Where to report.
        store: Where features are kept and looked for.

    Returns:
        A classifier with the same trunk and a :class:`LinearHead`.

    Raises:
        ModelError: Fewer than two classes among the labelled rows.
    """
    chosen = _stratified(tokens.labels, rows, seed)
    labels = tokens.labels[chosen]
    if len(np.unique(labels)) < 2:
        raise ModelError("A probe head needs train rows of at least two classes.")
    values = features(base, tokens.take(chosen), progress, store).astype(np.float64)
    mean, scale = values.mean(0), values.std(0)
    scale[scale < 1e-12] = 1.0
    model = _fit((values - mean) / scale, labels, seed)
    probe = copy.copy(base)
    probe._modules = dict(base._modules)
    probe.head = LinearHead(_as_linear(model, mean, scale, len(base.labels.names))).to(base.device).eval()
    probe.record = {
        **base.record,
        "head": f"probe: logistic regression on {len(chosen)} train rows, C={model.C:g}",
    }
    return probe


def _stratified(labels: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """Return sorted positions of at most ``rows`` labelled rows, every class in proportion."""
    known = np.flatnonzero(labels >= 0)
    if len(known) <= rows:
        return known
    generator = np.random.default_rng(seed)
    share = rows / len(known)
    parts = []
    for label in np.unique(labels[known]):
        members = known[labels[known] == label]
        parts.append(generator.choice(members, size=max(2, round(share * len(members))) if len(members) > 1 else 1,
                                      replace=False))  # fmt: skip
    return np.sort(np.concatenate(parts))


def _fit(values: np.ndarray, labels: np.ndarray, seed: int) -> LogisticRegression:
    smallest = int(np.bincount(labels)[np.unique(labels)].min())
    strength = STRENGTHS[1]
    if smallest >= 3:
        folds = StratifiedKFold(n_splits=3, shuffle=True, random_state=seed)
        scores = [cross_val_score(_regression(c), values, labels, cv=folds).mean() for c in STRENGTHS]
        strength = STRENGTHS[int(np.argmax(scores))]
    return _regression(strength).fit(values, labels)


def _regression(strength: float) -> LogisticRegression:
    # Features are standardised, so this tolerance fixes the weights to far less than their sampling error.
    return LogisticRegression(C=strength, max_iter=5000, tol=1e-3)


def _as_linear(model: LogisticRegression, mean: np.ndarray, scale: np.ndarray, n_classes: int) -> nn.Linear:
    """Fold standardisation into weights; two classes become two symmetric rows; absent classes get -1e4."""
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scale
    bias = bias - weight @ mean
    linear = nn.Linear(weight.shape[1], n_classes)
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.fill_(-1e4)
        index = torch.as_tensor(model.classes_, dtype=torch.long)
        linear.weight[index] = torch.as_tensor(weight, dtype=torch.float32)
        linear.bias[index] = torch.as_tensor(bias, dtype=torch.float32)
    return linear.requires_grad_(False)
