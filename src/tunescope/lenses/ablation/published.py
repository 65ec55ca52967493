"""Study 000's table as it was published, and the same table as it was meant.

The study says that it zeroes head i of GPT-2 and prints, per predicted class, the change of that class's probability.
Its mask looked up a name that does not exist, so that of every block only the *bias* of the attention's output
projection was zeroed; and each of its six columns holds the probability of one class, sadness. Both are reproduced
here, in the published form (blocks by predicted classes), beside the true ablations of heads and attention sublayers
with every class's own probability.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.ablation.components import BIAS, Variant, all_but_one, every
from tunescope.lenses.ablation.effects import Effects
from tunescope.lenses.ablation.table import Summary
from tunescope.lenses.subject import Subject, clusters
from tunescope.models.classifier import Classifier

AS_PUBLISHED, TRUE = "published_probability_change", "predicted_probability_change"
SITES = (
    BIAS, f"cross_{BIAS}", f"all_but_one:{BIAS}", f"all_but_one:cross_{BIAS}", "attn_out", "cross_attn_out", "head_out",
    "cross_head_out",
)  # fmt: skip


def published_variants(model: Classifier) -> list[Variant]:
    """List what the table needs: every bias, all biases but the first block's, and the true sublayers and heads.

    Raises:
        LensError: The model's projection has no bias, as in Llama and T5: there is nothing to zero.
    """
    biases = every(model, ("attention_bias",), "zero")
    return [*biases, *all_but_one(biases)[:1], *every(model, ("attention", "heads"), "zero")]


def require_class(subject: Subject, read: str) -> None:
    """Refuse a class that the model does not have.

    Raises:
        LensError: There is no such class.
    """
    names = subject.tuned.labels.names
    if read not in names:
        raise LensError(
            f"as_published names the class {read!r}; the classes are {', '.join(names)}.",
            hint="Name one of them, or leave as_published out.",
        )


def published_records(subject: Subject, effects: Effects, tokens: Tokens, read: str) -> list[dict[str, Any]]:
    """Summarise the tuned model's effects by predicted class, as it was published and as it was meant.

    The metric ``published_probability_change`` is the change of P(``read``) whatever the column; the metric
    ``predicted_probability_change`` is that of the column's own class. Rows go to the column of the class that the
    unchanged model predicts, as in the study. Differences are means over rows, edited minus unchanged.

    Args:
        subject: Whose effects they are.
        effects: Effects of the tuned model.
        tokens: The rows.
        read: The class whose probability every published column holds.
    """
    names = subject.tuned.labels.names
    wanted = [
        index for index, one in enumerate(effects.variants)
        if one.edit == "zero" and one.control in ("none", "random") and one.site in SITES
        and one.scope in ("one", "all_but_one")
    ]  # fmt: skip
    chosen, groups = [effects.variants[index] for index in wanted], clusters(tokens)
    changes = effects.class_probability_change[:, wanted].astype(np.float64)
    summary = Summary(subject, ())
    found: list[dict[str, Any]] = []
    for label in np.unique(effects.predicted).tolist():
        rows = np.flatnonzero(effects.predicted == label)
        for metric, column in ((AS_PUBLISHED, names.index(read)), (TRUE, label)):
            axes = {"class": names[label], "of": names[column]}
            values = changes[rows][..., column]
            found += [{**one, **axes} for one in summary.of("tuned", metric, chosen, values, groups[rows])]
    return found
