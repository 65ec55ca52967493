"""What the stages of a study depend on outside the study file: contents of data files and model folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunescope.config import ArmConfig, ScratchConfig, StudyConfig
from tunescope.config.expect import ElsewhereConfig
from tunescope.files import sha256_of
from tunescope.fingerprints import sha256_of_json

PLANTED = "planted:"
PLANTED_FOLDER = "data/planted"
MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")


def planted_name(study: StudyConfig) -> str | None:
    """Return NAME where the study's data is ``planted:NAME``, else None."""
    path = study.data.path
    return path.removeprefix(PLANTED) if isinstance(path, str) and path.startswith(PLANTED) else None


def data_digests(path: Any) -> dict[str, str]:
    """Return the checksum of every local file that a data path names; hub ids and URLs have none.

    Args:
        path: The study's ``data.path``: a file, glob, folder, hub id, a list of them, or a mapping to them.
    """
    if isinstance(path, dict):
        return {key: value for part in path.values() for key, value in data_digests(part).items()}
    if isinstance(path, list | tuple):
        return {key: value for part in path for key, value in data_digests(part).items()}
    found = Path(path)
    if found.is_file():
        return {str(path): sha256_of(found)}
    if found.is_dir():
        return {str(path): _folder_digest(found, ("**/*",))}
    if "://" not in str(path) and any(sign in str(path) for sign in "*?["):
        root = Path(found.anchor or ".")
        pattern = str(found.relative_to(root)) if found.anchor else str(path)
        return {str(one): sha256_of(one) for one in sorted(root.glob(pattern)) if one.is_file()}
    return {}


def model_digest(path: str) -> str | None:
    """Return a checksum of a local model folder's files, or None for a hub id."""
    return _folder_digest(Path(path), MODEL_FILES) if Path(path).is_dir() else None


def _folder_digest(folder: Path, patterns: tuple[str, ...]) -> str:
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return sha256_of_json({path.relative_to(folder).as_posix(): sha256_of(path) for path in files})


def scratch_key(study: StudyConfig, scratch: ScratchConfig) -> str:
    """Return a short name of a from-scratch model; arms with the same architecture and corpus share it."""
    corpus = None if scratch.corpus is None else data_digests(scratch.corpus)
    sources = [model_digest(path) for path in (scratch.like, scratch.tokenizer) if path is not None]
    about = {"scratch": scratch.model_dump(mode="json"), "corpus": corpus, "sources": sources}
    return sha256_of_json({**about, "seed": study.seeds[0]})[:8]


def elsewhere_digests(elsewhere: ElsewhereConfig) -> dict[str, str]:
    """Return the checksums of the files that are looked at elsewhere."""
    paths = [*([elsewhere.text] if elsewhere.text else []), *(one.path for one in elsewhere.data)]
    return {key: value for path in paths for key, value in data_digests(path).items()}


def behaviour_inputs(study: StudyConfig) -> dict[str, Any]:
    """Return what the behaviour of a training depends on outside it: the section, and the files that it names."""
    assert study.behaviour is not None
    files = [name for one in study.behaviour.suites for name in (one.suite, one.path) if name is not None]
    return {"behaviour": study.behaviour.model_dump(mode="json"), "files": data_digests(files)}


def base_inputs(study: StudyConfig, arm: ArmConfig) -> dict[str, Any]:
    """Return what an arm's base model depends on, apart from stages before."""
    return {
        "model": arm.model,
        "revision": arm.revision,
        "model_files": None if arm.scratch is not None else model_digest(arm.model),
        "pooling": arm.pooling,
        "max_length": study.data.max_length,
        "window": study.data.window.model_dump(),
    }
