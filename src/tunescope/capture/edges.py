"""Direct effects between parts: what one part's output does to the answer through one other part, and nothing else.

An edge goes from a part A (the embeddings, a head, an MLP) that writes into the residual stream to a part B (a later
head or MLP) that reads it. Its effect is that of the path A -> B -> logits alone, every other part held at its value
(path patching of one edge; Wang et al. 2023, arXiv 2211.00593):

    effect(A -> B) = way_B . (B(x) - B(x - a)),

where `x` is what B reads, `a` what A adds to it, `B(.)` the part run anew (a head's pattern included), and `way_B` how
each coordinate that B writes moves the logits along the residual stream. Norms keep the scale that they have in this
row, before B and behind it, as in :mod:`tunescope.capture.direct`; then `a` is an exact share of `x`, and a part that B
does not read has an effect of 0. The edge A -> logits is A's direct share. What A does through two parts or more is in
no single edge.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunescope.capture.direct import Path, Pooled, head_slopes, is_rms_norm, keeper, path_sites
from tunescope.capture.direct_parts import Component
from tunescope.capture.hooks import reading
from tunescope.capture.partial import blocks_of, copied
from tunescope.capture.sites import Site, head_weights, locate
from tunescope.capture.stored import StoredPass, norms_of, store
from tunescope.errors import SiteError
from tunescope.models.classifier import Classifier

# From states that the head reads, [B, D], to slopes [B, D] of the one number that effects are measured in.
Slopes = Callable[[torch.Tensor], torch.Tensor]
AT_ONCE = 1 << 24  # numbers of one tensor of changed inputs that are held at a time


@dataclass(frozen=True)
class Edges:
    """Effects of every edge of one row, in float64.

    Attributes:
        senders: The S parts that write: embeddings, then heads and MLP of each layer.
        receivers: The R parts that read: heads and MLP of each layer, then the logits.
        effects: [S, R]; NaN where the receiver does not come after the sender.
        random: The same for a random direction with the sender's norm at each token in its place.
    """

    senders: list[Component]
    receivers: list[Component]
    effects: torch.Tensor
    random: torch.Tensor


LOGITS = Component("logits")


def parts_of(classifier: Classifier) -> list[Component]:
    """Return heads and MLP of each layer, in the order of the network."""
    found: list[Component] = []
    for layer in range(classifier.n_layers):
        found += [Component("head_out", layer, head) for head in range(classifier.n_heads)]
        found.append(Component("mlp_out", layer))
    return found


def contrast_slopes(classifier: Classifier, label: int) -> Slopes:
    """Return slopes of the true class's logit over the mean of the others'."""

    def slopes(pooled: torch.Tensor) -> torch.Tensor:
        every, _ = head_slopes(classifier, pooled)  # [B, C, D]
        classes = every.shape[1]
        return (every[:, label] * classes - every.sum(1)) / (classes - 1)

    return slopes


@torch.no_grad()
def direct_edges(
    classifier: Classifier, inputs: dict[str, torch.Tensor], slopes: Slopes, generator: torch.Generator
) -> Edges:
    """Return the direct effect of every part on every later part's effect on the answer, for one row.

    Args:
        classifier: The model, in evaluation mode.
        inputs: Token ids [1, T] of one row without padding, a mask of ones, and segment ids where there are any.
        slopes: Slopes of the answer in what the head reads.
        generator: Draws the random directions, on the processor.

    Raises:
        SiteError: The model's parts do not add up, or its norms are of an unknown kind.
    """
    return _Walk(classifier, inputs, slopes, generator).run()


class _Ways(Path):
    """Keeps how each coordinate at each place moves the answer, instead of what the parts write."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.found: list[torch.Tensor] = []

    def _share(self, value: torch.Tensor, way: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.found.append(way[0, :, 0])  # [P, D]
        zero = torch.zeros(1, 1, dtype=torch.float64, device=value.device)
        return zero, zero


class _Walk:
    """Walks one row through the blocks, and keeps what every part so far has added to the stream."""

    def __init__(
        self,
        classifier: Classifier,
        inputs: dict[str, torch.Tensor],
        slopes: Slopes,
        generator: torch.Generator,
    ) -> None:
        self.classifier, self.generator = classifier, generator
        self.pre = classifier.family.norm_order == "pre"
        self.stored: StoredPass = store(classifier, inputs)
        mask = torch.ones_like(inputs["input_ids"])
        self.pooled = Pooled.of(classifier, mask)
        self.places = self.pooled.places[0]
        self.ways = self._ways(inputs, slopes)  # embeddings, then attention and MLP of each layer: [P, D]
        self.senders = [Component("embeddings"), *parts_of(classifier)]
        self.receivers = [*parts_of(classifier), LOGITS]
        # What each sender adds to the stream where it now is, [S, T, D]; below it the random ones in their places.
        self.own = self.stored.at(Site("embeddings"))
        self.drawn = self._random(self.own)
        shape = (len(self.senders), len(self.receivers))
        self.effects = torch.full(shape, torch.nan, dtype=torch.float64)
        self.random = torch.full(shape, torch.nan, dtype=torch.float64)

    def _ways(self, inputs: dict[str, torch.Tensor], slopes: Slopes) -> list[torch.Tensor]:
        values: dict[Site, torch.Tensor] = {}
        pooled = Site("pooled")
        with reading(self.classifier, [*path_sites(self.classifier), pooled], keeper(values)):
            self.classifier(**inputs)
        start = slopes(values.pop(pooled)).double()[:, None, None] * self.pooled.weights[:, :, None, None]
        path = _Ways(self.classifier, self.pooled, values, [])
        path.back(start)
        layers = self.classifier.n_layers
        each = len(path.found[:-1]) // layers  # MLP, attention bias, heads; backwards
        behind = [(path.found[k * each + 1], path.found[k * each]) for k in range(layers)]
        return [path.found[-1], *(one for pair in reversed(behind) for one in pair)]

    def run(self) -> Edges:
        """Return the effects of all edges."""
        self._to_logits(0, self.own, self.drawn)
        for layer in range(self.classifier.n_layers):
            if self.classifier.is_parallel:
                self._attention(layer)
                self._mlp(layer)
                self._write_heads(layer)
            else:
                self._attention(layer)
                self._write_heads(layer)
                self._through(0, layer)
                self._mlp(layer)
            self._write_mlp(layer)
            self._through(1, layer)
        return Edges(self.senders, self.receivers, self.effects, self.random)

    def _attention(self, layer: int) -> None:
        """Run the layer's heads without each sender's part of their input."""
        module = locate(self.classifier, Site("attn_pattern", layer)).module
        arguments, named = self.stored.attention_calls[layer]
        clean = self._read_by_attention(layer)
        site, weights = Site("head_z", layer), head_weights(self.classifier, layer).double()
        way = torch.einsum("hde,pe->phd", weights, self.ways[1 + 2 * layer])  # [P, H, D/H]
        own = self.stored.values["head_z"][layer][0, self.places].double()

        def effect(changed: torch.Tensor) -> torch.Tensor:
            found: list[torch.Tensor] = []
            copies = len(changed)
            with reading(self.classifier, [site], lambda _s, value: found.append(value)):
                module(
                    changed,
                    *(copied(value, copies, 1) for value in arguments),
                    **{key: copied(value, copies, 1) for key, value in named.items()},
                )
            moved = own - found[0][:, self.places].double()  # [S, P, H, D/H]
            return torch.einsum("sphd,phd->sh", moved, way)

        self._receive(layer * (self.classifier.n_heads + 1), clean, self._norm_before(layer, 0), effect)

    def _mlp(self, layer: int) -> None:
        """Run the layer's MLP without each sender's part of its input, at the tokens that are read."""
        way = self.ways[2 + 2 * layer]
        clean = self._read_by_mlp(layer)[:, self.places]
        own = self.stored.values["mlp_out"][layer][0, self.places].double()

        def effect(changed: torch.Tensor) -> torch.Tensor:
            moved = own - self._run_mlp(layer, changed).double()
            return torch.einsum("spe,pe->s", moved, way)[:, None]

        first = layer * (self.classifier.n_heads + 1) + self.classifier.n_heads
        self._receive(first, clean, self._norm_before(layer, 1), effect, self.places)

    def _receive(
        self,
        first: int,
        clean: torch.Tensor,
        norm: tuple[nn.Module, torch.Tensor] | None,
        effect: Callable[[torch.Tensor], torch.Tensor],
        places: torch.Tensor | None = None,
    ) -> None:
        """Take each sender's part out of an input and write down what that does, for receivers from ``first`` on."""
        for parts, out in ((self.own, self.effects), (self.drawn, self.random)):
            step = max(1, AT_ONCE // parts[0].numel())
            for start in range(0, len(parts), step):
                some = parts[start : start + step]
                added = some if norm is None else _held(norm[0], norm[1], some)
                added = added if places is None else added[:, places]
                found = effect(clean - added)
                out[start : start + len(some), first : first + found.shape[1]] = found.cpu()

    def _norm_before(self, layer: int, which: int) -> tuple[nn.Module, torch.Tensor] | None:
        """Return the norm between stream and part, and what it was given; None where parts read the stream itself."""
        if not self.pre:
            return None
        read = self.stored.trace.resid_pre[layer] if which == 0 or self.classifier.is_parallel else None
        given = self.stored.values["resid_mid"][layer] if read is None else read
        return norms_of(self.classifier, layer)[which], given

    def _read_by_attention(self, layer: int) -> torch.Tensor:
        stream = self.stored.trace.resid_pre[layer]
        result: torch.Tensor = norms_of(self.classifier, layer)[0](stream) if self.pre else stream
        return result

    def _read_by_mlp(self, layer: int) -> torch.Tensor:
        before = self._norm_before(layer, 1)
        if before is None:
            return self.stored.values["resid_mid"][layer]
        result: torch.Tensor = before[0](before[1])
        return result

    def _run_mlp(self, layer: int, given: torch.Tensor) -> torch.Tensor:
        """Return what the MLP makes of an input of its own, [S, P, D]: the block is run with nothing else in it."""
        family, classifier = self.classifier.family, self.classifier
        attention = locate(classifier, Site("attn_pattern", layer)).module
        inside = family.middle.startswith(
            family.attention + "."
        )  # the norm behind attention lies in its module
        site, found = Site("mlp_out", layer), []
        arguments, named = self.stored.trace.calls[layer]
        nothing = torch.zeros_like(given)
        with contextlib.ExitStack() as stack:
            attention.forward = lambda *_a, **_k: (given if inside else nothing, None)
            stack.callback(attention.__dict__.pop, "forward")
            if not inside:
                norm = norms_of(classifier, layer)[1 if self.pre else 0]
                stack.callback(norm.register_forward_hook(lambda _m, _a, _o: given).remove)
            stack.enter_context(reading(classifier, [site], lambda _s, value: found.append(value)))
            blocks_of(classifier)[layer](
                nothing, *(copied(value, len(given), 1) for value in arguments),
                **{key: copied(value, len(given), 1) for key, value in named.items() if key != "hidden_states"},
            )  # fmt: skip
        return found[0]

    def _write_heads(self, layer: int) -> None:
        weights = head_weights(self.classifier, layer)
        z = self.stored.values["head_z"][layer][0]  # [T, H, D/H]
        self._write(torch.einsum("thd,hde->hte", z, weights), self.ways[1 + 2 * layer])

    def _write_mlp(self, layer: int) -> None:
        self._write(self.stored.values["mlp_out"][layer], self.ways[2 + 2 * layer])

    def _write(self, written: torch.Tensor, way: torch.Tensor) -> None:
        drawn = self._random(written)
        self._to_logits(len(self.own), written, drawn, way)
        self.own, self.drawn = torch.cat([self.own, written]), torch.cat([self.drawn, drawn])

    def _to_logits(
        self, first: int, written: torch.Tensor, drawn: torch.Tensor, way: torch.Tensor | None = None
    ) -> None:
        way = self.ways[0] if way is None else way
        for parts, out in ((written, self.effects), (drawn, self.random)):
            shares = torch.einsum("spe,pe->s", parts[:, self.places].double(), way)
            out[first : first + len(parts), -1] = shares.cpu()

    def _through(self, which: int, layer: int) -> None:
        """Take every sender's part through a norm of a post-norm block, its scale held at this row's."""
        if self.pre:
            return
        norm = norms_of(self.classifier, layer)[0 if which == 0 else -1]
        values = self.stored.values
        if which == 0:
            given = self.stored.trace.resid_pre[layer] + values["attn_out"][layer]
        else:
            given = values["resid_mid"][layer] + values["mlp_out"][layer]
        self.own, self.drawn = _held(norm, given, self.own), _held(norm, given, self.drawn)

    def _random(self, written: torch.Tensor) -> torch.Tensor:
        """Return one random direction a part, with the part's norm at each token."""
        shape = (len(written), 1, written.shape[-1])
        drawn = torch.randn(shape, generator=self.generator, dtype=torch.float64).to(written)
        return drawn / drawn.norm(dim=-1, keepdim=True) * written.norm(dim=-1, keepdim=True)


def _held(norm: nn.Module, given: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
    """Return what parts [S, T, D] of a norm's input are of its output, with the scale that it has for ``given``."""
    weight: torch.Tensor = norm.weight  # type: ignore[assignment]
    if is_rms_norm(norm):
        scale = torch.sqrt(given.pow(2).mean(-1, keepdim=True) + float(norm.variance_epsilon))  # type: ignore[arg-type]
        return parts * weight / scale
    if not isinstance(norm, nn.LayerNorm):
        raise SiteError(
            f"{type(norm).__name__} is neither a layer norm nor a root-mean-square norm, so its scale cannot be held."
        )
    scale = torch.sqrt(given.var(-1, unbiased=False, keepdim=True) + norm.eps)
    return (parts - parts.mean(-1, keepdim=True)) * weight / scale


def names(parts: Sequence[Component]) -> list[str]:
    """Return how reports write parts."""
    return [part.name for part in parts]
