"""What one model is: architecture, sites, parameters, head, precision, tokenizer, and what can be done with it."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch

from tunescope.capture.sites import CROSS, LAYERED, SINGLE, WHOLE, Site, locate
from tunescope.errors import SiteError
from tunescope.foreign import Kind
from tunescope.lenses import LENSES, Subject
from tunescope.lenses.suitable import why_not
from tunescope.models import Classifier
from tunescope.models.language import LanguageModel
from tunescope.models.load import position_limit
from tunescope.models.matrices import matrices
from tunescope.models.packed import packing_problem
from tunescope.models.source import Source
from tunescope.tuning import METHODS

EXAMPLE = "A text, to see its tokens."
BLOCK_SITES = tuple(name for name in LAYERED if name != "attn_pattern")
VERIFIED = (
    "shapes of every site", "attention rows sum to 1", "head outputs sum to the attention output",
    "transformers' own forward pass", "padding on the left", "an edit in each block changes the states",
    "a partial run equals a full one",
)  # fmt: skip
NEED_A_PAIR = (
    "weights", "similarity", "grafting", "patching_cross", "other_models", "steps", "watch", "planted",
)  # fmt: skip


def facts_of(model: Classifier, kind: Kind, path: str) -> dict[str, Any]:
    """Return what a loaded and verified model is, JSON-able.

    Args:
        model: The model.
        kind: What its folder says that it is.
        path: Its folder or hub id.
    """
    return {
        "path": path,
        "revision": model.record.get("revision"),
        "kind": kind,
        "adapter_of": model.record.get("adapter_of"),
        "architecture": architecture(model),
        "parameters": parameters(model, kind),
        "head": head(model, kind),
        "precision": {
            "stored": stored_precision(path),
            "computed": str(model.trunk.dtype).removeprefix("torch."),
        },
        "tokenizer": tokenizer(model),
        "sites": list(sites(model, kind)),
        "verified": list(VERIFIED),
        **abilities(model, kind),
        "assumed": list(model.record.get("assumed") or []),
    }


def architecture(model: Classifier) -> dict[str, Any]:
    """Return the shape of a model and how its parts are put together."""
    config = model.model.config
    embeddings = cast(torch.Tensor, model.trunk.get_input_embeddings().weight)
    output = model.model.get_output_embeddings()
    groups = getattr(config, "num_key_value_heads", None)
    return {
        "family": model.family.name,
        "model_type": str(config.model_type),
        "stacks": [
            {"name": one.name, "layers": one.n_layers, "heads": one.n_heads, "head_width": one.head_width}
            for one in model.stacks
        ],
        "layers": model.n_layers,
        "heads": model.n_heads,
        "key_value_heads": model.n_heads if groups is None else int(groups),
        "width": model.width,
        "head_width": model.head_width,
        "vocabulary": len(embeddings),
        "positions": position_limit(config, model.family),
        "positions_by": "rotary embeddings" if model.family.rotary else "learned or relative embeddings",
        "norm": {"pre": "before each sublayer, and a final one", "post": "after each sum"}[
            model.family.norm_order
        ],
        "parallel_blocks": model.is_parallel,
        "tied_embeddings": bool(output is not None and output.weight is embeddings),
        "attention": "causal" if model.family.language_kind == "causal" else "in both directions",
    }


def parameters(model: Classifier, kind: Kind) -> dict[str, Any]:
    """Return counts of parameters: in all, by matrix, and outside matrices."""
    trunk = sum(one.numel() for one in model.trunk.parameters())
    own = 0 if kind == "trunk" else sum(one.numel() for one in model.model.parameters()) - trunk
    found = [
        {
            "part": one.part, "layer": one.layer, "stack": one.stack, "shape": list(one.weight.shape),
            "parameters": one.weight.numel(),
        }
        for one in matrices(model)
    ]  # fmt: skip
    inside = sum(one.weight.numel() for one in matrices(model))
    return {"all": trunk + own, "trunk": trunk, "head": own, "vectors": trunk - inside, "matrices": found}


def head(model: Classifier, kind: Kind) -> dict[str, Any]:
    """Return what makes logits of the last states."""
    if isinstance(model, LanguageModel):
        said = (
            f"{model.kind}: it predicts {'the next token' if model.kind == 'causal' else 'what a mask hides'}"
        )
        return {
            "what": f"language-model head, {said}",
            "logits": model.vocabulary,
            "pooling": None,
            "labels": [],
        }
    if kind == "trunk":
        return {"what": "none", "logits": 0, "pooling": model.pooling, "labels": []}
    names = list(model.labels.names)
    plain = "" if model.is_plain else "; transformers' own class cannot express it"
    return {
        "what": f"classifier of {len(names)} classes, {model.head_kind}{plain}", "logits": len(names),
        "pooling": model.pooling, "labels": names,
    }  # fmt: skip


def stored_precision(path: str) -> dict[str, int]:
    """Return how many numbers a folder stores in each type, read from the files' headers; empty for a hub id."""
    folder, counts = Source(path).folder, Counter[str]()
    for file in sorted((folder or Path("/nonexistent")).glob("*.safetensors")):
        with file.open("rb") as handle:
            (size,) = struct.unpack("<Q", handle.read(8))
            header = json.loads(handle.read(size))
        for name, about in header.items():
            if name != "__metadata__":
                counts[str(about["dtype"])] += int(torch.Size(about["shape"]).numel())
    return dict(counts)


def tokenizer(model: Classifier) -> dict[str, Any]:
    """Return facts about the tokenizer, with one text as it cuts it."""
    own = model.tokenizer
    pieces = own.convert_ids_to_tokens(own(EXAMPLE)["input_ids"])
    special = {name: str(token) for name, token in own.special_tokens_map.items() if isinstance(token, str)}
    lower = own.tokenize("A") == own.tokenize("a")
    return {
        "class": type(own).__name__,
        "entries": len(own),
        "special_tokens": special,
        "pad_token": str(own.pad_token),
        "pads_with_end": own.pad_token == own.eos_token,
        "max_length": model.max_length,
        "lower_cases": lower,
        "example": {"text": EXAMPLE, "tokens": [str(piece) for piece in pieces]},
    }


def sites(model: Classifier, kind: Kind) -> Iterator[dict[str, Any]]:
    """Yield every kind of site, in how many layers it can be read and edited, or why the model has none."""
    for stack in model.stacks:
        names = [
            *LAYERED,
            *(CROSS if stack.family.cross_attention else ()),
            *(n for n in SINGLE if n not in WHOLE),
        ]
        for name in names:
            layered = name in LAYERED + CROSS
            try:
                place = locate(model, Site(name, 0 if layered else None, stack.name))
            except SiteError as error:
                yield {"site": name, "stack": stack.name, "layers": 0, "why": error.message}
                continue
            layers = stack.n_layers if layered else 1
            yield {"site": name, "stack": stack.name, "layers": layers, "editable": place.writable}
    yield {"site": "pooled", "stack": None, "layers": 1, "editable": True}
    yield {"site": "logits", "stack": None, "layers": int(kind != "trunk"), "editable": True}


def abilities(model: Classifier, kind: Kind) -> dict[str, Any]:
    """Return what can be done with a model, and what cannot with the reason."""
    alone = Subject("the model", None, model, model, "none", {})
    can, cannot = [], []
    for name, lens in LENSES.items():
        why = why_not(alone, name, lens.two_stacks)
        if why is not None:
            cannot.append({"what": f"lens {name}", "why": why})
        else:
            can.append(f"lens {name}" + (" (with a base beside it)" if name in NEED_A_PAIR else ""))
    speaks = kind == "language model"
    if speaks or model.is_encoder_decoder:
        cannot.append({"what": "predict", "why": "it has no head that tells classes apart"})
    elif kind == "trunk":
        cannot.append(
            {"what": "predict", "why": "it has no head; a study gives it one, a comparison a probe"}
        )
    else:
        can.append("predict, test (behaviour suites)")
    can.append(
        f"as the base of a study: {', '.join(name for name, one in METHODS.items() if one.kind == 'train')}"
    )
    packing = packing_problem(model.model, model.family)
    if packing is None:
        can.append("training and prediction without padding")
    else:
        cannot.append({"what": "training and prediction without padding", "why": packing})
    return {"can": can, "cannot": cannot}
