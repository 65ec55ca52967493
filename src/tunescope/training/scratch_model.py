"""A GPT with random weights: its shape, its first weights, its biases, its groups of parameters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tunescope.errors import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

    from tunescope.config.scratch import ScratchConfig

COPIED = (
    "n_layer", "n_head", "n_embd", "n_positions", "n_inner", "vocab_size", "activation_function",
    "layer_norm_epsilon", "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn",
    "resid_pdrop", "embd_pdrop", "attn_pdrop", "initializer_range", "tie_word_embeddings", "bos_token_id",
    "eos_token_id",
)  # fmt: skip


def architecture(config: ScratchConfig, tokenizer: PreTrainedTokenizerBase | None = None) -> GPT2Config:
    """Return the GPT-2 configuration that ``config`` describes, or that of the checkpoint it is ``like``.

    Args:
        config: The settings.
        tokenizer: For the size of the vocabulary and the special tokens; without it the size is
            ``vocab_size``, the most that ``bpe`` and ``characters`` can reach.

    Raises:
        ModelError: ``like`` names nothing, or another architecture than GPT-2.
    """
    from transformers import GPT2Config

    about: dict[str, Any]
    if config.like is not None:
        about = _shape_of(config.like)
    else:
        size = config.vocab_size if tokenizer is None else len(tokenizer)
        about = {
            "vocab_size": size,
            "n_positions": config.n_positions,
            "n_embd": config.n_embd,
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "bos_token_id": 0 if tokenizer is None else tokenizer.bos_token_id,
            "eos_token_id": 0 if tokenizer is None else tokenizer.eos_token_id,
            "pad_token_id": None if tokenizer is None else tokenizer.pad_token_id,
        }
    if config.dropout is not None:
        about |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout)
    if not config.bias:
        about["tunescope_bias"] = False  # transformers' class always has biases; tuning keeps these at zero
    return GPT2Config(**about)


def _shape_of(path: str) -> dict[str, Any]:
    from tunescope.models.source import Source, read_config

    source, family, _ = read_config(Source(path))
    if family.name != "GPT-2":
        raise ModelError(
            f"scratch.like: {path} is a {family.name}; from nothing only GPT-2's architecture is trained.",
            hint="Give a GPT-2, or take like out and give n_layer, n_head and n_embd.",
        )
    about = {name: getattr(source, name) for name in COPIED if hasattr(source, name)}
    if getattr(source, "tunescope_bias", True) is False:
        about["tunescope_bias"] = False
    return about


def new_model(config: ScratchConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> GPT2LMHeadModel:
    """Return a GPT-2 language model with first weights that depend on shape and seed alone.

    ``nanogpt``: weights are normal with standard deviation 0.02 (``initializer_range``), the output projections
    of attention and MLP with ``0.02 / sqrt(2 n_layer)`` since so many of them add up in the residual stream
    (Radford et al. 2019), norms are 1, biases 0. ``plain`` leaves the division out. Without ``bias`` the biases
    are zeros that take no gradient, which is the same function as no biases.

    Raises:
        ModelError: The tokenizer does not fit the shape that ``like`` gave.
    """
    import torch
    from transformers import GPT2LMHeadModel

    shape = architecture(config, tokenizer)
    if len(tokenizer) > shape.vocab_size:
        raise ModelError(
            f"{config.like}: the tokenizer has {len(tokenizer)} entries but the model only {shape.vocab_size}.",
            hint="The folder holds a tokenizer of another model.",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(shape)
    with torch.no_grad():
        if config.initialisation == "plain":
            for name, parameter in model.named_parameters():
                if name.endswith("c_proj.weight"):
                    parameter.mul_(math.sqrt(2 * shape.n_layer))
    if getattr(shape, "tunescope_bias", True) is False:
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.requires_grad_(False).zero_()
    return model


def trained(model: GPT2LMHeadModel) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that are trained, by name."""
    return {name: one for name, one in model.named_parameters() if one.requires_grad}


def groups(model: GPT2LMHeadModel, weight_decay: float) -> list[dict[str, Any]]:
    """Return the optimiser's groups: weight decay on matrices (embeddings too), none on norms and biases."""
    parameters = trained(model).values()
    matrices = [one for one in parameters if one.ndim >= 2]
    vectors = [one for one in parameters if one.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
