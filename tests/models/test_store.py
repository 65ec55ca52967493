"""The activation store: exact, found only where everything it depends on is the same, whole or not there."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from tiny import FAMILIES, NAMES, TEXTS, tiny_folder
from tunescope.data.labels import LabelMap
from tunescope.data.packed import pack
from tunescope.data.tokens import Tokens
from tunescope.errors import ModelError, RunError
from tunescope.evaluation.predict import logits_of
from tunescope.models import features, fit_probe, load_trunk
from tunescope.models.activations import fast_activations
from tunescope.models.prefix import FromStored, prefix_digests, states_before
from tunescope.models.store import ActivationStore
from tunescope.progress import Progress


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("stored")
    return {kind: str(tiny_folder(kind, base / kind)) for kind in FAMILIES}


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """Bits are compared below."""


@pytest.fixture
def store(tmp_path):
    return ActivationStore(tmp_path / "store")


def make(folders, kind="gpt2", frozen=2):
    classifier = load_trunk(folders[kind], labels=LabelMap(NAMES), seed=1)
    classifier.requires_grad_(False)
    for layer in range(frozen, 3):
        classifier.trunk.get_submodule(classifier.family.path("block", layer)).requires_grad_(True)
    if classifier.family.final_norm is not None:
        classifier.trunk.get_submodule(classifier.family.final_norm).requires_grad_(True)
    classifier.head.requires_grad_(True)
    classifier.set_frozen_blocks(frozen)
    return classifier


def rows(classifier, texts=TEXTS):
    ids = [np.asarray(classifier.tokenizer(text)["input_ids"], dtype=np.int32) for text in texts]
    lengths = np.array([len(row) for row in ids])
    return Tokens([f"r{i}" for i in range(len(ids))], ids, None, np.arange(len(ids)) % 3, lengths, 0)


def step(module, inputs, labels):
    torch.manual_seed(3)  # dropout of the trained blocks
    module.train()
    module.zero_grad(set_to_none=True)
    with fast_activations(module):  # as a training computes
        loss = functional.cross_entropy(module(**inputs), labels)
    loss.backward()
    classifier = getattr(module, "classifier", module)
    return loss.detach(), {n: p.grad.clone() for n, p in classifier.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", FAMILIES)
def test_loss_and_gradients_from_stored_states_are_the_same_bits(kind, folders, store):
    classifier = make(folders, kind)
    dropout = any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in classifier.modules())
    assert dropout == (kind not in ("llama", "qwen2", "qwen3"))
    tokens = rows(classifier)
    states = store.obtain(classifier, tokens, 2)
    batch = pack(tokens, [5, 0, 3, 2])
    hidden, lengths = states.read(batch.index)
    assert torch.equal(lengths, batch.lengths)
    loss, wanted = step(classifier, batch.inputs(), batch.labels)
    again, found = step(
        FromStored(classifier), {"hidden": hidden, "lengths": lengths, "depth": 2}, batch.labels
    )
    # Tiny Qwen models differ in the last bits with the number of rows; their values agree all the same.
    tolerance = 1e-4 if kind in ("qwen2", "qwen3") else 0.0
    torch.testing.assert_close(again, loss, atol=tolerance, rtol=tolerance)
    assert found.keys() == wanted.keys()
    assert not any(".0." in name or ".1." in name for name in found if "layer" in name or "h." in name)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], atol=tolerance, rtol=tolerance)
    assert sum(float(value.abs().sum()) for value in wanted.values()) > 0


def test_padded_and_stored_losses_agree_to_rounding(folders, store):
    classifier = make(folders).eval()
    tokens = rows(classifier)
    states = store.obtain(classifier, tokens, 2)
    wanted = []
    with torch.no_grad():
        for ids in tokens.input_ids:
            row = torch.from_numpy(ids.astype(np.int64))[None]
            wanted.append(classifier(row, torch.ones_like(row))[0].double().numpy())
    assert np.abs(logits_of(classifier, tokens, states=states) - np.stack(wanted)).max() < 1e-5
    assert np.array_equal(logits_of(classifier, tokens, states=states), logits_of(classifier, tokens))


def test_a_store_serves_deeper_arms_subsets_of_its_rows_and_later_seeds_but_never_shallower_arms(
    folders, store
):
    classifier = make(folders, frozen=1)
    tokens = rows(classifier)
    assert store.obtain(classifier, tokens, 1).depth == 1
    deeper = make(folders, frozen=2)
    with torch.no_grad():  # what training the arm has changed since
        deeper.head.parts["score"].weight += 1.0
        deeper.trunk.h[2].mlp.c_fc.weight += 1.0
    served = store.obtain(deeper, tokens.take(np.array([4, 1])), 2)
    assert served.depth == 1
    assert len(store.entries()) == 1
    wanted = logits_of(deeper, tokens)[[4, 1]]
    assert np.array_equal(logits_of(deeper, tokens.take(np.array([4, 1])), states=served), wanted)
    assert store.find(classifier, tokens, 2).depth == 1
    store.evict()
    store.obtain(deeper, tokens, 2)
    assert store.find(classifier, tokens, 1) is None
    assert store.find(deeper, tokens, 2).depth == 2


def test_what_states_depend_on_changes_the_key(folders, store):
    classifier = make(folders)
    tokens = rows(classifier)
    store.obtain(classifier, tokens, 2)
    assert store.find(classifier, tokens, 2) is not None

    def missing(changed=None, those=tokens, **more):
        return store.find(changed or classifier, those, 2, **more) is None

    weight = make(folders)
    with torch.no_grad():
        weight.trunk.h[1].ln_2.bias[3] += 1e-6
    position = make(folders)
    with torch.no_grad():
        position.trunk.wpe.weight[5, 0] += 1e-6
    scaled = make(folders)
    scaled.trunk.config.scale_attn_weights = False
    activation = make(folders)
    activation.trunk.h[0].mlp.act = torch.nn.ReLU()
    tokenizer = make(folders)
    tokenizer.tokenizer.add_tokens(["brand new"])
    assert missing(weight)
    assert missing(position)
    assert missing(scaled)
    assert missing(activation)
    assert missing(tokenizer)
    assert missing(compute="bfloat16")
    assert missing(those=replace(tokens, row_ids=["other", *tokens.row_ids[1:]]))
    changed = tokens.input_ids[0].copy()
    changed[0] += 1
    assert missing(those=replace(tokens, input_ids=[changed, *tokens.input_ids[1:]]))
    assert not missing(make(folders)), "the control: an equal model finds it"
    half = ActivationStore(store.folder, number="float16")
    assert half.find(classifier, tokens, 2) is None


def test_the_first_digests_are_those_of_the_first_blocks_alone(folders):
    one, two = make(folders), make(folders)
    with torch.no_grad():
        two.trunk.h[1].attn.c_attn.bias += 1.0
    first, second = prefix_digests(one), prefix_digests(two)
    assert len(first) == 4
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, True, False, False]


def test_a_store_that_does_not_fit_names_both_numbers_and_the_field(folders, tmp_path, monkeypatch):
    classifier = make(folders)
    tokens = rows(classifier)
    needed = int(tokens.kept.sum()) * 32 * 4
    small = ActivationStore(tmp_path / "small", most_bytes=needed - 1)
    with pytest.raises(RunError, match=rf"needs {needed:,} more bytes; .* budget is {needed - 1:,}"):
        small.obtain(classifier, tokens, 2)
    assert not (tmp_path / "small").exists()
    exact = ActivationStore(tmp_path / "exact", most_bytes=needed)
    exact.obtain(classifier, tokens, 2)
    with pytest.raises(RunError, match=f"it holds {needed:,}"):
        exact.obtain(make(folders, "bert"), rows(make(folders, "bert")), 2)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("tunescope.models.store.shutil.disk_usage", lambda _: usage)
    full = ActivationStore(tmp_path / "full")
    with pytest.raises(
        RunError, match=r"(?s)needs .* bytes in .*full, and 1,000 are free.*activation_store to"
    ):
        full.obtain(classifier, tokens, 2)


def test_interrupted_filling_leaves_nothing_and_starts_cleanly(folders, store, monkeypatch):
    classifier = make(folders)
    tokens = rows(classifier)
    calls = []

    def dying(*arguments, **named):
        calls.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr("tunescope.models.store.states_before", dying)
    with pytest.raises(KeyboardInterrupt):
        store.obtain(classifier, tokens, 2)
    assert calls
    assert store.entries() == []
    assert list(store.folder.iterdir()) == []
    monkeypatch.undo()
    states = store.obtain(classifier, tokens, 2)
    assert len(store.entries()) == 1
    with fast_activations(classifier):
        alone = states_before(classifier, 2, **pack(tokens, [6]).inputs())
    assert np.array_equal(states.row(6), alone[0].numpy())


@pytest.mark.parametrize("name", ["states.bin", "about.json", "rows.npy"])
def test_a_damaged_entry_is_not_used_and_is_made_again(folders, store, name):
    classifier = make(folders)
    tokens = rows(classifier)
    store.obtain(classifier, tokens, 2)
    path = store.entries()[0].folder / name
    path.write_bytes(path.read_bytes()[:-9])
    assert store.find(classifier, tokens, 2) is None
    store.obtain(classifier, tokens, 2)
    assert store.find(classifier, tokens, 2) is not None


def test_entries_are_listed_and_evicted_on_request_only(folders, store):
    classifier = make(folders)
    tokens = rows(classifier)
    store.obtain(classifier, tokens, 2)
    store.obtain(classifier, tokens.take(np.arange(3)), 2)  # served by the first
    assert len(store.entries()) == 1
    other = make(folders, "bert")
    store.obtain(other, rows(other), 1)
    first = next(entry for entry in store.entries() if entry.depth == 2)
    assert (first.kind, first.rows, first.tokens) == ("states", 8, int(tokens.kept.sum()))
    assert first.bytes == (first.folder / "states.bin").stat().st_size == first.tokens * 32 * 4
    assert json.loads((first.folder / "about.json").read_text())["format_version"] == 1
    assert store.evict([first.folder]) == first.bytes
    assert [entry.depth for entry in store.entries()] == [1]
    store.evict()
    assert not store.folder.exists()


def test_features_and_the_probe_are_read_back_exactly(folders, store, monkeypatch):
    classifier = make(folders, "distilbert")
    tokens = rows(classifier, TEXTS * 3)
    first = features(classifier, tokens, store=store)
    probe = fit_probe(classifier, tokens, store=store)
    monkeypatch.setattr("tunescope.models.probe.model_batches", lambda *_: pytest.fail("computed again"))
    assert np.array_equal(features(classifier, tokens, store=store), first)
    subset = features(classifier, tokens.take(np.array([3, 1])), store=store)
    assert np.array_equal(subset, first[[3, 1]])
    again = fit_probe(classifier, tokens, store=store)
    assert torch.equal(again.head.linear.weight, probe.head.linear.weight)
    assert {entry.kind for entry in store.entries()} == {"pooled"}
    classifier.pooling = "mean"
    assert store.pooled(classifier, tokens) is None


def test_a_half_precision_store_is_close_and_half_as_large(folders, tmp_path):
    classifier = make(folders).eval()
    tokens = rows(classifier)
    half = ActivationStore(tmp_path / "half", number="float16")
    states = half.obtain(classifier, tokens, 2)
    assert half.entries()[0].bytes == int(tokens.kept.sum()) * 32 * 2
    gap = np.abs(logits_of(classifier, tokens, states=states) - logits_of(classifier, tokens)).max()
    assert 0 < gap < 0.05


def test_what_the_store_cannot_serve_is_refused_with_the_reason(folders, store, monkeypatch):
    classifier = make(folders)
    tokens = rows(classifier)
    with pytest.raises(ModelError, match="0 of 3 blocks are frozen"):
        store.obtain(classifier, tokens, 0)
    windows = replace(tokens, windows=[[ids, ids] for ids in tokens.input_ids])
    with pytest.raises(ModelError, match="rows have sliding windows"):
        store.obtain(classifier, windows, 2)
    monkeypatch.setattr("tunescope.models.packed.PROVEN", ("BERT",))
    with pytest.raises(ModelError, match="the family GPT-2 has not been proven"):
        store.obtain(classifier, tokens, 2)


def test_a_batch_of_one_token_has_the_bits_it_has_among_others(folders):
    """Matrix products of fewer than four rows round otherwise; a stored row must not depend on that."""
    classifier = make(folders)
    one, many = rows(classifier, ["a"]), rows(classifier, ["a", *TEXTS])
    assert one.kept[0] < 4
    alone = states_before(classifier, 2, **pack(one, [0]).inputs())[0]
    batch = pack(many, range(len(many)))
    together = states_before(classifier, 2, **batch.inputs())[0].split(batch.lengths.tolist())
    assert torch.equal(alone, together[batch.index.tolist().index(0)])


def test_what_is_optional_and_does_not_fit_is_said_and_computed_without_being_kept(folders, tmp_path):
    classifier = make(folders)
    tokens = rows(classifier)
    wanted = features(classifier, tokens)
    for filling, said in (("optional", 1), ("none", 0)):
        listening = Listening()
        small = ActivationStore(tmp_path / filling, 10, progress=listening, filling=filling)
        assert np.array_equal(features(classifier, tokens, store=small), wanted)
        assert small.entries() == []
        assert sum("not kept in the activation store: The activation store needs 1,024 more" in line
                   for line in listening.lines) == said  # fmt: skip
    with pytest.raises(RunError, match=r"needs 1,024 more bytes"):
        features(classifier, tokens, store=ActivationStore(tmp_path / "required", 10))


class Listening(Progress):
    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.mark.parametrize("kind", FAMILIES)
def test_what_is_served_gives_the_same_logits_and_the_deepest_first(folders, store, kind):
    classifier = make(folders, kind).eval()
    tokens = rows(classifier)
    assert store.serve(classifier, tokens) is None
    wanted = logits_of(classifier, tokens)
    for fill, depth in ((lambda: store.obtain(classifier, tokens, 2), 2),
                        (lambda: features(classifier, tokens, store=store), 3)):  # fmt: skip
        fill()
        states = store.serve(classifier, tokens)
        assert states.depth == depth
        assert np.array_equal(logits_of(classifier, tokens, states=states), wanted)
    assert store.serve(classifier, replace(tokens, windows=[[ids] for ids in tokens.input_ids])) is None
    assert ActivationStore(store.folder, number="float16").serve(classifier, tokens) is None


def test_trainings_at_the_same_time_fill_an_entry_once(folders, store, monkeypatch):
    """The second waits for the first, and reads what that wrote."""
    one, other = make(folders), make(folders)
    tokens = rows(one)
    filled, begun = [], threading.Event()

    def slow(*arguments, **named):
        filled.append(threading.get_ident())
        begun.set()
        time.sleep(0.2)
        return states_before(*arguments, **named)

    monkeypatch.setattr("tunescope.models.store.states_before", slow)
    first = threading.Thread(target=store.obtain, args=(one, tokens, 2))
    first.start()
    assert begun.wait(10)
    states = ActivationStore(store.folder).obtain(other, tokens, 2)
    first.join()
    assert len(filled) == 1
    assert len(states) == len(tokens)
    store.evict()
    assert list(store.folder.parent.iterdir()) == []
