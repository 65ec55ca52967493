"""Data sets of the Hugging Face hub, and folders that ``datasets`` saved to disk."""

from __future__ import annotations

import os
from typing import Any

import polars as pl

from tunescope.data.table import Part, Table, listed
from tunescope.errors import DataError

SAVED_MARKS = ("dataset_dict.json", "dataset_info.json", "state.json")


def load_hub(path: str, name: str | None, revision: str | None) -> dict[str | None, Table]:
    """Load every split of a hub data set.

    Args:
        path: Hub id, such as ``stanfordnlp/imdb``.
        name: Configuration of the data set.
        revision: Branch, tag or commit.

    Returns:
        Tables by the hub's split names. Class labels come as an enumeration in the hub's order, and the
        hub's -1 (unlabelled) as null.

    Raises:
        DataError: It is neither on this machine nor reachable, or has no such configuration.
    """
    import datasets

    try:
        loaded = datasets.load_dataset(path, name, revision=revision)
    except ValueError as error:
        raise DataError(
            f"Data set {path!r} could not be loaded: {_first_line(error)}",
            hint="Set data.name to one of its configurations, or data.revision to one of its revisions.",
        ) from error
    except Exception as error:  # the hub's clients raise errors of many libraries; the cause is kept
        raise _unreachable(path, error) from error
    return _tables(loaded, f"hub:{path}", {"format": "hub", "name": name, "revision": revision})


def load_saved(path: str) -> dict[str | None, Table]:
    """Load a folder that ``datasets``' ``save_to_disk`` wrote, one split or several.

    Raises:
        DataError: The folder is not whole.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(path)
    except Exception as error:  # pyarrow, json and datasets each raise their own; the cause is kept
        raise DataError(
            f"{path} looks like a folder saved by datasets but cannot be loaded: {_first_line(error)}",
            hint="Save it again with save_to_disk.",
        ) from error
    return _tables(loaded, path, {"format": "saved_dataset"})


def _tables(loaded: Any, shown: str, details: dict[str, Any]) -> dict[str | None, Table]:
    splits = loaded if isinstance(loaded, dict) else {None: loaded}
    return {
        split: _table(data, f"{shown} ({split})" if split else shown, details)
        for split, data in splits.items()
    }


def _table(data: Any, shown: str, details: dict[str, Any]) -> Table:
    frame = data.to_polars()
    for column, feature in data.features.items():
        names = getattr(feature, "names", None)
        if type(feature).__name__ == "ClassLabel" and names and len(set(names)) == len(names):
            indices = frame[column].cast(pl.Int64).set(frame[column] < 0, None)
            if indices.max() is not None and indices.max() >= len(names):  # type: ignore[operator]
                raise DataError(
                    f"{shown}: column {column!r} holds class {indices.max()}; named are {listed(names)}.",
                    hint="The data set is not consistent; choose another revision.",
                )
            frame = frame.with_columns(pl.Series(column, [None if i is None else names[i] for i in indices],
                                                 pl.Enum(names)))  # fmt: skip
    part = Part(shown, 0, frame.height)
    return Table(frame, (part,), {**details, "fingerprint": data._fingerprint})


def _unreachable(path: str, error: Exception) -> DataError:
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}
    if offline:
        reason = "is not on this machine, and HF_HUB_OFFLINE forbids to fetch it"
        step = "Unset HF_HUB_OFFLINE and connect once, or set"
    elif isinstance(error, ConnectionError | TimeoutError) or "connect" in str(error).lower():
        reason = "is not on this machine, and the hub cannot be reached"
        step = "Connect to the network, or set"
    else:
        reason = f"cannot be loaded from the hub: {_first_line(error)}"
        step = "Check the name on huggingface.co/datasets (gated sets need a login), or set"
    return DataError(
        f"{path!r} is no file or folder here; as a hub data set it {reason}.",
        hint=f"{step} data.path to a local file, or to a folder written by save_to_disk.",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
