"""Turn nanoGPT's ckpt.pt into a transformers GPT-2 folder with safetensors, which tunescope opens like any other.

    python scripts/nanogpt_to_safetensors.py out/ckpt.pt FOLDER --tokenizer gpt2
    python scripts/nanogpt_to_safetensors.py out/ckpt.pt FOLDER --meta data/shakespeare_char/meta.pkl

What differs between the two, and what is done about it:

* nanoGPT keeps linear weights as output x input, GPT-2's Conv1D as input x output: the four matrices of a block are
  transposed.
* A compiled model's names begin with ``_orig_mod.``: the prefix is taken off.
* nanoGPT's MLP uses the exact GELU, GPT-2 the tanh approximation: ``activation_function`` is ``gelu``. Checkpoints
  of nanoGPT's first weeks (``new_gelu``) need ``--activation gelu_new``.
* nanoGPT pads GPT-2's vocabulary of 50,257 to 50,304 for speed. ``--vocab-size`` cuts the padding off; with a
  tokenizer its own size is taken. Cutting changes no logit of the tokens that stay.
* ``bias: False`` leaves biases out; transformers' class always has them. They are written as zeros, and
  ``tunescope_bias: false`` in config.json makes tunescope leave them there.
* The output head is tied to the embeddings; a checkpoint where they differ gets its own head.
* ``--block-size`` crops the positions, as nanoGPT's ``crop_block_size``.

A ckpt.pt is a pickle, and a pickle can run code when it is opened. It is read with ``weights_only=True``, which
allows tensors and plain containers; everything else is refused. A ``meta.pkl`` is read the same way.
"""

from __future__ import annotations

import argparse
import io
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunescope.errors import ModelError, TunescopeError

SAFE_TORCH = (2, 10)  # weights_only=True could be broken out of before (CVE-2026-24747)
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
PREFIXES = ("_orig_mod.", "module.")


@dataclass(frozen=True)
class Options:
    """What may differ from the checkpoint.

    Attributes:
        tokenizer: Folder or hub id of the tokenizer that the data were encoded with (``gpt2`` for nanoGPT's
            BPE data), written beside the weights; or None.
        meta: ``meta.pkl`` of a character-level data set, in place of ``tokenizer``; or None.
        vocab_size: How many rows of the embedding to keep; None means the tokenizer's size, or all.
        block_size: How many positions to keep; None means all.
        activation: ``gelu`` (exact) or ``gelu_new`` (tanh approximation, as nanoGPT had it at first).
    """

    tokenizer: str | None = None
    meta: Path | None = None
    vocab_size: int | None = None
    block_size: int | None = None
    activation: str = "gelu"


def convert(checkpoint: Path, folder: Path, options: Options | None = None) -> dict[str, Any]:
    """Read a nanoGPT checkpoint and write a GPT-2 folder.

    Args:
        checkpoint: nanoGPT's ``ckpt.pt``.
        folder: Where config.json, model.safetensors and the tokenizer are written.
        options: What may differ from the checkpoint.

    Returns:
        ``parameters``, ``n_layer``, ``n_head``, ``n_embd``, ``n_positions``, ``vocab_size``, ``bias`` and ``tied``.

    Raises:
        ModelError: The file is missing, holds more than weights, or is not nanoGPT's; or a size does not fit.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    from tunescope.models.source import quiet_transformers

    options = options or Options()
    arguments, weights = _read(checkpoint)
    tokenizer = _tokenizer(options)
    size = options.vocab_size or (len(tokenizer) if tokenizer is not None else arguments["vocab_size"])
    _crop(weights, "transformer.wte.weight", size, "vocab-size", "tokens")
    head = weights.pop("lm_head.weight", weights["transformer.wte.weight"])[:size]
    tied = torch.equal(head, weights["transformer.wte.weight"])
    positions = options.block_size or arguments["block_size"]
    _crop(weights, "transformer.wpe.weight", positions, "block-size", "positions")
    about: dict[str, Any] = {
        "vocab_size": size,
        "n_positions": positions,
        **{name: arguments[name] for name in ("n_embd", "n_layer", "n_head")},
        "activation_function": options.activation,
        "tie_word_embeddings": tied,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), float(arguments.get("dropout", 0.0))),
        **dict.fromkeys(
            ("bos_token_id", "eos_token_id"), None if tokenizer is None else tokenizer.eos_token_id
        ),
    }
    config = GPT2Config(**about)
    bias = any(name.endswith("ln_f.bias") for name in weights)
    if not bias:
        config.tunescope_bias = False
    model = GPT2LMHeadModel(config).eval()
    _fill(model, weights, head, bias, checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.model_max_length = positions
            tokenizer.save_pretrained(folder)
    return {
        "parameters": sum(
            one.numel() for name, one in model.named_parameters() if bias or "bias" not in name
        ),
        **{name: arguments[name] for name in ("n_layer", "n_head", "n_embd")},
        "n_positions": positions,
        "vocab_size": size,
        "bias": bias,
        "tied": tied,
    }


def _read(checkpoint: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return ``model_args`` and the weights, in float32 and by nanoGPT's own names."""
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < SAFE_TORCH:
        raise ModelError(
            f"torch {torch.__version__} cannot open a pickle safely.",
            hint="Use torch 2.10 or newer for this.",
        )
    if not checkpoint.is_file():
        raise ModelError(f"{checkpoint} is missing.", hint="Give the ckpt.pt in nanoGPT's out_dir.")
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), "an object")
        raise ModelError(
            f"{checkpoint} holds pickled objects beyond weights and plain numbers ({found[:200]}); opening them "
            "could run code, so it is not opened.",
            hint="Where you trust it, load it once in nanoGPT and save {'model': ..., 'model_args': ...} alone.",
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ModelError(f"{checkpoint} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict) or not {"model", "model_args"} <= content.keys():
        keys = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ModelError(
            f"{checkpoint} is not nanoGPT's: expected 'model' and 'model_args', found {keys[:200]}.",
            hint="Give the ckpt.pt that nanoGPT's train.py wrote.",
        )
    arguments = dict(content["model_args"])
    lacking = [
        name for name in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size") if name not in arguments
    ]
    if lacking:
        raise ModelError(f"{checkpoint}: model_args lacks {', '.join(lacking)}.")
    weights = {}
    for name, tensor in content["model"].items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        if not name.endswith(".attn.bias"):  # the causal mask of nanoGPT's slow attention, not a weight
            weights[name] = tensor.float()
    if "transformer.wte.weight" not in weights or "transformer.wpe.weight" not in weights:
        raise ModelError(f"{checkpoint}: the weights lack transformer.wte.weight or transformer.wpe.weight.")
    return arguments, weights


def _crop(weights: dict[str, torch.Tensor], name: str, size: int, option: str, what: str) -> None:
    there = len(weights[name])
    if not 1 <= size <= there:
        raise ModelError(
            f"--{option} {size} does not fit: the checkpoint has {there} {what}.",
            hint=f"Give a number from 1 to {there}, and the tokenizer that the data were encoded with.",
        )
    weights[name] = weights[name][:size].clone()


def _fill(model: Any, weights: dict[str, torch.Tensor], head: torch.Tensor, bias: bool, source: Path) -> None:
    """Put nanoGPT's weights into transformers' model; every tensor must find its place, and every place one."""
    wanted = dict(model.named_parameters())
    wanted.pop("lm_head.weight", None)  # there only where the head is not tied
    zero = {name for name in wanted if name.endswith("bias") and not bias}
    missing = sorted(wanted.keys() - weights.keys() - zero)
    unknown = sorted(weights.keys() - wanted.keys())
    if missing or unknown:
        parts = [f"it lacks {', '.join(missing[:3])}"] if missing else []
        parts += [f"it has {', '.join(unknown[:3])}, which a GPT-2 has not"] if unknown else []
        raise ModelError(f"{source} does not fit its model_args: {' and '.join(parts)}.")
    with torch.no_grad():
        for name, parameter in wanted.items():
            if name in zero:
                parameter.zero_()
                continue
            tensor = weights[name].t() if name.endswith(TRANSPOSED) else weights[name]
            if tensor.shape != parameter.shape:
                raise ModelError(
                    f"{source}: {name} has the shape {list(weights[name].shape)}, which does not fit its model_args."
                )
            parameter.copy_(tensor)
        model.lm_head.weight.copy_(head)


def _tokenizer(options: Options) -> Any:
    if options.meta is not None and options.tokenizer is not None:
        raise ModelError(
            "--meta and --tokenizer are two tokenizers.", hint="Give the one of the training data."
        )
    if options.meta is not None:
        return _characters(options.meta)
    if options.tokenizer is None:
        return None
    from transformers import AutoTokenizer

    from tunescope.models.source import Source, hub_errors

    with hub_errors(Source(options.tokenizer)):
        return AutoTokenizer.from_pretrained(options.tokenizer, trust_remote_code=False)


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, texts and containers; a pickle that names any class or function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name}")


def _characters(meta: Path) -> Any:
    """Make the tokenizer of a character-level data set from its ``meta.pkl``; other characters stop it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    if not meta.is_file():
        raise ModelError(f"{meta} is missing.", hint="It lies beside the character-level data of nanoGPT.")
    try:
        numbers = dict(_PlainUnpickler(io.BytesIO(meta.read_bytes())).load()["stoi"])
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{meta} holds more than numbers and texts ({error}); opening it could run code, so it is not opened."
        ) from error
    except (KeyError, TypeError, ValueError, EOFError) as error:
        raise ModelError(f"{meta} has no table 'stoi' from characters to numbers.") from error
    letters = Tokenizer(models.WordLevel(numbers))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    letters.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=letters)


def main(arguments: list[str] | None = None) -> int:
    """Run the script; return its exit code."""
    about = __doc__.splitlines()[0] if __doc__ else None
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("checkpoint", type=Path, help="nanoGPT's ckpt.pt")
    parser.add_argument("folder", type=Path, help="where the GPT-2 folder is written")
    parser.add_argument("--tokenizer", help="folder or hub id of the tokenizer, for example gpt2")
    parser.add_argument("--meta", type=Path, help="meta.pkl of a character-level data set")
    parser.add_argument("--vocab-size", type=int, help="rows of the embedding to keep, for example 50257")
    parser.add_argument("--block-size", type=int, help="positions to keep")
    parser.add_argument("--activation", choices=("gelu", "gelu_new"), default="gelu")
    given = parser.parse_args(arguments)
    options = Options(given.tokenizer, given.meta, given.vocab_size, given.block_size, given.activation)
    try:
        made = convert(given.checkpoint, given.folder, options)
    except TunescopeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(
        f"{given.folder}: GPT-2 with {made['n_layer']} layers, width {made['n_embd']}, "
        f"{made['n_positions']} positions, {made['vocab_size']:,} tokens, {made['parameters']:,} parameters"
        + ("" if made["tied"] else ", its own output head")
        + ("" if made["bias"] else ", biases held at zero")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
