"""nanoGPT's checkpoint as a GPT-2 folder: the same logits as an independent module of its shape."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from nanogpt_shaped import NanoGPTShaped
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny import byte_bpe
from tunescope.errors import ModelError

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "nanogpt_to_safetensors.py"
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [2, 7, 1, 8, 2, 8, 1, 8, 2, 8]])


@pytest.fixture(scope="session")
def script():
    spec = importlib.util.spec_from_file_location("nanogpt_to_safetensors", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def logits(model, ids=IDS):
    with torch.no_grad():
        out = model(ids)
    return getattr(out, "logits", out)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module."])
def test_the_folder_gives_the_logits_of_the_checkpoint(script, tmp_path, bias, prefix):
    ours = NanoGPTShaped(bias=bias)
    torch.save(ours.checkpoint(prefix), tmp_path / "ckpt.pt")
    made = script.convert(tmp_path / "ckpt.pt", tmp_path / "model")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert torch.allclose(logits(theirs), logits(ours), atol=1e-5)
    assert logits(ours).std() > 1  # the comparison is of something
    assert made["parameters"] == sum(one.numel() for one in ours.parameters())
    assert (made["bias"], made["tied"], made["vocab_size"]) == (bias, True, 64)
    assert getattr(theirs.config, "tunescope_bias", True) is bias
    assert sorted(path.name for path in (tmp_path / "model").glob("*.safetensors")) == ["model.safetensors"]


def test_cropped_positions_and_vocabulary_change_no_logit_that_stays(script, tmp_path):
    ours = NanoGPTShaped(vocab=384)  # padded from the tokenizer's size, as 50,257 to 50,304
    tokenizer = byte_bpe()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    torch.save(ours.checkpoint("_orig_mod."), tmp_path / "ckpt.pt")
    options = script.Options(tokenizer=str(tmp_path / "tokenizer"), block_size=10)
    made = script.convert(tmp_path / "ckpt.pt", tmp_path / "model", options)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert len(tokenizer) == made["vocab_size"] == theirs.config.vocab_size < 384
    assert theirs.config.n_positions == 10
    assert torch.allclose(logits(theirs), logits(ours)[..., : len(tokenizer)], atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "model").model_max_length == 10


def test_a_causal_mask_buffer_is_no_weight_and_a_head_of_its_own_stays(script, tmp_path):
    ours = NanoGPTShaped()
    ours.lm_head.weight = torch.nn.Parameter(torch.randn(64, 32))
    content = ours.checkpoint()
    for layer in range(2):
        content["model"][f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 24, 24).tril()
    torch.save(content, tmp_path / "ckpt.pt")
    assert script.convert(tmp_path / "ckpt.pt", tmp_path / "model")["tied"] is False
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert torch.allclose(logits(theirs), logits(ours), atol=1e-5)


def test_the_folder_is_a_base_model_of_a_study(script, tmp_path):
    from tunescope.data.labels import LabelMap
    from tunescope.models import load_trunk

    byte_bpe().save_pretrained(tmp_path / "tokenizer")
    torch.save(NanoGPTShaped(vocab=320).checkpoint(), tmp_path / "ckpt.pt")
    script.convert(
        tmp_path / "ckpt.pt", tmp_path / "model", script.Options(tokenizer=str(tmp_path / "tokenizer"))
    )
    classifier = load_trunk(str(tmp_path / "model"), labels=LabelMap(("a", "b")))
    assert classifier.n_layers == 2


def test_a_character_data_set_brings_its_tokenizer(script, tmp_path):
    letters = [chr(code) for code in range(33, 33 + 63)] + ["\n"]
    stoi = {letter: number for number, letter in enumerate(letters)}
    meta = {"vocab_size": 64, "stoi": stoi, "itos": dict(enumerate(letters))}
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps(meta))
    torch.save(NanoGPTShaped(vocab=64).checkpoint(), tmp_path / "ckpt.pt")
    script.convert(tmp_path / "ckpt.pt", tmp_path / "model", script.Options(meta=tmp_path / "meta.pkl"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = "TO_BE,\nOR_NOT"
    assert tokenizer(text)["input_ids"] == [stoi[letter] for letter in text]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    with pytest.raises(Exception, match="Missing"):
        tokenizer("ü")
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"stoi": Fraction(1, 2)}))
    with pytest.raises(ModelError, match=r"holds more than numbers and texts \(fractions\.Fraction\)"):
        script.convert(tmp_path / "ckpt.pt", tmp_path / "no", script.Options(meta=tmp_path / "bad.pkl"))


class Harmful:
    """A pickle of this would create a file when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_that_is_more_than_weights_is_not_opened(script, tmp_path):
    content = NanoGPTShaped().checkpoint(extra=Harmful(tmp_path / "touched"))
    torch.save(content, tmp_path / "ckpt.pt")
    with pytest.raises(ModelError, match=r"holds pickled objects beyond weights .*so it is not opened"):
        script.convert(tmp_path / "ckpt.pt", tmp_path / "model")
    assert not (tmp_path / "touched").exists()
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda c: c.pop("model_args"), {}, r"is not nanoGPT's: expected 'model' and 'model_args', found model,"),
        (lambda c: c["model_args"].pop("n_head"), {}, r"model_args lacks n_head"),
        (lambda c: c["model"].pop("transformer.h.1.ln_2.weight"), {}, r"lacks transformer\.h\.1\.ln_2\.weight"),
        (lambda c: c["model_args"].update(n_layer=1), {}, r"it has transformer\.h\.1\..*which a GPT-2 has not"),
        (lambda c: c["model_args"].update(n_embd=64), {}, r"has the shape \[.*\], which does not fit its model_args"),
        (lambda c: None, {"block_size": 25}, r"--block-size 25 does not fit: the checkpoint has 24 positions"),
        (lambda c: None, {"vocab_size": 65}, r"--vocab-size 65 does not fit: the checkpoint has 64 tokens"),
        (lambda c: c["model"].pop("transformer.wpe.weight"), {}, r"the weights lack transformer\.wte\.weight or"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(script, tmp_path, change, options, message):
    content = NanoGPTShaped().checkpoint()
    content["model_args"] = dict(content["model_args"])
    change(content)
    torch.save(content, tmp_path / "ckpt.pt")
    with pytest.raises(ModelError, match=message):
        script.convert(tmp_path / "ckpt.pt", tmp_path / "model", script.Options(**options))


def test_the_command_says_what_it_wrote_and_what_is_wrong(script, tmp_path, capsys):
    torch.save(NanoGPTShaped(bias=False).checkpoint(), tmp_path / "ckpt.pt")
    assert script.main([str(tmp_path / "ckpt.pt"), str(tmp_path / "model")]) == 0
    shown = capsys.readouterr()
    assert "GPT-2 with 2 layers, width 32, 24 positions, 64 tokens" in shown.out
    assert shown.err == ""
    assert script.main([str(tmp_path / "nothing.pt"), str(tmp_path / "model")]) == 4
    assert "nothing.pt is missing" in capsys.readouterr().err
    (tmp_path / "broken.pt").write_bytes((tmp_path / "ckpt.pt").read_bytes()[:500])
    assert script.main([str(tmp_path / "broken.pt"), str(tmp_path / "model")]) == 4
    assert "cannot be read" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main(["--help"])
    assert "--block-size" in capsys.readouterr().out
