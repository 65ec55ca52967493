"""A loss or gradient that is not a number stops the training before the optimiser sees it."""

from __future__ import annotations

import pytest
import torch
from test_train import options
from training_helpers import equal, make_tokens, weights

from tunescope.errors import RunError
from tunescope.models import load
from tunescope.training import train
from tunescope.training.checkpoints import all_checkpoints

QUIET = {"report_to": "none", "padding": "bucket"}


def poisoned(monkeypatch, classifier, row, value, epochs_before=1):
    """Make the logits of the row that holds token 59 alone in its first place not a number, from some pass on."""
    original = type(classifier).forward
    seen = []

    def forward(self, input_ids, *args, **kwargs):
        logits = original(self, input_ids, *args, **kwargs)
        hit = (
            (input_ids[:, : len(row)] == torch.as_tensor(row)).all(1)
            if input_ids.shape[1] >= len(row)
            else None
        )
        if hit is not None and bool(hit.any()) and self.training:
            seen.append(1)
            if len(seen) > epochs_before:
                logits = torch.where(hit[:, None], logits * value, logits)
        return logits

    monkeypatch.setattr(type(classifier), "forward", forward)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_loss_that_is_not_a_number_names_its_row_and_keeps_the_checkpoint(
    fresh, tmp_path, monkeypatch, value, accumulate
):
    tokens = make_tokens()
    longest = int(tokens.kept.argmax())
    good = fresh()
    fields = options(**QUIET, per_device_train_batch_size=8 // accumulate, gradient_accumulation_steps=accumulate,
                     num_train_epochs=1, lr_scheduler_type="constant")  # fmt: skip
    train(good, tokens, None, tmp_path / "good", fields)
    poisoned(monkeypatch, fresh(), tokens.input_ids[longest].tolist(), value)
    broken = options(**{**fields.training, "num_train_epochs": 3})
    with pytest.raises(RunError) as caught:
        train(fresh(), tokens, None, tmp_path / "run", broken)
    text = str(caught.value)
    assert f"row {tokens.row_ids[longest]}, 1 of {8 // accumulate} in the batch" in text
    assert "The loss is " in text
    assert "The last checkpoint is kept" in text
    (checkpoint,) = all_checkpoints(tmp_path / "run" / "checkpoints")
    assert checkpoint.name == "checkpoint-6"
    assert equal(weights(load(str(checkpoint))), weights(good))


def test_a_gradient_that_is_not_a_number_names_the_rows_of_its_step(fresh, tmp_path):
    tokens, classifier = make_tokens(n=8), fresh()
    before = weights(classifier)
    classifier.trunk.ln_f.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(RunError, match=r"norm of the gradient is (nan|inf) at step 1.*row-0-0") as caught:
        train(classifier, tokens, None, tmp_path, options(**QUIET, max_grad_norm=0.0))
    assert all(row_id in str(caught.value) for row_id in tokens.row_ids)
    assert equal(before, weights(classifier))


def test_many_rows_are_counted_not_listed(fresh, tmp_path):
    tokens, classifier = make_tokens(n=40), fresh()
    with torch.no_grad():
        classifier.model.score.weight.fill_(float("nan"))
    with pytest.raises(RunError, match=r"The loss is nan at step 1.*rows row-0-.* and 24 more"):
        train(classifier, tokens, None, tmp_path, options(**QUIET, per_device_train_batch_size=40))
