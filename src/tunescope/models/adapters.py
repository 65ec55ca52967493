"""Opening a peft adapter folder as the tuned model it stands for."""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from tunescope.errors import MissingDependencyError, ModelError
from tunescope.models.adapted import HEAD_FILE, RECORD, is_adapted, plain_layer
from tunescope.models.adapted import NAME as ADAPTER_NAME
from tunescope.models.families import Family, Pooling
from tunescope.models.heads import HeadKind, build_head, one_logit
from tunescope.models.source import ADAPTER, Source, check_source, hub_errors, read_config, read_tokenizer

if TYPE_CHECKING:
    Opened = tuple[PreTrainedModel, PreTrainedTokenizerBase, Family, Pooling | None]

VIRTUAL_TOKENS = ("PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING")


def merged_adapter(source: Source, base: str | None) -> Opened:
    """Load an adapter onto its base and merge it, so that sites and heads are those of a plain model.

    Args:
        source: The adapter's folder.
        base: Base model to use; None means the one that the adapter names.

    Raises:
        MissingDependencyError: peft is not installed.
        ModelError: The base cannot be had, the head was not saved, or the method adds virtual tokens.
    """
    adapters = peft_models(source)
    settings = source.read_json(ADAPTER)
    base_source = base_of(source, settings, base)
    about = source.read_json(RECORD)
    config, family, _ = read_config(base_source)
    has_tokenizer = source.folder is not None and (source.folder / "tokenizer.json").is_file()
    tokenizer = read_tokenizer(source if has_tokenizer else base_source, config)
    of_trunk = (Path(source.path) / HEAD_FILE).is_file()
    config = _adapted_config(config, source, settings, family, about)
    config.pad_token_id = config.pad_token_id if family.counts_positions_by_pad_id else tokenizer.pad_token_id
    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    with hub_errors(base_source):
        model = kind.from_pretrained(
            base_source.path, config=config, revision=base_source.revision, use_safetensors=True,
            trust_remote_code=False, dtype=torch.float32, ignore_mismatched_sizes=True,
        )  # fmt: skip
    with warnings.catch_warnings(), hub_errors(source):
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
        # peft 0.21 asks transformers 5.23 for an attribute by its old name.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        adapted = model.base_model if of_trunk else model
        peft_model = _put_on(adapters, adapted, source, base_source)
        # peft 0.21's own merging of IA3 fails where a whole module (a pooler) was saved beside the scales.
        by_hand = settings.get("peft_type") == "IA3"
        merged = (
            _merge(cast(PreTrainedModel, peft_model.base_model.model))
            if by_hand
            else peft_model.merge_and_unload()
        )
    pooling = cast(Pooling | None, about.get("pooling"))
    if of_trunk:  # merging works in place, so the trunk inside the classification model is the tuned one
        merged = model
        _fill_head(model, family, pooling or family.own_pooling, Path(source.path))
    if about.get("labels"):
        model.config.id2label = dict(enumerate(about["labels"]))
    return merged, tokenizer, family, pooling


def peft_models(source: Source) -> Any:
    """Return peft's class of adapted models.

    Raises:
        MissingDependencyError: peft is not installed, and this adapter needs it.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingDependencyError(
            f"{source.path} is a peft adapter, and peft is not installed.",
            hint="pip install 'tunescope[peft]'",
        ) from error
    return PeftModel


def base_of(source: Source, settings: dict[str, Any], base: str | None) -> Source:
    """Return where the base model of an adapter lies.

    Args:
        source: The adapter's folder.
        settings: peft's configuration of it.
        base: Base model to use; None means the one that the adapter names.

    Raises:
        ModelError: The method adds virtual tokens, or no base model is named or can be had.
    """
    if settings.get("peft_type") in VIRTUAL_TOKENS:
        raise ModelError(
            f"{source.path} adds virtual tokens ({settings['peft_type']}): base and tuned would not see the same "
            "tokens, so positions cannot be compared."
        )
    found = Source(base or settings.get("base_model_name_or_path") or "", settings.get("revision"))
    if not found.path:
        raise ModelError(f"{source.path}/{ADAPTER} names no base model.", hint="Give it as BASE.")
    check_source(found)
    return found


def _put_on(adapters: Any, model: Any, source: Source, base: Source) -> Any:
    """Load an adapter's tensors onto its base.

    Raises:
        ModelError: They are of another shape than the base's.
    """
    try:
        return adapters.from_pretrained(model, source.path, is_trainable=False)
    except RuntimeError as error:
        mismatch = next((line.strip() for line in str(error).splitlines() if "size mismatch" in line), None)
        if mismatch is None:
            raise
        raise ModelError(
            f"{source.path} does not fit {base.path}: {mismatch}.",
            hint="Give as BASE the model that the adapter was trained on, with the vocabulary that it had then.",
        ) from error


def _merge(model: PreTrainedModel) -> PreTrainedModel:
    """Replace peft's layers by merged ones, and its wrappers of whole modules by what was saved."""
    for path, module in list(model.named_modules()):
        if is_adapted(module):
            model.set_submodule(path, plain_layer(module))
        elif hasattr(module, "modules_to_save") and hasattr(module, "original_module"):
            model.set_submodule(path, module.modules_to_save[ADAPTER_NAME])  # type: ignore[index]
    return model


def _fill_head(model: PreTrainedModel, family: Family, pooling: Pooling, folder: Path) -> None:
    """Fill the head from the file that lies beside an adapter of the trunk.

    Raises:
        ModelError: The file holds another head.
    """
    kind = cast(HeadKind, getattr(model.config, "tunescope_head", "softmax"))
    if kind == "sigmoid":
        one_logit(model, family)
    head = build_head(model, family, pooling, kind)
    try:
        head.load_state_dict(load_file(folder / HEAD_FILE))
    except RuntimeError as error:
        raise ModelError(
            f"{folder / HEAD_FILE} does not hold the head that {RECORD} tells of: {error}"
        ) from error


def _adapted_config(
    config: PretrainedConfig,
    source: Source,
    settings: dict[str, object],
    family: Family,
    about: dict[str, Any],
) -> PretrainedConfig:
    """Give the base's configuration the number of classes of the head that the adapter saved."""
    config = copy.deepcopy(config)
    if about.get("head_kind") == "sigmoid":
        config.tunescope_head = "sigmoid"
        config.num_labels = 1
        return config
    vars(config).pop("tunescope_head", None)
    if (Path(source.path) / HEAD_FILE).is_file():
        config.num_labels = len(about["labels"])
        return config
    head = family.head.split(".")[0]
    shapes = _head_shapes(Path(source.path), head)
    if not shapes:
        raise ModelError(
            f"{source.path}: the adapter was saved without its head ({head}), so its logits would be those of a "
            f"random head (task_type {settings.get('task_type')!r}, "
            f"modules_to_save {settings.get('modules_to_save')!r}).",
            hint=f"Train with task_type='SEQ_CLS' or modules_to_save=['{head}'] and save again.",
        )
    if config.num_labels != shapes[-1]:
        config.num_labels = shapes[-1]
    return config


def _head_shapes(folder: Path, head: str) -> list[int]:
    """Return the number of rows of every saved weight of the head, the last linear layer last."""
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise ModelError(f"{folder} has an {ADAPTER} but no adapter_model.safetensors.")
    pattern = re.compile(rf"(^|\.){head}(\.(modules_to_save\.)?|\.)(.*\.)?weight$")
    with safe_open(path, framework="pt") as tensors:
        names = sorted(name for name in tensors.keys() if pattern.search(name))  # noqa: SIM118 - not a mapping
        return [int(tensors.get_slice(name).get_shape()[0]) for name in names if "lora_" not in name]
