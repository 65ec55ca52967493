"""Where a checkpoint comes from: a folder or a hub id, checked before a single weight is read."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

from tunescope.errors import ModelError
from tunescope.models.families import POOLINGS, PUBLISHED_POOLING, Family, Pooling, family_of

ADAPTER = "adapter_config.json"
TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A model folder or hub id.

    Attributes:
        path: Folder or hub id, as given.
        revision: Revision of a hub model, or None.
    """

    path: str
    revision: str | None = None

    @property
    def folder(self) -> Path | None:
        """The local folder, or None for a hub id."""
        return Path(self.path) if Path(self.path).is_dir() else None

    @property
    def is_adapter(self) -> bool:
        """Whether the folder holds a peft adapter."""
        return self.folder is not None and (self.folder / ADAPTER).is_file()

    @property
    def has_tokenizer(self) -> bool:
        """Whether the folder holds a tokenizer; a hub id is taken to have one."""
        return self.folder is None or any((self.folder / name).is_file() for name in TOKENIZER_FILES)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of a local folder; empty where there is no folder or no such file.

        Raises:
            ModelError: The file is not JSON.
        """
        if self.folder is None or not (self.folder / name).is_file():
            return {}
        try:
            return dict(json.loads((self.folder / name).read_text(encoding="utf-8")))
        except ValueError as error:
            raise ModelError(f"{self.folder / name} is not readable JSON: {error}.") from error


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from printing load reports and bars; what matters is said by tunescope itself."""
    level, hub_level = logging.get_verbosity(), hub_logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    hub_logging.set_verbosity(hub_logging.CRITICAL)  # it retries for half a minute, a line each time
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        hub_logging.set_verbosity(hub_level)
        if bars:
            logging.enable_progress_bar()


def check_source(source: Source) -> None:
    """Refuse what cannot be a model before anything is loaded.

    Raises:
        ModelError: A path that does not exist, a folder without configuration or weights, or pickled weights only.
    """
    folder = source.folder
    if folder is None:
        looks_local = (
            source.path.startswith((".", "/", "~")) or "\\" in source.path or source.path.count("/") > 1
        )
        if looks_local or Path(source.path).exists():
            raise ModelError(
                f"{source.path} is not a folder.",
                hint="Give the folder that holds config.json and model.safetensors, or a hub id such as gpt2.",
            )
        return
    needed = ADAPTER if source.is_adapter else "config.json"
    if not (folder / needed).is_file():
        raise ModelError(
            f"{folder} is not a model folder: it has no config.json (nor {ADAPTER}); it holds {_listing(folder)}.",
            hint="Give the folder that save_pretrained or the Trainer wrote (for example .../checkpoint-500).",
        )
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(
            path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern)
        )
        if pickled:
            raise ModelError(
                f"{folder} holds only pickled weights ({', '.join(pickled)}); they can run code when opened, "
                "so tunescope reads safetensors only.",
                hint="Load it once in a place you trust and call save_pretrained(folder): it writes safetensors.",
            )
        raise ModelError(
            f"{folder} has a {needed} but no weights (*.safetensors); it holds {_listing(folder)}.",
            hint="Copy model.safetensors into it, or give another folder.",
        )


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return (", ".join(names[:8]) + (" ..." if len(names) > 8 else "")) or "nothing"


@contextlib.contextmanager
def hub_errors(source: Source) -> Iterator[None]:
    """Turn the many ways in which loading fails into one clear sentence.

    Raises:
        ModelError: Loading failed.
    """
    try:
        with quiet_transformers():
            yield
    except (OSError, ValueError, SafetensorError) as error:
        if source.folder is not None:
            raise ModelError(f"{source.path} could not be loaded: {_first_line(error)}") from error
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        if offline:
            state = "HF_HUB_OFFLINE is set and it is not in the local cache"
        else:
            state = "the hub cannot be reached" if _is_network(error) else "the hub has no such model"
        raise ModelError(
            f"The model {source.path!r} could not be had: there is no such folder here, and {state}.",
            hint="Give a local folder, or connect to the network (and unset HF_HUB_OFFLINE) and try again.",
        ) from error


def _is_network(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, is about the network and not about the model."""
    signs = ("Connect", "Timeout", "Network", "LocalEntryNotFound", "ProxyError")
    while error is not None:
        if any(sign in type(error).__name__ for sign in signs) or "couldn't connect" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def read_config(source: Source) -> tuple[PretrainedConfig, Family, Pooling | None]:
    """Read a configuration and find its family, and the pooling it was saved with where it says so.

    Raises:
        ModelError: No such model, or an architecture of no known family.
    """
    raw = source.read_json("config.json")
    kind = raw.get("tunescope_model_type")
    if kind is not None:
        family = family_of(kind)
        config = CONFIG_MAPPING[kind].from_dict({**raw, "model_type": kind})
    else:
        if source.folder is not None:
            if "model_type" not in raw:
                raise ModelError(
                    f"{source.folder / 'config.json'} has no model_type, so its family is unknown."
                )
            family_of(raw["model_type"])
        with hub_errors(source):
            config = AutoConfig.from_pretrained(
                source.path, revision=source.revision, trust_remote_code=False
            )
        family = family_of(config.model_type)
    pooling = source.read_json("tunescope.json").get("pooling")
    if pooling is not None and pooling not in (*POOLINGS, PUBLISHED_POOLING):
        raise ModelError(
            f"{source.path}/tunescope.json: unknown pooling {pooling!r}; known: {', '.join(POOLINGS)}."
        )
    return config, family, pooling


def read_tokenizer(
    source: Source, config: PretrainedConfig, other: str | None = None
) -> PreTrainedTokenizerBase:
    """Load the tokenizer; a missing pad token becomes the end-of-text token, and padding is on the right.

    Args:
        source: The model's folder or hub id.
        config: Its configuration.
        other: Folder or hub id whose tokenizer is taken where the model's folder holds none.

    Raises:
        ModelError: There is no tokenizer, or its vocabulary is larger than the model's.
    """
    if not source.has_tokenizer:
        if other is None or not Source(other).has_tokenizer:
            raise ModelError(
                f"{source.path} holds a model and no tokenizer, so what its token ids mean is not known.",
                hint=f"Save the tokenizer of its training beside it: tokenizer.save_pretrained({source.path!r})",
            )
        source = Source(other)
    with hub_errors(source):
        tokenizer = AutoTokenizer.from_pretrained(
            source.path, revision=source.revision, trust_remote_code=False
        )
    if tokenizer.pad_token_id is None:
        replacement = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
        tokenizer.pad_token = replacement
    tokenizer.padding_side = "right"
    if len(tokenizer) > config.vocab_size:
        raise ModelError(
            f"{source.path}: the tokenizer has {len(tokenizer)} entries but the model only {config.vocab_size}.",
            hint="The folder holds a tokenizer of another model; give the one the model was trained with.",
        )
    return tokenizer
