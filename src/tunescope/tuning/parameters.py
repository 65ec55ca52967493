"""What every tuning method shares: a clean start, parameters that never move, and the itemised count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunescope.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

    from tunescope.models import Classifier


def frozen_always(classifier: Classifier) -> list[nn.Parameter]:
    """Return the parameters of a classifier that no method may train.

    These are the trunk's biases where the configuration says ``tunescope_bias: false`` (a GPT trained from scratch
    without biases holds them as zeros, because transformers' class has no such switch), and parameters that no
    logit depends on (BERT's pooler under mean pooling): they never get a gradient, so they are not counted either.
    """
    from tunescope.models.language import LanguageModel  # late: it loads transformers

    read = {id(one) for one in classifier.head.parameters()}
    frozen = [
        one
        for path in (() if isinstance(classifier, LanguageModel) else classifier.family.head_parts)
        for one in classifier.model.get_submodule(path).parameters()
        if id(one) not in read
    ]
    if getattr(classifier.model.config, "tunescope_bias", True) is False:
        frozen += [one for name, one in classifier.trunk.named_parameters() if name.endswith("bias")]
    return frozen


def require_one_stack(classifier: Classifier, method: str) -> None:
    """Refuse an encoder-decoder for a method whose order of blocks it does not have.

    Raises:
        ModelError: The model has an encoder and a decoder.
    """
    if classifier.is_encoder_decoder:
        raise ModelError(
            f"{method} is not yet available for encoder-decoders such as {classifier.family.name}.",
            hint="Choose full, head_only or lora.",
        )


def start(classifier: Classifier) -> None:
    """Freeze everything, so that a method only has to say what it trains.

    Raises:
        ModelError: The classifier already holds an adapter; a second method on top would train what it should not.
    """
    if classifier.adapter_config is not None:
        raise ModelError(
            "This classifier already holds an adapter, so no other method can be prepared on it.",
            hint="Load the base anew for every method.",
        )
    classifier.requires_grad_(False)
    classifier.set_frozen_blocks(0)


def finish(classifier: Classifier, frozen_blocks: int) -> None:
    """Freeze again what no method may train, and run the leading ``frozen_blocks`` without dropout."""
    for parameter in frozen_always(classifier):
        parameter.requires_grad_(False)
    classifier.set_frozen_blocks(frozen_blocks)


def trainable(classifier: Classifier) -> list[dict[str, Any]]:
    """Itemise the parameters of a classifier, one entry a matrix, in the model's order.

    Returns:
        Entries ``{"matrix": name, "shape": [..], "trained": count, "of": count}``; ``trained`` is 0 for what is
        frozen. Adapter factors of a fused projection's parts are counted one by one, without the zeros between
        them that a stored peft adapter holds.
    """
    return [
        {
            "matrix": name.removeprefix("model.").replace(".default.factors.", ".").replace(".default", ""),
            "shape": list(parameter.shape),
            "trained": parameter.numel() if parameter.requires_grad else 0,
            "of": parameter.numel(),
        }
        for name, parameter in classifier.named_parameters()
    ]
