"""Pretraining a small GPT-2-architecture language model from nothing, with its own byte-level BPE.

Texts are packed into windows of ``n_positions`` tokens, each text closed by the end-of-text token. Positions
restart with every text and attention stays inside it, so that a text is seen as tuning will show it: alone,
from position 0.
"""

from __future__ import annotations

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
from tunescope.training.packing import Windows, pack
from tunescope.training.scratch_state import read_checkpoint, write_checkpoint

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

    from tunescope.config.models import ScratchConfig

END_OF_TEXT, PADDING = "<|endoftext|>", "<|pad|>"
RECORD, CHECKPOINT, LOG = "pretrain.json", "pretrain-checkpoint.safetensors", "log.jsonl"
STEPS_BETWEEN_CHECKPOINTS = 100
HELD_OUT_SHARE, HELD_OUT_AT_MOST = 0.03, 1000  # of the distinct texts
WARMUP_SHARE = 0.05
WEIGHT_DECAY, CLIP = 0.01, 1.0


@dataclass(frozen=True)
class _Material:
    """What training needs and what identifies it."""

    train: Windows
    held_out: Windows
    tokenizer: PreTrainedTokenizerFast
    fingerprint: dict[str, Any]
    steps: int


def pretrain(
    corpus: Path, config: ScratchConfig, folder: Path, seed: int, progress: Progress = SILENT
) -> dict[str, Any]:
    """Train a byte-level BPE and a small GPT-2 language model on a text file; save both as a model folder.

    Stopped at any moment it goes on from its last checkpoint, and ends with the very weights that an
    undisturbed run gives (on the same machine with the same number of threads); finished, it returns the
    record at once.

    Args:
        corpus: Text file in UTF-8, one text a line; blank lines are skipped.
        config: Sizes and schedule; ``batch_size`` counts windows of ``n_positions`` tokens.
        folder: Where the model folder is written (safetensors, fast tokenizer with end-of-text and padding).
        seed: Seeds initial weights, the order of windows and the choice of held-out texts.
        progress: Where steps are reported.

    Returns:
        The record, also in ``pretrain.json``: ``heldout_loss`` and ``unigram_loss`` (natural-log
        cross-entropy per token of the same held-out tokens, under the model and under the train tokens'
        frequencies), ``steps``, ``tokens`` seen, ``parameters``, ``seconds``, ``vocab_size``, and the
        ``log``.

    Raises:
        DataError: The corpus is missing, not UTF-8, or holds fewer than two distinct texts.
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
    material = _prepare(_read_texts(corpus), config, seed, fingerprint)
    start = time.monotonic()
    model, log = _train(material, config, folder, seed, progress)
    _save(model, material.tokenizer, folder)
    record = {
        "fingerprint": fingerprint,
        "steps": material.steps,
        "tokens": int(material.train.n_tokens * config.epochs),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocab_size": len(material.tokenizer),
        "heldout_loss": _held_out_loss(model, material.held_out, config.batch_size),
        "unigram_loss": unigram_loss(material.train, material.held_out, len(material.tokenizer)),
        "heldout_tokens": material.held_out.n_targets,
        "seconds": time.monotonic() - start,
        "log": log,
    }
    write_json(folder / RECORD, record)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    progress.say(
        f"  pretrained {record['parameters']:,} parameters: held-out loss {record['heldout_loss']:.3f} nats "
        f"per token, by word frequencies alone {record['unigram_loss']:.3f}"
    )
    return read_json(folder / RECORD)


def unigram_loss(train: Windows, held_out: Windows, vocab_size: int) -> float:
    """Return the cross-entropy (nats per token) of held-out targets under train frequencies plus one each."""
    counts = np.bincount(train.targets[train.targets >= 0], minlength=vocab_size) + 1.0
    return float(-np.log(counts / counts.sum())[held_out.targets[held_out.targets >= 0]].mean())


def _fingerprint(corpus: Path, config: ScratchConfig, seed: int) -> dict[str, Any]:
    if not corpus.is_file():
        raise DataError(f"The corpus {corpus} is missing.", hint="Give a text file with one text a line.")
    settings = config.model_dump(exclude={"corpus"})
    return {"corpus_sha256": sha256_of(corpus), "config": settings, "seed": seed, "tunescope": __version__}


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
    tokenizer = train_tokenizer(train_texts, config.vocab_size, config.n_positions)
    parts = []
    for part in (train_texts, sorted(chosen)):
        encoded = tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]
        parts.append(pack(encoded, tokenizer.eos_token_id, config.n_positions, seed))
    steps_per_epoch = math.ceil(len(parts[0]) / config.batch_size)
    steps = max(1, round(config.epochs * steps_per_epoch))
    return _Material(parts[0], parts[1], tokenizer, fingerprint, steps)


def train_tokenizer(texts: list[str], vocab_size: int, n_positions: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of at most ``vocab_size`` tokens, end-of-text and padding among them.

    Every byte has a token, so that no text is unknown; the result depends on the texts alone.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        pad_token=PADDING,
        model_max_length=n_positions,
    )


def _new_model(config: ScratchConfig, tokenizer: PreTrainedTokenizerFast, seed: int) -> GPT2LMHeadModel:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    architecture = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=config.n_positions,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.n_head,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(architecture)


def _train(
    material: _Material, config: ScratchConfig, folder: Path, seed: int, progress: Progress
) -> tuple[GPT2LMHeadModel, list[dict[str, float]]]:
    import torch

    model = _new_model(config, material.tokenizer, seed)
    # In evaluation mode: no dropout, since no text is seen often enough to be learnt by heart.
    model.eval()
    optimizer = torch.optim.AdamW(_groups(model), lr=config.learning_rate, betas=(0.9, 0.98), fused=True)
    done, log = read_checkpoint(folder / CHECKPOINT, model, optimizer, material.fingerprint, progress)
    with progress.task("pretrain", total=material.steps, unit="steps") as task, _FastActivation(model):
        task.advance(done)
        batches = _batches(len(material.train), config.batch_size, material.steps, seed)
        for step, rows in enumerate(batches):
            if step < done:
                continue
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _schedule(step, material.steps)
            loss = _loss(model, material.train, rows)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            log.append(_entry(step, len(material.train) / config.batch_size, loss, norm, optimizer))
            if (step + 1) % STEPS_BETWEEN_CHECKPOINTS == 0:
                write_checkpoint(folder / CHECKPOINT, model, optimizer, material.fingerprint, log)
            task.advance()
    write_atomic(folder / LOG, "".join(json.dumps(entry) + "\n" for entry in log))
    return model, log


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


def _groups(model: GPT2LMHeadModel) -> list[dict[str, Any]]:
    decayed = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    kept = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    return [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": kept, "weight_decay": 0.0}]


def _schedule(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: linear warm-up, then half a cosine down to a twentieth."""
    warmup = max(1, round(WARMUP_SHARE * steps))
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


def _loss(model: GPT2LMHeadModel, windows: Windows, rows: np.ndarray) -> torch.Tensor:
    """Return the mean cross-entropy (nats) over the targets of some windows."""
    import torch

    targets = torch.from_numpy(windows.targets[rows])  # [B, T]
    hidden = model.transformer(
        input_ids=torch.from_numpy(windows.ids[rows]),
        # Restarting positions without a mask and cache make transformers keep attention inside each text.
        position_ids=torch.from_numpy(windows.positions[rows]),
        use_cache=False,
    ).last_hidden_state
    kept = targets >= 0
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[kept]), targets[kept])


def _held_out_loss(model: GPT2LMHeadModel, windows: Windows, batch_size: int) -> float:
    import torch

    total = 0.0
    with torch.no_grad():
        for start in range(0, len(windows), batch_size):
            rows = np.arange(start, min(start + batch_size, len(windows)))
            total += float(_loss(model, windows, rows)) * int((windows.targets[rows] >= 0).sum())
    return total / windows.n_targets


class _FastActivation:
    """Use torch's tanh-approximated GELU while training: equal to GPT-2's to 3e-7, and faster."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        self.blocks: list[Any] = list(model.transformer.h)

    def __enter__(self) -> None:
        import torch

        self.own = [block.mlp.act for block in self.blocks]
        for block in self.blocks:
            block.mlp.act = torch.nn.GELU(approximate="tanh")

    def __exit__(self, *error: object) -> None:
        for block, own in zip(self.blocks, self.own, strict=True):
            block.mlp.act = own


def _save(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    from tunescope.models.source import quiet_transformers

    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
