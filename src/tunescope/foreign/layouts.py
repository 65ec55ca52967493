"""What kind of model a folder holds, as far as its files say: classifier, language model or trunk alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from tunescope.errors import ModelError
from tunescope.models.families import Pooling
from tunescope.models.language import is_language_model
from tunescope.models.source import Source, check_source

Kind = Literal["classifier", "language model", "trunk"]
MODULES = "modules.json"  # a sentence-transformers export says in it which parts it has, in order
# By the names of sentence-transformers before and since 5; what is not here cannot be expressed by a mask alone.
SENTENCE_POOLINGS: dict[str, Pooling] = {
    "cls": "first_raw", "mean": "mean", "lasttoken": "last",
    "pooling_mode_cls_token": "first_raw", "pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "last",
}  # fmt: skip


@dataclass(frozen=True)
class SentenceEncoder:
    """What a sentence-transformers export says of itself.

    Attributes:
        folder: The folder of its transformer: weights, configuration, tokenizer.
        pooling: How it makes one vector of a text.
        max_length: Its longest input in tokens, or None where it does not say.
        left_out: Modules after pooling that are not read, such as ``Normalize``.
    """

    folder: str
    pooling: Pooling
    max_length: int | None
    left_out: tuple[str, ...]


def kind_of(path: str) -> Kind:
    """Return what a checkpoint says that it is.

    A folder with ``modules.json``, or whose configuration names a bare model (``BertModel``), is a trunk: it has no
    head, so its logits can only come from a probe. What names no architecture is taken for a classifier, and refused
    at loading where it has no trained head.

    Raises:
        ModelError: The checkpoint cannot be had.
    """
    if is_sentence_export(path):
        return "trunk"
    source = Source(path)
    check_source(source)
    if is_language_model(path):
        return "language model"
    names = source.read_json("config.json").get("architectures") or ()
    bare = bool(names) and all(str(name).endswith("Model") for name in names)
    return "trunk" if bare and not source.is_adapter else "classifier"


def is_sentence_export(path: str) -> bool:
    """Whether a folder was written by sentence-transformers."""
    return (Path(path) / MODULES).is_file()


def sentence_encoder(path: str) -> SentenceEncoder:
    """Read how a sentence-transformers export makes vectors.

    Raises:
        ModelError: It is no such export, or pools in a way that cannot be read by mask (maximum, weighted means).
    """
    folder = Path(path)
    modules = [one for one in _json(folder / MODULES) if isinstance(one, dict)]
    kinds = [str(one.get("type", "")).rpartition(".")[2] for one in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise ModelError(
            f"{path} is a sentence-transformers export of {', '.join(kinds) or 'no modules'}; expected a Transformer "
            "and its Pooling first.",
            hint="Give the folder of its transformer, the one with config.json and model.safetensors.",
        )
    trunk, pooled = (folder / str(one.get("path", "")) for one in modules[:2])
    settings = (
        _json(trunk / "sentence_bert_config.json") if (trunk / "sentence_bert_config.json").is_file() else {}
    )
    tokens = _json(trunk / "tokenizer_config.json") if (trunk / "tokenizer_config.json").is_file() else {}
    limit = settings.get("max_seq_length") or tokens.get("model_max_length")
    return SentenceEncoder(
        str(trunk),
        _pooling(path, _json(pooled / "config.json")),
        int(limit) if limit and int(limit) < 1_000_000 else None,
        tuple(kinds[2:]),
    )


def _pooling(path: str, settings: dict[str, Any]) -> Pooling:
    said = settings.get("pooling_mode")
    wanted = [str(said)] if isinstance(said, str) else list(said or ())
    wanted += [key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True]
    if len(wanted) == 1 and wanted[0] in SENTENCE_POOLINGS:
        return SENTENCE_POOLINGS[wanted[0]]
    raise ModelError(
        f"{path} pools by {' and '.join(wanted) or 'nothing that it says'}; read by mask are the first token, the mean "
        "and the last token.",
        hint="Compare the folder of its transformer alone; its own architecture's pooling is then used.",
    )


def _json(path: Path) -> Any:
    try:
        return cast(Any, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing.", hint="Export the model again, whole.") from error
    except ValueError as error:
        raise ModelError(f"{path} is not readable JSON: {error}.") from error
