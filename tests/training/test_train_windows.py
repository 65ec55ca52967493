"""Sliding windows in training and prediction: logits pooled row by row, whatever stands beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_train import options, read_log, stopping_at
from torch.nn import functional
from training_helpers import equal, make_tokens, weights

from tunescope.data.batches import collate
from tunescope.errors import Interrupted
from tunescope.evaluation import predict
from tunescope.models.windows import mean_by_row
from tunescope.training import train
from tunescope.tuning import METHODS

QUIET = {"report_to": "none"}


def windowed(n=24, room=8, stride=4, seed=0):
    """The rows of ``make_tokens`` cut into windows of 8 tokens every 4."""
    whole = make_tokens(n=n, seed=seed, vocabulary=40)
    windows = []
    for ids in whole.input_ids:
        last = max(0, len(ids) - room)
        windows.append(
            [ids[start : start + room] for start in dict.fromkeys([*range(0, last, stride), last])]
        )
    first = [one[0] for one in windows]
    return replace(whole, input_ids=first, windows=windows, covered=whole.lengths.copy())


def one_by_one(classifier, tokens, row):
    """Return the mean of the logits of a row's windows, each alone in its batch."""
    found = []
    with torch.no_grad():
        for ids in tokens.windows[row]:
            line = torch.from_numpy(ids.astype(np.int64))[None]
            found.append(classifier(line, torch.ones_like(line))[0])
    return torch.stack(found).mean(0)


def test_mean_by_row_is_the_mean_and_keeps_single_rows_exactly():
    values = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    found = mean_by_row(values, torch.tensor([0, 1, 1, 1, 2, 3]))
    assert torch.equal(found[[0, 2, 3]], values[[0, 4, 5]])
    assert torch.allclose(found[1], values[1:4].mean(0))
    assert mean_by_row(values, None) is values


@pytest.mark.parametrize("folder", ["gpt2_folder", "bert_folder"])
def test_a_rows_logits_do_not_depend_on_batch_mates_or_order(fresh, request, folder):
    classifier, tokens = fresh(request.getfixturevalue(folder)), windowed()
    assert {len(windows) for windows in tokens.windows} >= {1, 2, 3}
    frame = predict(classifier, tokens)
    names = [f"logit_{name}" for name in classifier.labels.names]
    logits = torch.from_numpy(frame.select(names).to_numpy()).float()
    expected = torch.stack([one_by_one(classifier, tokens, row) for row in range(len(tokens))])
    assert torch.allclose(logits, expected, atol=2e-5)
    order = np.random.default_rng(0).permutation(len(tokens))
    moved = predict(classifier, tokens.take(order)).select(names).to_numpy()
    assert np.allclose(moved, logits.numpy()[order], atol=2e-5)
    with torch.no_grad():
        for size in (1, 5):
            batch = collate(tokens, np.arange(size))
            assert torch.allclose(classifier(**batch.inputs()), expected[:size], atol=2e-5)


def test_rows_of_one_window_are_plain_rows_bit_for_bit(fresh):
    classifier, tokens = fresh(), windowed()
    single = tokens.take(np.flatnonzero(tokens.n_windows == 1))
    assert len(single) >= 4
    names = [f"logit_{name}" for name in classifier.labels.names]
    with_windows = predict(classifier, single).select(names).to_numpy()
    assert np.array_equal(with_windows, predict(classifier, single.first_windows()).select(names).to_numpy())


@pytest.mark.parametrize("padding", ["bucket", "none"])
def test_a_step_over_windows_equals_a_step_by_hand(fresh, tmp_path, padding):
    tokens = windowed(n=8)
    ours, theirs = fresh(), fresh()
    for classifier in (ours, theirs):
        for module in classifier.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    fields = {**QUIET, "padding": padding, "max_steps": 1, "max_grad_norm": 0.0, "optim": "sgd",
              "learning_rate": 0.1, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 3}  # fmt: skip
    log = train(ours, tokens, None, tmp_path, options(**fields))
    total = 0.0
    for row in range(8):
        lines = [torch.from_numpy(ids.astype(np.int64))[None] for ids in tokens.windows[row]]
        logits = torch.cat([theirs(line, torch.ones_like(line)) for line in lines]).mean(0, keepdim=True)
        total = total + functional.cross_entropy(logits, torch.tensor([int(tokens.labels[row])])) / 8
    total.backward()
    torch.optim.SGD(theirs.parameters(), lr=0.1).step()
    for name, value in weights(ours).items():
        assert torch.allclose(value, weights(theirs)[name], atol=1e-5), name
    assert log.real_tokens == sum(len(ids) for windows in tokens.windows for ids in windows)


def test_windows_continue_bit_exactly(fresh, tmp_path, monkeypatch):
    tokens, validation = windowed(), windowed(seed=1)
    straight, continued = fresh(), fresh()
    train(straight, tokens, validation, tmp_path / "straight", options(**QUIET))
    undo = stopping_at(monkeypatch, 4)
    with pytest.raises(Interrupted):
        train(fresh(), tokens, validation, tmp_path / "stopped", options(**QUIET))
    undo()
    train(continued, tokens, validation, tmp_path / "stopped", options(**QUIET))
    assert equal(weights(straight), weights(continued))
    assert read_log(tmp_path / "stopped") == read_log(tmp_path / "straight")


@pytest.mark.parametrize("folder", ["gpt2_folder", "bert_folder"])
def test_head_only_on_windows_equals_training_without_the_shortcut(fresh, request, tmp_path, folder):
    """BERT's own head is not linear: the mean must be of logits, not of features."""
    tokens, validation = windowed(), windowed(seed=1)
    quick, slow = (fresh(request.getfixturevalue(folder)) for _ in range(2))
    method = METHODS["head_only"]
    for classifier in (quick, slow):
        method.prepare(classifier, method.options())
        for module in classifier.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    train(quick, tokens, validation, tmp_path / "quick", replace(options(**QUIET), frozen_trunk=True))
    train(slow, tokens, validation, tmp_path / "slow", options(**QUIET))
    for (name, first), second in zip(quick.head.named_parameters(), slow.head.parameters(), strict=True):
        assert torch.allclose(first, second, atol=1e-5), name
    for first, second in zip(read_log(tmp_path / "quick"), read_log(tmp_path / "slow"), strict=True):
        assert first.get("eval_loss", 0) == pytest.approx(second.get("eval_loss", 0), abs=1e-5)
