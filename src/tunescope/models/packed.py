"""The forward pass without padding: rows of real tokens in one line, attention inside each row alone.

Matrix products, norms and activations work token by token, so padding is only ever needed by attention. Here all rows
of a batch are one sequence ``[1, T]`` with positions that start anew in every row, and an attention function of our
own, registered with transformers, lets no token see another row. It costs what the real tokens cost, rows need not
be sorted by length, and on a CPU a row's states are the same bits whatever its batch mates are.

Two traps are closed here. Packed rows with the key-value cache of transformers contaminate one another silently, so
the cache is always off; and attention without a layout of rows is refused, not run over the whole line.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from tunescope.errors import ModelError
from tunescope.models.families import Family, Pooling

if TYPE_CHECKING:
    from tunescope.data.batches import Batch
    from tunescope.data.packed import PackedBatch
    from tunescope.data.tokens import Tokens
    from tunescope.models.classifier import Classifier

NAME = "tunescope_packed"
# Matrix products of fewer rows take another path in the CPU libraries, with other rounding.
FEWEST_TOKENS = 4
PROVEN = ("GPT-2", "BERT", "DistilBERT", "RoBERTa", "GPT-NeoX", "Llama", "Qwen2", "Qwen3")


@dataclass(frozen=True)
class Layout:
    """Which tokens of the line belong to which row.

    Attributes:
        lengths: Tokens of each row, in order.
        reader: Which token's result attention returns: of every token, or of the ``first`` or ``last`` of each row
            alone (each row as often as it takes to have ``FEWEST_TOKENS``).
        filled: Whether those few are followed by zeros, up to the number of tokens: models with rotary positions shape
            attention's result by its input.
    """

    lengths: tuple[int, ...]
    reader: Literal["every", "first", "last"] = "every"
    filled: bool = False

    @classmethod
    def of(cls, lengths: torch.Tensor | Sequence[int]) -> Layout:
        """Return the layout of rows with these lengths.

        Raises:
            ModelError: There is no row, or a row has no token.
        """
        found = tuple(int(n) for n in (lengths.tolist() if isinstance(lengths, torch.Tensor) else lengths))
        if not found or min(found) < 1:
            raise ModelError(
                "A batch without padding needs rows of at least one token; came the lengths "
                f"{list(found[:8])}{' ...' if len(found) > 8 else ''}."
            )
        return cls(found)

    @property
    def total(self) -> int:
        """Tokens of all rows together."""
        return sum(self.lengths)

    @cached_property
    def ends(self) -> np.ndarray:
        """Place behind the last token of each row, int64 [B]."""
        return np.cumsum(np.asarray(self.lengths, dtype=np.int64))

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """Consecutive rows of equal length as (length, rows): attention takes each run in one call."""
        return [(length, len(list(same))) for length, same in itertools.groupby(self.lengths)]

    def positions(self) -> np.ndarray:
        """Return each token's place in its own row, counted from 0, int64 [T]."""
        lengths = np.asarray(self.lengths, dtype=np.int64)
        return np.arange(self.total, dtype=np.int64) - np.repeat(self.ends - lengths, lengths)


PUBLISHED_ROWS = 32  # in a batch where pooling reads padding, as study 001's paper says


def packing_problem(model: PreTrainedModel, family: Family) -> str | None:
    """Say why a model cannot run without padding, or None; such a model runs in batches of about equal length."""
    if family.name not in PROVEN:
        return f"the family {family.name} has not been proven on batches without padding"
    if getattr(model.config, "chunk_size_feed_forward", 0):
        return "its configuration cuts the feed-forward layer into chunks of the padded length"
    if getattr(model.config, "is_decoder", False) or getattr(model.config, "add_cross_attention", False):
        return "it is configured as a decoder, or with cross-attention"
    if "sliding_attention" in (getattr(model.config, "layer_types", None) or ()):
        return "some of its layers attend within a sliding window"
    return None


@contextlib.contextmanager
def packed_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let the model's attention work row by row inside the block; needs a layout with every call."""
    if NAME not in AttentionInterface._global_mapping:
        # A name that is no key of the mask registry also tells transformers to build no mask.
        AttentionInterface.register(NAME, _attend)
    config: Any = model.base_model.config  # some classes give their trunk a copy of their own
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed: Layout | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each row; query, key and value are [1, H, T, D/H], the result [1, T, H, D/H].

    With grouped queries (Llama, Qwen) there are fewer heads of keys and values.
    """
    if packed is None or query.shape[2] != packed.total or len(query) != 1 or key.shape[2] != packed.total:
        raise ModelError(
            "Internal check failed: attention without padding was called without the layout of its rows, or with "
            "keys of other rows (a key-value cache)."
        )
    causal = bool(getattr(module, "is_causal", False))
    whole_rows = packed.reader == "every" and dropout == 0.0 and query.shape[1] == key.shape[1]
    if whole_rows and query.is_cuda and has_kernel(query, torch.cuda.get_device_capability(query.device)):
        return _kernel(query, key, value, packed, causal, scaling), None
    parts = []
    # [1, H, T, d] came from [1, T, H, d]: cutting that along T, a run of equal rows is a batch without a copy.
    # One split, not one slice a run: the gradient of a slice is as large as the whole line.
    sizes = [length * rows for length, rows in packed.runs]
    line = [
        one.transpose(1, 2)[0].split(sizes) for one in (query, key, value)
    ]  # runs of [rows x length, H, d]
    for (length, rows), *run in zip(packed.runs, *line, strict=True):
        q, k, v = (one.unflatten(0, (rows, length)).transpose(1, 2) for one in run)
        whole = causal and length > 1
        if packed.reader != "every":
            place = length - 1 if packed.reader == "last" else 0
            seen = place + 1 if causal else length
            q, k, v, whole = q[:, :, place : place + 1], k[:, :, :seen], v[:, :, :seen], False
        out = functional.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=whole, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        parts.append(out.transpose(1, 2).flatten(0, 1))  # [rows x length, H, d]
    found = torch.cat(parts)  # [T or B, H, d]
    if packed.reader == "every":
        return found[None], None
    found = found.repeat(-(-FEWEST_TOKENS // len(found)), 1, 1)
    if packed.filled:
        found = functional.pad(found, (0, 0, 0, 0, 0, packed.total - len(found)))
    return found[None], None


def has_kernel(query: torch.Tensor, capability: tuple[int, int]) -> bool:
    """Say whether PyTorch's variable-length flash kernel takes such queries [1, H, T, D/H] on a CUDA device.

    It computes in half precision with heads of 8, 16, ... 256 dimensions, on devices of compute capability 8.0 and
    newer; releases of PyTorch before 2.11 have it without a scale of one's own. Rows are attended to one by one else.
    """
    if query.dtype not in (torch.float16, torch.bfloat16) or capability < (8, 0):
        return False
    width = query.shape[-1]
    return width % 8 == 0 and width <= 256 and _kernel_takes_scale()


@cache
def _kernel_takes_scale() -> bool:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return {"scale", "window_size"} <= set(inspect.signature(varlen_attn).parameters)


def _kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packed: Layout,
    causal: bool,
    scaling: float | None,
) -> torch.Tensor:
    """Attend with PyTorch's variable-length flash kernel (CUDA, half precision, no attention dropout)."""
    from torch.nn.attention.varlen import varlen_attn

    bounds = torch.zeros(len(packed.lengths) + 1, dtype=torch.int32)
    bounds[1:] = torch.from_numpy(packed.ends)
    bounds = bounds.to(query.device)
    longest = max(packed.lengths)
    q, k, v = (one.transpose(1, 2)[0].contiguous() for one in (query, key, value))  # [T, H, d]
    out = varlen_attn(
        q, k, v, bounds, bounds, longest, longest, scale=scaling, window_size=(-1, 0) if causal else (-1, -1)
    )
    assert isinstance(out, torch.Tensor)
    return out[None]


def positions_of(classifier: Classifier, layout: Layout) -> torch.Tensor:
    """Return the position id of every token, [1, T]; they start anew in every row."""
    offset = (
        int(classifier.model.config.pad_token_id) + 1 if classifier.family.counts_positions_by_pad_id else 0
    )
    return torch.from_numpy(layout.positions() + offset)[None]


def block_arguments(classifier: Classifier, hidden: torch.Tensor, layout: Layout) -> dict[str, Any]:
    """Return what a block is called with beside the states [1, T, D] of rows without padding."""
    arguments: dict[str, Any] = {"packed": layout}
    if classifier.family.rotary is not None:
        rotary = classifier.trunk.get_submodule(classifier.family.rotary)
        positions = positions_of(classifier, layout).to(hidden.device)
        arguments["position_embeddings"] = rotary(hidden, position_ids=positions)
        arguments["attention_mask"] = None
    return arguments


def packed_arguments(
    classifier: Classifier, input_ids: torch.Tensor, layout: Layout, token_type_ids: torch.Tensor | None
) -> dict[str, Any]:
    """Return the arguments of the trunk for rows without padding: ids [1, T], positions, types, layout."""
    family = classifier.family
    if input_ids.shape != (1, layout.total):
        raise ModelError(
            f"A batch without padding holds its tokens as [1, {layout.total}]; came {list(input_ids.shape)}."
        )
    positions = positions_of(classifier, layout).to(input_ids.device)
    arguments: dict[str, Any] = {"input_ids": input_ids, "position_ids": positions, "packed": layout}
    if family.caches:
        arguments["use_cache"] = False
    if token_type_ids is not None and family.has_token_types:
        arguments["token_type_ids"] = token_type_ids
    return arguments


def packed_hidden(
    classifier: Classifier,
    input_ids: torch.Tensor,
    layout: Layout,
    token_type_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the final hidden states [1, T, D] of rows that stand one after another in ``input_ids`` [1, T].

    Raises:
        ModelError: This model cannot run without padding; the message says why.
    """
    problem = packing_problem(classifier.model, classifier.family)
    if problem is not None:
        raise ModelError(f"This model cannot run without padding: {problem}.")
    arguments = packed_arguments(classifier, input_ids, layout, token_type_ids)
    with packed_attention(classifier.model):
        hidden: torch.Tensor = classifier.trunk(**arguments).last_hidden_state
    return hidden


def pool_packed(hidden: torch.Tensor, layout: Layout, pooling: Pooling) -> torch.Tensor:
    """Reduce the states [1, T, D] of rows in one line to one vector a row, [B, D]; see :func:`heads.pool`."""
    if pooling == "mean":
        return torch.stack([row.mean(0) for row in hidden[0].split(list(layout.lengths))])
    return hidden[0, torch.as_tensor(pooled_places(layout, pooling), device=hidden.device)]


def pooled_places(layout: Layout, pooling: Pooling) -> np.ndarray | None:
    """Return the place of the one token of each row that pooling reads, int64 [B]; None where it reads all."""
    if pooling == "mean":
        return None
    return layout.ends - 1 if reader_of(pooling) == "last" else layout.ends - np.asarray(layout.lengths)


def reader_of(pooling: Pooling) -> Literal["last", "first"]:
    """Return which token of a row a pooling other than the mean reads.

    Raises:
        ModelError: It reads padding, which rows without padding do not have.
    """
    if pooling == "last_padded":
        raise ModelError(
            "The pooling last_padded reads padding, and rows without padding have none.",
            hint="Use it with method: full, whose batches are then padded as published.",
        )
    return "last" if pooling == "last" else "first"


def padded_again(values: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Return per-token values [1, T, ...] as right-padded rows [B, longest, ...], zero where there is no token.

    Of rows of one length it is a view.
    """
    if len(set(layout.lengths)) == 1:
        return values[0].unflatten(0, (len(layout.lengths), -1))
    return torch.nn.utils.rnn.pad_sequence(list(values[0].split(list(layout.lengths))), batch_first=True)


def model_batches(
    classifier: Classifier,
    tokens: Tokens,
    max_tokens: int = 8192,
    max_rows: int = 64,
    window: int | None = None,
) -> Iterator[Batch | PackedBatch]:
    """Yield every row once in batches that the classifier runs fastest: without padding where it can.

    Both kinds have ``inputs()``, ``labels``, ``row_ids``, ``index`` and ``to()``.
    """
    from tunescope.data.batches import batches
    from tunescope.data.packed import packed_batches

    if classifier.pooling == "last_padded":  # as published: consecutive rows, padded to the longest of them
        yield from batches(tokens, max_tokens=2**31, max_rows=PUBLISHED_ROWS, window=PUBLISHED_ROWS)
    elif packing_problem(classifier.model, classifier.family) is None:
        yield from packed_batches(tokens, max_tokens, max_rows, window)
    else:
        yield from batches(tokens, max_tokens, max_rows, window)
