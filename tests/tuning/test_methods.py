"""What each method trains, what it leaves alone, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from tuning_cases import PROMPT, fresh, gpt2_small, prepare, prepared, short_training

from tiny import DECODERS, FAMILIES, TEXTS, encode, tiny_folder
from tunescope.capture import Site, read
from tunescope.errors import ModelError
from tunescope.tuning import METHODS, UNSUITABLE, frozen_always, trainable

TRAINED = [name for name in METHODS if name not in PROMPT]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {kind: tiny_folder(kind, root / kind) for kind in FAMILIES}


def trained_names(classifier):
    return {name for name, value in classifier.model.named_parameters() if value.requires_grad}


def test_every_method_is_named_as_it_is_listed():
    assert all(method.name == name for name, method in METHODS.items())
    assert set(TRAINED) == {"head_only", "last_k", "bitfit", "lora", "ia3", "full"}
    assert not set(UNSUITABLE) & set(METHODS)


@pytest.mark.parametrize("name", TRAINED)
def test_unknown_options_are_refused(name):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        METHODS[name].options.model_validate({"rank": 8})


@pytest.mark.parametrize("pooling", [None, "mean"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_head_only_trains_the_head_and_full_all_that_a_logit_depends_on(kind, pooling, folders):
    classifier = prepared(folders[kind], "head_only", pooling=pooling)
    head = {id(value) for value in classifier.head.parameters()}
    names = trained_names(classifier)
    assert names == {name for name, value in classifier.model.named_parameters() if id(value) in head}
    assert any(part in name for name in names for part in ("score", "classifier"))
    assert not any("layer" in name or ".h." in name or "embeddings" in name for name in names)
    prepare(classifier, "full")
    classifier(**encode(classifier, TEXTS)).sum().backward()
    without = {name for name, value in classifier.model.named_parameters() if value.grad is None}
    assert {name for name, value in classifier.model.named_parameters() if not value.requires_grad} == without
    assert bool(without) == (pooling == "mean" and kind not in DECODERS)


@pytest.mark.parametrize("kind", FAMILIES)
def test_last_k_trains_the_last_blocks_the_final_norm_and_the_head(kind, folders):
    classifier = prepared(folders[kind], "last_k", {"k": 1})
    block = classifier.family.path("block", 2)
    head = {id(value) for value in classifier.head.parameters()}
    expected = {
        name for name, value in classifier.model.named_parameters()
        if f".{block}." in name or f".{classifier.family.final_norm}." in name or id(value) in head
    }  # fmt: skip
    assert trained_names(classifier) == expected
    assert classifier.frozen_blocks == 2
    whole = prepared(folders[kind], "last_k", {"k": 3})
    assert not any("wte" in name or "embeddings" in name for name in trained_names(whole))
    assert whole.frozen_blocks == 0


def test_k_outside_the_model_is_refused_with_the_valid_range(folders):
    with pytest.raises(
        ModelError, match=r"k is 4, and the model has 3 blocks; k can be 1 to 3.\n.*head_only"
    ):
        prepared(folders["gpt2"], "last_k", {"k": 4})
    for wrong in (0, True, 1.5):
        with pytest.raises(ValidationError):
            METHODS["last_k"].options.model_validate({"k": wrong})


WITHOUT_BIASES = ("llama", "qwen3")


@pytest.mark.parametrize("kind", WITHOUT_BIASES)
def test_bitfit_is_refused_where_there_is_no_bias(kind, folders):
    with pytest.raises(ModelError, match="bitfit trains biases, and this model was made without any"):
        prepared(folders[kind], "bitfit")


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind not in (*WITHOUT_BIASES, "qwen2")])
def test_bitfit_trains_all_biases_and_the_head(kind, folders):
    classifier = prepared(folders[kind], "bitfit")
    head = {id(value) for value in classifier.head.parameters()}
    for name, value in classifier.model.named_parameters():
        assert value.requires_grad == (name.endswith(".bias") or id(value) in head), name
    assert sum(item["trained"] > 0 for item in trainable(classifier)) >= 20


def test_study_002_counts_on_gpt2_small_shapes():
    last_two = gpt2_small()
    prepare(last_two, "last_k", {"k": 2})
    items = trainable(last_two)
    assert sum(item["trained"] for item in items) == 14_178_049
    blocks = [item for item in items if item["trained"] and ".h." in item["matrix"]]
    assert sum(item["trained"] for item in blocks) == 2 * 7_087_872
    assert {tuple(item["shape"]) for item in items if item["matrix"] == "score.weight"} == {(1, 768)}
    assert sum(item["of"] for item in items) == 124_439_808 + 769
    assert last_two.stored_bytes == 4 * 14_178_049

    lora = gpt2_small()
    options = {
        "peft": {"r": 8, "lora_alpha": 1, "layers_to_transform": [10, 11]},
        "parts": ["query", "value"],
    }
    prepare(lora, "lora", {**options, "train_head_bias": False})
    trained = {item["matrix"]: item["shape"] for item in trainable(lora) if item["trained"]}
    assert sum(item["trained"] for item in trainable(lora)) == 49_920
    assert trained["transformer.h.10.attn.c_attn.lora_B.query"] == [768, 8]
    assert trained["transformer.h.11.attn.c_attn.lora_A.weight"] == [16, 768]
    assert len(trained) == 7
    with_bias = gpt2_small()
    prepare(with_bias, "lora", options)
    assert sum(item["trained"] for item in trainable(with_bias)) == 49_921


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in FAMILIES for name in TRAINED
     if name != "full" and not (name == "bitfit" and kind in WITHOUT_BIASES)],
)  # fmt: skip
def test_frozen_weights_do_not_move_and_the_others_do(kind, name, folders):
    classifier = prepared(folders[kind], name, {"k": 1} if name == "last_k" else {})
    before = {key: value.detach().clone() for key, value in classifier.named_parameters()}
    short_training(classifier)
    for key, value in classifier.named_parameters():
        assert torch.equal(value, before[key]) != value.requires_grad, key


def test_methods_start_from_one_head_and_one_trunk(folders):
    heads = [prepared(folders["bert"], name, seed=5).head.state_dict() for name in TRAINED]
    for other in heads[1:]:
        assert all(torch.equal(heads[0][key], other[key]) for key in heads[0])


@pytest.mark.parametrize(
    ("name", "options", "frozen"),
    [
        ("head_only", {}, 3),
        ("last_k", {"k": 1}, 2),
        ("lora", {"peft": {"layers_to_transform": 1}}, 1),
        ("lora", {"peft": {"layers_to_transform": 2, "modules_to_save": ["wte"]}}, 0),
        ("lora", {"peft": {"layers_to_transform": 2, "modules_to_save": ["ln_f", "score"]}}, 2),
        ("lora", {}, 0),
        ("ia3", {"peft": {"target_modules": r".*\.h\.2\.mlp\.c_proj"}}, 2),
        ("bitfit", {}, 0),
        ("full", {}, 0),
    ],
)
def test_frozen_blocks_are_said_and_run_without_dropout(name, options, frozen, folders):
    method = METHODS[name]
    chosen = method.options.model_validate(options)
    classifier = fresh(folders["gpt2"])
    assert method.frozen_blocks(classifier, chosen) == frozen
    method.prepare(classifier, chosen)
    assert method.frozen_blocks(classifier, chosen) == classifier.frozen_blocks == frozen
    classifier.eval().train()
    below, above = Site("resid_pre", min(frozen, 2)), Site("resid_post", 2)
    inputs = encode(classifier, TEXTS)
    torch.manual_seed(0)
    first, second = (read(classifier, [below, above], inputs) for _ in range(2))
    assert torch.equal(first[below], second[below]) == (frozen > 0)
    assert torch.equal(first[above], second[above]) == (frozen == 3)
    trained = [
        name for name, value in classifier.trunk.named_parameters()
        if value.requires_grad and any(f"h.{layer}." in name for layer in range(frozen))
    ]  # fmt: skip
    assert trained == []


@pytest.mark.parametrize("name", TRAINED)
def test_biases_of_a_model_without_biases_stay_as_they_are(name, folders):
    classifier = fresh(folders["gpt2"])
    classifier.model.config.tunescope_bias = False
    if name == "bitfit":
        with pytest.raises(ModelError, match="made without any"):
            prepare(classifier, name)
        return
    prepare(classifier, name)
    never = {id(value) for value in frozen_always(classifier)}
    biases = [value for key, value in classifier.trunk.named_parameters() if key.endswith("bias")]
    assert len(biases) == 3 * 6 + 1
    assert all(id(value) in never and not value.requires_grad for value in biases)
    assert any(value.requires_grad for value in classifier.parameters())


def test_a_second_method_on_top_of_an_adapter_is_refused(folders):
    classifier = prepared(folders["gpt2"], "lora")
    for name in ("full", "lora", "ia3"):
        with pytest.raises(ModelError, match="already holds an adapter"):
            prepare(classifier, name)


@pytest.mark.parametrize("name", TRAINED)
def test_the_training_state_gives_the_tuned_model_back_bit_for_bit(name, folders):
    tuned = short_training(prepared(folders["bert"], name, seed=1))
    state = {key: value.clone() for key, value in tuned.training_state().items()}
    assert tuned.stored_bytes == sum(value.numel() * 4 for value in state.values())
    again = prepared(folders["bert"], name, seed=2)
    inputs = encode(tuned, TEXTS)
    assert not torch.equal(again(**inputs), tuned(**inputs))
    again.load_training_state(state)
    assert torch.equal(again(**inputs), tuned(**inputs))
    with pytest.raises(
        ModelError, match=r"state is of another tuning: 1 tensors differ, first classifier.bias"
    ):
        again.load_training_state({k: v for k, v in state.items() if k != "classifier.bias"})
    with pytest.raises(ModelError, match=r"first classifier.bias"):
        again.load_training_state({**state, "classifier.bias": torch.zeros(4)})
