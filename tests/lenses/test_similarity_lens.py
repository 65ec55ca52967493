"""RSA, Procrustes, the bow-tie, the biased CKA and the band over seeds on tiny models."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch
from scipy.spatial import procrustes as scipy_procrustes
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from subjects import make_rows, make_subject

from tiny import DECODERS, FAMILIES, tiny_folder
from tunescope.capture import Site, read
from tunescope.data.batches import collate
from tunescope.errors import LensError
from tunescope.lenses import LENSES, LensRows, look, seed_band_findings
from tunescope.lenses.geometry import bow_tie
from tunescope.lenses.geometry.pooled import KeptRows
from tunescope.lenses.geometry.seed_band import seed_band
from tunescope.lenses.geometry.similarity import SimilarityLens, SimilarityOptions
from tunescope.lenses.reading import View
from tunescope.lenses.subject import clusters
from tunescope.models import load
from tunescope.stats.kernels import cka as reference_cka

ROWS = {"split": "validation", "n": 60}
FEW = {"rows": ROWS, "resamples": 20, "permutations": 19}
SAME = (pl.col("layer") == pl.col("layer_other")) & (pl.col("site") == pl.col("site_other"))


def models(tmp_path, kind="gpt2", layers=3, seeds=(0, 1)):
    return [
        load(str(tiny_folder(kind, tmp_path / f"{k}", seed=s, layers=layers))) for k, s in enumerate(seeds)
    ]


def one_by_one(model, tokens, site):
    rows = []
    for index in range(len(tokens)):
        batch = collate(tokens, np.array([index]))
        value = read(model, [site], batch.inputs())[site]
        rows.append(model.pool(value, batch.attention_mask)[0].numpy())
    return np.stack(rows)


def test_values_equal_scipys_on_states_read_one_row_at_a_time(tmp_path):
    base, tuned = models(tmp_path)
    subject = make_subject(base, tuned, make_rows(120))
    table = look(subject, [("similarity", {**FEW, "cap": 30})], LENSES)[0].table
    drawn = subject.draw(LensRows(**ROWS), labelled=False).take(np.arange(30))
    distinct = drawn.take(np.unique(clusters(drawn), return_index=True)[1])
    assert set(table["n"]) == {len(distinct)}
    for first, second in ((0, 0), (1, 2)):
        features = [
            one_by_one(model, distinct, Site("resid_post", layer))
            for model, layer in ((base, first), (tuned, second))
        ]
        cell = table.filter(
            (pl.col("model") == "base_tuned") & (pl.col("site") == "resid_post") & (pl.col("layer") == first)
            & (pl.col("site_other") == "resid_post") & (pl.col("layer_other") == second)
        )  # fmt: skip
        value = dict(cell.select("metric", "value").iter_rows())
        for distance in ("cosine", "correlation"):
            expected = spearmanr(*(pdist(x, distance) for x in features)).statistic
            assert value[f"rsa_{distance}"] == pytest.approx(expected, abs=1e-4)
        assert value["procrustes"] == pytest.approx(np.sqrt(1 - scipy_procrustes(*features)[2]), abs=1e-5)


@pytest.mark.parametrize("kind", FAMILIES)
def test_identical_models_are_one_everywhere_and_nothing_is_found(kind, tmp_path):
    model = models(tmp_path, kind, seeds=(0,))[0]
    output = look(make_subject(model, model), [("similarity", {**FEW, "cap": 20})], LENSES)[0]
    same = output.table.filter(SAME)
    undefined = same.filter(pl.col("value").is_null())
    assert set(undefined["site"]) == (set() if kind in DECODERS else {"embeddings"})
    assert all("every row has the same features" in note for note in undefined["note"])
    np.testing.assert_allclose(same["value"].drop_nulls(), 1.0, atol=1e-6)
    known = same.filter(pl.col("metric").str.starts_with("rsa") & pl.col("value").is_not_null())
    assert set(known["p"]) == {0.05}  # the smallest that 19 permutations allow
    assert output.findings == []


def test_a_change_in_the_last_layer_is_found_there(tmp_path):
    base, tuned = models(tmp_path, "bert", seeds=(0, 0))
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in tuned.trunk.encoder.layer[2].parameters():
            parameter.copy_(torch.randn_like(parameter))
    output = look(make_subject(base, tuned), [("similarity", {**FEW, "cap": 40})], LENSES)[0]
    across = output.table.filter(SAME & (pl.col("model") == "base_tuned"))
    for metric in ("rsa_cosine", "rsa_correlation", "rsa_whitened", "procrustes"):
        values = dict(across.filter(pl.col("metric") == metric).select("layer", "value").iter_rows())
        assert [values[0], values[1]] == pytest.approx([1, 1], abs=1e-5)
        assert values[2] < 0.9
    assert "least alike at layer 2" in output.findings[0].sentence
    assert output.findings[0].verdict == "found"


def test_batches_and_their_order_do_not_matter(tmp_path):
    base, tuned = models(tmp_path)
    subject = make_subject(base, tuned, make_rows(90))
    options = SimilarityOptions(rows=LensRows(n=50), cap=25, resamples=20, permutations=19)
    whole = look(subject, [("similarity", options.model_dump())], LENSES)[0].table
    tokens = subject.draw(options.rows, labelled=False)
    alone = SimilarityLens(subject, options, len(tokens))
    with torch.no_grad():
        for which, model in (("tuned", tuned), ("base", base)):
            for index in np.random.default_rng(0).permutation(len(tokens)):
                batch = collate(tokens, np.array([index]))
                for site, value in read(model, alone.sites(model), batch.inputs()).items():
                    view = View(
                        which,
                        model,
                        site,
                        value,
                        batch.attention_mask,
                        batch.index,
                        batch.row_ids,
                        batch.labels,
                    )
                    alone.update(view)
    np.testing.assert_allclose(
        whole["value"], alone.table()["value"], atol=2e-3
    )  # ranks of near ties may swap


def test_different_missing_and_too_few_rows_are_refused(tmp_path):
    base, tuned = models(tmp_path)
    keeper = KeptRows(3)

    def view(which, ids, ranks):
        mask = torch.ones(len(ids), 2, dtype=torch.long)
        value = torch.randn(len(ids), 2, 32)
        return View(which, base, Site("embeddings"), value, mask, np.array(ranks), ids, torch.zeros(len(ids)))

    keeper.update(view("base", ["a", "b", "z"], [0, 1, 7]))
    with pytest.raises(LensError, match=r"base:embeddings: 1 of 3 rows did not come"):
        keeper.features("base", Site("embeddings"))
    with pytest.raises(LensError, match="different rows: at place 1 'b' and 'c'"):
        keeper.update(view("tuned", ["c"], [1]))
    with pytest.raises(LensError, match="Row 0 came twice at base:embeddings"):
        keeper.update(view("base", ["a"], [0]))
    subject = make_subject(base, tuned)
    same = subject.splits["validation"]
    repeated = dataclasses.replace(same, input_ids=[same.input_ids[0]] * len(same))
    subject.splits["validation"] = repeated
    with pytest.raises(LensError, match="at least 4 rows of different texts; there are 1"):
        look(subject, [("similarity", FEW)], LENSES)


def test_the_bow_tie_is_the_one_of_the_maps_and_only_tuning_moves_it(tmp_path):
    base, tuned = models(tmp_path, layers=4, seeds=(0, 0))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in tuned.trunk.h[2].parameters():  # a new second half, carried on by the last block
            parameter.copy_(0.6 * torch.randn_like(parameter))
    subject = make_subject(base, tuned, make_rows(150))
    output = look(subject, [("cka", {"rows": ROWS, "biased": True})], LENSES)[0]
    table = output.table
    ties = table.filter(pl.col("metric").str.starts_with("bow_tie"))
    assert (
        ties.height == 4 * 2 * 3
    )  # variants, the biased one among them; plain and at equal distance; three models
    for which in ("base", "tuned"):
        cells = table.filter(
            (pl.col("metric") == "cka") & (pl.col("model") == which)
            & (pl.col("site") == "resid_post") & (pl.col("site_other") == "resid_post")
        )  # fmt: skip
        at = {(i, j): v for i, j, v in cells.select("layer", "layer_other", "value").iter_rows()}
        expected = (at[0, 1] + at[2, 3]) / 2 - (at[0, 2] + at[0, 3] + at[1, 2] + at[1, 3]) / 4
        row = ties.filter(
            (pl.col("similarity") == "cka") & (pl.col("metric") == "bow_tie") & (pl.col("model") == which)
        )
        assert row["value"].item() == pytest.approx(expected, abs=1e-12)
        assert row["low"].item() < expected < row["high"].item()
    change = ties.filter((pl.col("similarity") == "cka") & (pl.col("model") == "tuned_minus_base"))
    assert change.filter(pl.col("metric") == "bow_tie")["low"].item() > 0
    assert "Bow-tie, CKA within the two halves" in output.findings[1].sentence
    assert output.findings[1].verdict == "found"
    reverse = {"low": -0.2, "high": -0.1, "value": -0.15}
    equal = (pl.col("metric") == "bow_tie_equal_distance") & (pl.col("model") == "tuned_minus_base")
    other = table.with_columns(
        pl.when(equal).then(pl.lit(end)).otherwise(pl.col(name)).alias(name) for name, end in reverse.items()
    )
    faded = bow_tie.findings(other, subject)[0]
    assert faded.verdict == "undecided"
    assert "-0.15 [-0.20, -0.10], so it is no more than fading with distance; with" in faded.sentence
    tokens = subject.draw(LensRows(**ROWS), labelled=False)
    biased = table.filter(
        (pl.col("metric") == "cka_biased") & (pl.col("model") == "base_tuned") & SAME & (pl.col("layer") == 2)
    )["value"].item()
    features = [one_by_one(model, tokens, Site("resid_post", 2)) for model in (base, tuned)]
    assert biased == pytest.approx(reference_cka(*features, unbiased=False).value, abs=1e-5)


def test_models_of_three_layers_have_no_bow_tie_and_of_five_none_at_equal_distance(tmp_path):
    three = models(tmp_path / "three", seeds=(0, 1))
    output = look(make_subject(*three), [("cka", {"rows": ROWS})], LENSES)[0]
    assert not any("bow" in metric for metric in output.table["metric"])
    assert len(output.findings) == 1
    five = models(tmp_path / "five", layers=5, seeds=(0, 1))
    table = look(make_subject(*five), [("cka", {"rows": ROWS})], LENSES)[0].table
    none = table.filter(pl.col("metric") == "bow_tie_equal_distance")
    assert none["value"].null_count() == none.height == 9
    assert "Of 5 layers no two pairs" in none["note"][0]


def test_the_band_is_cka_between_the_tuned_models_of_two_seeds(tmp_path):
    base, first, second = models(tmp_path, seeds=(0, 0, 0))
    torch.manual_seed(2)
    with torch.no_grad():  # both seeds learn the same new last block, but for a little noise
        for model in (first, second):
            for ours, theirs in zip(
                model.trunk.h[2].parameters(), first.trunk.h[2].parameters(), strict=True
            ):
                change = torch.randn_like(ours) if model is first else 0.01 * torch.randn_like(ours)
                ours.copy_(theirs + change)
    subjects = [make_subject(base, tuned, make_rows(150)) for tuned in (first, second)]
    subjects[1].seed = 1
    options = {"rows": ROWS}
    band = seed_band(subjects[::-1], options)
    assert set(band["model"]) == {"tuned_seeds"}
    assert set(band.select("seed", "seed_other").iter_rows()) == {(0, 1)}
    direct = look(make_subject(first, second, make_rows(150)), [("cka", options)], LENSES)[0].table
    direct = direct.filter(SAME & (pl.col("model") == "base_tuned"))
    np.testing.assert_allclose(band["value"], direct["value"], atol=1e-12)
    table = pl.concat([look(subject, [("cka", options)], LENSES)[0].table for subject in subjects])
    found = seed_band_findings(table, band, "arm")[0]
    assert "more than another seed of the same recipe does at 2 of 5 places and less at 0" in found.sentence
    assert found.verdict == "found"
    alike = seed_band_findings(table, band.with_columns(low=0.0), "arm")[0]
    assert (alike.verdict, "at 0 of 5 places and less at 0;" in alike.sentence) == ("undecided", True)


def test_a_band_of_one_seed_of_two_arms_or_of_other_rows_is_refused(tmp_path):
    model = models(tmp_path, seeds=(0,))[0]
    first, second = make_subject(model, model), make_subject(model, model)
    with pytest.raises(LensError, match=r"needs two seeds or more, each once; there are \[0, 0\]"):
        seed_band([first, second])
    second.seed = 1
    with pytest.raises(LensError, match="Seeds 0 and 1 of arm would draw different rows"):
        seed_band([first, dataclasses.replace(second, sampling_seed=4)])
    with pytest.raises(LensError, match="have different train rows"):
        seed_band(
            [first, dataclasses.replace(second, splits=make_subject(model, model, make_rows(63)).splits)]
        )
    with pytest.raises(LensError, match="is of one arm; came arm, other"):
        seed_band([first, dataclasses.replace(second, arm="other")])
