"""Bringing a checkpoint's classes into the data's order, by name and never by guess."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tunescope.errors import ModelError


def class_order(
    model_names: Sequence[str], data_names: Sequence[str], label_map: Mapping[str, str] | None, path: str
) -> list[int]:
    """Return, for each of the data's classes, the index of the model's logit that means it.

    Args:
        model_names: The checkpoint's label names, in logit order.
        data_names: The data's label names, in the wanted order.
        label_map: From the checkpoint's names (``LABEL_0``, or just ``0``) to the data's.
        path: The checkpoint, for messages.

    Raises:
        ModelError: The names differ and no complete ``label_map`` says what they mean.
    """
    translated = list(model_names)
    if label_map is not None:
        translated = _translate(model_names, label_map, path)
    if len(set(translated)) == len(translated) and set(translated) == set(data_names):
        return [translated.index(name) for name in data_names]
    unnamed = all(re.fullmatch(r"LABEL_\d+", name) for name in model_names)
    reason = "was saved without label names" if unnamed else "has other labels than the data"
    example = " ".join(
        f"--label-map {name}={data_names[i] if unnamed and i < len(data_names) else '...'}"
        for i, name in enumerate(model_names)
    )
    raise ModelError(
        f"{path} {reason}: the model's are {_list(translated)}; the data's are {_list(data_names)}. "
        "Which means which is never guessed.",
        hint=f"Say it by name, for example: {example}",
    )


def _translate(model_names: Sequence[str], label_map: Mapping[str, str], path: str) -> list[str]:
    by_name = {name: name for name in model_names}
    by_name |= {str(index): name for index, name in enumerate(model_names) if str(index) not in by_name}
    unknown = [name for name in label_map if name not in by_name]
    if unknown:
        raise ModelError(
            f"The label map names {unknown[0]!r}, which {path} does not have; its labels are {_list(model_names)}."
        )
    meant = {by_name[name]: target for name, target in label_map.items()}
    return [meant.get(name, name) for name in model_names]


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
