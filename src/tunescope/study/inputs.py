"""What the stages of a study depend on outside the study file: contents of data files and model folders."""

from __future__ import annotations

from typing import Any

from tunescope.config import ArmConfig, ScratchConfig, StudyConfig
from tunescope.config.expect import ElsewhereConfig
from tunescope.fingerprints import data_digests, model_digest, sha256_of_json

PLANTED = "planted:"
PLANTED_FOLDER = "data/planted"


def planted_name(study: StudyConfig) -> str | None:
    """Return NAME where the study's data is ``planted:NAME``, else None."""
    path = study.data.path
    return path.removeprefix(PLANTED) if isinstance(path, str) and path.startswith(PLANTED) else None


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
