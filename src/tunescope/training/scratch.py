"""Pretraining a small GPT-2-architecture language model from nothing, with a tokenizer of its own or another's.

Texts are packed into windows of ``n_positions`` tokens, each text closed by the end-of-text token. Positions
restart with every text and attention stays inside it, so that a text is seen as tuning will show it: alone,
from position 0.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunescope import __version__
from tunescope.errors import DataError, RunError
from tunescope.files import read_json, sha256_of, write_atomic, write_json
from tunescope.progress import SILENT, Progress
from tunescope.seeds import derive_seed
from tunescope.training.packing import Windows, pack
from tunescope.training.scratch_loss import loss_of, mean_loss, predicted_bytes, unigram_loss, window_loss
from tunescope.training.scratch_model import architecture, groups, new_model, trained
from tunescope.training.scratch_state import read_checkpoint, write_checkpoint
from tunescope.training.scratch_tokenizer import make_tokenizer, source_digests

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

    from tunescope.config.scratch import ScratchConfig

RECORD, CHECKPOINT, LOG = "pretrain.json", "pretrain-checkpoint.safetensors", "log.jsonl"
STEPS_BETWEEN_CHECKPOINTS = 100
HELD_OUT_SHARE, HELD_OUT_AT_MOST = 0.03, 1000  # of the distinct texts
CLIP = 1.0


@dataclass(frozen=True)
class _Material:
    """What training needs and what identifies it."""

    train: Windows
    held_out: Windows
    held_out_bytes: int
    tokenizer: PreTrainedTokenizerBase
    fingerprint: dict[str, Any]
    steps: int


def pretrain(
    corpus: Path,
    config: ScratchConfig,
    folder: Path,
    seed: int,
    progress: Progress = SILENT,
    device: str = "cpu",
) -> dict[str, Any]:
    """Make a tokenizer and train a small GPT-2 language model on a text file; save both as a model folder.

    The optimiser is AdamW with weight decay on matrices only, a linear warm-up and half a cosine down to a
    twentieth, and gradients clipped to norm 1. With ``epochs: 0`` the weights stay random; the record then says
    how well random weights predict.

    Stopped at any moment it goes on from its last checkpoint, and ends with the very weights that an
    undisturbed run gives (on the same machine with the same number of threads); finished, it returns the
    record at once.

    Args:
        corpus: Text file in UTF-8, one text a line; blank lines are skipped.
        config: Sizes and schedule; ``batch_size`` counts windows of ``n_positions`` tokens.
        folder: Where the model folder is written (safetensors, fast tokenizer with end-of-text and padding).
        seed: Seeds initial weights, the order of windows and the choice of held-out texts.
        progress: Where steps are reported.
        device: Where it is trained.

    Returns:
        The record, also in ``pretrain.json``: ``heldout_loss`` and ``unigram_loss`` (natural-log
        cross-entropy per token of the same held-out tokens, under the model and under the train tokens'
        frequencies), ``heldout_bits_per_byte`` and ``unigram_bits_per_byte`` (the same per byte of UTF-8, which
        compares across tokenizers), ``heldout_tokens``, ``heldout_bytes``, ``steps``, ``tokens`` seen,
        ``parameters`` (without biases that are held at zero), ``seconds``, ``vocab_size``, and the ``log``.

    Raises:
        DataError: The corpus is missing, not UTF-8, or holds fewer than two distinct texts.
        ModelError: ``like`` or ``tokenizer`` names nothing that can be used.
        RunError: The folder holds the model of another corpus, configuration or seed.
    """
    fingerprint = _fingerprint(corpus, config, seed)
    if (folder / RECORD).exists():
        record = read_json(folder / RECORD)
        if record.get("fingerprint") == fingerprint:
            return record
        raise RunError(
            f"{folder} holds a model pretrained on another corpus, with another configuration or seed.",
            hint="Choose another output folder, or delete this one.",
        )
    if config.like is not None:
        architecture(config)  # refuse another architecture before its tokenizer is looked at
    material = _prepare(_read_texts(corpus), config, seed, fingerprint)
    start = time.monotonic()
    model: Any = new_model(config, material.tokenizer, seed)
    log = _train(model.to(device), material, config, folder, seed, progress)
    model.to("cpu")
    loss = window_loss(model, material.held_out, config.batch_size)
    unigram = unigram_loss(material.train, material.held_out, len(material.tokenizer))
    _save(model, material.tokenizer, folder)
    record = {
        "fingerprint": fingerprint,
        "steps": material.steps,
        "tokens": int(material.train.n_tokens * config.epochs),
        "parameters": sum(parameter.numel() for parameter in trained(model).values()),
        "vocab_size": len(material.tokenizer),
        "heldout_loss": loss,
        "unigram_loss": unigram,
        "heldout_bits_per_byte": _bits(loss, material),
        "unigram_bits_per_byte": _bits(unigram, material),
        "heldout_tokens": material.held_out.n_targets,
        "heldout_bytes": material.held_out_bytes,
        "seconds": time.monotonic() - start,
        "log": log,
    }
    write_json(folder / RECORD, record)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    progress.say(
        f"  pretrained {record['parameters']:,} parameters: held-out loss {record['heldout_loss']:.3f} nats "
        f"per token, by word frequencies alone {record['unigram_loss']:.3f}"
        if material.steps
        else f"  {record['parameters']:,} random parameters: held-out loss {loss:.3f} nats per token; nothing learnt"
    )
    return read_json(folder / RECORD)


def _bits(nats: float, material: _Material) -> float | None:
    """Return nats per held-out token as bits per byte; None where the texts are single tokens."""
    size = material.held_out_bytes
    return loss_of(nats, material.held_out.n_targets, size).bits_per_byte if size else None


def _fingerprint(corpus: Path, config: ScratchConfig, seed: int) -> dict[str, Any]:
    if not corpus.is_file():
        raise DataError(f"The corpus {corpus} is missing.", hint="Give a text file with one text a line.")
    settings = config.model_dump(exclude={"corpus"})
    about = {"corpus_sha256": sha256_of(corpus), "config": settings, "seed": seed, "tunescope": __version__}
    return {**about, "sources": source_digests(config)}


def _read_texts(corpus: Path) -> list[str]:
    """Return the distinct texts in file order."""
    try:
        lines = corpus.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            f"The corpus {corpus} is not UTF-8: byte {error.start} cannot be read.",
            hint="Convert it, for example with: iconv -f latin1 -t utf-8",
        ) from error
    texts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if len(texts) < 2:
        raise DataError(
            f"The corpus {corpus} holds {len(texts) or 'no'} text{'s' if len(texts) != 1 else ''}; "
            "at least two different ones are needed, because one is held out to measure the loss.",
            hint="Give a text file with one text a line.",
        )
    return texts


def _prepare(texts: list[str], config: ScratchConfig, seed: int, fingerprint: dict[str, Any]) -> _Material:
    def draw(text: str) -> bytes:
        return hashlib.blake2b(f"{seed}\0{text}".encode(), digest_size=8).digest()

    # Chosen by content: the same text is held out wherever it stands in the file.
    n_held_out = min(max(1, round(HELD_OUT_SHARE * len(texts))), HELD_OUT_AT_MOST)
    chosen = set(sorted(texts, key=draw)[:n_held_out])
    train_texts = [text for text in texts if text not in chosen]
    tokenizer = make_tokenizer(train_texts, config)
    length = architecture(config, tokenizer).n_positions
    parts = []
    for part in (train_texts, sorted(chosen)):
        encoded = tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]
        parts.append(pack(encoded, tokenizer.eos_token_id, length, seed))
    steps_per_epoch = math.ceil(len(parts[0]) / config.batch_size)
    steps = max(1, round(config.epochs * steps_per_epoch)) if config.epochs else 0
    size = predicted_bytes(tokenizer, sorted(chosen), length)
    return _Material(parts[0], parts[1], size, tokenizer, fingerprint, steps)


def _train(
    model: GPT2LMHeadModel,
    material: _Material,
    config: ScratchConfig,
    folder: Path,
    seed: int,
    progress: Progress,
) -> list[dict[str, float]]:
    import torch

    # Without a dropout of its own: none, since no text is seen often enough to be learnt by heart.
    model.train(bool(config.dropout))
    optimizer = torch.optim.AdamW(
        groups(model, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.98), fused=True
    )
    done, log = read_checkpoint(folder / CHECKPOINT, model, optimizer, material.fingerprint, progress)
    with progress.task("pretrain", total=material.steps, unit="steps") as task, _FastActivation(model):
        task.advance(done)
        batches = _batches(len(material.train), config.batch_size, material.steps, seed)
        for step, rows in enumerate(batches):
            if step < done:
                continue
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(step, material.steps, config.warmup)
            with _seeded(derive_seed(seed, "scratch dropout", step), model):
                loss = mean_loss(model, material.train, rows)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            log.append(_entry(step, len(material.train) / config.batch_size, loss, norm, optimizer))
            if (step + 1) % STEPS_BETWEEN_CHECKPOINTS == 0:
                write_checkpoint(folder / CHECKPOINT, model, optimizer, material.fingerprint, log)
            task.advance()
    write_atomic(folder / LOG, "".join(json.dumps(entry) + "\n" for entry in log))
    model.eval()
    return log


def _entry(
    step: int, per_epoch: float, loss: torch.Tensor, norm: torch.Tensor, optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    return {
        "step": step + 1,
        "epoch": round((step + 1) / per_epoch, 4),
        "loss": round(float(loss.detach()), 6),
        "learning_rate": optimizer.param_groups[0]["lr"],
        "grad_norm": round(float(norm), 6),
    }


@contextlib.contextmanager
def _seeded(seed: int, model: GPT2LMHeadModel) -> Iterator[None]:
    """Draw dropout from a stream of this step, so that a resumed training drops what it would have dropped."""
    import torch

    if not model.training:
        yield
        return
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def schedule(step: int, steps: int, warmup_share: float) -> float:
    """Return the share of the peak learning rate: linear warm-up, then half a cosine down to a twentieth."""
    warmup = max(1, round(warmup_share * steps))
    if step < warmup:
        return (step + 1) / warmup
    turn = (step - warmup) / max(1, steps - warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * turn))


def _batches(n_windows: int, batch_size: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """Yield ``steps`` batches of window numbers; the order is a pure function of seed and epoch."""
    given = epoch = 0
    while given < steps:
        order = np.random.default_rng([seed, epoch]).permutation(n_windows)
        for start in range(0, n_windows, batch_size):
            if given == steps:
                return
            given += 1
            yield order[start : start + batch_size]
        epoch += 1


class _FastActivation:
    """Use torch's tanh-approximated GELU while training: equal to GPT-2's to 3e-7, and faster."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        own = model.config.activation_function == "gelu_new"
        self.blocks: list[Any] = list(model.transformer.h) if own else []

    def __enter__(self) -> None:
        import torch

        self.own = [block.mlp.act for block in self.blocks]
        for block in self.blocks:
            block.mlp.act = torch.nn.GELU(approximate="tanh")

    def __exit__(self, *error: object) -> None:
        for block, own in zip(self.blocks, self.own, strict=True):
            block.mlp.act = own


def _save(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    from tunescope.models.source import quiet_transformers

    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
