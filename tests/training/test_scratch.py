"""Pretraining from nothing: exact packing, a loss that means something, and an exact continuation."""

from __future__ import annotations

import json
import math
import random
from itertools import chain

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunescope.config.scratch import ScratchConfig
from tunescope.errors import DataError, RunError
from tunescope.progress import Progress
from tunescope.training import scratch
from tunescope.training.packing import pack
from tunescope.training.scratch import pretrain
from tunescope.training.scratch_loss import unigram_loss
from tunescope.training.scratch_tokenizer import train_tokenizer

CONFIG = ScratchConfig(
    n_layer=2, n_head=2, n_embd=32, n_positions=24, vocab_size=320, epochs=3, learning_rate=5e-3, batch_size=4
)
END, FIRST = 0, 2


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    rng = random.Random(0)
    lines = []
    while len(set(lines)) < 260:
        noun, verb = rng.choice([("cats", "sleep"), ("dogs", "run"), ("birds", "sing"), ("fish", "swim")])
        day = rng.choice(["monday", "friday", "sunday", "the weekend", "cold days", "warm days", "most days"])
        lines.append(
            f"{rng.choice(['small', 'old', 'grey', 'shy', 'loud', 'our', 'two'])} {noun} {verb} on {day}."
        )
        lines.append(f"on {day} the {rng.choice(['big', 'young', 'tired', 'wet', 'calm'])} {noun} {verb}.")
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scratch") / "model"
    return folder, pretrain(corpus, CONFIG, folder, seed=1)


class StopAfter(Progress):
    """Presses Ctrl-C after a number of steps of this process, and counts them."""

    def __init__(self, steps):
        super().__init__(quiet=True)
        self.left, self.seen, self.lines = steps, [], []

    def say(self, line):
        self.lines.append(line)

    def task(self, name, total, unit=""):
        outer = self

        class Task:
            def __enter__(self):
                return self

            def __exit__(self, *error):
                return None

            def advance(self, steps=1):
                outer.seen.append(steps)
                if steps == 1 and outer.left is not None:
                    outer.left -= 1
                    if outer.left == 0:
                        raise KeyboardInterrupt

        return Task()


def test_the_loss_is_well_below_word_frequencies_and_above_nothing(trained):
    _, record = trained
    assert 0.3 < record["heldout_loss"] < record["unigram_loss"] - 1.0
    assert record["heldout_tokens"] > 50
    assert record["log"][0]["loss"] == pytest.approx(math.log(record["vocab_size"]), abs=0.3)
    assert [entry["step"] for entry in record["log"]] == list(range(1, record["steps"] + 1))
    assert record["log"][-1]["epoch"] == pytest.approx(CONFIG.epochs, abs=0.1)


def test_the_folder_is_a_transformers_model_with_the_recorded_loss(trained, corpus):
    """The held-out loss again, one text at a time, without packing and without tunescope."""
    folder, record = trained
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    assert model.config.activation_function == "gelu_new"
    assert sum(parameter.numel() for parameter in model.parameters()) == record["parameters"]
    texts = scratch._read_texts(corpus)
    material = scratch._prepare(texts, CONFIG, 1, {})
    firsts = material.held_out.ids[material.held_out.positions == 0]
    held_out = [text for text in texts if text not in train_texts(texts)]
    assert len(held_out) == round(0.03 * len(texts)) <= len(firsts)
    total, count = 0.0, 0
    for text in held_out:
        ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, :-1].double()
        total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    assert count == record["heldout_tokens"]
    assert total / count == pytest.approx(record["heldout_loss"], abs=2e-5)


def train_texts(texts):
    """The texts that are not held out, found by the documented rule: the smallest hashes are held out."""
    import hashlib

    order = sorted(texts, key=lambda text: hashlib.blake2b(f"1\0{text}".encode(), digest_size=8).digest())
    return set(order[round(0.03 * len(texts)) :])


def test_stopped_and_continued_gives_the_very_same_weights(trained, corpus, tmp_path, monkeypatch):
    folder, record = trained
    monkeypatch.setattr(scratch, "STEPS_BETWEEN_CHECKPOINTS", 10)
    with pytest.raises(KeyboardInterrupt):
        pretrain(corpus, CONFIG, tmp_path, seed=1, progress=StopAfter(27))
    assert not (tmp_path / "model.safetensors").exists()
    watch = StopAfter(None)
    again = pretrain(corpus, CONFIG, tmp_path, seed=1, progress=watch)
    assert watch.seen[0] == 20  # it went on from the checkpoint, not from the start
    assert len(watch.seen) == 1 + record["steps"] - 20
    ours, theirs = load_file(tmp_path / "model.safetensors"), load_file(folder / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again["log"] == record["log"]
    assert again["heldout_loss"] == record["heldout_loss"]
    assert not (tmp_path / scratch.CHECKPOINT).exists()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == record["log"]


def test_a_corrupt_or_foreign_checkpoint_is_named_and_not_used(trained, corpus, tmp_path, monkeypatch):
    _, record = trained
    monkeypatch.setattr(scratch, "STEPS_BETWEEN_CHECKPOINTS", 10)
    with pytest.raises(KeyboardInterrupt):
        pretrain(corpus, CONFIG, tmp_path, seed=2, progress=StopAfter(12))
    watch = StopAfter(3)
    with pytest.raises(KeyboardInterrupt):
        pretrain(corpus, CONFIG, tmp_path, seed=1, progress=watch)
    assert "belongs to another corpus, configuration or seed; pretraining starts anew" in watch.lines[0]
    assert watch.seen[0] == 0
    (tmp_path / scratch.CHECKPOINT).write_bytes((tmp_path / scratch.CHECKPOINT).read_bytes()[:1000])
    watch = StopAfter(None)
    again = pretrain(corpus, CONFIG, tmp_path, seed=1, progress=watch)
    assert "pretrain-checkpoint.safetensors cannot be read" in watch.lines[0]
    assert again["heldout_loss"] == record["heldout_loss"]


def test_a_finished_model_is_returned_at_once_and_never_overwritten_by_another(trained, corpus):
    folder, record = trained
    written = (folder / "model.safetensors").stat().st_mtime_ns
    watch = StopAfter(None)
    assert pretrain(corpus, CONFIG, folder, seed=1, progress=watch) == record
    assert watch.seen == []
    with pytest.raises(RunError, match=r"holds a model pretrained on another corpus"):
        pretrain(corpus, CONFIG, folder, seed=2)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_another_seed_gives_another_model(trained, corpus, tmp_path):
    short = CONFIG.model_copy(update={"epochs": 0.2})
    for seed in (1, 2):
        pretrain(corpus, short, tmp_path / str(seed), seed=seed)
    one, two = (load_file(tmp_path / seed / "model.safetensors")["transformer.wte.weight"] for seed in "12")
    assert not torch.equal(one[:50], two[:50])


def test_the_global_generator_is_left_alone(corpus, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pretrain(corpus, CONFIG.model_copy(update={"epochs": 0.1}), tmp_path, seed=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no texts; at least two different ones are needed"),
        (b" \n\n  \n", "holds no texts"),
        (b"one text\none text\n", "holds 1 text; at least two"),
        (b"caf\xe9\nother\n", "is not UTF-8: byte 3 cannot be read"),
    ],
)
def test_a_corpus_without_texts_is_refused(content, message, tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        pretrain(path, CONFIG, tmp_path / "model", seed=0)
    assert not (tmp_path / "model").exists()


def test_a_missing_corpus_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.txt is missing"):
        pretrain(tmp_path / "nothing.txt", CONFIG, tmp_path / "model", seed=0)


def test_every_text_has_tokens_and_comes_back(trained):
    folder, record = trained
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in ("cats sleep.", "Ünïcode – שלום 🦉\t\x07", "<b>&amp;</b>", " two  spaces "):
        ids = tokenizer(text)["input_ids"]
        assert ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert len(tokenizer) == record["vocab_size"] <= CONFIG.vocab_size
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.model_max_length == CONFIG.n_positions


def test_the_tokenizer_depends_on_the_texts_alone():
    texts = [f"word{n % 7} and thing{n % 5} near place{n % 3}" for n in range(60)]
    first, second = (train_tokenizer(texts, 330, 16) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    assert 258 < len(first) < 330  # 256 bytes, two special tokens, and as many merges as seven words hold


def test_packing_keeps_every_text_whole_and_apart():
    generator = np.random.default_rng(0)
    texts = [generator.integers(FIRST, 90, size=generator.integers(1, 9)).tolist() for _ in range(50)]
    windows = pack(texts, END, 10, seed=3)
    found = []
    for ids, positions, targets in zip(windows.ids, windows.positions, windows.targets, strict=True):
        for start in np.flatnonzero((positions == 0) & (targets >= 0)):
            stop = start
            while targets[stop] >= 0:
                assert targets[stop] == ids[stop + 1]
                assert positions[stop + 1] == positions[stop] + 1
                stop += 1
            assert ids[stop] == END
            found.append(ids[start:stop].tolist())
    assert sorted(found) == sorted(texts)
    assert windows.n_tokens == sum(len(text) + 1 for text in texts)
    assert windows.n_targets == sum(len(text) for text in texts)
    assert len(windows) < 45


def test_a_text_longer_than_a_window_is_cut_and_closed_once():
    windows = pack([list(range(2, 13))], END, 5, seed=0)
    assert windows.ids.tolist() == [[2, 3, 4, 5, 6], [7, 8, 9, 10, 11], [12, END, END, END, END]]
    assert windows.targets.tolist() == [[3, 4, 5, 6, -1], [8, 9, 10, 11, -1], [END, -1, -1, -1, -1]]
    assert windows.positions.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 0, 0, 0]]


def test_unigram_loss_by_hand():
    train, held_out = pack([[2, 2, 3]], END, 4, seed=0), pack([[3, 3]], END, 3, seed=0)
    # Targets of train: 2, 3, end; plus one each over 4 tokens: 2/7 each, and 1/7 for token 1. Held out: 3,
    # end.
    assert unigram_loss(train, held_out, 4) == pytest.approx(-(math.log(2 / 7) + math.log(2 / 7)) / 2)


def test_epochs_may_be_a_fraction_and_order_is_a_function_of_seed_and_epoch():
    ten = [rows.tolist() for rows in scratch._batches(10, 4, 7, seed=3)]
    assert ten == [rows.tolist() for rows in scratch._batches(10, 4, 9, seed=3)][:7]
    assert sorted(chain(*ten[:3])) == sorted(chain(*ten[3:6])) == list(range(10))
    assert ten[:3] != ten[3:6]
    assert ten != [rows.tolist() for rows in scratch._batches(10, 4, 7, seed=4)]
