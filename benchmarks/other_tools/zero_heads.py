"""Zero heads one by one with another tool, in that tool's own environment; `benchmarks/interventions.py` calls this.

It imports nothing of tunescope. The folder that is named holds `tokens.json` (rows of token ids and the batch size),
and `model/`; it writes `logits.npy` [layers, rows, ...] and prints the processor seconds of the sweep of one head a
layer as JSON. The tool does what its documentation shows: a full forward pass with one head set to zero.

    ENVIRONMENT/bin/python zero_heads.py nnsight FOLDER
    ENVIRONMENT/bin/python zero_heads.py transformer-lens FOLDER
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch


def batches(rows: list[list[int]], size: int):
    """Yield row numbers, padded ids and mask, in the order of the rows; padding on the right."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        longest = max(map(len, part))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in part])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in part])
        yield np.arange(start, start + len(part)), ids, mask


def with_nnsight(folder: Path, rows: list[list[int]], size: int) -> tuple[float, np.ndarray]:
    """Zero heads of a classifier by a trace a head and batch."""
    from nnsight import NNsight
    from transformers import AutoModelForSequenceClassification

    inner = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    model, config = NNsight(inner), inner.config
    width = config.n_embd // config.n_head
    found = np.empty((config.n_layer, len(rows), config.num_labels), dtype=np.float32)
    start = time.process_time()
    with torch.inference_mode():
        for index, ids, mask in batches(rows, size):
            for layer in range(config.n_layer):
                head = layer % config.n_head
                with model.trace(input_ids=ids, attention_mask=mask):
                    model.transformer.h[layer].attn.c_proj.input[:, :, head * width : (head + 1) * width] = 0
                    logits = model.output.logits.save()
                found[layer, index] = logits.numpy()
    return time.process_time() - start, found


def with_transformer_lens(folder: Path, rows: list[list[int]], size: int) -> tuple[float, np.ndarray]:
    """Zero heads of a language model by a hook a head and batch; returns the last token's logits."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM

    inner = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    model = TransformerBridge.boot_transformers(str(folder / "model"), hf_model=inner, device="cpu")
    layers, heads = inner.config.n_layer, inner.config.n_head
    found = np.empty((layers, len(rows), inner.config.vocab_size), dtype=np.float32)
    start = time.process_time()
    with torch.inference_mode():
        for index, ids, mask in batches(rows, size):
            last = mask.sum(1) - 1
            for layer in range(layers):
                head = layer % heads

                def zero(value, hook, head=head):
                    value[:, :, head] = 0
                    return value

                logits = model.run_with_hooks(
                    ids, attention_mask=mask, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", zero)]
                )
                found[layer, index] = logits[torch.arange(len(ids)), last].numpy()
    return time.process_time() - start, found


TOOLS = {"nnsight": with_nnsight, "transformer-lens": with_transformer_lens}


def main() -> None:
    """Read the folder, run the tool, write and print."""
    tool, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    asked = json.loads((folder / "tokens.json").read_text())
    seconds, logits = TOOLS[tool](folder, asked["rows"], asked["batch_size"])
    np.save(folder / "logits.npy", logits)
    print(json.dumps({"seconds": seconds, "version": version(tool), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
