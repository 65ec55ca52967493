"""Fetching a recipe's data and models from the hub into folders, for a room without network."""

from __future__ import annotations

import os
from pathlib import Path

from tunescope.config import StudyConfig
from tunescope.data.read import FORMATS, HUB_ID, read_table
from tunescope.data.sources import suffix_of
from tunescope.errors import ModelError
from tunescope.progress import SILENT, Progress


def download(study: StudyConfig, folder: Path, progress: Progress = SILENT) -> list[str]:
    """Write ``folder/data/SPLIT.parquet`` and ``folder/models/NAME`` of everything that a recipe takes from the hub.

    What is there already is left alone, so a broken download goes on where it stopped.

    Args:
        study: The recipe.
        folder: Where to write.
        progress: Where to report.

    Returns:
        The options of ``tunescope run`` that use the folders.

    Raises:
        DataError: The data cannot be fetched; the message says whether the network or the hub refused.
        ModelError: A model cannot be fetched.
    """
    options = _data(study, folder / "data", progress)
    for model, revision in {(arm.model, arm.revision) for arm in study.arms if _is_hub(arm.model)}:
        options.append(_model(model, revision, folder / "models", progress))
    return options


def _is_hub(model: str) -> bool:
    named = model != "scratch" and bool(HUB_ID.fullmatch(model)) and suffix_of(model) not in FORMATS
    return named and not Path(model).exists()


def _data(study: StudyConfig, folder: Path, progress: Progress) -> list[str]:
    path = study.data.path
    sources = list(dict.fromkeys(
        [path] if isinstance(path, str) else
        [one for value in path.values() for one in ([value] if isinstance(value, str) else value)]
        if isinstance(path, dict) else path
    ))  # fmt: skip
    hub = [one for one in sources if _is_hub(one)]
    if not hub:
        progress.say(f"  the data {', '.join(sources)} is not on the hub: give it with --data DIR")
        return []
    from tunescope.data.hub import load_hub
    from tunescope.files import atomic_path

    for source in dict.fromkeys(one.partition("#")[0] for one in hub):
        for split, table in load_hub(source, study.data.name, study.data.revision).items():
            target = folder / f"{split or 'train'}.parquet"
            if not target.is_file():
                with atomic_path(target) as temporary:
                    table.frame.write_parquet(temporary)
            progress.say(f"  {target}: {table.frame.height:,} rows")
            read_table(str(target))  # it must be readable as it lies there
    return [f"--data {folder}"]


def _model(model: str, revision: str | None, folder: Path, progress: Progress) -> str:
    name = model.rpartition("/")[2]
    target = folder / name
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}
    try:
        from huggingface_hub import snapshot_download

        snapshot_download(
            model,
            revision=revision,
            local_dir=target,
            allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"],
        )
    except Exception as error:  # the hub's client raises errors of many libraries; the cause is kept
        why = "HF_HUB_OFFLINE forbids to fetch it" if offline else str(error).strip().split("\n")[0]
        step = "Unset HF_HUB_OFFLINE and connect" if offline else "Check the network and the name"
        raise ModelError(
            f"The model {model} cannot be fetched from the hub: {why}.",
            hint=f"{step}, or copy the model's folder from elsewhere and give --model {name}=DIR.",
        ) from error
    if not any(target.glob("*.safetensors")):
        raise ModelError(
            f"{model} has no safetensors at revision {revision or 'main'}, and tunescope reads no pickled weights.",
            hint="Choose a revision that has model.safetensors.",
        )
    progress.say(f"  {target}: {model} at {revision or 'main'}")
    return f"--model {name}={target}"
