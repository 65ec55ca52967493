"""What of the ablation's options a language model takes, and its screen by the gradients of the log-likelihood."""

from __future__ import annotations

import numpy as np
import torch

from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.ablation.components import Variant
from tunescope.lenses.ablation.options import AblationOptions
from tunescope.lenses.ablation.screen import Checked, Score, screen
from tunescope.lenses.language.language import VOCABULARY_NUMBERS, language
from tunescope.lenses.subject import Subject
from tunescope.models.language import LanguageModel
from tunescope.models.questions import NOTHING, Questions

CHOSEN_BY_CLASS = ("most_confident", "confidence_bins")


def refuse_class_options(options: AblationOptions) -> None:
    """Refuse options that mean something for classes alone, and say why.

    Raises:
        LensError: Such an option was set.
    """
    classes = [name for name, one in options.directions.items() if one.classes]
    because = {
        "sample": ("its rows are chosen by the predicted class", options.sample.kind in CHOSEN_BY_CLASS),
        "as_published": ("it reads the probability of one class", options.as_published is not None),
        "edits: resample_other_class": (
            "its donors are of another class", "resample_other_class" in options.edits,
        ),
        f"the direction {classes[0]!r}" if classes else "": (
            "it is made of the classes' means (a direction from a file is possible)", bool(classes),
        ),
    }  # fmt: skip
    for name, (reason, is_set) in because.items():
        if is_set:
            raise LensError(
                f"ablation: {name} cannot be used on a language model, which has no classes: {reason}.",
                hint="Take it out of the lens's options.",
            )


def tokens_at_once(model: LanguageModel, options: AblationOptions) -> int:
    """Return how many tokens run together, so that their logits over the vocabulary fit."""
    return max(1, min(options.tokens_at_once, VOCABULARY_NUMBERS // model.vocabulary))


def screen_losses(
    subject: Subject, options: AblationOptions, rows: Questions, reference: Tokens
) -> tuple[list[Variant] | None, Checked]:
    """Screen a language model's components by the gradient of its log-likelihood, as ``screen`` does a margin's."""
    model = language(subject.tuned)
    bounded = options.model_copy(update={"tokens_at_once": tokens_at_once(model, options)})
    return screen(subject, bounded, rows.tokens, reference, log_likelihoods_of(model, rows))


def log_likelihoods_of(model: LanguageModel, rows: Questions) -> Score:
    """Return what sums the mean log-probability of the asked tokens over a batch's rows, with gradients."""

    def score(index: np.ndarray, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        states = model.hidden(**inputs)
        targets = rows.batch(index, states.shape[1]).to(states.device)
        asked = targets != NOTHING
        known = torch.log_softmax(model.head(states[asked]), -1)
        own = known.gather(-1, targets[asked][:, None])[:, 0]
        shares = 1 / asked.sum(1, keepdim=True).clamp(min=1).expand_as(asked)[asked]
        return (own * shares).sum()

    return score
