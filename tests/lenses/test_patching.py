"""Patching between texts and across models: planted heads are found, laws hold, bad pairs are refused by name."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from subjects import make_rows, make_subject
from test_planted_head import planted_rows

from tiny import tiny_folder
from tunescope.capture.patch import PatchPlace
from tunescope.capture.sites import Site
from tunescope.errors import LensError
from tunescope.evaluation.predict import logits_of
from tunescope.lenses import LENSES, LensRows, look
from tunescope.lenses.patching.cross import CrossOptions
from tunescope.lenses.patching.cross import run as run_cross
from tunescope.lenses.patching.lens import PatchingOptions, run
from tunescope.lenses.patching.mediation import MediationOptions, mediation
from tunescope.lenses.patching.pairs import Pairs, pairs_of
from tunescope.lenses.patching.runs import PatchRequest, pair_margins, unrelated_texts
from tunescope.lenses.patching.words import replacements, telling_words
from tunescope.models import load
from tunescope.planted.changed import changed_head_models
from tunescope.planted.decisive import BAD, GOOD, planted_head_model
from tunescope.seeds import derive_seed

ROWS = LensRows(n=40)


def planted(kind, layer, head, tmp_path):
    truth = planted_head_model(kind, layer, head, tmp_path)
    model = load(str(tmp_path))
    rows = planted_rows()
    texts = rows.frame.select("row_id", "text")
    return make_subject(model, model, rows, base_head="none", texts=texts), truth


def of(table, **wanted):
    for column, value in wanted.items():
        table = table.filter(pl.col(column).is_null() if value is None else pl.col(column) == value)
    return table


@pytest.mark.parametrize(("kind", "layer", "head"), [("gpt2", 1, 2), ("bert", 2, 1)])
def test_patching_finds_the_planted_head_and_where_it_reads_and_writes(kind, layer, head, tmp_path):
    subject, truth = planted(kind, layer, head, tmp_path)
    options = PatchingOptions(rows=ROWS, sites=("resid_pre", "attn_out", "mlp_out", "head_out"))
    table, examples = run(subject, options)
    for way, metric in (("denoising", "recovered"), ("noising", "lost")):
        own = of(table, direction=way, metric=metric, estimator="ratio_of_sums", control="none")
        heads = of(own, site="head_out")
        for one in heads.iter_rows(named=True):
            decisive = (one["layer"], one["head"]) == (layer, head)
            assert one["value"] == (pytest.approx(1, abs=1e-4) if decisive else 0), one
        assert (of(own, site="mlp_out")["value"] == 0).all()
        stream = {
            (r["layer"], r["position"]): r["value"] for r in of(own, site="resid_pre").iter_rows(named=True)
        }
        for depth in range(3):
            # Until the head has read the word, all is at the word; then all is at the pooled token.
            before = depth <= layer
            assert stream[depth, "at"] == pytest.approx(1, abs=1e-4) if before else stream[depth, "at"] < 0.5
            # GPT-2's changed word may itself be the pooled token.
            assert (
                stream[depth, "pooled"] < 0.5
                if before
                else stream[depth, "pooled"] == pytest.approx(1, abs=1e-4)
            )
            assert stream[depth, "before"] == 0 or kind == "bert"
        for control, value in (("no_op", 0), ("everything", 1)):
            shown = of(table, direction=way, estimator="ratio_of_sums", control=control)
            assert shown["value"].to_list() == pytest.approx([value], abs=1e-4)
        mean = of(table, direction=way, estimator="mean_of_ratios", control="none", layer=layer, head=head)
        assert mean["value"].to_list() == pytest.approx([1.0], abs=1e-4)
        assert mean["low"][0] == pytest.approx(1, abs=1e-4)
    picked = table.filter(pl.col("pick") == "strongest head")
    assert set(of(picked, control="split_half")["head"].to_list()) == {head}
    shown = dict(zip(examples["pair"], examples["margin_clean"], strict=True))
    texts = dict(subject.texts.iter_rows())
    labels = dict(zip(examples["pair"], examples["class"], strict=True))
    for pair, value in list(shown.items())[:5]:
        label = ("negative", "positive").index(labels[pair])
        assert value == pytest.approx(truth.margin(texts[pair], label), abs=1e-4)


def test_words_that_tell_a_class_come_from_train_rows_alone(tmp_path):
    subject, _ = planted("gpt2", 1, 2, tmp_path)
    train = subject.tokens("train")
    found = telling_words(dict(subject.texts.iter_rows()), train, 2)
    assert set(found[0]) <= set(BAD)
    assert set(found[1]) <= set(GOOD)
    assert found[0]
    assert found[1]
    pairs = pairs_of(subject, Pairs(), ROWS)
    for change, clean, corrupt in zip(
        pairs.changes, pairs.clean.input_ids, pairs.corrupt.input_ids, strict=True
    ):
        old, new = change.split(" > ")
        assert (old in GOOD) != (new in GOOD)
        assert int((np.asarray(clean) != np.asarray(corrupt)).sum()) == 1


def test_of_possible_words_the_one_with_the_largest_gap_is_taken(tmp_path):
    subject, truth = planted("gpt2", 1, 2, tmp_path)
    texts = dict(subject.texts.iter_rows())
    chosen, random = (pairs_of(subject, Pairs(choose=how), ROWS) for how in ("largest_gap", "random"))
    assert chosen.names == random.names
    margins = []
    for pairs in (chosen, random):
        known = subject.tuned.tokenizer.batch_decode(pairs.corrupt.input_ids)
        margins.append(
            [truth.margin(text, int(label)) for text, label in zip(known, pairs.clean.labels, strict=True)]
        )
    assert all(own <= other + 1e-6 for own, other in zip(*margins, strict=True))
    telling = telling_words(texts, subject.tokens("train"), 2)
    for name, label, margin in zip(chosen.names, chosen.clean.labels, margins[0], strict=True):
        possible = replacements(
            subject.tuned.tokenizer, texts[name], int(label), telling,
            np.random.default_rng(derive_seed(subject.sampling_seed, "corrupted word", name)),
        )  # fmt: skip
        assert margin == pytest.approx(min(truth.margin(text, int(label)) for text in possible))


def test_an_unrelated_text_is_drawn_from_all_rows_and_is_neither_of_the_pair(tmp_path):
    subject, _ = planted("bert", 2, 1, tmp_path)
    pairs = pairs_of(subject, Pairs(), ROWS).take(np.array([0, 1, 2]))
    pool = subject.draw(LensRows(n=1000), labelled=False)
    places = [PatchPlace(Site("resid_pre", 0)), PatchPlace(Site("head_out", 2), (1,))]
    request = PatchRequest(places, 3, pool=pool)
    lent = unrelated_texts(pairs.corrupt, pairs.clean, request)
    logits = []
    for one, first, second in zip(lent, pairs.corrupt.input_ids, pairs.clean.input_ids, strict=True):
        tokens, row = one
        ids = tokens.input_ids[row]
        assert len(ids) == len(first)
        assert not np.array_equal(ids, first)
        assert not np.array_equal(ids, second)
        logits.append(logits_of(subject.tuned, tokens.take(np.array([row])))[0])
    found = pair_margins(subject.tuned, pairs.corrupt, pairs.clean, pairs.clean.labels, request)
    # The whole stream of the unrelated text gives the unrelated text's own margin.
    expected = [row[label] - row[1 - label] for row, label in zip(logits, pairs.clean.labels, strict=True)]
    np.testing.assert_allclose(found.unrelated[:, 0], expected, atol=1e-4)
    alone = pair_margins(
        subject.tuned, *(side.take(np.array([0])) for side in (pairs.corrupt, pairs.clean)), pairs.clean.labels[:1],
        PatchRequest(places, 3),
    )  # fmt: skip
    assert np.isnan(alone.unrelated).all()  # nothing else has its length
    assert np.isfinite(alone.patched).all()


def test_base_and_tuned_are_compared_on_the_same_pairs(tmp_path):
    changed_head_models("bert", 2, 1, tmp_path)
    base, tuned = load(str(tmp_path / "base")), load(str(tmp_path / "tuned"))
    rows = planted_rows()
    subject = make_subject(tuned, tuned, rows, base_head="tuned", texts=rows.frame.select("row_id", "text"))
    options = PatchingOptions(rows=ROWS, sites=("head_out",), directions=("denoising",))
    table, _ = run(subject, options)
    change = of(table, model="tuned_minus_base", estimator="ratio_of_sums", control="none")
    assert change.height == 12
    assert (change["value"] == 0).all()  # one model on both sides, to the last bit
    assert (change["p"] == 1).all()
    subject.base = base  # its head writes nothing, so no word matters to it
    table, _ = run(subject, options)
    change = of(table, model="tuned_minus_base", estimator="ratio_of_sums", control="none")
    assert change["value"].is_null().all()
    assert change["n"].to_list() == [0] * 12


def test_rows_are_paired_by_length_across_classes_once_each(tmp_path):
    model = load(str(tiny_folder("bert", tmp_path)))
    subject = make_subject(model, model, make_rows(60))
    pairs = pairs_of(subject, Pairs(kind="rows"), LensRows(n=12))
    assert 4 <= len(pairs) <= 12
    assert (pairs.clean.labels != pairs.corrupt.labels).all()
    assert (pairs.clean.kept == pairs.corrupt.kept).all()
    used = [*pairs.clean.row_ids, *pairs.corrupt.row_ids]
    assert len(used) == len(set(used))


def listed(*pairs):
    return Pairs(
        kind="listed", pairs=[dict(zip(("clean", "corrupt", "label"), pair, strict=True)) for pair in pairs]
    )


def test_bad_pairs_are_refused_by_name(tmp_path):
    model = load(str(tiny_folder("bert", tmp_path, names=["bad", "fine", "good"])))
    subject = make_subject(model, model)

    def refused(pairs, match):
        with pytest.raises(LensError, match=match):
            pairs_of(subject, pairs, ROWS)

    refused(
        listed(("rain", "day", "good"), ("good day", "rain", "bad")),
        r"pair 2 has 4 and 3 tokens; patching needs equal lengths",
    )
    refused(listed(("rain", "rain", "good")), "two texts of pair 1 are the same tokens")
    refused(listed(("rain", "day", "odd")), "there is no class 'odd'; the classes are bad, fine, good")
    pl.DataFrame({"clean": ["rain"], "corrupt": ["day"]}).write_csv(tmp_path / "pairs.csv")
    refused(Pairs(kind="table", path=tmp_path / "pairs.csv"), "lacks the columns label")
    refused(Pairs(kind="table", path=tmp_path / "none.csv"), "there is no file")
    with pytest.raises(ValueError, match="need the key path"):
        Pairs(kind="table")


def test_pairs_that_share_a_text_are_one_group(tmp_path):
    model = load(str(tiny_folder("bert", tmp_path, names=["bad", "fine", "good"])))
    subject = make_subject(model, model)
    pairs = pairs_of(
        subject,
        listed(("rain", "day", "good"), ("old", "day", "bad"), ("old", "sad", "bad"), ("cat", "mat", "bad")),
        ROWS,
    )
    assert len(set(pairs.groups[:3].tolist())) == 1
    assert pairs.groups[3] != pairs.groups[0]


def test_a_floor_that_no_pair_reaches_is_said(tmp_path):
    subject, _ = planted("gpt2", 1, 2, tmp_path)
    table, _ = run(
        subject, PatchingOptions(rows=ROWS, floor=1e6, sites=("mlp_out",), directions=("denoising",))
    )
    assert table["value"].is_null().all()
    assert any("no pair's gap in margin is 1e+06 logits or more" in note for note in subject.notes)


@pytest.mark.parametrize(("kind", "layer", "head"), [("gpt2", 1, 2), ("bert", 2, 1)])
def test_across_models_the_one_changed_head_is_found(kind, layer, head, tmp_path):
    changed_head_models(kind, layer, head, tmp_path)
    base, tuned = load(str(tmp_path / "base")), load(str(tmp_path / "tuned"))
    subject = make_subject(base, tuned, planted_rows(), base_head="tuned")
    table, _ = run_cross(subject, CrossOptions(rows=ROWS))
    for metric in ("recovered_margin", "lost_margin"):
        own = of(table, metric=metric, control="none")
        for one in own.iter_rows(named=True):
            if one["site"] == "resid_pre":
                expected = pytest.approx(1, abs=1e-5) if one["layer"] > layer else 0
            else:
                decisive = one["layer"] == layer and (one["head"] == head or one["site"] == "attn_out")
                expected = pytest.approx(1, abs=1e-5) if decisive else 0
            assert one["value"] == expected, one
    assert of(table, metric="recovered_margin", control="no_op")["value"].to_list() == pytest.approx(
        [0], abs=1e-6
    )
    random = of(table, metric="recovered_margin", control="random", site="head_out", layer=layer, head=head)
    assert random["value"][0] < 0.6
    output = look(subject, [("patching_cross", {"rows": ROWS.model_dump()})], LENSES)[0]
    assert f"Of all heads, head L{layer}H{head} of the tuned model" in output.findings[0].sentence
    # The attention of that layer carries everything by construction: it is said, and no finding picks it.
    assert f"No candidate was the attention of layer {layer} (100 %" in output.findings[1].sentence
    assert [one.verdict for one in output.findings] == ["found", "undecided"]


@pytest.mark.parametrize(("kind", "layer", "head"), [("gpt2", 2, 0), ("bert", 1, 3)])
def test_mediation_finds_the_head_that_reads_the_swapped_word(kind, layer, head, tmp_path):
    subject, _ = planted(kind, layer, head, tmp_path)
    pairs = pairs_of(subject, Pairs(), ROWS)
    records = pl.DataFrame(
        mediation(
            subject.tuned, pairs.clean, pairs.corrupt, MediationOptions(floor=0.2), groups=pairs.groups
        ),
        infer_schema_length=None,
    )
    own = of(records, control="none", estimator="ratio_of_sums", site="head_out")
    for one in own.iter_rows(named=True):
        decisive = (one["layer"], one["head"]) == (layer, head)
        assert one["value"] == (pytest.approx(1, abs=1e-4) if decisive else 0), one
    random = of(records, control="random", estimator="ratio_of_sums", layer=layer, head=head)
    assert abs(random["value"][0]) < 0.6
    ends = of(records, estimator="ratio_of_sums").filter(pl.col("control").is_in(["no_op", "everything"]))
    assert ends["value"].to_list() == pytest.approx([0, 1], abs=1e-4)
    with pytest.raises(LensError, match="came 2 original and 1 rewritten"):
        mediation(subject.tuned, pairs.clean.take(np.arange(2)), pairs.corrupt.take(np.arange(1)))
