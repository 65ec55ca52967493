"""Tuning a language model on summaries, through the house's thin Trainer: its batches, checkpoints and resuming.

The loss of a step is the mean over all tokens of its micro-batches that are learnt (the summary and its end token, or
everything), so that it does not depend on how a step is cut. Logits are computed at those tokens alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import EvalPrediction, TrainerCallback

from tunescope.errors import ConfigError, DataError
from tunescope.folders import disk_errors
from tunescope.models.language import LanguageModel
from tunescope.progress import SILENT, Progress
from tunescope.summaries.rows import IGNORED, SummaryTokens, collate_summaries
from tunescope.training.checkpoints import latest
from tunescope.training.job import NOT_IDENTITY, Asked, Job, recompute
from tunescope.training.microbatches import on_device
from tunescope.training.options import Prepared, TrainLog, TrainOptions, prepare_arguments
from tunescope.training.rows import TokenRows
from tunescope.training.session import quiet_training, run_job
from tunescope.training.trackers import trackers
from tunescope.training.trainer import ClassifierTrainer

CLASSES_ONLY = ("class_weights", "logit_adjustment", "sampling", "variance_loss")  # fields about classes


class SummaryRows(TokenRows):
    """Encoded articles and summaries as the Trainer wants them.

    Args:
        tokens: Rows encoded with their summaries.
        pad_id: What fills up ids; it is masked and never learnt.
    """

    def __init__(self, tokens: SummaryTokens, pad_id: int) -> None:
        self.tokens: Any = tokens
        self.pad_id = pad_id
        self.lengths = tokens.kept

    def collate(self, positions: Sequence[int]) -> dict[str, Any]:
        """Return a batch; ``labels`` [B, S] are the learnt tokens, -100 where a row has fewer.

        A decoder's batch says in ``at`` [B, S] which places predict them; an encoder-decoder's holds ``target_ids``.
        """
        tokens: SummaryTokens = self.tokens
        index = [int(position) for position in positions]
        batch = collate_summaries(tokens, index, self.pad_id)
        labels = batch["labels"]
        inputs: dict[str, Any] = {
            "input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"],
            "positions": torch.tensor(index, dtype=torch.long),
        }  # fmt: skip
        if tokens.kind == "encoder_decoder":
            learnt = labels != IGNORED
            inputs |= {"target_ids": labels.masked_fill(~learnt, self.pad_id), "target_mask": learnt.long()}
            return {**inputs, "labels": labels}
        follow = labels[:, 1:]
        width = max(1, int((follow != IGNORED).sum(1).max()))
        at = torch.zeros(len(index), width, dtype=torch.long)
        own = torch.full((len(index), width), IGNORED, dtype=torch.long)
        for row, line in enumerate(follow):
            places = (line != IGNORED).nonzero()[:, 0]
            at[row, : len(places)], own[row, : len(places)] = places, line[places]
        return {**inputs, "at": at, "labels": own}


class PredictedTokens(nn.Module):
    """A language model that answers at the tokens that are learnt, and nowhere else.

    Args:
        language: The model.
    """

    def __init__(self, language: LanguageModel) -> None:
        super().__init__()
        self.language = language

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        at: torch.Tensor | None = None,
        target_ids: torch.Tensor | None = None,
        target_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return logits [B, S, V]: of a decoder at the places ``at`` [B, S], else of every target token."""
        if at is None:
            logits: torch.Tensor = self.language(input_ids, attention_mask, target_ids, target_mask)
            return logits
        hidden = self.language.hidden(input_ids, attention_mask)
        picked = hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1]))
        found: torch.Tensor = self.language.head(picked)
        return found


class TokenLoss:
    """The cross entropy of learnt tokens; the counterpart of :class:`tunescope.training.losses.ClassLoss`.

    Args:
        smoothing: Label smoothing, 0 to below 1.
    """

    weights = None
    adjustment = None

    def __init__(self, smoothing: float = 0.0) -> None:
        self.smoothing = smoothing

    def mass(self, labels: torch.Tensor) -> torch.Tensor:
        """Return how many tokens are learnt (at least 1)."""
        return (labels != IGNORED).sum().clamp(min=1)

    def total(self, logits: torch.Tensor, labels: torch.Tensor, reduction: str = "sum") -> torch.Tensor:
        """Return the summed loss of logits [B, S, V] under labels [B, S], or one number a row (``none``)."""
        each = functional.cross_entropy(
            logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none",
            label_smoothing=self.smoothing,
        )  # fmt: skip
        return each.sum() if reduction == "sum" else each.sum(dim=1)


class SummaryTrainer(ClassifierTrainer):
    """Trains a language model on summaries; validation rows are measured by their loss per token.

    Args:
        job: What to train on.
        callbacks: What happens beside the optimiser.
    """

    def __init__(self, job: Job, callbacks: list[TrainerCallback]) -> None:
        super().__init__(job, callbacks)
        self.compute_metrics = _mean_loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """Return the loss and the id of every learnt token of a batch, one after another."""
        labels = inputs["labels"].to(self.args.device)
        assert self.job.validation is not None
        logits = self.micro.predict(model, inputs, self.job.validation, self.args.device)
        losses = functional.cross_entropy(
            logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
        )
        learnt = labels != IGNORED
        return None, losses[learnt], labels[learnt]

    def choices(self) -> dict[str, Any]:
        """Return precision, how rows went in, and what was cut of them."""
        return {"precision": self.job.prepared.precision, **self.job.inputs}


def _mean_loss(prediction: EvalPrediction) -> dict[str, float]:
    return {"loss": float(np.asarray(prediction.predictions, dtype=np.float64).mean())}


def train_summaries(
    language: LanguageModel,
    train: SummaryTokens,
    validation: SummaryTokens | None,
    folder: Path,
    options: TrainOptions,
    progress: Progress = SILENT,
) -> TrainLog:
    """Train the parameters of a language model that require gradients on summaries, and save it.

    Files, checkpoints and continuing are those of :func:`tunescope.training.session.train`.

    Args:
        language: Trained in place; left in evaluation mode.
        train: Rows encoded with their summaries.
        validation: The same for the curve and the best step, or None.
        folder: Where to write.
        options: What the training is told.
        progress: Where to report.

    Raises:
        ConfigError: A training field cannot be used, or is about classes.
        DataError: There are no train rows, or they were encoded without summaries.
        Interrupted: Ctrl-C or SIGTERM came; a checkpoint was saved.
    """
    if not len(train) or not train.trains:
        raise DataError("There are no train rows with summaries to learn from.")
    validation = None if validation is None or not len(validation) else validation
    folder = Path(folder)
    with disk_errors(folder), quiet_training():
        checkpoints = folder / "checkpoints"
        prepared = prepare_arguments(options, checkpoints, validation is not None)
        _refuse_classes(prepared)
        for remark in prepared.remarks:
            progress.say(f"  {remark}")
        reporting = trackers(
            prepared.fitting.trackers,
            folder,
            {**options.record, "seed": options.seed},
            dict(options.training),
        )
        identity = _identity(options, prepared, language, {"train": train, "validation": validation})
        found = latest(checkpoints, options.fingerprint, identity, progress)
        job = _job(language, train, validation, Asked(options, prepared, identity))
        return run_job(job, folder, found, reporting, progress, SummaryTrainer)


def _refuse_classes(prepared: Prepared) -> None:
    fitting = prepared.fitting
    for name in CLASSES_ONLY:
        if getattr(fitting, name, None) not in (None, "none", False):
            raise ConfigError(
                f"training.{name} is about classes, and summaries have none.", hint="Take it out."
            )
    stopping = fitting.early_stopping
    metrics = {stopping.metric} if stopping is not None else set()
    if prepared.keeps_best:
        metrics.add(str(prepared.arguments.metric_for_best_model).removeprefix("eval_"))
    others = sorted(metrics - {"loss"})
    if others:
        raise ConfigError(
            f"While training on summaries the validation loss is measured, and not {others[0]}.",
            hint="Set the metric to loss.",
        )


def _job(
    language: LanguageModel, train: SummaryTokens, validation: SummaryTokens | None, asked: Asked
) -> Job:
    language.to(asked.prepared.arguments.device)
    if asked.prepared.recompute:
        recompute(language, "enable")
    pad = pad_id(language)
    cut = {"train": train.account(), **({} if validation is None else {"validation": validation.account()})}
    inputs = {"padding": "bucket", "padding_reason": "rows of about equal length", "cut": cut}
    rows = None if validation is None else SummaryRows(validation, pad)
    loss: Any = TokenLoss(asked.prepared.label_smoothing)
    return Job(language, PredictedTokens(language), SummaryRows(train, pad), rows, asked, loss, None, inputs)


def pad_id(language: LanguageModel) -> int:
    """Return the id that fills up batches: the pad token's, or the end token's where there is none."""
    pad = language.tokenizer.pad_token_id
    return int(language.tokenizer.eos_token_id if pad is None else pad)


def _identity(
    options: TrainOptions, prepared: Prepared, language: LanguageModel, rows: dict[str, SummaryTokens | None]
) -> dict[str, Any]:
    """Return what a checkpoint belongs to: settings, rows and model, so that what differs can be named."""
    own = prepared.fitting.model_dump(mode="json")
    theirs = {name: value for name, value in options.training.items() if name not in own}
    settings = {name: value for name, value in {**theirs, **own}.items() if not name.startswith(NOT_IDENTITY)}
    parameters = list(language.parameters())
    return {
        "training": {**settings, "bf16": prepared.arguments.bf16, "fp16": prepared.arguments.fp16},
        "seed": options.seed,
        "rows": {split: None if tokens is None else _digest(tokens) for split, tokens in rows.items()},
        "parameters": sum(one.numel() for one in parameters),
        "trained_parameters": sum(one.numel() for one in parameters if one.requires_grad),
    }


def _digest(tokens: SummaryTokens) -> dict[str, Any]:
    total = hashlib.sha256()
    for ids, target in zip(tokens.input_ids, tokens.target_ids, strict=True):
        for one in (ids, target):
            total.update(len(one).to_bytes(4, "big") + np.ascontiguousarray(one, dtype=np.int32).tobytes())
    ids_sum = hashlib.sha256("\0".join(tokens.row_ids).encode()).hexdigest()[:12]
    return {
        "number": len(tokens),
        "ids": ids_sum,
        "tokens": total.hexdigest()[:12],
        "loss": tokens.options.loss,
    }


def losses_per_token(
    language: LanguageModel, tokens: SummaryTokens, progress: Progress = SILENT, rows_at_once: int = 8
) -> np.ndarray:
    """Return the mean loss of every row's reference summary, in nats a token, [N]; NaN where no token is left."""
    rows, module = SummaryRows(tokens, pad_id(language)), PredictedTokens(language)
    out = np.full(len(tokens), np.nan)
    order = np.argsort(-rows.lengths, kind="stable")
    language.eval()
    with progress.task("loss of the references", len(tokens), "rows") as task, torch.inference_mode():
        for start in range(0, len(order), rows_at_once):
            index = order[start : start + rows_at_once]
            batch = on_device(rows.collate(index.tolist()), language.device)
            labels = batch.pop("labels")
            batch.pop("positions")
            each = functional.cross_entropy(
                module(**batch).float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
            )
            counts = (labels != IGNORED).sum(1)
            mean = torch.where(counts > 0, each.sum(1) / counts.clamp(min=1), torch.nan)
            out[index] = mean.double().cpu().numpy()
            task.advance(len(index))
    return out
