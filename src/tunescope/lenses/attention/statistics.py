"""What one attention pattern says, head by head: entropy, distance, sink, sparsity, and how two patterns differ.

Every number is a mean over the queries of a text that have enough keys to choose from, one number a text and head.
A query at place q of a causal model sees q + 1 keys, in a two-sided model all real tokens; what is not visible is
never counted, neither padding nor the future.

A pattern is read some queries at a time: what comes after the last of them is not touched in a causal model, what is
made on the way fits the processor's cache, and each pattern's logarithm is taken once for all statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from tunescope.errors import LensError

TINY = 1e-12  # a share below this counts as this in a logarithm: softmax in float32 underflows to 0
QUERIES = 64  # read at a time
FEW_EVERY = 16  # what costs more than all else together looks at every 16th query of a long text
FEW_QUERIES = 32  # texts of fewer queries are looked at whole

Statistics = dict[str, torch.Tensor]
Each = tuple[
    torch.Tensor, torch.Tensor
]  # values of queries [B, H, T], and which of them count [B, 1 or H, T]


@dataclass(frozen=True)
class Visible:
    """Which keys each query may attend to.

    Attributes:
        mask: Right-padded rows, real tokens 1, [B, T].
        causal: Whether a query sees no key behind it.
    """

    mask: torch.Tensor
    causal: bool

    @classmethod
    def of(cls, attention_mask: torch.Tensor, causal: bool) -> Visible:
        """Return what right-padded rows [B, T] let each query see."""
        return cls(attention_mask.bool(), causal)

    @cached_property
    def keys(self) -> torch.Tensor:
        """Queries by keys, bool [B, T, T]; rows of padding are all False."""
        keys = self.mask[:, :, None] & self.mask[:, None, :]
        return keys.tril() if self.causal else keys

    @cached_property
    def counts(self) -> torch.Tensor:
        """Visible keys of each query, [B, T]."""
        seen = self.mask.cumsum(-1) if self.causal else self.mask.sum(-1, keepdim=True)
        return torch.where(self.mask, seen, 0)

    def parts(self) -> Iterator[tuple[slice, int]]:
        """Yield queries, and how many keys the last of them may see."""
        length = self.mask.shape[1]
        for first in range(0, length, QUERIES):
            last = min(first + QUERIES, length)
            yield slice(first, last), last if self.causal else length

    def few(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield queries of which each text has a few, and whether they count for it, [B, q].

        Every query of short texts and every 16th of long ones; which, depends on the text alone.
        """
        several = self.counts >= 2
        short = (self.mask.sum(-1) <= FEW_QUERIES)[:, None]
        near = slice(0, FEW_QUERIES)
        yield near, several[:, near] & short
        if self.mask.shape[1] > FEW_QUERIES:
            every = slice(FEW_EVERY // 2 - 1, None, FEW_EVERY)
            yield every, several[:, every] & ~short


@dataclass(frozen=True)
class Compared:
    """Two models' patterns on the same tokens; statistic -> [B, H].

    Attributes:
        before: As :func:`statistics` says of the first, with `between_heads`.
        after: Of the second.
        both: As :func:`divergences` says.
        each: The same query by query, of ``base``, ``tuned`` and ``base_tuned``.
    """

    before: Statistics
    after: Statistics
    both: Statistics
    each: dict[str, dict[str, Each]]


def statistics(pattern: torch.Tensor, visible: Visible) -> Statistics:
    """Return what one model's pattern says.

    `entropy`: `-sum_k p_k log p_k / log v` with v visible keys, 0 (one key) to 1 (even over all), over queries with
    v >= 2. `entropy_without_sink`: the same after taking the first token out and scaling the rest to sum to 1, over
    v - 1 keys, for queries with v >= 3 that leave the others a share. `sink_mass`: share on the first token, over
    queries with v >= 2. `distance`: `sum_k p_k |q - k|` in tokens. `gini`: `sum_i (2 i - v - 1) p_(i) / v` with
    shares in rising order and i from 1 (they sum to 1), 0 (even) to 1 - 1/v (one key), over all queries of texts of
    up to 32 tokens and every 16th query of longer ones.

    Args:
        pattern: Attention, rows sum to 1 over visible keys, [B, H, T, T].
        visible: What each query sees.

    Returns:
        Statistic -> [B, H]; NaN where no query of the text has enough keys.

    Raises:
        LensError: The pattern holds NaN, or its rows do not sum to 1.
    """
    own = _Queries(visible)
    for queries, keys in visible.parts():
        shares = _part(pattern, queries, keys)
        own.add(shares, _logs(shares).mul_(shares), queries)
    return means(own.each(pattern))


def divergences(before: torch.Tensor, after: torch.Tensor, visible: Visible) -> Statistics:
    """Return how far one model's pattern is from another's on the same tokens.

    `kl`: `sum_k b_k log(b_k / a_k)` in nats, from before to after, 0 or more, shares below 1e-12 counted as that.
    `jensen_shannon`: `H((a + b) / 2) - (H(a) + H(b)) / 2` in bits, 0 to 1. Both over queries with two keys or more.

    Args:
        before: [B, H, T, T].
        after: The same shape.
        visible: What each query sees.

    Returns:
        Statistic -> [B, H].

    Raises:
        LensError: The shapes differ: the models' heads are not one another's; or as :func:`statistics`.
    """
    return compared(before, after, visible).both


def compared(before: torch.Tensor, after: torch.Tensor, visible: Visible) -> Compared:
    """Return everything that two patterns say, in one reading of both.

    `between_heads` of the first is the Jensen-Shannon divergence of each head from its neighbour, on the queries
    that `gini` looks at: how far two different heads are apart. It is left out where there is one head.

    Raises:
        LensError: As :func:`statistics` and :func:`divergences`.
    """
    if before.shape != after.shape:
        raise LensError(
            f"Attention of shape {tuple(before.shape)} and {tuple(after.shape)} cannot be compared head by head."
        )
    ours, theirs = _Queries(visible), _Queries(visible)
    kl, apart = [], []
    for queries, keys in visible.parts():
        first, second = _part(before, queries, keys), _part(after, queries, keys)
        logs, other = _logs(first), _logs(second)
        # sum b log b - b log a; below 0 only by rounding, as is the next.
        kl.append(torch.sub(logs, other).mul_(first).sum(-1).clamp_min_(0))
        entropies = ours.add(first, logs.mul_(first), queries) + theirs.add(
            second, other.mul_(second), queries
        )
        apart.append(_jensen_shannon(first, second, entropies))
    several = visible.counts[:, None] >= 2
    both: dict[str, Each] = {
        "kl": (torch.cat(kl, -1), several), "jensen_shannon": (torch.cat(apart, -1), several)
    }  # fmt: skip
    each = {"base": ours.each(before), "tuned": theirs.each(after), "base_tuned": both}
    found = means(each["base"])
    if before.shape[1] > 1:
        found["between_heads"] = _between_heads(before, visible)
    return Compared(found, means(each["tuned"]), means(both), each)


class _Queries:
    """Collects what each query's shares say, part by part."""

    def __init__(self, visible: Visible) -> None:
        self.visible = visible
        self.entropy: list[torch.Tensor] = []
        self.distance: list[torch.Tensor] = []

    def add(self, shares: torch.Tensor, weighted: torch.Tensor, queries: slice) -> torch.Tensor:
        """Take a part's shares and `p log p`, [B, H, q, keys]; return its entropies in nats, [B, H, q].

        Raises:
            LensError: A real query's shares do not sum to 1.
        """
        sums = shares.sum(-1)
        wrong = ~((sums - 1).abs() <= 1e-3) & self.visible.mask[:, None, queries]
        if bool(wrong.any()):
            raise LensError(
                "The attention pattern is not a distribution over keys: its rows do not sum to 1."
            )
        entropy = -weighted.sum(-1)
        self.entropy.append(entropy)
        self.distance.append(_distance(shares, sums, queries.start, self.visible.causal))
        return entropy

    def each(self, pattern: torch.Tensor) -> dict[str, Each]:
        """Return every statistic query by query."""
        plain, sink = torch.cat(self.entropy, -1), pattern[..., 0]
        counts = self.visible.counts[:, None].to(plain.dtype)  # [B, 1, T]
        several = counts >= 2
        rest = 1 - sink.to(plain.dtype)
        # H of the rest, scaled by 1/s: (H - entr(p_0)) / s + log s.
        others = (plain - torch.special.entr(sink)) / rest.clamp_min(TINY) + rest.clamp_min(TINY).log()
        enough = (counts >= 3) & (rest > 1e-6)
        return {
            "entropy": (plain / counts.clamp_min(2).log(), several),
            "sink_mass": (sink, several),
            "distance": (torch.cat(self.distance, -1), counts >= 1),
            "gini": _gini(pattern, self.visible),
            "entropy_without_sink": (others / (counts - 1).clamp_min(2).log(), enough),
        }


def means(each: dict[str, Each], queries: torch.Tensor | None = None) -> Statistics:
    """Average statistics over the queries that count, statistic -> [B, H]; NaN where a text has none.

    Args:
        each: Values of queries, and which count.
        queries: Only these, bool [B, T].
    """
    only = None if queries is None else queries[:, None]
    return {name: _mean(values, use if only is None else use & only) for name, (values, use) in each.items()}


def mass_on(pattern: torch.Tensor, region: torch.Tensor, visible: Visible) -> torch.Tensor:
    """Return the share of attention on the keys of a region (the article, the prompt), [B, H].

    Args:
        pattern: [B, H, T, T].
        region: bool [B, T], the keys that belong to it.
        visible: What each query sees; only queries that see a key of the region and one outside it count.
    """
    inside = visible.keys & region[:, None, :]
    count = inside.sum(-1)
    queries = (count > 0) & (count < visible.counts)
    return _mean(torch.einsum("bhqk,bk->bhq", pattern, region.to(pattern.dtype)), queries[:, None])


def _mean(values: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Average [B, H, T] over the queries that count ([B, 1 or H, T]); NaN where none does."""
    use = queries.expand_as(values)
    total = torch.where(use, values, 0).sum(-1)
    count = use.sum(-1)
    return torch.where(count > 0, total / count.clamp_min(1), torch.nan)


def _part(pattern: torch.Tensor, queries: slice, keys: int) -> torch.Tensor:
    shares = pattern[:, :, queries, :keys]
    return shares if shares.dtype in (torch.float32, torch.float64) else shares.float()


def _logs(shares: torch.Tensor) -> torch.Tensor:
    return shares.clamp_min(TINY).log_()


def _jensen_shannon(first: torch.Tensor, second: torch.Tensor, entropies: torch.Tensor) -> torch.Tensor:
    """Return bits a query; ``entropies`` is the sum of the two's, in nats."""
    middle = torch.add(first, second).mul_(0.5)
    nats = -_logs(middle).mul_(middle).sum(-1) - entropies / 2
    return (nats / torch.tensor(2.0).log()).clamp_(0, 1)


def _distance(shares: torch.Tensor, sums: torch.Tensor, first: int, causal: bool) -> torch.Tensor:
    keys = torch.arange(shares.shape[-1], dtype=shares.dtype, device=shares.device)
    places = torch.arange(first, first + shares.shape[-2], dtype=shares.dtype, device=shares.device)
    if causal:  # no key lies behind its query, so sum p (q - k) needs no sizes
        return (places * sums - (shares * keys).sum(-1)).clamp_min_(0)
    return (shares * (places[:, None] - keys).abs()).sum(-1)


def _between_heads(pattern: torch.Tensor, visible: Visible) -> torch.Tensor:
    values, uses = [], []
    for queries, use in visible.few():
        shares = _part(pattern, queries, pattern.shape[-1])
        own = -_logs(shares).mul_(shares).sum(-1)
        values.append(_jensen_shannon(shares, shares.roll(1, dims=1), own + own.roll(1, dims=1)))
        uses.append(use)
    return _mean(torch.cat(values, -1), torch.cat(uses, -1)[:, None])


def _gini(pattern: torch.Tensor, visible: Visible) -> Each:
    values = pattern.new_zeros(pattern.shape[:-1], dtype=_part(pattern, slice(0, 1), 1).dtype)
    uses = torch.zeros_like(visible.mask)
    for queries, use in visible.few():  # near places first: the few of long texts may lie among them
        own = _gini_of(_part(pattern, queries, pattern.shape[-1]), visible.counts[:, queries])
        values[:, :, queries] = torch.where(use[:, None], own, values[:, :, queries])
        uses[:, queries] |= use
    return values, uses[:, None]


def _gini_of(rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    rising = _rising(rows)  # hidden keys hold 0 and come first
    width = rows.shape[-1]
    size = counts[:, None, :, None].to(rows.dtype)
    rank = torch.arange(1, width + 1, dtype=rows.dtype, device=rows.device) - (width - size)
    return ((2 * rank - size - 1) * rising).sum(-1) / size.squeeze(-1).clamp_min(1)


def _rising(rows: torch.Tensor) -> torch.Tensor:
    if rows.device.type != "cpu":
        return rows.sort(-1).values
    return torch.from_numpy(np.sort(rows.numpy(), axis=-1))  # torch sorts indices as well: 15 times as long
