"""The fields of TrainingArguments, and the JSON schema for editors."""

from __future__ import annotations

import dataclasses
import json

import pytest

from config.studies import LENSES, METHODS
from tunescope.config import study_schema, training_fields
from tunescope.config.fitting import OWN_FIELDS, FittingConfig
from tunescope.config.training import CHOSEN, OWNED, STATED, owner_of, stated_defaults


def test_every_field_is_either_free_or_owned():
    from transformers import TrainingArguments

    names = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    assert set(training_fields()) == {name for name in names if owner_of(name) is None} | set(OWN_FIELDS)
    # a name that transformers no longer has would be refused with a promise that means nothing
    assert set(OWNED) <= names
    assert set(STATED) <= set(training_fields())
    assert set(CHOSEN) <= set(training_fields())


def test_defaults_are_those_of_transformers_but_for_the_chosen():
    from transformers import TrainingArguments

    theirs = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
    stated = stated_defaults()
    assert {name: stated.pop(name) for name in OWN_FIELDS} == FittingConfig().model_dump()
    for name, value in stated.items():
        assert value == CHOSEN.get(name, theirs[name]), name


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("learning_rate", "1e-4", 1e-4),
        ("learning_rate", 1, 1.0),
        ("num_train_epochs", 3, 3.0),
        ("max_steps", "20", 20),
        ("bf16", "yes", True),
        ("bf16", "auto", "auto"),
        ("class_weights", {0: 1, True: 2.5}, {"0": 1.0, "true": 2.5}),
        (
            "early_stopping",
            {"metric": "eval_accuracy"},
            {"metric": "accuracy", "patience": 3, "least_change": 0.0},
        ),
        ("report_to", ["tensorboard", "wandb"], ["tensorboard", "wandb"]),
        ("tf32", None, None),
        ("lr_scheduler_type", "cosine", "cosine"),
        ("lr_scheduler_kwargs", {"num_cycles": 2}, {"num_cycles": 2}),
        ("optim_args", "a=1", "a=1"),
        ("warmup_steps", 0.1, 0.1),
        ("metric_for_best_model", "accuracy", "accuracy"),
    ],
)
def test_values_get_the_type_of_their_field(name, value, read):
    found = training_fields()[name].read(value)
    assert found == read
    assert type(found) is type(read)


def test_the_fields_that_are_free_make_training_arguments(tmp_path):
    from transformers import TrainingArguments

    theirs = {name: value for name, value in stated_defaults().items() if name not in OWN_FIELDS}
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **theirs)
    assert arguments.per_device_train_batch_size == CHOSEN["per_device_train_batch_size"]


def test_the_schema_is_json_and_knows_methods_and_lenses():
    schema = json.loads(json.dumps(study_schema(METHODS, LENSES)))
    arms = schema["properties"]["arms"]["items"]["anyOf"]
    names = [part["$ref"].rsplit("/", 1)[1] for part in arms]
    assert names == ["Arm_full", "Arm_head_only", "Arm_last_k"]
    last = schema["$defs"]["Arm_last_k"]
    one, several = last["properties"]["k"]["anyOf"]  # a number, or a grid of them
    assert one["minimum"] == several["items"]["minimum"] == several["minItems"] == 1
    assert "options" not in last["properties"]
    assert last["additionalProperties"] is False
    assert set(last["required"]) == {"name", "model", "method"}
    assert "method" not in schema["$defs"]["Arm_full"]["required"]
    assert "learning_rate" in schema["$defs"]["Training"]["properties"]
    assert "seed" not in schema["$defs"]["Training"]["properties"]
    assert {"extends", "data", "lenses"} <= set(schema["properties"])
    lenses = schema["properties"]["lenses"]["items"]["anyOf"]
    assert {"enum": ["cka", "ablation"], "type": "string"} in lenses
