"""The hand-set models do what their closed forms say, checked with plain torch hooks alone."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tunescope.errors import ConfigError
from tunescope.planted.decisive import (
    LABELS,
    N_HEADS,
    N_LAYERS,
    WIDTH,
    load_planted_head,
    planted_head_model,
    planted_head_rows,
)

PLACES = [("gpt2", 0, 3), ("gpt2", 1, 2), ("gpt2", 2, 0), ("bert", 0, 1), ("bert", 1, 3), ("bert", 2, 2)]
ROWS = planted_head_rows(40, seed=5)
HEAD = slice(0, WIDTH // N_HEADS)


def own(head: int) -> slice:
    width = WIDTH // N_HEADS
    return slice(head * width, (head + 1) * width)


class Loaded:
    """A planted model as anybody would load it."""

    def __init__(self, folder, family):
        self.model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        gpt2 = family == "gpt2"
        blocks = self.model.transformer.h if gpt2 else self.model.bert.encoder.layer
        self.attention = [block.attn.c_proj if gpt2 else block.attention.output.dense for block in blocks]
        self.mlp = [block.mlp.c_proj if gpt2 else block.output.dense for block in blocks]

    def logits(self, text: str) -> torch.Tensor:
        with torch.no_grad():
            return self.model(**self.tokenizer(text, return_tensors="pt")).logits[0].double()

    def margin(self, text: str, label: int) -> float:
        logits = self.logits(text)
        return float(logits[label] - logits[1 - label])

    def edited(self, module, change, text: str) -> torch.Tensor:
        """Logits with the input of a projection changed in place."""

        def hook(_module, args):
            return (change(args[0].clone()), *args[1:])

        handle = module.register_forward_pre_hook(hook)
        try:
            return self.logits(text)
        finally:
            handle.remove()


@pytest.fixture(scope="module", params=PLACES, ids=lambda place: f"{place[0]}-L{place[1]}H{place[2]}")
def planted(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    return planted_head_model(*request.param, folder), Loaded(folder, request.param[0])


def replace(index: slice, value: torch.Tensor | float):
    def change(z: torch.Tensor) -> torch.Tensor:
        z[..., index] = value
        return z

    return change


def test_every_label_is_right_and_the_margin_is_the_closed_form(planted):
    truth, loaded = planted
    for text, label in ROWS:
        margin = loaded.margin(text, label)
        assert margin == pytest.approx(truth.margin(text, label), abs=1e-4)
        assert margin > 0.2


def test_zeroing_the_planted_head_changes_the_margin_as_predicted_and_leaves_the_prior(planted):
    truth, loaded = planted
    for text, label in ROWS:
        logits = loaded.edited(loaded.attention[truth.layer], replace(own(truth.head), 0.0), text)
        margin = float(logits[label] - logits[1 - label])
        assert margin - loaded.margin(text, label) == pytest.approx(truth.effect(text, label), abs=1e-4)
        assert int(logits.argmax()) == LABELS.index("negative")
    assert max(abs(truth.effect(text, label)) for text, label in ROWS) > 1.0


def test_zeroing_any_other_head_or_mlp_changes_nothing_at_all(planted):
    truth, loaded = planted
    text = ROWS[0][0]
    before = loaded.logits(text)
    for layer in range(N_LAYERS):
        for head in range(N_HEADS):
            after = loaded.edited(loaded.attention[layer], replace(own(head), 0.0), text)
            is_planted = (layer, head) == (truth.layer, truth.head)
            assert torch.equal(after, before) != is_planted
        assert torch.equal(loaded.edited(loaded.mlp[layer], replace(slice(None), 0.0), text), before)


def test_other_heads_are_busy(planted):
    """A head that is zero anyway would make "no effect" true by accident."""
    _, loaded = planted
    seen = []
    for layer in range(N_LAYERS):
        loaded.edited(loaded.attention[layer], lambda z: seen.append(z) or z, ROWS[0][0])
    for layer, z in enumerate(seen):
        for head in range(N_HEADS):
            assert z[..., own(head)].abs().max() > 0.05, (layer, head)


def test_mean_ablation_follows_the_mean_signal_over_all_real_tokens(planted):
    truth, loaded = planted
    texts = [text for text, _ in ROWS]
    states = []
    for text in texts:
        loaded.edited(loaded.attention[truth.layer], lambda z: states.append(z[0]) or z, text)
    mean = torch.cat(states)[:, own(truth.head)].mean(0)
    signal = truth.mean_signal(texts)
    for text, label in ROWS[:10]:
        logits = loaded.edited(loaded.attention[truth.layer], replace(own(truth.head), mean), text)
        expected = truth.margin(text, label, signal)
        assert float(logits[label] - logits[1 - label]) == pytest.approx(expected, abs=1e-4)


def test_the_folder_says_which_head(tmp_path):
    truth = planted_head_model("bert", 1, 2, tmp_path)
    assert load_planted_head(tmp_path) == truth


def test_unknown_places_are_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"No planted head gpt2 layer 3 head 0: expected gpt2 or bert, layer 0 to 2"
    ):
        planted_head_model("gpt2", 3, 0, tmp_path)
