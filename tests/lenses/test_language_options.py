"""What the ablation's options mean for a language model: directions, a screen, listed rows, an interruption."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch
from interrupting import check_sweep_goes_on
from subjects import make_rows, splits_of

from tiny import tiny_folder
from tunescope.capture import Edit, Site, editing
from tunescope.data.batches import collate
from tunescope.errors import LensError
from tunescope.lenses import LENSES, LensRows, Subject, look
from tunescope.lenses.ablation import screen as screening
from tunescope.lenses.ablation import sweep as sweeping
from tunescope.lenses.ablation.components import every
from tunescope.lenses.ablation.options import AblationOptions
from tunescope.lenses.ablation.replacement import Statistics, stored_site
from tunescope.lenses.language import ablation
from tunescope.lenses.language.ablation import METRIC
from tunescope.lenses.language.screen import log_likelihoods_of
from tunescope.models.language import load_language_model
from tunescope.models.questions import questions
from tunescope.progress import SILENT

ROWS = {"split": "validation", "n": 12}
SMALL = {"rows": ROWS, "reference_rows": 8, "edits": ["zero"], "random_control": False}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("language options")
    kinds = ("gpt2", "bert", "llama")
    return {kind: str(tiny_folder(kind, base / kind, language=True, layers=2)) for kind in kinds}


def subject_of(model, **options):
    return Subject("arm", None, model, model, "own", splits_of(model, make_rows()), **options)


def losses(model, ids, targets):
    """The mean log-probability of the asked tokens of one row, by a full pass."""
    with torch.no_grad():
        logits = torch.log_softmax(model.head(model.hidden(**ids))[0], -1)
    asked = targets[0] >= 0
    return float(logits[asked].gather(-1, targets[0][asked][:, None]).mean())


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_a_direction_from_a_file_is_taken_out_of_the_stream(kind, folders, tmp_path):
    model = load_language_model(folders[kind])
    raw = np.random.default_rng(0).normal(size=(2, model.width))
    np.save(tmp_path / "two.npy", raw)
    options = {
        **SMALL,
        "components": [],
        "directions": {"two": {"layer": 0, "file": str(tmp_path / "two.npy")}},
    }
    subject = subject_of(model)
    output = look(subject, [("ablation", options)], LENSES)[0]
    shown = output.examples.filter((pl.col("component") == "two") & (pl.col("model") == "tuned"))
    rows = questions(model, subject.draw(LensRows(**ROWS), labelled=False), subject.sampling_seed)
    found = dict(zip(shown["row_id"], shown[METRIC], strict=True))
    basis = torch.as_tensor(np.linalg.svd(raw, full_matrices=False)[2], dtype=torch.float32)
    cut = Edit(Site("resid_post", 0), lambda old: old - old @ basis.T @ basis)
    for index in range(0, len(rows), 4):
        inputs = collate(rows.tokens, np.array([index])).inputs()
        targets = rows.batch([index], inputs["input_ids"].shape[1])
        with editing(model, [cut]):
            after = losses(model, inputs, targets)
        effect = after - losses(model, inputs, targets)
        assert abs(effect) > 1e-4
        assert found[rows.rows.row_ids[index]] == pytest.approx(effect, abs=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_the_screens_estimates_are_exact_to_first_order(kind, folders):
    """A change scaled down to nothing has the effect on the loss that its gradient says."""
    model = load_language_model(folders[kind])
    subject = subject_of(model)
    rows = questions(model, subject.draw(LensRows(**ROWS), labelled=False), 0)
    variants = every(model, ("heads", "mlp"), "noise")
    known = Statistics()
    for variant in variants:
        site = stored_site(variant.parts[0])
        shape = (model.n_heads, model.width // model.n_heads) if site.name == "head_z" else (model.width,)
        known.deviation[site] = 1e-3 * torch.ones(shape)

    def answers(index, stored):
        return ablation.Answers(model, rows.batch(index, stored.length), stored.values["resid_post"][-1])

    sweep = sweeping.Sweep(model, variants, known, 3, answers=answers)
    with SILENT.task("", 1) as task:
        found = screening.estimates(sweep, rows.tokens, task, log_likelihoods_of(model, rows))
        exact = np.empty((len(rows), len(variants)))
        for index, clean, changed in sweep.run(rows.tokens, task):
            exact[index] = (changed[..., 0] - clean[None, :, 0]).T
    scale = np.abs(exact).max()
    assert scale > 1e-4
    np.testing.assert_allclose(found[0], exact, atol=0.03 * scale)


def test_a_screen_passes_on_what_it_ranks_first_and_removal_still_knows_every_head(folders):
    model = load_language_model(folders["llama"])
    removal = {"of": "heads", "steps": 2, "random_orders": 1}
    options = {**SMALL, "components": ["heads", "mlp"], "removal": removal}
    whole = look(subject_of(model), [("ablation", options)], LENSES)[0].table
    subject = subject_of(model)
    few = look(subject, [("ablation", {**options, "screen": {"verify": 3}})], LENSES)[0].table
    assert any("only the 3 best were run exactly" in note for note in subject.notes)
    is_effect = (
        (pl.col("metric") == METRIC) & (pl.col("control") == "none") & (pl.col("model") == "tuned")
        & (pl.col("scope") == "one")
    )  # fmt: skip
    own, all_of_them = few.filter(is_effect), whole.filter(is_effect)
    assert (own.height, all_of_them.height) == (3, 2 * 4 + 2)
    same = own.join(all_of_them, on="component", suffix="_all")
    np.testing.assert_allclose(same["value"], same["value_all"], atol=1e-6)
    curve = pl.col("scope") == "removal"
    np.testing.assert_allclose(few.filter(curve)["value"], whole.filter(curve)["value"], atol=1e-6)
    checked = look(
        subject_of(model), [("ablation", {**options, "screen": {"verify": 3, "check": True}})], LENSES
    )[0].table
    sizes = dict(zip(all_of_them["component"], np.abs(all_of_them["value"]), strict=True))
    missed = max((name for name in sizes if name not in set(own["component"])), key=lambda name: sizes[name])
    worst = checked.filter(pl.col("metric") == "screen_worst_miss").row(0, named=True)
    assert (worst["component"], abs(worst["value"])) == (missed, pytest.approx(sizes[missed], abs=1e-6))


def test_rows_may_be_listed_and_need_no_label(folders, tmp_path):
    model = load_language_model(folders["gpt2"])
    splits = splits_of(model, make_rows())
    splits["validation"] = dataclasses.replace(
        splits["validation"], labels=np.full(len(splits["validation"]), -1)
    )
    subject = Subject("arm", None, model, model, "own", splits)
    wanted = splits["validation"].row_ids[3:9]
    (tmp_path / "ids.txt").write_text("\n".join(wanted))
    options = {**SMALL, "components": ["mlp"], "sample": {"kind": "ids", "ids": str(tmp_path / "ids.txt")}}
    output = look(subject, [("ablation", options)], LENSES)[0]
    assert set(output.examples["row_id"]) == set(wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"as_published": "sadness"}, "as_published .* no classes: it reads the probability of one class"),
        (
            {"sample": {"kind": "most_confident"}},
            "sample .* no classes: its rows are chosen by the predicted",
        ),
        (
            {"edits": ["resample_other_class"]},
            "resample_other_class .* no classes: its donors are of another",
        ),
        (
            {"directions": {"x": {"layer": 0, "classes": True}}},
            "'x' .*[(]a direction from a file is possible",
        ),
    ],
)
def test_what_only_classes_give_a_meaning_is_refused_with_the_reason(options, message, folders):
    subject = subject_of(load_language_model(folders["gpt2"]))
    with pytest.raises(LensError, match=message):
        look(subject, [("ablation", {**SMALL, **options})], LENSES)


def test_a_sweep_that_does_not_fit_says_what_to_change(folders):
    subject = subject_of(load_language_model(folders["gpt2"]))
    with pytest.raises(
        LensError, match=r"more than memory_gb: 1e-05 allows\.\nNext: Raise the ablation's memory_gb"
    ):
        look(subject, [("ablation", {**SMALL, "memory_gb": 1e-5})], LENSES)


def test_an_interrupted_sweep_goes_on_where_it_was(folders, tmp_path, monkeypatch):
    model = load_language_model(folders["gpt2"])
    options = AblationOptions(**{**SMALL, "components": ("heads",), "tokens_at_once": 64})
    check_sweep_goes_on(
        monkeypatch,
        sweeping,
        lambda folder: ablation.run(subject_of(model, unfinished=folder), options)[0],
        tmp_path / "unfinished",
        shared=2,  # base and tuned are one model here: what one has done the other finds
    )
