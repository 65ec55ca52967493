"""A step in micro-batches is the step of the whole batch: accumulated, halved, weighted, with the variance term."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional
from training_helpers import make_tokens, weights

from tunescope.data.batches import collate
from tunescope.errors import RunError
from tunescope.training import TrainOptions, train
from tunescope.training.losses import variance_share

FIELDS = {
    "num_train_epochs": 2, "learning_rate": 1e-2, "optim": "sgd", "logging_steps": 1, "report_to": "none",
    "lr_scheduler_type": "constant", "padding": "bucket",
}  # fmt: skip
WHOLE = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1}


def without_dropout(classifier):
    for module in classifier.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return classifier


def trained(fresh, folder, tokens, **fields):
    classifier = without_dropout(fresh())
    log = train(classifier, tokens, None, folder, TrainOptions(training={**FIELDS, **fields}))
    return classifier, log


def same(first, second, atol=2e-6):
    for name, value in weights(first[0]).items():
        assert torch.allclose(value, weights(second[0])[name], atol=atol), name
    losses = [[event["loss"] for event in log.events] for _, log in (first, second)]
    assert losses[0] == pytest.approx(losses[1], abs=2e-6)
    assert len(losses[0]) == first[1].steps == second[1].steps == 6


def uneven(n=44):
    tokens = make_tokens(n=n)  # 44 rows: the last step of an epoch holds 12 of 16
    tokens.labels[:] = np.array([0] * (n - 14) + [1] * 10 + [2] * 4)
    return tokens


VARIANCE = {"weight": 0.5, "dimensions": [3, 7], "direction": "encourage"}


@pytest.mark.parametrize(
    "fields",
    [{}, {"class_weights": "balanced", "label_smoothing_factor": 0.1}, {"variance_loss": VARIANCE},
     {"sampling": "balanced"}, {"logit_adjustment": 1.0, "max_grad_norm": 0.01},
     {"padding": "none", "class_weights": "balanced", "variance_loss": VARIANCE}],
    ids=["plain", "weighted", "variance", "balanced", "adjusted and clipped", "without padding"],
)  # fmt: skip
def test_accumulated_steps_are_those_of_the_big_batch(fresh, tmp_path, fields):
    tokens = uneven()
    whole = trained(fresh, tmp_path / "whole", tokens, **fields, **WHOLE)
    parts = trained(
        fresh, tmp_path / "parts", tokens, **fields, per_device_train_batch_size=4, gradient_accumulation_steps=4
    )  # fmt: skip
    same(whole, parts)
    if fields:  # they do something at all
        plain = trained(fresh, tmp_path / "plain", tokens, **WHOLE)
        assert not np.allclose([e["loss"] for e in plain[1].events], [e["loss"] for e in whole[1].events])


def test_a_step_with_weights_equals_a_step_by_hand(fresh, tmp_path):
    tokens = uneven(20)
    given = {"good": 4.0, "fine": 2.0, "bad": 0.5}
    ours, _ = trained(
        fresh, tmp_path, tokens, class_weights=given, max_steps=1, per_device_train_batch_size=7,
        gradient_accumulation_steps=3, max_grad_norm=0.0,
    )  # fmt: skip
    theirs = without_dropout(fresh())
    batch = collate(tokens, np.arange(20))
    loss = functional.cross_entropy(theirs(**batch.inputs()), batch.labels, torch.tensor([0.5, 2.0, 4.0]))
    loss.backward()
    torch.optim.SGD(theirs.parameters(), lr=1e-2).step()
    for name, value in weights(ours).items():
        assert torch.allclose(value, weights(theirs)[name], atol=1e-6), name


def test_gradients_are_clipped_after_the_last_backward_pass(fresh, tmp_path):
    """Clipped to 0.01, one plain step moves all weights together by 0.01 times the learning rate."""
    tokens = uneven(16)
    before = weights(fresh())
    fields = {"max_steps": 1, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    moved, log = trained(fresh, tmp_path / "clipped", tokens, max_grad_norm=0.01, **fields)
    distance = sum(((value - before[name]) ** 2).sum() for name, value in weights(moved).items()) ** 0.5
    assert float(distance) == pytest.approx(0.01 * 1e-2, rel=1e-2)
    batch = collate(tokens, np.arange(16))
    classifier = without_dropout(fresh())
    functional.cross_entropy(classifier(**batch.inputs()), batch.labels).backward()
    norm = sum((one.grad**2).sum() for one in classifier.parameters() if one.grad is not None) ** 0.5
    assert log.events[0]["grad_norm"] == pytest.approx(float(norm), rel=1e-4)  # of the whole batch, unclipped


def short_of_memory(monkeypatch, classifier, most, in_backward=False):
    """Make the classifier run out of memory for more than ``most`` rows; return the sizes that were tried."""
    sizes = []
    original = type(classifier).forward

    def forward(self, input_ids, *args, **kwargs):
        sizes.append(len(input_ids))
        logits = original(self, input_ids, *args, **kwargs)
        if len(input_ids) > most and self.training:
            if not in_backward:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
            logits = logits * 1
            if logits.requires_grad:
                logits.register_hook(_fail)
        return logits

    monkeypatch.setattr(type(classifier), "forward", forward)
    return sizes


def _fail(_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")


@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize("fields", [{}, {"class_weights": "balanced"}, {"variance_loss": VARIANCE}])
def test_out_of_memory_halves_the_micro_batch_and_keeps_the_step(
    fresh, tmp_path, monkeypatch, fields, in_backward
):
    tokens = uneven()
    fields = {**fields, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    roomy = trained(fresh, tmp_path / "roomy", tokens, **fields)
    sizes = short_of_memory(monkeypatch, fresh(), 3, in_backward)
    tight = trained(fresh, tmp_path / "tight", tokens, **fields)
    assert (roomy[1].halved, tight[1].halved) == (0, 2)  # 8, 4, then 2
    assert {8, 4} <= set(sizes)
    assert max(sizes[4:]) <= 4
    assert max(sizes[-20:]) <= 2
    same(roomy, tight)
    assert roomy[1].real_tokens == tight[1].real_tokens == 2 * int(tokens.kept.sum())


def test_gradients_left_by_a_broken_backward_pass_are_dropped(fresh, tmp_path, monkeypatch):
    """The third micro-batch of four runs out of memory in the middle of its backward pass."""
    tokens = uneven(16)
    fields = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "max_steps": 1}
    roomy, _ = trained(fresh, tmp_path / "roomy", tokens, **fields)
    calls = []

    def once(gradient):
        calls.append(1)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("out of memory")
        return gradient

    classifier = without_dropout(fresh())
    classifier.trunk.h[0].register_full_backward_hook(lambda *_: once(None))
    log = train(classifier, tokens, None, tmp_path / "tight", TrainOptions(training={**FIELDS, **fields}))
    assert log.halved == 1
    for name, value in weights(roomy).items():
        assert torch.allclose(value, weights(classifier)[name], atol=2e-6), name


def test_memory_that_does_not_suffice_for_one_row_is_said(fresh, tmp_path, monkeypatch):
    short_of_memory(monkeypatch, fresh(), 0)
    with pytest.raises(
        RunError, match=r"(?s)one row of \d+ tokens at a time \(CUDA out of memory.*max_length"
    ):
        trained(fresh, tmp_path, uneven(), **WHOLE)


def test_other_errors_are_not_taken_for_a_lack_of_memory(fresh, tmp_path, monkeypatch):
    def forward(self, *args, **kwargs):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(type(fresh()), "forward", forward)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        trained(fresh, tmp_path, uneven(), **WHOLE)


def test_evaluation_is_halved_too(fresh, tmp_path, monkeypatch):
    tokens = uneven(30)
    options = TrainOptions(
        training={**FIELDS, **WHOLE, "max_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    )
    roomy = train(without_dropout(fresh()), tokens, tokens, tmp_path / "roomy", options)
    original = type(fresh()).forward

    def forward(self, input_ids, *args, **kwargs):
        if len(input_ids) > 6 and not self.training:
            raise RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried ...")
        return original(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(type(fresh()), "forward", forward)
    tight = train(without_dropout(fresh()), tokens, tokens, tmp_path / "tight", options)
    evaluated = [next(e for e in log.events if "eval_loss" in e) for log in (roomy, tight)]
    assert evaluated[0] == pytest.approx(evaluated[1], abs=1e-6)
    assert tight.halved == 0


@pytest.mark.parametrize("direction", ["encourage", "discourage"])
def test_the_variance_term_moves_the_share_of_its_dimensions(fresh, tmp_path, direction):
    """The largest dimensions of the untuned model are chosen, and their share goes where it was sent."""
    tokens = make_tokens(n=64)
    term = {"weight": 5.0, "top": 2, "direction": direction}

    def share(classifier, dimensions):
        seen = []
        handle = classifier.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        with torch.no_grad():
            classifier(**collate(tokens, np.arange(64)).inputs())
        handle.remove()
        return float(variance_share(seen[0], torch.tensor(dimensions))), seen[0].var(0)

    classifier, log = trained(fresh, tmp_path, tokens, variance_loss=term, optim="adamw_torch", **WHOLE)
    dimensions = log.choices["variance_dimensions"]
    before, variance = share(fresh(), dimensions)
    assert sorted(variance.argsort(descending=True)[:2].tolist()) == dimensions
    after, _ = share(classifier, dimensions)
    assert after > before + 0.01 if direction == "encourage" else after < before - 0.01
