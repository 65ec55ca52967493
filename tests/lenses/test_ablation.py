"""The ablation lens against a naive loop of full forward passes, and on models whose truth is known."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from subjects import make_rows, make_subject

from tiny import FAMILIES, NAMES, tiny_folder
from tunescope.capture import Site, constant, editing, read, zero
from tunescope.data.batches import batches, collate
from tunescope.evaluation.metrics import margin
from tunescope.lenses.ablation import findings as ablation_findings
from tunescope.lenses.ablation import lens as ablation
from tunescope.lenses.ablation.lens import AblationOptions
from tunescope.lenses.ablation.replacement import statistics
from tunescope.lenses.subject import LensRows
from tunescope.models import fit_probe, load
from tunescope.progress import SILENT

OPTIONS = AblationOptions(rows=LensRows(n=24), reference_rows=20)


def margins(model, tokens, edits=()):
    """One row at a time, a full forward pass each: slow and plain."""
    values, chances = [], []
    for index in range(len(tokens)):
        batch = collate(tokens, np.array([index]))
        with torch.no_grad():
            if edits:
                with editing(model, list(edits)):
                    logits = model(**batch.inputs())
            else:
                logits = model(**batch.inputs())
        values.append(float(margin(logits.double(), batch.labels)[0]))
        chances.append(float(torch.softmax(logits.double(), -1)[0, batch.labels[0]]))
    return np.array(values), np.array(chances)


def naive_mean(model, tokens, site):
    """The mean over all real tokens of all reference rows, row by row."""
    seen = []
    for index in range(len(tokens)):
        seen.append(read(model, [site], collate(tokens, np.array([index])).inputs())[site][0].double())
    return torch.cat(seen).mean(0).float()


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_effect_equals_a_naive_loop(kind, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path, layers=2)))
    subject = make_subject(model, model, base_head="none")
    table, examples = ablation.run(subject, OPTIONS)
    tokens = subject.draw(OPTIONS.rows)
    reference = subject.draw(LensRows(split="train", n=OPTIONS.reference_rows), labelled=False)
    clean, chance = margins(model, tokens)
    assert set(table["model"]) == {"tuned"}
    for layer, site, head in [
        (0, "head_out", 2),
        (1, "head_out", 0),
        (0, "attn_out", None),
        (1, "mlp_out", None),
    ]:
        where = Site("head_z" if site == "head_out" else site, layer)
        heads = None if head is None else (head,)
        value = naive_mean(model, reference, where)
        edits = {
            "zero": zero(where, heads),
            "mean": constant(where, value if head is None else value[[head]], heads),
        }
        for name, edit in edits.items():
            after, after_chance = margins(model, tokens, [edit])
            mine = examples.filter(
                (pl.col("site") == site) & (pl.col("layer") == layer) & (pl.col("edit") == name)
                & pl.col("head").eq_missing(pl.lit(head, dtype=pl.Int64))
            )  # fmt: skip
            assert mine["row_id"].to_list() == tokens.row_ids
            np.testing.assert_allclose(mine["margin_change"], after - clean, atol=2e-5)
            np.testing.assert_allclose(mine["probability_change"], after_chance - chance, atol=1e-5)
            row = table.filter(
                (pl.col("site") == site) & (pl.col("layer") == layer) & (pl.col("edit") == name)
                & pl.col("head").eq_missing(pl.lit(head, dtype=pl.Int64)) & (pl.col("control") == "none")
                & (pl.col("metric") == "margin_change") & pl.col("class").is_null()
            ).row(0, named=True)  # fmt: skip
            assert row["value"] == pytest.approx(float((after - clean).mean()), abs=2e-5)
            assert row["low"] <= row["value"] <= row["high"]
            assert row["n"] == len(tokens)


def test_a_no_op_changes_nothing_and_a_random_direction_has_the_norm_it_replaces(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    subject = make_subject(model, model, base_head="none")
    table, _ = ablation.run(subject, OPTIONS)
    no_op = table.filter(pl.col("control") == "no_op")
    assert no_op.height == 2 * model.n_layers
    assert no_op["value"].abs().max() < 1e-5
    random = table.filter((pl.col("control") == "random") & (pl.col("metric") == "margin_change"))
    assert random.height == model.n_layers * (model.n_heads + 2)
    assert random["value"].abs().max() > 1e-3


def test_chunks_and_batches_do_not_change_the_result(tmp_path):
    model = load(str(tiny_folder("bert", tmp_path)))
    subject = make_subject(model, model, base_head="none")
    whole, _ = ablation.run(subject, OPTIONS)
    small, _ = ablation.run(subject, OPTIONS.model_copy(update={"tokens_at_once": 64}))
    np.testing.assert_allclose(whole["value"], small["value"], atol=1e-5)


def test_a_shuffled_file_gives_the_same_result(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    rows = make_rows()
    shuffled = type(rows)(rows.frame.sample(fraction=1, shuffle=True, seed=1), rows.labels, {})
    first, _ = ablation.run(make_subject(model, model, rows, base_head="none"), OPTIONS)
    second, _ = ablation.run(make_subject(model, model, shuffled, base_head="none"), OPTIONS)
    np.testing.assert_allclose(first["value"], second["value"], atol=1e-5)


def test_base_beside_tuned_and_their_paired_difference(tmp_path):
    base, tuned = (
        load(str(tiny_folder("bert", tmp_path / str(s), seed=s, names=list(NAMES)))) for s in (0, 1)
    )
    rows = make_rows()
    subject = make_subject(base, tuned, rows)
    subject.base = fit_probe(base, subject.splits["train"])
    table, _ = ablation.run(subject, OPTIONS)
    effects = table.filter(
        (pl.col("control") == "none") & (pl.col("metric") == "margin_change") & pl.col("class").is_null()
    )
    assert set(effects["model"]) == {"base", "tuned", "tuned_minus_base"}
    keys = ["site", "layer", "head", "edit"]
    wide = effects.pivot("model", index=keys, values="value")
    np.testing.assert_allclose(wide["tuned"] - wide["base"], wide["tuned_minus_base"], atol=1e-9)
    assert set(table.filter(pl.col("model") == "base")["base_head"]) == {"probe"}
    per_class = table.filter(pl.col("class").is_not_null() & (pl.col("model") == "tuned"))
    assert set(per_class["class"]) == {"bad", "fine", "good"}
    named = {f.metric for f in ablation_findings.findings(table, subject)}
    assert named == {"margin_change", "margin_change_difference"}


def test_an_untouched_trunk_has_no_changes_to_tell(tmp_path):
    model = load(str(tiny_folder("bert", tmp_path)))
    subject = make_subject(model, model)
    subject.base = fit_probe(model, subject.splits["train"])
    assert subject.same_trunk
    table, _ = ablation.run(subject, OPTIONS)
    assert not [
        f for f in ablation_findings.findings(table, subject) if f.metric == "margin_change_difference"
    ]


def test_means_are_over_real_tokens_of_any_batching(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    tokens = make_subject(model, model).splits["train"]
    assert len({len(batch.row_ids) for batch in batches(tokens)}) >= 1
    sites = [Site(name, layer) for layer in range(model.n_layers) for name in ("attn_out", "head_z")]
    with SILENT.task("", 1) as task:
        found = statistics(model, tokens, sites, True, task)
    for site in sites:
        expected = naive_mean(model, tokens, site)
        torch.testing.assert_close(found.mean[site], expected, atol=1e-5, rtol=1e-4)
    at_first = [
        read(model, [sites[0]], collate(tokens, np.array([i])).inputs())[sites[0]][0, 0]
        for i in range(len(tokens))
    ]
    torch.testing.assert_close(
        found.by_position[sites[0]][0], torch.stack(at_first).mean(0), atol=1e-5, rtol=1e-4
    )
