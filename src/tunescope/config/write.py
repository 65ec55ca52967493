"""A study back to YAML, and the JSON schema that editors use."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo

from tunescope.config.arms import ArmConfig
from tunescope.config.check import OptionModels
from tunescope.config.grid import NO_AXES
from tunescope.config.models import LensConfig, StudyConfig
from tunescope.config.scratch import ScratchConfig
from tunescope.config.strict import Strict
from tunescope.config.text import to_yaml
from tunescope.config.training import training_fields


def study_document(study: StudyConfig) -> dict[str, Any]:
    """Return the study as plain values in the form of a study file, complete."""
    document = study.model_dump()
    for arm in document["arms"]:
        arm.update(arm.pop("options"))
    document["lenses"] = [{"lens": lens["lens"], **lens["options"]} for lens in document["lenses"]]
    return document


def dump_study(study: StudyConfig) -> str:
    """Return the study as YAML text, complete; loading that text gives an equal study."""
    return to_yaml(study_document(study))


def study_schema(methods: OptionModels, lenses: OptionModels) -> dict[str, Any]:
    """Return the JSON schema of a study file, with the options of every method and lens."""
    training = _training_model()
    arms = [_arm_model(name, options, training) for name, options in methods.items()]
    lens_models = [_lens_model(name, options) for name, options in lenses.items()]
    fields: dict[str, Any] = {
        name: (field.annotation, field)
        for name, field in StudyConfig.model_fields.items()
        if name not in ("arms", "lenses", "training")
    }
    extends = Field(None, description="a study file relative to this one, or a recipe's name, to start from")
    any_arm: Any = _union(arms) if arms else dict[str, Any]
    any_lens: Any = _union([Literal[tuple(lenses)], *lens_models]) if lenses else str
    fields["arms"] = (list[any_arm], _described(StudyConfig, "arms", min_length=1))
    fields["lenses"] = (list[any_lens], _described(StudyConfig, "lenses", default=[]))
    fields["training"] = (training, _described(StudyConfig, "training", default={}))
    fields["extends"] = (str | None, extends)
    fields["profiles"] = (
        dict[str, dict[str, Any]] | None,
        Field(
            None,
            description="a mapping from names to the keys that each changes, for --profile NAME, or null",
        ),
    )
    schema = create_model("Study", __base__=Strict, **fields).model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "A tunescope study"
    schema["required"] = []  # what a study extends may say them
    return schema


def _union(parts: list[Any]) -> Any:
    joined = parts[0]
    for part in parts[1:]:
        joined = joined | part
    return joined


def _described(model: type[BaseModel], name: str, **more: Any) -> Any:
    return Field(description=model.model_fields[name].description, **more)


def _arm_model(method: str, options: type[BaseModel], training: type[BaseModel]) -> type[BaseModel]:
    skipped = ("method", "training", "options", "scratch")
    fields: dict[str, Any] = {
        name: _or_grid(name, field) for name, field in ArmConfig.model_fields.items() if name not in skipped
    }
    scratch = create_model("Scratch", __base__=Strict, **_grids(ScratchConfig))
    fields["scratch"] = (scratch | None, _described(ArmConfig, "scratch", default=None))
    default = ArmConfig.model_fields["method"].default
    more = {"default": method} if method == default else {}
    fields["method"] = (Literal[method], _described(ArmConfig, "method", **more))
    fields["training"] = (training, _described(ArmConfig, "training", default={}))
    fields.update(_grids(options))
    return create_model(f"Arm_{method}", __base__=Strict, **fields)


def _grids(model: type[BaseModel]) -> dict[str, Any]:
    return {name: _or_grid(name, field) for name, field in model.model_fields.items()}


def _or_grid(name: str, field: FieldInfo) -> tuple[Any, FieldInfo]:
    """Let a field of an arm be a list of its values too: a grid."""
    if name in NO_AXES:
        return field.annotation, field
    one: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return one | Annotated[list[one], Field(min_length=1)], _without_bounds(field)


def _without_bounds(field: FieldInfo) -> Any:
    """Return a field's default and description alone; its bounds belong to the single value."""
    default = {} if field.is_required() else {"default": field.get_default(call_default_factory=True)}
    return Field(description=field.description, **default)


def _lens_model(lens: str, options: type[BaseModel]) -> type[BaseModel]:
    fields: dict[str, Any] = {"lens": (Literal[lens], _described(LensConfig, "lens"))}
    fields.update({name: (field.annotation, field) for name, field in options.model_fields.items()})
    return create_model(f"Lens_{lens}", __base__=Strict, **fields)


def _training_model() -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name, field in training_fields().items():
        annotation: Any = Literal[field.choices] if field.choices else field.annotation
        try:
            TypeAdapter(annotation).json_schema()
        except (PydanticSchemaGenerationError, PydanticUserError):
            annotation = Any  # a type of accelerate's that only Python can make
        both = (
            annotation if annotation is Any else annotation | Annotated[list[annotation], Field(min_length=1)]
        )
        fields[name] = (both, Field(field.default, description=field.expected))
    return create_model("Training", __base__=Strict, **fields)
