"""The lenses that measure a language model in a way of its own, under the names that classifiers' lenses have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tunescope.lenses.language import ablation as language_ablation
from tunescope.lenses.language import direct as language_direct
from tunescope.lenses.language import logit_lens as language_logit_lens
from tunescope.lenses.language.language import is_language
from tunescope.lenses.logits import attribution_direct
from tunescope.lenses.logits import findings as logit_findings
from tunescope.lenses.subject import Subject

ABLATION = (
    "Change of the log-probability of the true tokens (nats per token; minus the change of the loss) when one head, "
    "attention sublayer or MLP sublayer is replaced by zero or by its mean; paired per text, base beside tuned."
)
LOGIT_LENS = (
    "What the model would predict if it stopped at a layer: its own final norm (where it has one) and head on the "
    "residual stream after every block, at every token that it has to predict, base and tuned."
)
DIRECT = (
    "What the embeddings, every head and every MLP write directly into the logit of the true token, with the scale of "
    "the norms held fixed: the shares sum to it. Beside each, a random vector of equal norm."
)
LANGUAGE: dict[str, tuple[str, Callable[[Subject, Any], Any], Callable[..., Any]]] = {
    "ablation": (ABLATION, language_ablation.run, language_ablation.findings),
    "logit_lens": (LOGIT_LENS, language_logit_lens.run, logit_findings.findings),
    "attribution_direct": (DIRECT, language_direct.run, attribution_direct.findings),
}


def for_subject(subject: Subject, name: str, lens: Any) -> Any:
    """Return a lens as it looks at this subject: at a language model, token by token."""
    if name not in LANGUAGE or not is_language(subject):
        return lens
    what, run, findings = LANGUAGE[name]
    return replace(lens, what=what, run=run, findings=findings)
