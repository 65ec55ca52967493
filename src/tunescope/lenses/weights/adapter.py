"""LoRA updates from an adapter folder alone: size and rank of each, without the base model.

An update is `s B A` with `s = alpha / r` (`alpha / sqrt(r)` in rank-stabilised LoRA), outputs by inputs whatever layer
it belongs to (Hu et al. 2021, arXiv 2106.09685). What is relative to the base's weights (relative norms, intruder
dimensions, principal angles) needs the base: that is the lens ``weights``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunescope.errors import ModelError
from tunescope.stats.results import result_table
from tunescope.stats.weight_change import low_rank_spectrum

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_FACTOR = re.compile(r"^(?:base_model\.model\.)?(?P<path>.+)\.lora_(?P<which>A|B)(?:\.[^.]+)?\.weight$")
_LAYER = re.compile(r"(?:^|\.)(\d+)\.(.+)$")


def adapter_updates(folder: str | Path) -> pl.DataFrame:
    """Return size and rank of every update of a LoRA adapter, from its folder alone.

    Columns are those of a result: ``site`` (path inside the block), ``layer``, ``metric``, ``value``. Metrics:
    ``frobenius`` and ``spectral`` norm, ``stable_rank``, ``effective_rank`` (:class:`~tunescope.stats.weight_change.
    Spectrum`) and ``rank`` (singular values above rounding).

    Args:
        folder: A peft adapter folder.

    Raises:
        ModelError: The folder holds no LoRA adapter, a factor is missing, or the update needs the base (DoRA).
        LensError: A number is NaN or infinite.
    """
    folder = Path(folder)
    settings = _settings(folder)
    records: list[dict[str, Any]] = []
    for path, left, right in _factors(folder, settings):
        found = low_rank_spectrum(left, right)
        match = _LAYER.search(path)
        where = {"site": match[2] if match else path, "layer": int(match[1]) if match else None}
        size = max(left.shape[0], right.shape[1]) * float(np.finfo(np.float32).eps)
        values = {
            "frobenius": found.frobenius, "spectral": found.spectral, "stable_rank": found.stable_rank,
            "effective_rank": found.effective_rank, "rank": float(found.rank(found.spectral * size)),
        }  # fmt: skip
        records += [{**where, "metric": metric, "value": value} for metric, value in values.items()]
    return result_table(records)


def adapter_facts(folder: str | Path) -> dict[str, Any]:
    """Return what a LoRA adapter is: ``adapter, base, r, alpha, rank_stabilised, matrices, parameters``.

    Args:
        folder: A peft adapter folder.

    Raises:
        ModelError: As :func:`adapter_updates`.
    """
    folder = Path(folder)
    settings = _settings(folder)
    factors = [(left, right) for _, left, right in _factors(folder, settings)]
    return {
        "adapter": str(folder), "base": settings.get("base_model_name_or_path"), "r": settings.get("r"),
        "alpha": settings.get("lora_alpha"), "rank_stabilised": bool(settings.get("use_rslora")),
        "matrices": len(factors), "parameters": sum(left.size + right.size for left, right in factors),
    }  # fmt: skip


def _settings(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"{folder} holds no adapter: {CONFIG} and {WEIGHTS} are expected.",
            hint="Give the adapter's own folder; in a run it is arms/ARM/seed-N/model/adapter.",
        )
    settings: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if settings.get("peft_type") != "LORA":
        raise ModelError(
            f"{folder} is an adapter of type {settings.get('peft_type')}; updates are read from LORA."
        )
    if settings.get("use_dora"):
        raise ModelError(
            f"{folder} is a DoRA adapter, whose updates depend on the base's weights.",
            hint="Compare it with its base: tunescope compare BASE ADAPTER --lens weights.",
        )
    return settings


def _factors(folder: Path, settings: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield (module path, scaled B [outputs, r], A [r, inputs]) of every adapted module, in the order of paths."""
    from safetensors.torch import load_file

    factors: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in load_file(folder / WEIGHTS).items():
        match = _FACTOR.match(name)
        if match:
            factors.setdefault(match["path"], {})[match["which"]] = tensor.double().numpy()
    if not factors:
        raise ModelError(f"{folder / WEIGHTS} holds no LoRA factors of linear layers.")
    for path in sorted(factors, key=_natural):
        own = factors[path]
        if set(own) != {"A", "B"}:
            raise ModelError(
                f"{folder / WEIGHTS}: of {path} the factor {'A' if 'B' in own else 'B'} is missing."
            )
        rank = own["A"].shape[0]
        alpha = float(_pattern(settings.get("alpha_pattern"), path, settings.get("lora_alpha", rank)))
        scale = alpha / (rank**0.5 if settings.get("use_rslora") else rank)
        yield path, scale * own["B"], own["A"]


def _pattern(patterns: Mapping[str, Any] | None, path: str, otherwise: Any) -> Any:
    """Return what peft's pattern for a module says: the first whose name ends the path."""
    for name, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({name})$", path):
            return value
    return otherwise


def _natural(path: str) -> list[Any]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path)]
