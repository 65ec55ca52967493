"""The parts that write into the stream that a model's head reads."""

from __future__ import annotations

from dataclasses import dataclass

from tunescope.models.classifier import Classifier
from tunescope.models.encoder_decoder import StackName

CROSS = "cross_"


@dataclass(frozen=True)
class Component:
    """One part that writes into the residual stream.

    Attributes:
        site: ``embeddings``, ``head_out``, ``attention_bias``, ``mlp_out``, or ``constant`` (what the biases of norms
            and head add whatever the text is); ``cross_head_out`` and ``cross_attention_bias`` of cross-attention.
        layer: The layer, where it has one.
        head: The head, where it is one.
        stack: ``decoder`` in an encoder-decoder, None elsewhere.
    """

    site: str
    layer: int | None = None
    head: int | None = None
    stack: StackName | None = None

    @property
    def name(self) -> str:
        """How reports write it."""
        if self.layer is None:
            return self.site
        site = self.site.removeprefix(CROSS)
        place = "" if self.stack is None else "cross." if site != self.site else f"{self.stack}."
        if self.head is not None:
            return f"{place}L{self.layer}H{self.head}"
        return (
            f"{place}L{self.layer}.{ {'attention_bias': 'attention bias', 'mlp_out': 'mlp'}.get(site, site) }"
        )

    @property
    def axes(self) -> dict[str, str | int | None]:
        """The columns that name it; ``stack`` in an encoder-decoder alone."""
        stack = {} if self.stack is None else {"stack": self.stack}
        return {"site": self.site, "layer": self.layer, "head": self.head, "component": self.name, **stack}


def components_of(classifier: Classifier) -> list[Component]:
    """Return the parts of a model in order: embeddings, then heads, attention bias and MLP of each layer, constant.

    In a decoder with cross-attention its heads and bias stand behind those of self-attention.
    """
    stack = read_stack(classifier)
    found = [Component("embeddings", stack=stack)]
    for layer in range(classifier.n_layers):
        for kind in attentions(classifier):
            found += [Component(f"{kind}head_out", layer, head, stack) for head in range(classifier.n_heads)]
            found.append(Component(f"{kind}attention_bias", layer, None, stack))
        found.append(Component("mlp_out", layer, None, stack))
    return [*found, Component("constant", stack=stack)]


def read_stack(classifier: Classifier) -> StackName | None:
    """Return the stack that the head reads: the decoder, or None where a model has one stack."""
    return classifier.stacks[-1].name


def attentions(classifier: Classifier) -> tuple[str, ...]:
    """Return what the sites of each attention of a block on the residual path begin with, in order."""
    return ("", CROSS) if classifier.is_encoder_decoder else ("",)
