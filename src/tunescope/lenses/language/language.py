"""Language models as subjects: what is asked of them, and which lenses can look at a model without classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tunescope.capture.hooks import reading
from tunescope.capture.sites import Site
from tunescope.data.batches import batches
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.subject import Subject
from tunescope.models.classifier import Classifier
from tunescope.models.language import LanguageModel
from tunescope.models.questions import Answers, Questions, questions
from tunescope.progress import Task

MOST_TOKENS = 1024
VOCABULARY_NUMBERS = 2**26  # logits over the vocabulary that are held at a time

# The other lenses measure by the logits of classes, or need labels.
WITHOUT_CLASSES = (
    "cka", "similarity", "spread", "weights", "attention", "activations", "ablation", "logit_lens",
    "attribution_direct", "flow", "watch",
)  # fmt: skip
# These read each model by itself, or compare pooled states whatever their number and width.
ANY_SHAPE = ("cka", "similarity", "words")


def is_language(subject: Subject) -> bool:
    """Whether the subject's models are language models, without classes."""
    return isinstance(subject.tuned, LanguageModel)


def language(model: Classifier) -> LanguageModel:
    """Return a model as the language model that it is.

    Raises:
        LensError: It is a classifier.
    """
    if not isinstance(model, LanguageModel):
        raise LensError(f"Expected a language model, came a classifier ({model.family.name}).")
    return model


def refuse_without_classes(subject: Subject, wanted: Sequence[str]) -> None:
    """Refuse lenses that need classes where the models have none, and mixtures of both kinds.

    Raises:
        LensError: A wanted lens cannot look at language models.
    """
    if not is_language(subject):
        return
    language(subject.base)
    refused = [name for name in wanted if name not in WITHOUT_CLASSES]
    if refused:
        raise LensError(
            f"The lens {refused[0]!r} needs classes, and {subject.arm} is a language model; the lenses that look at "
            f"language models are {', '.join(WITHOUT_CLASSES)}.",
            hint="Take it out, or compare classifiers made of these models.",
        )


def refuse_other_shapes(subject: Subject, wanted: Sequence[str]) -> None:
    """Refuse lenses that compare base and tuned part by part where the two differ in shape.

    Raises:
        LensError: A wanted lens needs two models of one shape.
    """
    if same_shape(subject):
        return
    refused = [name for name in wanted if name not in ANY_SHAPE]
    if refused:
        raise LensError(
            f"Base ({said_shape(subject.base)}) and tuned ({said_shape(subject.tuned)}) differ in shape, so the lens "
            f"{refused[0]!r} cannot compare them part by part; {', '.join(ANY_SHAPE)} remain.",
            hint="Name only those with --lens, or compare a tuned model with the base that it was tuned from.",
        )


def same_shape(subject: Subject) -> bool:
    """Whether base and tuned are of one architecture, with as many layers and heads and of one width."""
    return _shape(subject.base) == _shape(subject.tuned)


def _shape(model: Classifier) -> tuple[str, int, int, int]:
    return model.family.name, model.n_layers, model.n_heads, model.width


def said_shape(model: Classifier) -> str:
    """Return a model's architecture and shape in words."""
    return f"{model.family.name}, {model.n_layers} layers x {model.n_heads} heads, width {model.width}"


def asked(subject: Subject, tokens: Tokens, lens: str) -> Questions:
    """Return what the subject's models are asked about rows, and say in the notes how that was chosen."""
    model = language(subject.tuned)
    found = questions(model, tokens, subject.sampling_seed)
    how = (
        "every token is predicted from those before it"
        if model.kind == "causal"
        else "of every text 15 % of the tokens (at least one) are masked, the same for both models"
    )
    note = f"{lens}: {how}; every row counts once, by its mean ({int(found.asked.sum()):,} tokens, {len(found)} rows)."
    if found.left_out:
        note += f" {found.left_out} rows have no token to predict and are left out."
    if note not in subject.notes:
        subject.notes.append(note)
    return found


def log_likelihoods(model: LanguageModel, rows: Questions, task: Task) -> np.ndarray:
    """Return the mean log-probability of every row's true tokens, in nats, `[N]`: minus its loss.

    Raises:
        LensError: It is NaN or infinite for a row; the row is named.
    """
    site = Site("resid_post", model.n_layers - 1)
    out = np.empty(len(rows))
    most = max(1, min(MOST_TOKENS, VOCABULARY_NUMBERS // model.vocabulary))
    for batch in batches(rows.tokens, max_tokens=most):
        moved = batch.to(model.device).inputs()
        found: dict[Site, torch.Tensor] = {}
        with torch.inference_mode():
            with reading(model, [site], found.__setitem__):
                model.hidden(**moved)
            targets = rows.batch(batch.index, found[site].shape[1])
            out[batch.index] = Answers(model, targets, found[site]).clean[:, 0].double().cpu().numpy()
        task.advance(len(batch))
    bad = np.flatnonzero(~np.isfinite(out))
    if len(bad):
        raise LensError(
            f"The loss of {len(bad)} of {len(out)} rows is NaN or infinite, the first is row "
            f"{rows.rows.row_ids[int(bad[0])]}."
        )
    return out
