"""A minimal GPT with nanoGPT's parameter names and shapes, written from its formulas alone, as a reference."""

from __future__ import annotations

import math

import torch
from torch import nn


class Norm(nn.Module):
    def __init__(self, width, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        y = centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight
        return y if self.bias is None else y + self.bias


class Attention(nn.Module):
    def __init__(self, width, heads, bias):
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(width, 3 * width, bias=bias)
        self.c_proj = nn.Linear(width, width, bias=bias)

    def forward(self, x):
        n, length, width = x.shape
        q, k, v = (
            part.view(n, length, self.heads, -1).transpose(1, 2) for part in self.c_attn(x).split(width, 2)
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(width // self.heads)
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(future, -math.inf).softmax(-1)
        return self.c_proj((weights @ v).transpose(1, 2).reshape(n, length, width))


class Block(nn.Module):
    def __init__(self, width, heads, bias, tanh):
        super().__init__()
        self.tanh = tanh
        self.ln_1, self.ln_2 = Norm(width, bias), Norm(width, bias)
        self.attn = Attention(width, heads, bias)
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(width, 4 * width, bias=bias),
                "c_proj": nn.Linear(4 * width, width, bias=bias),
            }
        )

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        inner = self.mlp["c_fc"](self.ln_2(x))
        root = math.sqrt(2 / math.pi)
        share = (
            torch.tanh(root * (inner + 0.044715 * inner**3)) if self.tanh else torch.erf(inner / math.sqrt(2))
        )
        gelu = inner * 0.5 * (1 + share)
        return x + self.mlp["c_proj"](gelu)


class NanoGPTShaped(nn.Module):
    """Pre-norm GPT with an exact GELU (or GPT-2's tanh approximation) and tied embeddings."""

    def __init__(self, layers=2, heads=4, width=32, block=24, vocab=64, bias=True, tanh=False):
        super().__init__()
        self.arguments = {
            "n_layer": layers, "n_head": heads, "n_embd": width, "block_size": block, "bias": bias,
            "vocab_size": vocab, "dropout": 0.0,
        }  # fmt: skip
        torch.manual_seed(0)
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocab, width),
                "wpe": nn.Embedding(block, width),
                "h": nn.ModuleList(Block(width, heads, bias, tanh) for _ in range(layers)),
                "ln_f": Norm(width, bias),
            }
        )
        self.lm_head = nn.Linear(width, vocab, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)

    def forward(self, ids):
        x = self.transformer["wte"](ids) + self.transformer["wpe"](torch.arange(ids.shape[1]))
        for block in self.transformer["h"]:
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))

    def checkpoint(self, prefix="", **more):
        """What nanoGPT's train.py saves."""
        weights = {prefix + name: tensor.detach() for name, tensor in self.state_dict().items()}
        optimizer = torch.optim.AdamW(self.parameters()).state_dict()
        return {
            "model": weights, "optimizer": optimizer, "model_args": self.arguments, "iter_num": 5,
            "best_val_loss": torch.tensor(1.5), "config": {"dataset": "own", "compile": True}, **more,
        }  # fmt: skip
