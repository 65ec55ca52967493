"""The direct path: what each part writes into the logits along the residual stream, with every scale held fixed.

On the residual path from a part to the logits there are only norms, pooling and the head. With each norm's scale (its
standard deviation at each token of each row) and each gain of the head's nonlinearity (its output over its input) held
at the row's own value, that path is linear, so the parts' shares add up to the logits exactly (direct logit
attribution; Elhage et al. 2021, and Kobayashi et al. 2021, arXiv 2109.07152, for norms inside the path).

* Pre-norm (GPT-2, GPT-NeoX, Llama, Qwen): one norm is on the path, the final one.
* Post-norm (BERT and its relatives): every norm of a later sublayer is on the path, and each is held fixed. The
  embeddings count as they leave their own norm.
* Encoder-decoders (T5, BART): the head reads the decoder, so the parts are the decoder's: its embeddings, its two
  attentions and MLPs. What the encoder found is in what the heads of cross-attention write.

What a part does by changing what later blocks compute is not in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from tunescope.capture.direct_parts import CROSS, Component, attentions, components_of, read_stack
from tunescope.capture.hooks import reading
from tunescope.capture.sites import Reader, Site, head_weights, locate
from tunescope.capture.stored import norms_of
from tunescope.errors import SiteError
from tunescope.models.adapted import plain_layer
from tunescope.models.classifier import Classifier, right_padded
from tunescope.models.heads import ReorderedHead, SigmoidHead
from tunescope.seeds import derive_seed

NEARLY_ZERO = 1e-6  # below this the gain of a nonlinearity is taken as 1, its slope at 0


@dataclass(frozen=True)
class Direct:
    """Shares of B rows in C logits, in float64.

    Attributes:
        components: The K parts, in the order of the network; the last is the constant.
        shares: [B, K, C]; they sum to the logits over K.
        random: The same for a random direction of equal norm in each part's place, [B, K - 1, C].
        logits: The model's own, [B, C].
    """

    components: list[Component]
    shares: torch.Tensor
    random: torch.Tensor
    logits: torch.Tensor


@torch.no_grad()
def direct(
    classifier: Classifier, inputs: dict[str, torch.Tensor], row_ids: Sequence[str], seed: int
) -> Direct:
    """Run one batch and split its logits into what every part wrote into them directly.

    Args:
        classifier: The model, in evaluation mode.
        inputs: Token ids, mask and token types of B rows, padded.
        row_ids: Their ids; with the seed they fix each row's random directions, whatever its batch mates are.
        seed: Seeds the random directions.

    Raises:
        SiteError: An activation is NaN or infinite (site and row are named), a norm is of an unknown kind, or the head
            is not one or two linear layers with at most one elementwise nonlinearity between them.
    """
    values, logits, head = _read(classifier, inputs)
    mask = right_padded(inputs["input_ids"], inputs["attention_mask"])[1]
    require_finite(values, mask, row_ids)
    generators = [torch.Generator().manual_seed(derive_seed(seed, "direct", row_id)) for row_id in row_ids]
    pooled = Pooled.of(classifier, mask)
    path = Path(classifier, pooled, values, generators)
    slopes, constant = head  # [B, C, D], [B, C]
    shares, random = path.back(slopes.unsqueeze(1) * pooled.weights[:, :, None, None])
    shares.append(constant + path.constant)
    return Direct(
        components_of(classifier), torch.stack(shares, dim=1), torch.stack(random, dim=1), logits.double()
    )


def require_finite(values: dict[Site, torch.Tensor], mask: torch.Tensor, row_ids: Sequence[str]) -> None:
    """Refuse activations that are not finite; sites come in the order in which the model reaches them."""
    for site, value in values.items():
        bad = ~torch.isfinite(value).all(-1) & mask.bool()  # [B, T]
        if bool(bad.any()):
            rows = [row_ids[index] for index in bad.any(1).nonzero()[:, 0].tolist()]
            raise SiteError(
                f"{site} is NaN or infinite in {len(rows)} of {len(row_ids)} rows of a batch, the first is row "
                f"{rows[0]}."
            )


@dataclass(frozen=True)
class Pooled:
    """Which tokens are read, and with what weight: places [B, P], weights [B, P]."""

    places: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def of(cls, classifier: Classifier, mask: torch.Tensor) -> Pooled:
        """Return what the classifier's own pooling reads."""
        rows, length = mask.shape
        if classifier.pooling == "mean":
            places = torch.arange(length, device=mask.device).expand(rows, length)
            return cls(places, mask.double() / mask.sum(1, keepdim=True))
        last = mask.sum(1, keepdim=True) - 1
        places = last if classifier.pooling == "last" else torch.zeros_like(last)
        return cls(places, torch.ones(rows, 1, dtype=torch.float64, device=mask.device))

    def take(self, values: torch.Tensor) -> torch.Tensor:
        """Return the tokens that are read of [B, T, D], as [B, P, D] in float64."""
        index = self.places.unsqueeze(-1).expand(-1, -1, values.shape[-1])
        return values.gather(1, index).double()


def is_rms_norm(norm: nn.Module) -> bool:
    """Whether a norm divides by the root mean square alone, without a mean taken out or a bias (Llama, Qwen, T5)."""
    own = {name for name, _ in norm.named_parameters()}
    return own == {"weight"} and hasattr(norm, "variance_epsilon")


class Path:
    """Walks back from the head to the embeddings, and leaves each part's share on the way."""

    def __init__(
        self,
        classifier: Classifier,
        pooled: Pooled,
        values: dict[Site, torch.Tensor],
        generators: Sequence[torch.Generator],
    ) -> None:
        self.classifier, self.pooled, self.values, self.generators = classifier, pooled, values, generators
        self.constant: torch.Tensor = torch.zeros((), dtype=torch.float64)

    def back(self, way: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return shares and random shares of all parts in order, [B, C] each, from slopes at the head [B, P, C, D]."""
        shares: list[torch.Tensor] = []
        random: list[torch.Tensor] = []
        pre = self.classifier.family.norm_order == "pre"
        if pre:
            assert self.classifier.family.final_norm is not None
            norm = self.classifier.trunk.get_submodule(self.classifier.family.final_norm)
            way = self._through(norm, self._at("final_norm_in"), way)
        for layer in reversed(range(self.classifier.n_layers)):
            mlp = self._at("mlp_out", layer)
            written = [self._attention(kind, layer) for kind in attentions(self.classifier)]
            norms, sums = ([], []) if pre else self._sums(layer, written, mlp)
            if not pre:
                way = self._through(norms[-1], sums[-1], way)
            found = [self._share(mlp, way)]
            for index in reversed(range(len(written))):
                heads, bias = written[index]
                if not pre:
                    way = self._through(norms[index], sums[index], way)
                found.append(self._share(bias.expand_as(mlp), way))
                found += [self._share(head, way) for head in heads.flip(0)]
            shares += [one for one, _ in found]
            random += [one for _, one in found]
        last = self._share(self._at("embeddings"), way)
        return [last[0], *reversed(shares)], [last[1], *reversed(random)]

    def _at(self, name: str, layer: int | None = None) -> torch.Tensor:
        return self.pooled.take(self.values[Site(name, layer, read_stack(self.classifier))])

    def _attention(self, kind: str, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what an attention's heads [H, B, P, D] and its bias [D] write at the tokens that are read."""
        stack = read_stack(self.classifier)
        weights = head_weights(self.classifier, layer, stack, kind == CROSS).double()
        z = self._at(f"{kind}head_z", layer).unflatten(-1, (self.classifier.n_heads, -1))
        heads = torch.einsum("bphd,hde->hbpe", z, weights)
        projection = plain_layer(locate(self.classifier, Site(f"{kind}attn_out", layer, stack)).module)
        bias = getattr(projection, "bias", None)
        width = torch.zeros(self.classifier.width, dtype=torch.float64, device=heads.device)
        return heads, width if bias is None else bias.double()

    def _sums(
        self, layer: int, written: Sequence[tuple[torch.Tensor, torch.Tensor]], mlp: torch.Tensor
    ) -> tuple[list[nn.Module], list[torch.Tensor]]:
        """Return the norms of a post-norm block, and the sums that each of them is given, [B, P, D]."""
        first, *rest = norms_of(self.classifier, layer)
        norms = [first, *rest]
        if len(written) > 1:  # behind cross-attention, between the two
            assert self.classifier.family.cross_attention_norm is not None
            norms.insert(1, self.classifier.trunk.get_submodule(
                self.classifier.family.path("cross_attention_norm", layer)))  # fmt: skip
        before, sums = self._at("resid_pre", layer), []
        for index, (heads, bias) in enumerate(written):
            sums.append(before + heads.sum(0) + bias)
            before = self._at("resid_mid", layer) if index == 0 else _normed(norms[index], sums[-1])
        return norms, [*sums, before + mlp]

    def _through(self, norm: nn.Module, given: torch.Tensor, way: torch.Tensor) -> torch.Tensor:
        """Take the way back through a norm whose scale is held at what it made of ``given``, [B, P, D]."""
        if is_rms_norm(norm):
            weight: torch.Tensor = norm.weight  # type: ignore[assignment]
            square = given.pow(2).mean(-1) + float(norm.variance_epsilon)  # type: ignore[arg-type]
            return way * weight.double() / torch.sqrt(square)[:, :, None, None]
        if not isinstance(norm, nn.LayerNorm):
            raise SiteError(
                f"{type(norm).__name__} is neither a layer norm nor a root-mean-square norm, so its scale cannot be "
                "held fixed here."
            )
        scale = torch.sqrt(given.var(-1, unbiased=False) + norm.eps)[:, :, None, None]  # [B, P, 1, 1]
        if norm.bias is not None:
            self.constant = self.constant + torch.einsum("bpcd,d->bc", way, norm.bias.double())
        scaled = way * norm.weight.double() / scale
        return scaled - scaled.mean(-1, keepdim=True)

    def _share(self, value: torch.Tensor, way: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what a part [B, P, D] writes into the logits [B, C], and what a random one of equal norm would.

        The random direction is one a row; at each token it has the norm of the part there.
        """
        rows = [torch.randn(value.shape[-1], generator=one, dtype=torch.float64) for one in self.generators]
        drawn = torch.stack(rows).to(value.device)
        drawn = (drawn / drawn.norm(dim=-1, keepdim=True))[:, None] * value.norm(dim=-1, keepdim=True)
        return torch.einsum("bpd,bpcd->bc", value, way), torch.einsum("bpd,bpcd->bc", drawn, way)


def _read(
    classifier: Classifier, inputs: dict[str, torch.Tensor]
) -> tuple[dict[Site, torch.Tensor], torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Run the batch once; return activations [B, T, D], the logits, and the head as slopes and constants."""
    values: dict[Site, torch.Tensor] = {}
    with torch.no_grad():
        with reading(classifier, [*path_sites(classifier), Site("pooled")], keeper(values)):
            logits = classifier(**inputs)
        return values, logits, head_slopes(classifier, values.pop(Site("pooled")))


def path_sites(classifier: Classifier) -> list[Site]:
    """Return the sites that must be read to walk the residual path back."""
    names = [*(f"{kind}head_z" for kind in attentions(classifier)), "mlp_out"]
    names += [] if classifier.family.norm_order == "pre" else ["resid_pre", "resid_mid"]
    stack = read_stack(classifier)
    sites = [Site(name, layer, stack) for layer in range(classifier.n_layers) for name in names]
    last = [Site("final_norm_in", stack=stack)] if classifier.family.final_norm else []
    return [Site("embeddings", stack=stack), *sites, *last]


def _normed(norm: nn.Module, given: torch.Tensor) -> torch.Tensor:
    """Return what a layer norm makes of a float64 stream, in float64."""
    assert isinstance(norm, nn.LayerNorm)
    bias = None if norm.bias is None else norm.bias.double()
    return functional.layer_norm(given, norm.normalized_shape, norm.weight.double(), bias, norm.eps)


def keeper(values: dict[Site, torch.Tensor]) -> Reader:
    """Return what keeps every activation it is handed; heads lie side by side, [B, T, H x D/H]."""

    def keep(site: Site, value: torch.Tensor) -> None:
        values[site] = value.flatten(2) if site.name.endswith("head_z") else value

    return keep


def _flat(value: torch.Tensor) -> torch.Tensor:
    """Return [B, D] of [B, D] or of sequences [B, 1, D]."""
    return value.reshape(len(value), -1, value.shape[-1])[:, 0].double()


def head_slopes(classifier: Classifier, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each row's slopes [B, C, D] from the pooled vector [B, D] to the logits, and what is left, [B, C]."""
    linear = [module for module in classifier.head.modules() if isinstance(module, nn.Linear)]
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []  # into and out of each linear layer
    with contextlib.ExitStack() as stack:
        for module in linear:
            hook = module.register_forward_hook(
                lambda _m, given, out: seen.append((_flat(given[0]), _flat(out)))
            )
            stack.callback(hook.remove)
        classifier.head(pooled)
    if len(linear) not in (1, 2) or len(seen) != len(linear):
        raise SiteError(
            f"The head has {len(linear)} linear layers; only heads of one, or of two with an elementwise nonlinearity "
            "between them, can be split into shares."
        )
    weight, bias = _matrix(linear[-1])
    slopes, constant = weight.expand(len(seen[0][0]), -1, -1), bias.expand(len(seen[0][0]), -1)
    if len(linear) == 2:
        before, after = seen[0][1], seen[1][0]  # into and out of the nonlinearity, [B, D]
        small = before.abs() < NEARLY_ZERO
        gain = torch.where(small, torch.ones_like(before), after / torch.where(small, 1.0, before))
        first, first_bias = _matrix(linear[0])
        gained = slopes * gain[:, None]
        slopes, constant = gained @ first, constant + gained @ first_bias
    for part in classifier.head.modules():
        if isinstance(part, SigmoidHead):
            slopes = torch.cat([torch.zeros_like(slopes), slopes], dim=1)
            constant = torch.cat([torch.zeros_like(constant), constant], dim=1)
    if isinstance(classifier.head, ReorderedHead):
        slopes, constant = slopes[:, classifier.head.order], constant[:, classifier.head.order]
    return slopes, constant


def _matrix(layer: nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
    weight = layer.weight.detach().double()
    return weight, weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().double()
