"""Lenses on language models: the exact sweep against full passes, the logit lens and shares against transformers."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from subjects import make_rows, splits_of
from torch.nn import functional

from tiny import FAMILIES, tiny_folder
from tunescope.capture import Site, constant, editing, read, zero
from tunescope.data.batches import collate
from tunescope.errors import LensError, SiteError
from tunescope.lenses import LENSES, LensRows, Subject, look
from tunescope.lenses.ablation.components import group
from tunescope.lenses.ablation.options import AblationOptions
from tunescope.lenses.ablation.table import halves
from tunescope.lenses.language.ablation import METRIC, language_effects
from tunescope.lenses.language.direct import direct_tokens
from tunescope.models import load
from tunescope.models.language import load_language_model
from tunescope.models.questions import questions
from tunescope.progress import SILENT

ROWS = {"split": "validation", "n": 24}
SMALL = {"rows": ROWS, "reference_rows": 8}
SWEPT = ("gpt2", "gpt_neox", "llama", "qwen3", "bert")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("language")
    made = {kind: str(tiny_folder(kind, base / kind, language=True, layers=2)) for kind in FAMILIES}
    made["llama tuned"] = str(tiny_folder("llama", base / "tuned", language=True, layers=2, seed=1))
    made["llama deep"] = str(tiny_folder("llama", base / "deep", language=True, layers=3))
    return made


def subject_of(base, tuned, **options):
    return Subject("arm", None, base, tuned, "own", splits_of(tuned, make_rows()), **options)


def losses(model, inputs, targets):
    """Loss, answers and log-probabilities per asked token, from a full pass and PyTorch's own loss."""
    with torch.no_grad():
        logits = model.head(model.hidden(**inputs))[0]
    asked = targets[0] >= 0
    return (
        functional.cross_entropy(logits[asked], targets[0][asked], reduction="mean"),
        torch.log_softmax(logits[asked], -1),
    )


@pytest.mark.parametrize("kind", SWEPT)
def test_the_sweep_equals_full_passes_with_edits(kind, folders):
    model = load_language_model(folders[kind])
    splits = splits_of(model, make_rows(24))
    rows = questions(model, splits["validation"], 0)
    options = AblationOptions.model_validate(
        {**SMALL, "components": ["heads", "attention", "mlp", "block"], "random_control": False,
         "also": ["L1N3-9", "L0D4", "T0"], "tokens_at_once": 64}
    )  # fmt: skip
    reference = questions(model, splits["train"], 0).tokens
    with SILENT.task("", 1) as task:
        found = language_effects(model, rows, reference, options, 0, task)
    means = {
        site: torch.cat([
            read(model, [site], collate(reference, np.array([i])).inputs())[site][0] for i in range(len(reference))
        ]).mean(0)
        for site in (Site("mlp_out", 0), Site("attn_out", 1))
    }  # fmt: skip
    tested = {
        ("L0H2", "zero"): [zero(Site("head_out", 0), (2,))],
        ("L1H3", "zero"): [zero(Site("head_out", 1), (3,))],
        ("L1.attention", "zero"): [zero(Site("attn_out", 1))],
        ("L0.block", "zero"): [zero(Site("attn_out", 0)), zero(Site("mlp_out", 0))],
        ("L1.block", "zero"): [zero(Site("attn_out", 1)), zero(Site("mlp_out", 1))],
        ("L0.mlp", "mean"): [constant(Site("mlp_out", 0), means[Site("mlp_out", 0)])],
        ("L1.attention", "mean"): [constant(Site("attn_out", 1), means[Site("attn_out", 1)])],
    }
    column = {(one.name, one.edit): i for i, one in enumerate(found.variants) if one.control == "none"}
    largest = 0.0
    for index in range(0, len(rows), 3):
        inputs = collate(rows.tokens, np.array([index])).inputs()
        targets = rows.batch([index], inputs["input_ids"].shape[1])
        clean, before = losses(model, inputs, targets)
        assert found.clean[index] == pytest.approx(-float(clean), abs=1e-5)
        for key, edits in tested.items():
            with editing(model, edits):
                changed, after = losses(model, inputs, targets)
            place = column[key]
            assert found.values[METRIC][index, place] == pytest.approx(float(clean - changed), abs=2e-5), key
            kl = float((before.exp() * (before - after)).sum(-1).mean())
            assert found.values["kl"][index, place] == pytest.approx(kl, abs=2e-5)
            flip = float((before.argmax(-1) != after.argmax(-1)).float().mean())
            assert found.values["flip"][index, place] == pytest.approx(flip, abs=1e-6)
            largest = max(largest, abs(float(clean - changed)))
    assert largest > 0.05
    no_op = [i for i, one in enumerate(found.variants) if one.control == "no_op"]
    assert np.abs(found.values[METRIC][:, no_op]).max() < 1e-5


@pytest.mark.parametrize("kind", FAMILIES)
def test_shares_sum_to_the_true_tokens_contrast(kind, folders):
    model = load_language_model(folders[kind])
    rows = questions(model, splits_of(model, make_rows())["validation"], 0)
    index = np.arange(6)
    inputs = collate(rows.tokens, index).inputs()
    targets = rows.batch(index, inputs["input_ids"].shape[1])
    names = [rows.rows.row_ids[i] for i in index]
    found = direct_tokens(model, inputs, targets, names, 0)
    with torch.no_grad():
        logits = model.head(model.hidden(**inputs)).double()
    for row in index:
        asked = targets[row] >= 0
        own = logits[row][asked].gather(-1, targets[row][asked][:, None])[:, 0]
        rest = (logits[row][asked].sum(-1) - own) / (logits.shape[-1] - 1)
        expected = float((own - rest).mean())
        assert float(found.logits[row, 0]) == pytest.approx(expected, abs=1e-5)
        assert float(found.shares[row].sum()) == pytest.approx(expected, abs=1e-5)
    assert found.shares[:, :-1].abs().max() > 0.05
    alone = direct_tokens(model, collate(rows.tokens, index[2:3]).inputs(), targets[2:3, :], names[2:3], 0) \
        if inputs["input_ids"].shape[1] == len(rows.tokens.input_ids[2]) else None  # fmt: skip
    if alone is not None:
        torch.testing.assert_close(alone.shares[0], found.shares[2], atol=1e-5, rtol=0)


def test_the_lenses_of_two_language_models(folders):
    base, tuned = load_language_model(folders["llama"]), load_language_model(folders["llama tuned"])
    subject = subject_of(base, tuned)
    wanted = [
        ("ablation", SMALL), ("logit_lens", {"rows": ROWS}), ("attribution_direct", {"rows": ROWS}),
        ("cka", {"rows": ROWS, "block": 8}), ("spread", {"rows": ROWS}), ("similarity", {"rows": ROWS, "cap": 20}),
    ]  # fmt: skip
    found = {one.lens: one for one in look(subject, wanted, LENSES)}
    assert set(found) == {name for name, _ in wanted}
    ablated = found["ablation"].table
    assert set(ablated["metric"].unique()) == {METRIC, "kl", "flip"}
    heads = ablated.filter(
        (pl.col("metric") == METRIC) & (pl.col("site") == "head_out") & (pl.col("control") == "none")
    )
    counts = heads.group_by("model").len().sort("model")
    assert counts["model"].to_list() == ["base", "tuned", "tuned_minus_base"]
    assert counts["len"].to_list() == [2 * 4 * 2] * 3  # layers, heads, edits
    both = heads.filter(pl.col("edit") == "zero").pivot(on="model", index="component", values="value")
    np.testing.assert_allclose(both["tuned_minus_base"], both["tuned"] - both["base"], atol=1e-9)
    sentences = [one.sentence for one in found["ablation"].findings]
    assert any("changes the tuned model's loss by" in one for one in sentences)
    assert any("Tuning changed the role of" in one for one in sentences)
    assert "nats per token" in found["ablation"].provenance["what"]
    direct = found["attribution_direct"].table
    assert direct.filter(pl.col("metric") == "sum_gap")["value"].max() < 1e-5
    assert any("true token" in one.sentence for one in found["attribution_direct"].findings)


def test_the_logit_lens_ends_at_the_models_own_loss_and_its_controls_are_closed_forms(folders):
    base, tuned = load_language_model(folders["qwen3"]), load_language_model(folders["qwen3"])
    subject = subject_of(base, tuned)
    table = look(subject, [("logit_lens", {"rows": ROWS})], LENSES)[0].table
    rows = questions(tuned, subject.draw(LENSES["logit_lens"].options.model_validate({"rows": ROWS}).rows,
                                         labelled=False), 0)  # fmt: skip
    every = np.concatenate([one[one >= 0] for one in rows.targets])
    share = np.bincount(every, minlength=tuned.vocabulary) / len(every)
    per_row, hits, dealt, early = [], [], [], []
    for index in range(len(rows)):
        inputs = collate(rows.tokens, np.array([index])).inputs()
        targets = rows.batch([index], inputs["input_ids"].shape[1])
        loss, logs = losses(tuned, inputs, targets)
        asked = targets[0][targets[0] >= 0]
        per_row.append(-float(loss))
        hits.append(float((logs.argmax(-1) == asked).float().mean()))
        dealt += (logs.double().numpy() @ share).tolist()
        site = Site("resid_post", 0)
        stream = read(tuned, [site], inputs)[site][0][targets[0] >= 0]
        with torch.no_grad():
            here = torch.log_softmax(tuned.head(tuned.trunk.norm(stream)), -1)
        early.append(float((logs.exp() * (logs - here)).sum(-1).mean()))
    mine = table.filter((pl.col("model") == "tuned") & (pl.col("site") == "resid_post"))

    def value(metric, layer, column="value"):
        return mine.filter((pl.col("metric") == metric) & (pl.col("layer") == layer))[column][0]

    assert value("log_likelihood", 1) == pytest.approx(np.mean(per_row), abs=1e-5)
    assert value("accuracy", 1) == pytest.approx(np.mean(hits), abs=1e-9)
    assert value("log_likelihood", 1, "control") == pytest.approx(np.mean(dealt), abs=1e-5)
    assert value("kl_to_final", 1) == pytest.approx(0.0, abs=1e-9)
    assert value("kl_to_final", 0) == pytest.approx(np.mean(early), abs=1e-5)
    assert value("kl_to_final", 0) > 0.01


def test_removal_curves_end_where_all_heads_are_gone(folders):
    base, tuned = load_language_model(folders["llama"]), load_language_model(folders["llama tuned"])
    subject = subject_of(base, tuned)
    removal = {"of": "heads", "steps": 3, "random_orders": 1}
    options = {
        **SMALL,
        "components": ["heads"],
        "edits": ["zero"],
        "removal": removal,
        "random_control": False,
    }
    output = look(subject, [("ablation", options)], LENSES)[0]
    curves = output.table.filter((pl.col("scope") == "removal") & (pl.col("metric") == METRIC))
    assert set(curves["order"]) == {"strongest_first", "weakest_first", "random 0"}
    assert set(curves["step"]) == {1, 4, 8}
    rows = questions(tuned, subject.draw(LensRows(**ROWS), labelled=False), subject.sampling_seed)
    _, second = halves(rows.rows, subject.sampling_seed)
    reference = questions(tuned, subject.tokens("train"), subject.sampling_seed).tokens
    parsed = AblationOptions.model_validate(options)
    every_head = [group(tuned, "all", ["L0H0-3", "L1H0-3"], "zero")]
    for which, model in (("base", base), ("tuned", tuned)):
        with SILENT.task("", 1) as task:
            found = language_effects(model, rows.take(second), reference, parsed, 0, task, every_head)
        last = curves.filter((pl.col("model") == which) & (pl.col("step") == 8))
        assert last["value"].to_list() == pytest.approx([float(found.values[METRIC].mean())] * 3, abs=1e-5)
        assert last["n"].to_list() == [len(second)] * 3
    # The head that comes first is the one whose loss costs most on the first half; its point is of the second half.
    names = [rows.rows.row_ids[index] for index in second]
    own = output.examples.filter((pl.col("model") == "tuned") & (pl.col("site") == "head_out"))
    halved = own.with_columns(pl.col("row_id").is_in(names).alias("shown")).group_by("component", "shown")
    means = halved.agg(pl.col(METRIC).mean())
    picked = means.filter(~pl.col("shown")).sort(METRIC)["component"][0]
    expected = means.filter(pl.col("shown") & (pl.col("component") == picked))[METRIC][0]
    first = curves.filter((pl.col("model") == "tuned") & (pl.col("step") == 1))
    found = first.filter(pl.col("order") == "strongest_first")["value"].to_list()
    assert found == pytest.approx([expected], abs=1e-5)


def test_what_needs_classes_or_one_shape_is_refused_in_a_sentence(folders, tmp_path):
    base, tuned = load_language_model(folders["llama"]), load_language_model(folders["llama tuned"])
    subject = subject_of(base, tuned)
    for name in ("words", "dimensions", "probes", "maps"):
        with pytest.raises(LensError, match=f"The lens '{name}' needs classes, and arm is a language model"):
            look(subject, [(name, {})], LENSES)
    with pytest.raises(LensError, match="ablation: as_published cannot be used on a language model"):
        look(subject, [("ablation", {**SMALL, "as_published": "x"})], LENSES)
    deep = subject_of(load_language_model(folders["llama deep"]), tuned)
    with pytest.raises(
        LensError, match=r"3 layers x 4 heads, width 32.*2 layers.*cka, similarity, words remain"
    ):
        look(deep, [("ablation", SMALL)], LENSES)
    assert (
        len(
            look(
                deep, [("cka", {"rows": ROWS, "block": 8}), ("similarity", {"rows": ROWS, "cap": 20})], LENSES
            )
        )
        == 2
    )
    classifiers = [load(str(tiny_folder("gpt2", tmp_path / str(n), layers=n))) for n in (2, 3)]
    mixed = Subject(
        "arm", 0, *classifiers, "tuned", splits_of(classifiers[1], make_rows()), texts=make_rows().frame
    )
    with pytest.raises(LensError, match="differ in shape, so the lens 'logit_lens' cannot compare"):
        look(mixed, [("logit_lens", {"rows": ROWS})], LENSES)


def test_values_that_are_not_finite_are_named(folders):
    tuned = load_language_model(folders["llama tuned"])
    with torch.no_grad():
        tuned.trunk.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    subject = subject_of(load_language_model(folders["llama"]), tuned)
    with pytest.raises(LensError, match=r"behind block 1 is not finite for row row-"):
        look(subject, [("ablation", {**SMALL, "edits": ["zero"]})], LENSES)
    with pytest.raises(LensError, match=r"mlp_out\[1\] is NaN or infinite in \d+ of 8 rows of a batch: row-"):
        look(subject, [("ablation", SMALL)], LENSES)
    with pytest.raises(LensError, match=r"tuned: resid_post\[1\] is NaN or infinite in \d+ of \d+ rows"):
        look(subject, [("spread", {"rows": ROWS})], LENSES)
    with pytest.raises(
        LensError, match=r"resid_post\[1\] is NaN or infinite in \d+ of \d+ rows of a batch: row-"
    ):
        look(subject, [("logit_lens", {"rows": ROWS})], LENSES)
    with pytest.raises(SiteError, match=r"mlp_out\[1\] is NaN or infinite"):
        look(subject, [("attribution_direct", {"rows": ROWS})], LENSES)
