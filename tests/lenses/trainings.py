"""Folders of checkpoints as a Trainer leaves them, made without training: the way they go is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

STEPS = (2, 5, 10, 20, 100, 200)  # as strings 10, 100, 2, 20, ...


def training(base: Path, folder: Path, log: bool = True) -> Path:
    """Write checkpoints that go further and further from the base in one direction; the loss falls as they go."""
    own = load_file(base / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    away = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in own.items()}
    for step in STEPS:
        saved = folder / f"checkpoint-{step}"
        shutil.copytree(base, saved)
        moved = {name: tensor + 0.0005 * step * away[name] for name, tensor in own.items()}
        save_file(moved, saved / "model.safetensors", metadata={"format": "pt"})
        history = [{"step": one, "eval_loss": 2.0 - one / 200, "epoch": 1.0} for one in STEPS if one <= step]
        if log:
            (saved / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    return folder
