"""LoRA through peft (Hu et al. 2021, arXiv 2106.09685), with DoRA, and with separate factors for fused parts."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, Field, field_validator, model_validator

from tunescope.config.strict import Count, Strict, no_boolean
from tunescope.errors import ModelError
from tunescope.models.families import ATTENTION_PARTS, AttentionPart
from tunescope.seeds import derive_seed
from tunescope.tuning.injection import (
    ALL_LINEAR,
    Found,
    Wanted,
    adapted_at,
    find,
    inject,
    known_to_peft,
    need_peft,
)

if TYPE_CHECKING:
    from tunescope.models import Classifier

_SET_HERE = "tunescope sets it"
REASONS = {
    **dict.fromkeys(("task_type", "inference_mode", "base_model_name_or_path", "revision", "auto_mapping"), _SET_HERE),
    **dict.fromkeys(("peft_version", "fan_in_fan_out"), _SET_HERE),
    "peft_type": "the method says it: lora or ia3",
    "layers_pattern": "the family's table knows the blocks",
    "bias": "trained biases of the base would not be undone by taking the adapter away; bitfit trains biases",
    "lora_bias": "trained biases of the base would not be undone by taking the adapter away; bitfit trains biases",
    "trainable_token_indices": "embeddings are not adapted",
    "layer_replication": "base and tuned would have different layers",
}  # fmt: skip

LayerNumber = Annotated[int, BeforeValidator(no_boolean), Field(ge=0)]


class LoraPeft(Strict):
    """The fields of ``peft.LoraConfig`` that a study may set, by peft's names and with peft's defaults."""

    r: Count = Field(8, description="the rank: 1 or more")
    lora_alpha: Count = Field(8, description="the update's scale is lora_alpha / r: 1 or more")
    lora_dropout: Annotated[float, BeforeValidator(no_boolean)] = Field(
        0.0, ge=0, lt=1, description="the dropout before the factors: 0 to below 1"
    )
    target_modules: list[str] | str | None = Field(
        None,
        description="names of projections, a pattern for their whole paths, all-linear, or null for queries and values",
    )
    exclude_modules: list[str] | str | None = Field(
        None, description="names of projections to leave out, a pattern, or null"
    )
    layers_to_transform: list[LayerNumber] | LayerNumber | None = Field(
        None, description="the numbers of the adapted blocks, counted from 0, or null for all"
    )
    rank_pattern: dict[str, Count] = Field(
        default_factory=dict, description="a mapping from projections to ranks other than r"
    )
    alpha_pattern: dict[str, Count] = Field(
        default_factory=dict, description="a mapping from projections to values other than lora_alpha"
    )
    use_rslora: bool = Field(False, description="true for the scale lora_alpha / sqrt(r)")
    use_dora: bool = Field(False, description="true for DoRA: direction and magnitude apart")
    init_lora_weights: Literal[True, "gaussian"] = Field(
        True, description="true or gaussian; both start at the base, as a comparison needs"
    )
    modules_to_save: list[str] = Field(
        default_factory=list,
        description="names of further modules that are trained whole; the head always is",
    )

    @model_validator(mode="before")
    @classmethod
    def _peft_knows_them(cls, given: Any) -> Any:
        return known_to_peft("LoraConfig", given, cls.model_fields, REASONS)

    @field_validator("target_modules")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if value is not None and not value:
            raise ValueError("it is empty")
        return value

    @model_validator(mode="after")
    def _layers_need_names(self) -> LoraPeft:
        is_pattern = isinstance(self.target_modules, str) and self.target_modules != ALL_LINEAR
        if self.layers_to_transform is not None and is_pattern:
            raise ValueError(
                "a pattern in target_modules chooses the layers itself; leave layers_to_transform out"
            )
        return self


class LoraOptions(Strict):
    """How LoRA is set up.

    Attributes:
        peft: Fields of ``peft.LoraConfig`` by peft's names.
        parts: Which of query, key and value are adapted, each with its own factors. None with no
            ``target_modules`` means query and value in every family (the paper's choice), also where the
            architecture keeps all three in one matrix; DoRA, whose magnitudes belong to whole matrices, then takes
            the whole matrix.
        train_head_bias: Whether the bias of the last linear layer is trained, where it has one.
        fresh_projections: Study 002's slip, for its published form alone: the adapted projections are drawn anew and
            frozen, so that LoRA adapts random matrices in place of the pretrained ones.
    """

    peft: LoraPeft = Field(
        default_factory=lambda: LoraPeft.model_validate({}),
        description="a mapping of fields of peft.LoraConfig",
    )
    parts: list[AttentionPart] | None = Field(
        None, description="one or more of query, key and value, or null"
    )
    train_head_bias: bool = Field(True, description="whether the head's bias is trained: true or false")
    fresh_projections: bool = Field(
        False,
        description="false, or true as study 002 published: the adapted projections are random and frozen",
    )

    @field_validator("parts")
    @classmethod
    def _each_once(cls, value: list[AttentionPart] | None) -> list[AttentionPart] | None:
        if value is not None and (not value or len(set(value)) < len(value)):
            raise ValueError("it is empty" if not value else "a part stands in it twice")
        return None if value is None else [part for part in ATTENTION_PARTS if part in value]

    @model_validator(mode="after")
    def _parts_fit(self) -> LoraOptions:
        if self.parts is not None and (self.peft.rank_pattern or self.peft.alpha_pattern):
            raise ValueError(
                "parts and rank_pattern or alpha_pattern cannot be combined: each part has rank r"
            )
        return self


class Lora:
    """Trains low-rank updates of projections, and the head.

    The update starts at exactly 0, so the model starts as the base, bit for bit. peft's layers live in place; the
    saved folder holds the merged model, and ``adapter/`` the adapter.
    """

    name = "lora"
    options: type[BaseModel] = LoraOptions
    frozen_trunk = False
    kind: Literal["train", "prompt"] = "train"

    def prepare(self, classifier: Classifier, options: BaseModel) -> None:
        """Put LoRA layers in place and let them and the head require gradients.

        Raises:
            MissingDependencyError: peft is not installed.
            ModelError: A module or layer that the model does not have, or parts that cannot be had.
        """
        need_peft(self.name)
        from peft import LoraConfig

        chosen = cast(LoraOptions, options)
        parts, found = _resolve(classifier, chosen)
        given = chosen.peft
        fused = classifier.family.query.rpartition("{layer}.")[2]
        alone = all(name.endswith(f".{fused}") for name in found.targets)
        rank, alpha = given.r, float(given.lora_alpha)
        rank_pattern, alpha_pattern = dict(given.rank_pattern), dict[str, float](given.alpha_pattern)
        if parts:
            # One peft adapter of rank P r with a block-sparse B is P adapters of rank r; its alpha keeps the scale.
            many = len(parts)
            wide, scaled = many * rank, alpha * (math.sqrt(many) if given.use_rslora else many)
            if alone:
                rank, alpha = wide, scaled
            else:
                rank_pattern, alpha_pattern = {fused: wide}, {fused: scaled}
        config = LoraConfig(
            r=rank,
            lora_alpha=cast(int, int(alpha) if alpha.is_integer() else alpha),
            lora_dropout=given.lora_dropout,
            target_modules=list(found.targets),
            rank_pattern=rank_pattern,
            alpha_pattern=alpha_pattern,
            use_rslora=given.use_rslora,
            use_dora=given.use_dora,
            init_lora_weights=given.init_lora_weights,
            fan_in_fan_out=classifier.family.projection_is_conv1d,
            modules_to_save=list(found.save) or None,
        )
        if chosen.fresh_projections:
            _draw_anew(classifier, found)
        inject(classifier, config, found, chosen.train_head_bias)
        if parts:
            _split(classifier, [one for one in found.targets if one.endswith(f".{fused}")], parts, given.r)

    def frozen_blocks(self, classifier: Classifier, options: BaseModel) -> int:
        """Return the number of blocks below the first adapted one.

        Raises:
            ModelError: A module or layer that the model does not have.
        """
        return _resolve(classifier, cast(LoraOptions, options))[1].frozen


def _resolve(classifier: Classifier, options: LoraOptions) -> tuple[list[AttentionPart], Found]:
    """Return the parts of a fused projection that get their own factors (none elsewhere), and what is adapted."""
    family, given = classifier.family, options.peft
    parts = list(options.parts or ())
    targets = given.target_modules
    if parts and given.use_dora and family.fuses_attention_inputs:
        raise ModelError(
            f"DoRA scales whole rows of a matrix, and {family.name} keeps query, key and value in one: restricted to "
            f"{' and '.join(parts)}, the other rows would move too.",
            hint="Leave parts out, or use_dora.",
        )
    if parts and family.fused_by_head:
        raise ModelError(
            f"{family.name} keeps query, key and value of every head together in one matrix, so LoRA cannot be "
            f"restricted to {' and '.join(parts)}.",
            hint="Leave parts out; the whole projection is then adapted.",
        )
    if targets is None:
        whole = family.fused_by_head or (given.use_dora and family.fuses_attention_inputs)
        if not parts and not whole:
            parts = ["query", "value"]
        wanted = parts or list(ATTENTION_PARTS)
        # In an encoder-decoder the last name alone: it is that of both self-attentions and of cross-attention.
        mark = "." if classifier.is_encoder_decoder else "{layer}."
        targets = list(dict.fromkeys(family.path(part).rpartition(mark)[2] for part in wanted))
    elif parts and not family.fuses_attention_inputs:
        raise ModelError(
            f"{family.name} has query, key and value as projections of their own, so parts already chooses the "
            "targets.",
            hint="Leave out parts or target_modules.",
        )
    found = find(
        classifier,
        Wanted(targets, given.exclude_modules, given.layers_to_transform, tuple(given.modules_to_save)),
    )
    for name, pattern in (("rank_pattern", given.rank_pattern), ("alpha_pattern", given.alpha_pattern)):
        for key in pattern:
            if not any(re.match(rf"(.*\.)?({key})$", path) for path in found.targets):
                raise ModelError(f"{name}: {key!r} is none of the adapted projections.")
    if not family.fuses_attention_inputs:
        return [], found
    fused = family.query.rpartition("{layer}.")[2]
    if parts and not any(path.endswith(f".{fused}") for path in found.targets):
        raise ModelError(
            f"parts divides {family.name}'s {fused}, and it is not among the target modules.",
            hint=f"Add {fused} to target_modules, or leave parts out.",
        )
    return parts, found


def _draw_anew(classifier: Classifier, found: Found) -> None:
    """Draw the adapted projections anew, as torch draws a new linear layer: uniform within 1 / sqrt(inputs).

    loralib's layer took the place of the projection after the weights had been copied, and nothing was copied again.
    """
    import torch

    generator = torch.Generator().manual_seed(derive_seed(classifier.seed, "fresh projections"))
    with torch.no_grad():
        for path in found.targets:
            layer: Any = classifier.trunk.get_submodule(path)
            inputs = layer.weight.shape[0 if classifier.family.projection_is_conv1d else 1]
            for tensor in (layer.weight, layer.bias):
                if tensor is not None:
                    drawn = torch.rand(tensor.shape, generator=generator) * 2 - 1
                    tensor.copy_(drawn / math.sqrt(inputs))
    classifier.fresh_projections = True


def _split(classifier: Classifier, names: list[str], parts: list[AttentionPart], rank: int) -> None:
    """Replace ``lora_B`` of fused projections by one factor a part."""
    from tunescope.models.adapted import NAME
    from tunescope.tuning.factors import PartFactors

    places: dict[str, int] = {part: ATTENTION_PARTS.index(part) for part in parts}
    for layer in adapted_at(classifier, names):
        own: Any = layer
        weight = own.lora_B[NAME].weight
        factors = PartFactors(weight.shape[0] // len(ATTENTION_PARTS), rank, places, len(ATTENTION_PARTS))
        own.lora_B[NAME] = factors.to(device=weight.device, dtype=weight.dtype)
