"""Language-model loss of a trunk on general text, before and after tuning, in bits per byte."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tunescope.errors import DataError, ModelError
from tunescope.evaluation.elsewhere.documents import IGNORED, Documents, WindowRule, encode_documents
from tunescope.evaluation.elsewhere.heads import LanguageHead, language_head
from tunescope.models.classifier import Classifier
from tunescope.models.load import position_limit
from tunescope.progress import SILENT, Progress
from tunescope.stats.intervals import ONE_ROW, Interval, percentile_interval
from tunescope.stats.paired import bootstrap_p, sample_of, shared_bootstrap

TOKENS_AT_ONCE = 4096  # of the trunk
POSITIONS_AT_ONCE = 256  # of the head, whose logits are as wide as the vocabulary: 50 MB for GPT-2's
RESAMPLES = 2000
USUAL = WindowRule()
Key = tuple[str, int]


@dataclass(frozen=True)
class DocumentLoss:
    """The loss of one model, per document.

    Attributes:
        bits: `[documents]`, the information that the model lacked about the counted tokens.
    """

    bits: np.ndarray


def document_loss(
    model: Classifier, head: LanguageHead, documents: Documents, progress: Progress = SILENT
) -> DocumentLoss:
    """Return the loss of a trunk under a language-model head, ``-log2 p(token)`` summed over each document.

    Windows run in batches of about equal length; the head sees at most 256 positions at once, so memory does not
    grow with text, window or vocabulary beyond that.

    Args:
        model: A classifier; only its trunk is run.
        head: The head of the *base*.
        documents: The windows.
        progress: Where to report.

    Raises:
        ModelError: A loss is NaN or infinite.
    """
    bits = np.zeros(len(documents.sizes))
    lengths = np.array([len(window) for window in documents.input_ids])
    order = np.argsort(-lengths, kind="stable")
    pad = int(model.tokenizer.pad_token_id or 0)
    training = model.training
    model.eval()
    start = 0
    try:
        with torch.inference_mode(), progress.task("language-model loss", len(order), "windows") as task:
            while start < len(order):
                size = max(1, TOKENS_AT_ONCE // int(lengths[order[start]]))
                batch = order[start : start + size]
                np.add.at(bits, documents.owner[batch], _batch_bits(model, head, documents, batch, pad))
                start += len(batch)
                task.advance(len(batch))
    finally:
        model.train(training)
    if not np.isfinite(bits).all():
        raise ModelError(
            f"The language-model loss of {int((~np.isfinite(bits)).sum())} documents is not finite."
        )
    return DocumentLoss(bits)


def _batch_bits(
    model: Classifier, head: LanguageHead, documents: Documents, batch: np.ndarray, pad: int
) -> np.ndarray:
    longest = max(len(documents.input_ids[i]) for i in batch)
    ids = torch.full((len(batch), longest), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    targets = torch.full_like(ids, IGNORED)
    for row, i in enumerate(batch):
        size = len(documents.input_ids[i])
        ids[row, :size] = torch.as_tensor(documents.input_ids[i])
        targets[row, :size] = torch.as_tensor(documents.targets[i])
        mask[row, :size] = 1
    hidden = model.hidden(ids.to(model.device), mask.to(model.device))
    told = targets != IGNORED
    states, wanted = hidden[told.to(hidden.device)], targets[told]
    losses = torch.empty(len(wanted), dtype=torch.float64)
    for start in range(0, len(wanted), POSITIONS_AT_ONCE):
        part = slice(start, start + POSITIONS_AT_ONCE)
        scores = head.scores(states[part]).float()
        own = torch.nn.functional.cross_entropy(scores, wanted[part].to(scores.device), reduction="none")
        losses[part] = own.double().cpu()
    rows = told.nonzero()[:, 0].numpy()
    return np.bincount(rows, weights=losses.numpy(), minlength=len(batch)) / math.log(2)


def language_costs(
    base: Classifier,
    tuned: Mapping[Key, Callable[[], Classifier]],
    texts: Sequence[str],
    rule: WindowRule = USUAL,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Return what tuning cost in language modelling: bits per byte before and after, under the base's own head.

    Documents are the units of the bootstrap, and base and tuned share its resamples. A rise says that hidden
    states moved away from what the base's head reads; a tuned model whose head had been tuned with it might do
    better, so the rise is a cost to the *trunk as a language model*, not a bound on what it still knows.

    Args:
        base: The base, as :func:`tunescope.models.load_trunk` gives it.
        tuned: What loads each tuned model, by arm and seed; one is held at a time.
        texts: Documents of held-out general text.
        rule: Window, masks and their seed.
        progress: Where to report.

    Returns:
        JSON-able: ``unit``, ``kind``, ``head``, ``documents``, ``tokens``, ``bytes``, ``window``, ``base`` (value,
        low, high), ``tuned`` (records with arm, seed, value, low, high and ``difference`` with p), ``note``,
        ``sentence``. Where the base has no language-model head, ``base`` is None and ``note`` says why.
    """
    head, reason = language_head(base)
    if head is None:
        return _nothing(reason or "unknown")
    limit = position_limit(base.model.config, base.family)
    rule = WindowRule(min(rule.window, limit), rule.windows, rule.mask_share, rule.seed)
    try:
        documents = encode_documents(texts, base.tokenizer, head.kind, rule)
    except DataError as error:
        return _nothing(error.message)
    losses: dict[Key | None, np.ndarray] = {None: document_loss(base, head, documents, progress).bits}
    skipped: list[dict[str, Any]] = []
    for key, load in tuned.items():
        model = load()
        if model.width != base.width or len(model.tokenizer) != len(base.tokenizer):
            skipped.append(
                {"arm": key[0], "seed": key[1], "note": "another width or vocabulary than the base"}
            )
            continue
        losses[key] = document_loss(model, head, documents, progress).bits
    return {**_summary(losses, documents, rule), "head": head.about, "skipped": skipped}


def _nothing(reason: str) -> dict[str, Any]:
    sentence = f"What tuning cost in language modelling cannot be said: {reason}."
    return {"unit": "bits per byte", "base": None, "tuned": [], "note": reason, "sentence": sentence}


def _summary(
    losses: Mapping[Key | None, np.ndarray], documents: Documents, rule: WindowRule
) -> dict[str, Any]:
    count = len(documents.sizes)
    sizes = documents.sizes

    def per_byte(bits: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return lambda weights: (bits @ weights) / (sizes @ weights)

    statistics = {key: per_byte(bits) for key, bits in losses.items()}
    sample = sample_of(np.arange(count)[:, None])
    draws = shared_bootstrap(statistics, sample, resamples=RESAMPLES, seed=rule.seed)
    method = f"bootstrap of {count} documents, {RESAMPLES} resamples"

    def interval(value: float, drawn: np.ndarray) -> Interval:
        if count < 2:
            return Interval(value, None, None, count, method, ONE_ROW.replace("rows", "documents"))
        return percentile_interval(value, drawn, count, method)

    before = draws.value[None]
    records = []
    for key in losses:
        if key is None:
            continue
        change = draws.drawn[key] - draws.drawn[None]
        gap = interval(draws.value[key] - before, change).record()
        difference = {**gap, "p": bootstrap_p(change), "share": (draws.value[key] - before) / before}
        value = interval(draws.value[key], draws.drawn[key]).record()
        record = {"arm": key[0], "seed": key[1], **value, "difference": difference}
        records.append({**record, "sentence": _sentence(record, before)})
    return {
        "unit": "bits per byte", "kind": documents.kind, "documents": count, "tokens": int(documents.counted.sum()),
        "bytes": int(sizes.sum()), "window": rule.window, "base": interval(before, draws.drawn[None]).record(),
        "tuned": records, "note": documents.note,
        "sentence": " ".join(record["sentence"] for record in records),
    }  # fmt: skip


def _sentence(record: Mapping[str, Any], before: float) -> str:
    gap = record["difference"]
    who = f"{record['arm']} (seed {record['seed']})"
    found = f"from {before:.3f} to {record['value']:.3f} bits per byte of general text"
    if gap["low"] is None:
        return f"{who}: the trunk's loss went {found}."
    change = f"{gap['value']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"
    if gap["low"] > 0:
        return f"{who} cost language modelling: the trunk's loss went {found} ({change})."
    if gap["high"] < 0:
        return f"{who} improved language modelling: the trunk's loss went {found} ({change})."
    return f"{who}: no cost in language modelling is shown; the trunk's loss went {found} ({change})."
