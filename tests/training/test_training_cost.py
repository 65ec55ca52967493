"""What a training costs: tokens, padding and memory, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_train import Listening, options
from training_helpers import equal, make_tokens, weights
from transformers.activations import NewGELUActivation

from tunescope import device as device_module
from tunescope.device import bfloat16_is_fast
from tunescope.errors import Interrupted
from tunescope.models import load
from tunescope.models.activations import fast_activations
from tunescope.training import memory, train
from tunescope.training.memory import MOST_POINTS, MemoryCourse, out_of_memory

QUIET = {"report_to": "none", "padding": "bucket"}


def test_tokens_and_padding_are_those_of_the_batches(fresh, tmp_path):
    tokens = make_tokens(n=20)
    log = train(fresh(), tokens, None, tmp_path, options(**QUIET, per_device_train_batch_size=20))
    lengths = tokens.kept
    assert log.real_tokens == 2 * lengths.sum()  # two epochs
    assert log.padding_share == pytest.approx(1 - lengths.sum() / (20 * lengths.max()))
    assert log.tokens_per_second > 0
    assert log.seconds > 0
    # steps are a part of the wall time, so the throughput is at least tokens by wall time
    assert log.tokens_per_second >= 0.9 * log.real_tokens / log.seconds


def test_memory_has_a_course_and_a_peak(fresh, tmp_path):
    log = train(fresh(), make_tokens(), None, tmp_path, options(**QUIET))
    if log.peak_memory_bytes is None:
        pytest.skip("resident memory cannot be read here")
    seconds, sizes = np.array(log.memory).T
    assert (np.diff(seconds) >= 0).all()
    assert len(sizes) == log.steps
    assert sizes.max() <= log.peak_memory_bytes < 64 * 2**30
    assert sizes.min() > 2**20


def test_the_peak_sees_what_was_held_and_is_counted_anew():
    course = MemoryCourse(torch.device("cpu"))
    if course.now() is None:
        pytest.skip("resident memory cannot be read here")
    base = course.now()
    held = np.ones(2**25)  # 256 MiB
    if not course._peak_is_ours:
        course.sample()
    del held
    assert course.peak() - base > 200 * 2**20
    later = MemoryCourse(torch.device("cpu"))
    later.sample()
    if later._peak_is_ours:
        assert later.peak() - later.now() < 100 * 2**20


def test_a_long_course_is_thinned():
    course = MemoryCourse(torch.device("cpu"))
    if course.now() is None:
        pytest.skip("resident memory cannot be read here")
    for _ in range(2000):
        course.sample()
    assert MOST_POINTS // 2 <= len(course.points) <= MOST_POINTS


def test_where_memory_cannot_be_read_nothing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "no" / "folder")
    course = MemoryCourse(torch.device("cpu"))
    course.sample()
    assert (course.now(), course.peak(), course.points) == (None, None, [])


def test_costs_continue_over_an_interruption(fresh, tmp_path, monkeypatch):
    from test_train import stopping_at

    whole = train(fresh(), make_tokens(), None, tmp_path / "whole", options(**QUIET))
    undo = stopping_at(monkeypatch, 5)
    with pytest.raises(Interrupted):
        train(fresh(), make_tokens(), None, tmp_path / "stopped", options(**QUIET))
    undo()
    log = train(fresh(), make_tokens(), None, tmp_path / "stopped", options(**QUIET))
    assert log.real_tokens == whole.real_tokens
    assert log.padding_share == whole.padding_share
    assert len(log.memory) == len(whole.memory)


def test_what_running_out_of_memory_looks_like():
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert out_of_memory(MemoryError())
    assert out_of_memory(
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried")
    )
    assert out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))
    assert not out_of_memory(RuntimeError("shape '[3]' is invalid"))
    assert not out_of_memory(ValueError("out of memory"))


# ---- precision and activations ----


def test_gelu_new_is_replaced_while_the_block_is_open_and_put_back(fresh):
    classifier = fresh()
    row = torch.arange(5, 30)[None]
    inputs = {"input_ids": row, "attention_mask": torch.ones_like(row)}
    own = [block.mlp.act for block in classifier.trunk.h]
    with torch.no_grad():
        slow = classifier(**inputs)
        with fast_activations(classifier) as replaced:
            assert replaced == len(own) == 2
            assert not any(isinstance(module, NewGELUActivation) for module in classifier.modules())
            with fast_activations(classifier) as again:  # nested, there is nothing left to replace
                assert again == 0
            fast = classifier(**inputs)
        assert torch.equal(classifier(**inputs), slow)
    assert torch.allclose(fast, slow, atol=1e-5)
    assert all(block.mlp.act is act for block, act in zip(classifier.trunk.h, own, strict=True))
    values = torch.linspace(-8, 8, 10_001)
    tanh = torch.nn.functional.gelu(values, approximate="tanh")
    assert (NewGELUActivation()(values) - tanh).abs().max() < 1e-6


def test_activations_come_back_after_an_error_and_train_uses_the_fast_ones(fresh, tmp_path, monkeypatch):
    classifier = fresh()
    seen = []
    classifier.trunk.h[0].mlp.register_forward_hook(lambda module, *_: seen.append(type(module.act)))

    def broken(*_, **__):
        raise SystemError("power cut")

    monkeypatch.setattr(torch.optim.AdamW, "step", broken)
    with pytest.raises(SystemError):
        train(classifier, make_tokens(n=8), None, tmp_path, options(**QUIET))
    assert set(seen) == {torch.nn.GELU}
    assert all(isinstance(block.mlp.act, NewGELUActivation) for block in classifier.trunk.h)


@pytest.mark.parametrize(
    ("flags", "fast"),
    [
        ("flags\t: fpu avx2 avx512f", False), ("flags\t: fpu avx512f avx512_bf16", True),
        ("flags\t\t: fpu amx_bf16", True), ("Features\t: fp asimd bf16", True), ("", False),
    ],
)  # fmt: skip
def test_bf16_auto_is_on_where_the_processor_has_it(fresh, tmp_path, monkeypatch, flags, fast):
    class Info(type(tmp_path)):
        def read_text(self, *args, **kwargs):
            return f"processor\t: 0\n{flags}\n"

    monkeypatch.setattr(device_module, "Path", lambda _: Info(tmp_path))
    assert bfloat16_is_fast("cpu") is fast
    assert not bfloat16_is_fast("mps")
    progress = Listening()
    log = train(
        fresh(), make_tokens(n=8), None, tmp_path, options(**QUIET, bf16="auto", max_steps=1), progress
    )
    assert log.choices["precision"] == ("bf16" if fast else "fp32")
    assert progress.lines == []
    log = train(fresh(), make_tokens(n=8), None, tmp_path, options(**QUIET, bf16=True, max_steps=1), progress)
    assert log.choices["precision"] == "bf16"
    said = [line for line in progress.lines if "does not multiply bfloat16 in hardware" in line]
    assert len(said) == (0 if fast else 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns about itself
def test_a_compiled_training_saves_and_continues_plainly(fresh, tmp_path, monkeypatch):
    """The weights agree with the plain ones to rounding, and nothing of the compiler is left.

    The backend is the one that traces and does not call a C++ compiler, which takes minutes.
    """
    from test_train import stopping_at

    tokens = make_tokens(n=16)
    tokens = replace(tokens, input_ids=[np.resize(ids, 8) for ids in tokens.input_ids])  # one shape of batch
    plain, compiled = fresh(), fresh()
    fields = {**QUIET, "max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    for model in (plain, compiled):
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    train(plain, tokens, None, tmp_path / "plain", options(**fields))
    fields |= {"torch_compile": True, "torch_compile_backend": "aot_eager"}
    undo = stopping_at(monkeypatch, 2)
    with pytest.raises(Interrupted):
        train(compiled, tokens, None, tmp_path / "compiled", options(**fields))
    undo()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    log = train(compiled, tokens, None, tmp_path / "compiled", options(**fields))
    assert log.continued_from == 2
    for name, value in weights(plain).items():
        assert torch.allclose(value, weights(compiled)[name], atol=1e-4), name
    assert "forward" not in vars(compiled)
    assert equal(weights(load(str(tmp_path / "compiled" / "model"))), weights(compiled))
