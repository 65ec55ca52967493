"""LoRA, DoRA and IA3: they start at the base, move what they should alone, and are read back by plain peft."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import warnings

import peft
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification
from tuning_cases import fresh, gpt2_small, prepare, prepared, shake, short_training

from tiny import FAMILIES, NAMES, TEXTS, encode, logits, tiny_folder
from tunescope.capture import verify
from tunescope.data.labels import LabelMap
from tunescope.errors import ModelError
from tunescope.models import load
from tunescope.models.adapted import adapted_layers, plain_layer
from tunescope.models.source import quiet_transformers
from tunescope.tuning import METHODS, trainable
from tunescope.tuning.ia3 import IA3Peft
from tunescope.tuning.lora import LoraPeft

ADAPTERS = {
    "lora": ("lora", {}),
    "lora everywhere": ("lora", {"peft": {"target_modules": "all-linear", "r": 2, "use_rslora": True}}),
    "dora": ("lora", {"peft": {"use_dora": True}}),
    "ia3": ("ia3", {}),
}
C_ATTN = "transformer.h.{}.attn.c_attn"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {kind: tiny_folder(kind, root / kind) for kind in FAMILIES}


def plain_peft(base, adapter, classifier):
    """Open an adapter as its user would: transformers' class, peft, and the tokenizer's pad token."""
    with warnings.catch_warnings(), quiet_transformers():
        # peft 0.21 asks transformers 5.23 for an attribute by its old name.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(NAMES))
        model.config.pad_token_id = classifier.tokenizer.pad_token_id
        return peft.PeftModel.from_pretrained(model, str(adapter)).eval()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, name) for kind in ("gpt2", "bert") for name in ADAPTERS),
        *(
            (kind, name)
            for kind in ("distilbert", "roberta", "gpt_neox", "qwen3")
            for name in ("lora", "ia3")
        ),
    ],
)
def test_an_adapter_starts_at_the_base_and_is_saved_merged_and_as_it_is(kind, name, folders, tmp_path):
    method, options = ADAPTERS[name]
    classifier = fresh(folders[kind])
    base = logits(classifier, TEXTS)
    prepare(classifier, method, options)
    assert torch.equal(logits(classifier, TEXTS), base)
    shake(classifier)
    tuned = logits(verify(classifier), TEXTS)
    assert not torch.allclose(tuned, base, atol=1e-2)
    classifier.save(tmp_path / "saved")
    with quiet_transformers():
        merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    opened = [
        plain_peft(folders[kind], tmp_path / "saved" / "adapter", classifier)(
            **encode(classifier, TEXTS)
        ).logits,
        merged(**encode(classifier, TEXTS)).logits,
        logits(load(str(tmp_path / "saved"), labels=LabelMap(NAMES)), TEXTS),
        logits(load(str(tmp_path / "saved" / "adapter"), labels=LabelMap(NAMES)), TEXTS),
    ]
    for theirs in opened:
        torch.testing.assert_close(theirs, tuned, atol=1e-5, rtol=1e-5)
    assert torch.equal(logits(classifier, TEXTS), tuned), "saving must leave the adapter in place"
    about = json.loads((tmp_path / "saved" / "adapter" / "tunescope.json").read_text())
    assert about["labels"] == list(NAMES)
    assert about["pad_token"] == classifier.tokenizer.pad_token


@pytest.mark.parametrize("kind", ["gpt2", "roberta"])
def test_where_auto_classes_cannot_pool_the_adapter_is_of_the_trunk(kind, folders, tmp_path):
    classifier = shake(prepared(folders[kind], "lora", {}, pooling="mean", head="sigmoid"))
    classifier.save(tmp_path)
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["task_type"] == "FEATURE_EXTRACTION"
    for folder in (tmp_path, tmp_path / "adapter"):
        again = load(str(folder), labels=LabelMap(NAMES[:2]))
        assert (again.pooling, again.head_kind) == ("mean", "sigmoid")
        torch.testing.assert_close(logits(again, TEXTS), logits(classifier, TEXTS), atol=1e-5, rtol=1e-5)


def test_saved_folders_give_the_same_logits_in_a_new_process(folders, tmp_path):
    cases = {
        "parts": shake(prepared(folders["gpt2"], "lora", {"parts": ["value"]})),
        "bert": shake(prepared(folders["bert"], "ia3")),
        "sigmoid": shake(prepared(folders["distilbert"], "last_k", {"k": 1}, head="sigmoid")),
    }
    for name, classifier in cases.items():
        classifier.save(tmp_path / name)
        torch.save(encode(classifier, TEXTS), tmp_path / f"{name}.inputs")
    code = (
        "import sys, torch\n"
        "from tunescope.models import load\n"
        "torch.set_num_threads(1)\n"
        "for name in ('parts', 'bert', 'sigmoid', 'parts/adapter', 'bert/adapter'):\n"
        "    inputs = torch.load(f'{name.split(chr(47))[0]}.inputs')\n"
        "    with torch.no_grad():\n"
        "        torch.save(load(name)(**inputs), name.replace('/', '-') + '.logits')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    for path in sorted(tmp_path.glob("*.logits")):
        expected = logits(cases[path.stem.split("-")[0]], TEXTS)
        torch.testing.assert_close(torch.load(path), expected, atol=1e-5, rtol=1e-5)
    assert len(list(tmp_path.glob("*.logits"))) == 5


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("parts", [["query", "value"], ["key"]])
def test_parts_are_separate_factors_and_the_other_rows_stay_exactly_0(parts, rslora, folders, tmp_path):
    options = {"peft": {"r": 4, "lora_alpha": 12, "use_rslora": rslora}, "parts": parts}
    classifier = prepared(folders["gpt2"], "lora", options)
    before = [layer.weight.clone() for _, layer in adapted_layers(classifier.model)]
    short_training(classifier, steps=6, decay=0.5)
    scale = 12 / math.sqrt(4) if rslora else 12 / 4
    chosen = [("query", "key", "value").index(part) for part in parts]
    classifier.save(tmp_path)
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for index, (path, layer) in enumerate(adapted_layers(classifier.model)):
        update = (plain_layer(layer).weight - before[index]).T  # [3 D, D]
        factors = layer.lora_B["default"].factors
        for place in range(3):
            rows = update[place * 32 : (place + 1) * 32]
            if place not in chosen:
                assert torch.equal(rows, torch.zeros(32, 32))
                continue
            block = chosen.index(place)
            low = layer.lora_A["default"].weight[block * 4 : (block + 1) * 4]
            torch.testing.assert_close(rows, scale * factors[parts[block]] @ low, atol=1e-6, rtol=1e-4)
            assert rows.abs().max() > 1e-3
        wide = stored[f"base_model.model.{path}.lora_B.weight"].view(3, 32, len(parts), 4)
        for place in range(3):
            for block, own in enumerate(chosen):
                assert bool(wide[place, :, block].any()) == (place == own)
    theirs = plain_peft(folders["gpt2"], tmp_path / "adapter", classifier)
    torch.testing.assert_close(
        theirs(**encode(classifier, TEXTS)).logits, logits(classifier, TEXTS), atol=1e-5, rtol=1e-5
    )


def test_parts_beside_other_targets_keep_each_its_own_rank(folders, tmp_path):
    options = {"peft": {"r": 2, "target_modules": ["c_attn", "c_fc"]}, "parts": ["query", "value"]}
    classifier = shake(prepared(folders["gpt2"], "lora", options))
    shapes = {item["matrix"]: item["shape"] for item in trainable(classifier) if item["trained"]}
    assert shapes[f"{C_ATTN.format(0)}.lora_B.query"] == [32, 2]
    assert shapes["transformer.h.0.mlp.c_fc.lora_B.weight"] == [128, 2]
    classifier.save(tmp_path)
    theirs = plain_peft(folders["gpt2"], tmp_path / "adapter", classifier)
    torch.testing.assert_close(
        theirs(**encode(classifier, TEXTS)).logits, logits(classifier, TEXTS), atol=1e-5, rtol=1e-5
    )


def test_query_and_value_are_the_default_in_every_family(folders):
    ends = {
        "gpt2": {"attn.c_attn"}, "distilbert": {"attention.q_lin", "attention.v_lin"},
        **{kind: {"attention.self.query", "attention.self.value"} for kind in ("bert", "roberta")},
    }  # fmt: skip
    for kind, expected in ends.items():
        classifier = prepared(folders[kind], "lora")
        paths = [path for path, _ in adapted_layers(classifier.model)]
        assert {
            ".".join(path.split(".")[-len(next(iter(expected)).split(".")) :]) for path in paths
        } == expected
        own = [item for item in trainable(classifier) if "lora_" in item["matrix"]]
        assert sum(item["trained"] for item in own) == 3 * 2 * 2 * 8 * 32


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("gpt2", {"target_modules": ["c_attn", "mlp.c_proj"], "layers_to_transform": [0, 2]}),
        ("gpt2", {"target_modules": r".*h\.[12]\.mlp\.c_.*"}),
        (
            "bert",
            {"target_modules": ["query", "output.dense"], "exclude_modules": ["attention.output.dense"]},
        ),
        ("distilbert", {"target_modules": ["lin1", "out_lin"], "layers_to_transform": 1}),
    ],
)
def test_names_mean_what_they_mean_to_peft(kind, fields, folders):
    ours = prepared(folders[kind], "lora", {"peft": fields})
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForSequenceClassification.from_pretrained(folders[kind])
        theirs = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", **fields)).base_model.model
    found = [path for path, _ in adapted_layers(ours.model)]
    assert found == [path for path, _ in adapted_layers(theirs)]
    assert found


@pytest.mark.parametrize(("ours", "theirs"), [(LoraPeft, peft.LoraConfig), (IA3Peft, peft.IA3Config)])
def test_fields_have_pefts_names_and_defaults(ours, theirs):
    fields = {field.name: field for field in dataclasses.fields(theirs)}
    for name, value in ours().model_dump().items():
        default = fields[name].default
        if default is dataclasses.MISSING:
            default = fields[name].default_factory()
        assert value == default or (name == "modules_to_save" and value == [] and default is None)


def test_the_factors_depend_on_the_seed_and_leave_the_global_stream_alone(folders):
    state = torch.random.get_rng_state()
    first, same, other = (prepared(folders["gpt2"], "lora", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    name = f"{C_ATTN.format(0)}.lora_A.default.weight"
    assert torch.equal(first.training_state()[name], same.training_state()[name])
    assert not torch.equal(first.training_state()[name], other.training_state()[name])


def refused(method, options, message):
    with pytest.raises(ValidationError, match=message):
        METHODS[method].options.model_validate(options)


def test_options_are_checked_against_pefts_own():
    refused("lora", {"peft": {"lora_alfa": 4}}, "has no field 'lora_alfa'; did you mean 'lora_alpha'")
    refused("lora", {"peft": {"bias": "all"}}, "peft's bias cannot be used here.*bitfit trains biases")
    refused("lora", {"peft": {"peft_type": "IA3"}}, "the method says it: lora or ia3")
    refused(
        "lora",
        {"peft": {"use_qalora": True}},
        "peft's use_qalora cannot be used here: tunescope cannot prove",
    )
    refused(
        "lora", {"peft": {"init_lora_weights": "pissa"}}, "Input should be True or 'gaussian'|Input should be"
    )
    refused("lora", {"peft": {"r": 0}}, "greater than or equal to 1")
    refused("lora", {"peft": {"target_modules": []}}, "it is empty")
    refused(
        "lora", {"peft": {"target_modules": "a.*", "layers_to_transform": [1]}}, "chooses the layers itself"
    )
    refused("lora", {"parts": ["query", "query"]}, "a part stands in it twice")
    refused("lora", {"parts": ["keys"]}, "'query', 'key' or 'value'")
    refused("lora", {"parts": ["key"], "peft": {"rank_pattern": {"c_attn": 2}}}, "each part has rank r")
    refused("ia3", {"peft": {"r": 4}}, "IA3Config has no field 'r'")
    refused("ia3", {"peft": {"init_ia3_weights": False}}, "the scales start at 1")


@pytest.mark.parametrize(
    ("kind", "method", "options", "message"),
    [
        ("gpt2", "lora", {"peft": {"target_modules": ["c_atn"]}},
         r"'c_atn' is no module of this GPT-2 model. The nearest: c_attn.*\n.*attn.c_attn, attn.c_proj, mlp.c_fc"),
        ("bert", "lora", {"peft": {"target_modules": ["pooler.dense"]}}, "no projection inside the blocks"),
        ("bert", "lora", {"peft": {"target_modules": ["LayerNorm"]}}, "no projection inside the blocks"),
        ("bert", "ia3", {"peft": {"target_modules": ["keys"]}}, "'keys' is no module.*nearest: key"),
        ("gpt2", "lora", {"peft": {"target_modules": "c_attn"}}, "must match a whole path such as transformer.h.0"),
        ("gpt2", "lora", {"peft": {"target_modules": "(c_attn"}}, "not a pattern that can be read"),
        ("gpt2", "lora", {"peft": {"exclude_modules": ["c_at"]}}, "exclude_modules: 'c_at' is no module"),
        ("gpt2", "lora", {"peft": {"exclude_modules": ["c_attn"]}}, "No projection is left"),
        ("gpt2", "lora", {"peft": {"layers_to_transform": [1, 3]}}, "came 3, and the model has 3 blocks.*0 to 2"),
        ("gpt2", "lora", {"peft": {"layers_to_transform": []}}, "came an empty list"),
        ("gpt2", "lora", {"peft": {"rank_pattern": {"c_proj": 2}}}, "rank_pattern: 'c_proj' is none"),
        ("gpt2", "lora", {"peft": {"modules_to_save": ["lnf"]}}, "modules_to_save: 'lnf' is no.*nearest: ln_f"),
        ("gpt2", "lora", {"peft": {"modules_to_save": ["attn"]}}, "to be adapted and, by modules_to_save"),
        ("gpt2", "lora", {"peft": {"use_dora": True}, "parts": ["query"]}, "DoRA scales whole rows"),
        ("gpt_neox", "lora", {"parts": ["query"]}, "keeps query, key and value of every head together"),
        ("gpt2", "lora", {"peft": {"target_modules": ["c_fc"]}, "parts": ["query"]}, "parts divides GPT-2's"),
        ("bert", "lora", {"peft": {"target_modules": ["query"]}, "parts": ["query"]}, "parts already chooses"),
        ("gpt2", "ia3", {"peft": {"target_modules": ["c_attn"], "feedforward_modules": ["c_fc"]}},
         "feedforward_modules: .*mlp.c_fc is none of the target modules"),
    ],
)  # fmt: skip
def test_what_the_model_does_not_have_is_refused(kind, method, options, message, folders):
    classifier = fresh(folders[kind])
    with pytest.raises(ModelError, match=message):
        prepare(classifier, method, options)
    assert classifier.adapter_config is None


def test_further_modules_are_trained_whole_and_saved(folders, tmp_path):
    options = {"peft": {"modules_to_save": ["ln_f", "h.2.ln_1"], "layers_to_transform": [2]}}
    classifier = shake(prepared(folders["gpt2"], "lora", options))
    assert classifier.frozen_blocks == 2
    classifier.save(tmp_path)
    theirs = plain_peft(folders["gpt2"], tmp_path / "adapter", classifier)
    torch.testing.assert_close(
        theirs(**encode(classifier, TEXTS)).logits, logits(classifier, TEXTS), atol=1e-5, rtol=1e-5
    )


def test_merged_weights_that_are_not_finite_are_not_saved(folders, tmp_path):
    classifier = prepared(folders["gpt2"], "lora")
    with torch.no_grad():
        classifier.training_state()[f"{C_ATTN.format(1)}.lora_B.default.factors.query"][0, 0] = math.inf
    with pytest.raises(ModelError, match="cannot be merged: NaNs detected"):
        classifier.save(tmp_path)


def test_dropout_of_the_adapter_is_on_in_training_alone(folders):
    classifier = shake(prepared(folders["gpt2"], "lora", {"peft": {"lora_dropout": 0.5}}))
    for module in classifier.modules():
        if isinstance(module, torch.nn.Dropout) and module.p == 0.1:
            module.p = 0.0
    classifier.model.config.attn_pdrop = 0.0
    inputs = encode(classifier, TEXTS)
    classifier.train()
    assert not torch.equal(classifier(**inputs), classifier(**inputs))
    classifier.eval()
    assert torch.equal(classifier(**inputs), classifier(**inputs))


def test_counts_need_no_weights_in_memory():
    whole = gpt2_small()
    prepare(whole, "lora", {"peft": {"target_modules": ["c_attn"]}})
    assert sum(item["trained"] for item in trainable(whole)) == 12 * 8 * (768 + 2304) + 769
