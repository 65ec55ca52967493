"""A study back to YAML, and the JSON schema that editors use."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from tunescope.config.check import OptionModels
from tunescope.config.models import ArmConfig, LensConfig, Strict, StudyConfig
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
    skipped = ("method", "training", "options")
    fields: dict[str, Any] = {
        n: (f.annotation, f) for n, f in ArmConfig.model_fields.items() if n not in skipped
    }
    default = ArmConfig.model_fields["method"].default
    more = {"default": method} if method == default else {}
    fields["method"] = (Literal[method], _described(ArmConfig, "method", **more))
    fields["training"] = (training, _described(ArmConfig, "training", default={}))
    fields.update({name: (field.annotation, field) for name, field in options.model_fields.items()})
    return create_model(f"Arm_{method}", __base__=Strict, **fields)


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
        fields[name] = (annotation, Field(field.default, description=field.expected))
    return create_model("Training", __base__=Strict, **fields)
