"""Weight grafts: by hand, by laws that hold for any two models, and where one changed head is planted."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from subjects import make_rows, make_subject
from test_planted_head import planted_rows

from tiny import FAMILIES, families, tiny_folder
from tunescope.capture.graft_parts import GraftPart, names_of, parts_of, rows_of
from tunescope.capture.patch_models import grafted, require_same_shape, trunk_state, tuned_readout
from tunescope.errors import LensError, ModelError, SiteError
from tunescope.lenses import LensRows
from tunescope.lenses.grafting.lens import GraftOptions, run, single_parts
from tunescope.lenses.grafting.runs import Grafts, Run
from tunescope.lenses.patching import cross as patching_cross
from tunescope.lenses.patching import lens as patching
from tunescope.models import load
from tunescope.planted.changed import changed_head_models
from tunescope.progress import SILENT

ROWS = LensRows(n=40)


def two(kind, tmp_path, seed=5):
    base = load(str(tiny_folder(kind, tmp_path / "base", seed=0)))
    tuned = load(str(tiny_folder(kind, tmp_path / "tuned", seed=seed)))
    return base, tuned


def grafts_of(base, tuned, rows=None):
    subject = make_subject(base, tuned, rows or make_rows(24))
    found = Grafts(base, tuned, subject.draw(ROWS), 0)
    with SILENT.task("x", 1, "rows") as task:
        found.prepare(task)
    return found


def by_hand(base, tuned, tokens, parts):
    """Copy the base, write the tuned weights into it, and run every row alone under the tuned readout."""
    copied = copy.deepcopy(base)
    own, theirs = dict(copied.trunk.named_parameters()), dict(tuned.trunk.named_parameters())
    with torch.no_grad():
        for name in {name for part in parts for name in names_of(base, part)}:
            own[name].copy_(theirs[name])
    found = []
    with torch.no_grad(), tuned_readout(copied, tuned):
        for ids, label in zip(tokens.input_ids, tokens.labels, strict=True):
            row = torch.tensor(np.asarray(ids, dtype=np.int64))[None]
            logits = copied(input_ids=row, attention_mask=torch.ones_like(row))[0].double()
            others = torch.cat([logits[:label], logits[label + 1 :]])
            found.append(float(logits[label] - others.logsumexp(0)))
    return np.array(found)


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_kind_of_graft_equals_a_copied_model(kind, tmp_path):
    base, tuned = two(kind, tmp_path)
    found = grafts_of(base, tuned)
    both = (GraftPart("attention", 0), GraftPart("mlp", 2))
    runs = [
        Run("one", "embeddings"), Run("one", "block", 1), Run("one", "attention", 2), Run("one", "mlp", 0),
        Run("up_to_here", "block", 1), Run("from_here", "block", 2), Run("greedy", "set", parts=both, step=2),
    ]  # fmt: skip
    parts = [
        [GraftPart("embeddings")], [GraftPart("block", 1)], [GraftPart("attention", 2)], [GraftPart("mlp", 0)],
        [GraftPart("embeddings"), GraftPart("block", 0), GraftPart("block", 1)], [GraftPart("block", 2)], both,
    ]  # fmt: skip
    answers = found.answers(runs)
    for column, own in enumerate(parts):
        np.testing.assert_allclose(
            answers.margin[:, column],
            by_hand(base, tuned, found.tokens, own),
            atol=3e-5,
            err_msg=runs[column].name,
        )
    assert np.ptp(answers.margin, axis=1).min() > 1e-3  # and they differ from one another


def test_a_heads_graft_is_its_slices_of_the_weights(tmp_path):
    base, tuned = two("gpt2", tmp_path)
    found = grafts_of(base, tuned)
    answers = found.answers([Run("one", "head", 1, 2), Run("one", "head", 2, 0)])
    for column, (layer, head) in enumerate([(1, 2), (2, 0)]):
        copied = copy.deepcopy(base)
        ours, theirs = copied.trunk.h[layer].attn, tuned.trunk.h[layer].attn
        with torch.no_grad():
            for part in range(3):
                own = slice(part * 32 + head * 8, part * 32 + head * 8 + 8)
                ours.c_attn.weight[:, own] = theirs.c_attn.weight[:, own]
                ours.c_attn.bias[own] = theirs.c_attn.bias[own]
            own = slice(head * 8, head * 8 + 8)
            ours.c_proj.weight[own] = theirs.c_proj.weight[own]
        np.testing.assert_allclose(
            answers.margin[:, column], by_hand(copied, tuned, found.tokens, []), atol=3e-5
        )


@pytest.mark.parametrize("kind", families("gpt2", "bert", "qwen3"))
def test_parts_share_out_every_weight_and_ends_are_exact(kind, tmp_path):
    base, tuned = two(kind, tmp_path)
    blocks, halves = (
        [name for part in parts_of(base, ("embeddings", *kinds)) for name in names_of(base, part)]
        for kinds in (("block",), ("attention", "mlp"))
    )
    assert len(blocks) == len(set(blocks))
    assert len(halves) == len(set(halves))
    assert set(blocks) == set(halves) == set(trunk_state(base))
    norms = [path.format(layer=1) for path in base.family.norms]
    for kind_of, own in (("attention", norms[0]), ("mlp", norms[1])):
        inside = names_of(base, GraftPart(kind_of, 1))
        assert f"{own}.weight" in inside
    found = grafts_of(base, tuned)
    everything = tuple(parts_of(base, ("embeddings", "block")))
    answers = found.answers(
        [
            Run("up_to_here", "block", 2),
            Run("greedy", "set", parts=everything),
            Run("one", "block", 0, control="no_op"),
            Run("one", "block", 2, direction="base_into_tuned", control="no_op"),
        ]
    )
    base_margin, tuned_margin = found.ends.margin.T
    np.testing.assert_allclose(answers.margin[:, 0], tuned_margin, atol=1e-6)
    np.testing.assert_allclose(answers.margin[:, 1], tuned_margin, atol=2e-5)
    np.testing.assert_allclose(answers.margin[:, 2], base_margin, atol=2e-5)
    np.testing.assert_allclose(answers.margin[:, 3], tuned_margin, atol=2e-5)


def test_weights_are_restored_bit_for_bit_also_after_an_error(tmp_path):
    base, tuned = two("bert", tmp_path)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    rows = rows_of(parts_of(base, ("embeddings", "block")), base)
    word = names_of(base, GraftPart("embeddings"))[0]
    mask = torch.zeros(len(before[f"model.bert.{word}"]), dtype=torch.bool)
    mask[3] = True

    def change_and_fail(wanted, seed):
        with tuned_readout(base, tuned), grafted(base, trunk_state(tuned), wanted, seed):
            changed = dict(base.trunk.named_parameters())[word]
            assert not torch.equal(changed[3], before[f"model.bert.{word}"][3])
            assert torch.equal(changed[4], before[f"model.bert.{word}"][4]) == (wanted is not rows)
            raise RuntimeError("stop")

    for seed in (None, 1):
        for wanted in (rows, {word: mask}):
            with pytest.raises(RuntimeError, match="stop"):
                change_and_fail(wanted, seed)
            after = base.state_dict()
            assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_random_control_moves_every_row_as_far(tmp_path):
    base, tuned = two("bert", tmp_path)
    name = names_of(base, GraftPart("mlp", 1))[0]
    ours = dict(base.trunk.named_parameters())[name].detach().clone()
    theirs = trunk_state(tuned)[name]
    with grafted(base, trunk_state(tuned), {name: None}, 3):
        moved = dict(base.trunk.named_parameters())[name].detach() - ours
    torch.testing.assert_close(moved.norm(dim=-1), (theirs - ours).norm(dim=-1), rtol=1e-4, atol=1e-6)
    assert float((moved * (theirs - ours)).sum() / (theirs - ours).square().sum()) < 0.5


@pytest.mark.parametrize("kind", ["gpt2", "bert", "llama"])
def test_a_heads_random_graft_moves_its_weights_as_far(kind, tmp_path, monkeypatch):
    base, tuned = two(kind, tmp_path)
    found = grafts_of(base, tuned)
    seen = {}

    def watch(model, donor, rows, seed=None):
        seen.update(donor)
        return grafted(model, donor, rows, seed)

    monkeypatch.setattr("tunescope.lenses.grafting.runs.grafted", watch)
    answers = found.answers([Run("one", "head", 1, 2, control="random"), Run("one", "head", 1, 2)])
    assert np.abs(answers.margin[:, 0] - answers.margin[:, 1]).max() > 1e-3
    assert np.abs(answers.margin[:, 0] - found.ends.margin[:, 0]).max() > 1e-3
    ours, theirs = found.states["base"], found.states["tuned"]
    matrices = {name: value for name, value in seen.items() if value.dim() == 2}
    assert len(matrices) >= 1
    for name, value in matrices.items():
        axis = 0 if kind == "gpt2" else 1
        moved, wanted = (value - ours[name]).norm(dim=axis), (theirs[name] - ours[name]).norm(dim=axis)
        torch.testing.assert_close(moved, wanted, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(value, theirs[name])


@pytest.mark.parametrize(("kind", "layer", "head"), [("gpt2", 1, 2), ("bert", 2, 1)])
def test_the_planted_changed_head_is_found_and_nothing_else(kind, layer, head, tmp_path):
    changed_head_models(kind, layer, head, tmp_path)
    base, tuned = load(str(tmp_path / "base")), load(str(tmp_path / "tuned"))
    subject = make_subject(base, tuned, planted_rows(), base_head="tuned")
    options = GraftOptions(rows=ROWS, random_control=True, weight_rows=(0.05, 1.0))
    table, _ = run(subject, options)
    real = table.filter((table["control"] == "none") & (table["metric"] == "recovered_margin"))
    single = real.filter(real["scope"] == "one")
    heads = single.filter(single["site"] == "head_out").sort("value", descending=True)
    assert (heads["layer"][0], heads["head"][0]) == (layer, head)
    assert heads["value"][0] == pytest.approx(1, abs=1e-5)
    assert (heads["value"][1:] == 0).all()  # exactly
    assert len(heads) == 12
    parts = dict(zip(single["component"], single["value"], strict=True))
    for name, value in parts.items():
        own = name in (f"L{layer}.block", f"L{layer}.attention", f"L{layer}H{head}")
        assert value == (pytest.approx(1, abs=1e-5) if own else 0), name
    curve = real.filter(real["scope"] == "up_to_here").sort("layer", nulls_last=False)["value"].to_list()
    assert curve == pytest.approx([0] * (layer + 1) + [1] * (3 - layer), abs=1e-5)
    tail = real.filter(real["scope"] == "from_here").sort("layer")["value"].to_list()
    assert tail == pytest.approx([1] * (layer + 1) + [0] * (2 - layer), abs=1e-5)
    sets = table.filter((table["scope"] == "greedy") & (table["metric"] == "recovered_accuracy"))
    assert sets["component"].to_list() == [f"L{layer}.attention"]
    assert sets["picked"].to_list() == [True]
    assert sets["value"][0] == pytest.approx(1)
    assert sets["n"][0] < len(subject.draw(ROWS))  # shown on the other half
    random = table.filter(
        (table["control"] == "random") & (table["metric"] == "recovered_margin") & (table["scope"] == "one")
    )
    by_chance = random.filter(random["component"] == f"L{layer}H{head}")["value"][0]
    assert by_chance < 0.5


def test_models_that_cannot_be_grafted_are_refused_with_both_shapes(tmp_path):
    base, tuned = two("bert", tmp_path)
    deeper = load(str(tiny_folder("bert", tmp_path / "deeper", layers=4)))
    with pytest.raises(
        ModelError, match=r"base is BERT with 3 layers of 4 heads.*tuned is BERT with 4 layers"
    ):
        require_same_shape(base, deeper)
    with pytest.raises(LensError, match="arm: Models of two shapes cannot be patched into one another"):
        run(make_subject(base, deeper), GraftOptions(rows=ROWS))
    with pytest.raises(SiteError, match=r"L7.mlp: layer 7 is outside the model; its layers are 0 to 2"):
        names_of(base, GraftPart("mlp", 7))
    with pytest.raises(LensError, match="heads are too many"):
        run(make_subject(base, tuned), GraftOptions(rows=ROWS, smallest=("head",)))


def test_one_and_the_same_model_gives_nothing_and_says_so(tmp_path):
    base, same = two("gpt2", tmp_path, seed=0)
    subject = make_subject(base, same)
    table, _ = run(subject, GraftOptions(rows=ROWS))
    assert any("same weights outside the head" in note for note in subject.notes)
    shares = table.filter(table["metric"].is_in(["recovered_margin", "recovered_accuracy", "lost_margin"]))
    assert shares.height
    assert shares["value"].is_null().all()
    assert shares["note"].str.contains("denominators sum to 0").all()
    assert (table.filter(table["metric"] == "gain_margin")["value"] == 0).all()


def test_padding_and_batch_mates_do_not_matter(tmp_path):
    base, tuned = two("bert", tmp_path)
    found = grafts_of(base, tuned)
    runs = [*single_parts(base, ("block", "head")), Run("from_here", "block", 1)]
    together = found.answers(runs)
    for row in (0, 7):
        alone = found.on(np.array([row])).answers(runs)
        np.testing.assert_allclose(alone.margin[0], together.margin[row], atol=2e-5)


def test_a_nan_names_its_block_and_row_in_patches_and_grafts(tmp_path):
    base, tuned = two("bert", tmp_path)
    with torch.no_grad():
        tuned.trunk.encoder.layer[1].output.dense.bias[3] = float("nan")
    named = r"The residual stream behind block 1 is not finite for row row-\d+"
    with pytest.raises(LensError, match=named):
        run(make_subject(base, tuned), GraftOptions(rows=ROWS))
    with pytest.raises(LensError, match=named):
        patching_cross.run(make_subject(base, tuned), patching_cross.CrossOptions(rows=ROWS))
    options = patching.PatchingOptions(rows=ROWS, pairs={"kind": "rows"})
    with pytest.raises(LensError, match=named):
        patching.run(make_subject(tuned, tuned, base_head="none"), options)
