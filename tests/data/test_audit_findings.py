"""What an audit says of planted faults, and that it keeps quiet where there is none."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from tunescope.data import Rows
from tunescope.data.audit import AuditOptions, audit
from tunescope.data.audit.column_findings import column_findings
from tunescope.data.audit.columns import chi_square
from tunescope.data.audit.kinds import probability
from tunescope.errors import DataError, RunError

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]


def clean_frame(n: int = 600, seed: int = 0) -> pl.DataFrame:
    """Rows whose columns say nothing about the label and whose texts never repeat."""
    generator = np.random.default_rng(seed)
    label = generator.permutation(np.arange(n) % 3)
    return pl.DataFrame(
        {
            "text": [" ".join(generator.choice(WORDS, size=generator.integers(12, 30))) for _ in range(n)],
            "label": [f"class {i}" for i in label],
            "colour": generator.choice(["red", "green", "blue"], size=n),
            "author": [f"author {i}" for i in generator.integers(0, 60, n)],
            "score": generator.normal(size=n),
            "key": [f"k{i}" for i in range(n)],
        }
    )


@pytest.fixture
def audited(tmp_path, load):
    def audited(train: pl.DataFrame, test: pl.DataFrame | None = None, options=None, **data):
        train.write_parquet(tmp_path / "train.parquet")
        path = str(tmp_path / "train.parquet")
        if test is not None:
            test.write_parquet(tmp_path / "test.parquet")
            path = {"train": path, "test": str(tmp_path / "test.parquet")}
        return audit(load(path, **{"validation": 0, "test": 0, **data}), options)

    return audited


def kinds(found, severity=None) -> list[str]:
    return [f.kind for f in found.findings if severity in (None, f.severity)]


def one(found, kind):
    return next(finding for finding in found.findings if finding.kind == kind)


@pytest.mark.parametrize("seed", range(4))
def test_clean_data_gives_neither_red_nor_amber(audited, seed):
    frame = clean_frame(seed=seed)
    found = audited(frame.head(500), frame.tail(100))
    assert kinds(found, "red") == []
    assert kinds(found, "amber") == []
    assert kinds(found) == ["untested_columns"]
    assert "'key' (no value stands twice" in found.findings[0].sentence


def test_a_planted_leak_is_found_and_counted(audited):
    frame = clean_frame()
    test = pl.concat([frame.tail(95), frame.head(5)])
    found = audited(frame.head(500), test)
    leak = one(found, "shared_texts")
    assert leak.severity == "red"
    assert leak.sentence == "5 texts stand in both train and test: 5 test rows (5 %) and 5 train rows."
    assert "data.deduplicate: exact" in leak.advice
    assert kinds(found, "red") == ["shared_texts"]
    few = audited(frame.head(300), pl.concat([frame.tail(299), frame.head(1)]))
    assert one(few, "shared_texts").severity == "amber"
    assert one(few, "shared_texts").sentence.startswith(
        "1 text stands in both train and test: 1 test row (0.33 %)"
    )


def test_a_planted_near_duplicate_pair_is_found_across_splits(audited):
    frame = clean_frame()
    source = frame.sort(pl.col("text").str.len_chars())["text"][-1]
    words = source.split()
    words[len(words) // 2] = "changed"
    copy = frame.tail(1).with_columns(text=pl.lit(" ".join(words)))
    train = frame.filter(pl.col("text") == source)
    train = pl.concat([train, frame.filter(pl.col("text") != source).head(499)])
    rest = frame.join(train, on="key", how="anti")
    found = audited(train, pl.concat([rest, copy]))
    leak = one(found, "shared_texts")
    assert leak.sentence == "1 test row (0.99 %) has a near-duplicate text in train."
    near = found.parts["duplicates"]["near"]
    assert near["pairs"] == 1
    assert near["across"]["train/test"] == {"texts": 2, "rows": {"train": 1, "test": 1}}
    assert near["examples"][0]["other"].split()[len(words) // 2] == "changed" or len(source) > 160
    assert found.parts["duplicates"]["normalised"]["repeats"] == 0
    inside = audited(pl.concat([train, copy]), rest)  # both in train: nothing crosses
    assert kinds(inside) == ["repeated_texts", "untested_columns"]
    assert (
        inside.findings[0].sentence
        == "Within train, as it is used, 1 of 501 rows go with an earlier text as near duplicates (0.2 %)."
    )
    across = inside.parts["duplicates"]["near"]["across"]["train/test"]
    assert across == {"texts": 0, "rows": {"train": 0, "test": 0}}
    without = audited(train, pl.concat([rest, copy]), AuditOptions(near=False))
    assert "shared_texts" not in kinds(without)


def test_texts_equal_but_for_case_and_punctuation_add_to_equal_ones(audited):
    frame = clean_frame()
    shouted = frame.head(4).tail(2).with_columns(text=pl.col("text").str.to_uppercase() + "!")
    found = audited(frame.head(500), pl.concat([frame.tail(96), frame.head(2), shouted]))
    sentences = [f.sentence for f in found.findings if f.kind == "shared_texts"]
    assert sentences == [
        "2 texts stand in both train and test: 2 test rows (2 %) and 2 train rows.",
        "2 more test rows (4 in all, 4 %) have texts that differ at most in case, white space and punctuation "
        "in train.",
    ]  # fmt: skip


def test_a_planted_deterministic_column_is_red(audited):
    frame = clean_frame()
    number = np.arange(600) % 20
    frame = frame.with_columns(
        topic=pl.format("{} topic {}", "label", pl.Series(number)), copy=pl.col("label").str.slice(6)
    )
    found = audited(frame.head(500), frame.tail(100))
    assert kinds(found, "red") == ["label_determined", "label_determined"]
    topic = next(f for f in found.findings if f.sentence.startswith("'topic'"))
    assert topic.sentence.startswith("'topic' determines the label: 60 of 60 values have one label only; ")
    assert "right on 500 of 500 rows (100 %), each left out in turn" in topic.sentence
    assert "on 100 of 100 test rows (100 %)" in topic.sentence
    assert "data.group_by: topic" in topic.advice
    copy = next(f for f in found.findings if f.sentence.startswith("'copy'"))
    assert "looks like another form of the label" in copy.advice


def test_a_telling_column_is_amber_and_an_associated_one_a_note(audited):
    frame = clean_frame(900)
    generator = np.random.default_rng(1)
    told = np.where(generator.random(900) < 0.6, frame["label"], frame["label"].shuffle(1))
    linked = np.where(generator.random(900) < 0.2, frame["label"], frame["label"].shuffle(2))
    found = audited(frame.with_columns(told=pl.Series(told), linked=pl.Series(linked)))
    assert "'told' tells much about the label" in one(found, "label_told").sentence
    assert one(found, "label_told").severity == "amber"
    advice = one(found, "label_told").advice
    assert advice.startswith("Do not use 'told' as a feature: drop it")
    assert "report it as a baseline" in advice
    assert "group_by" not in advice
    assert one(found, "label_associated").sentence.startswith("'linked' goes with the label (Cramér's V 0.")
    assert one(found, "label_associated").severity == "note"


def test_a_telling_column_of_many_values_can_make_grouped_splits(audited):
    frame = clean_frame(900)
    generator = np.random.default_rng(1)
    told = pl.Series(np.where(generator.random(900) < 0.6, frame["label"], frame["label"].shuffle(1)))
    people = pl.format("{} {}", told, pl.Series(np.arange(900) % 17))
    advice = one(audited(frame.with_columns(person=people)), "label_told").advice
    assert advice.startswith("Set data.group_by: person, and hold the models against")


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "q < 1e-300"), (3e-301, "q < 1e-300"), (1e-300, "q = 1e-300"), (0.0123, "q = 0.012")],
)
def test_a_probability_is_never_written_as_nothing(value, said):
    assert probability("q", value) == said


def test_a_column_of_few_values_on_many_rows_has_no_q_of_nothing():
    """Three in four of 20,000 rows follow the column: chi-square underflows, the sentence says so."""
    counts = np.array([[7000, 3000], [3000, 7000]])
    record = {
        "column": "side", "distinct": 2, "classes": 2, "pure_values": 0, "closed": 0.2, "q": 0.0,
        "leave_one_out": {"right": 14_000, "rows": 20_000, "accuracy": 0.7},
        "majority": {"right": 10_000, "rows": 20_000, "accuracy": 0.5}, **chi_square(counts),
    }  # fmt: skip
    ((finding, _),) = column_findings([record])
    assert "corrected; q < 1e-300)" in finding.sentence


def test_conflicting_labels_and_their_ceiling(audited):
    frame = clean_frame(300)
    other = frame.head(6).with_columns(label=pl.lit("class 9"))
    frame = pl.concat([frame, other, frame.head(2)])
    found = audited(frame)
    conflict = one(found, "label_conflicts")
    assert conflict.severity == "amber"
    # 308 rows, of which the six strays cannot be right together with the others
    assert conflict.evidence["ceiling"] == pytest.approx(302 / 308)
    assert conflict.sentence.startswith("6 texts stand under more than one label (14 rows); nothing")
    assert found.parts["conflicts"]["examples"][0]["labels"]["class 9"] == 1
    assert (
        one(found, "repeated_texts").sentence
        == "Within train, as it is used, 8 of 308 rows repeat an earlier text (2.6 %)."
    )


def test_rare_labels_shift_and_left_out_rows_are_said(audited):
    frame = clean_frame(400)
    odd = pl.lit("odd")
    frame = frame.with_columns(label=pl.when(pl.int_range(400) % 50 == 0).then(odd).otherwise("label"))
    test = clean_frame(100, seed=9)
    test = test.with_columns(label=pl.when(pl.int_range(100) < 50).then(odd).otherwise("label"))
    empty = frame.head(6).with_columns(text=pl.lit(None, pl.String))
    found = audited(pl.concat([frame, empty]), test.with_columns(colour=pl.lit(None, pl.String)))
    assert one(found, "rare_label").sentence.startswith("The label 'odd' is rare: 8 of 400 train rows (2 %);")
    shift = one(found, "label_shift")
    assert "The labels shift from train to test" in shift.sentence
    assert "'odd' 2 % to 50 %" in shift.sentence
    assert one(found, "left_out").sentence == "6 rows (1.19 %) were left out: no text."
    assert one(found, "missing_values").sentence == "Column 'colour' is empty in 100 of 500 rows (20 %)."


def test_texts_of_a_template_are_counted_from_below_and_it_is_said(audited):
    frame = clean_frame(300)
    common = " ".join(WORDS[:60])
    made = frame.head(100).with_columns(text=pl.format("{} tail{}", pl.lit(common), pl.int_range(100)))
    bounded = one(audited(pl.concat([made, frame.tail(200)])), "near_duplicates_bounded")
    assert "of more than 64 similar texts were too large" in bounded.sentence


def test_wrong_decoding_and_markup_are_counted(audited):
    frame = clean_frame(100)
    odd = ["cafÃ© noir", "itâ€™s", "bad \ufffd byte", "<br />x", "a &amp; b", "soft\u00adhyphen", "bell\x07"]
    frame = frame.with_columns(text=pl.Series(odd + frame["text"].to_list()[len(odd) :]))
    found = audited(frame)
    signs = found.parts["characters"]
    once = ("replacement", "html_tags", "html_entities", "invisible", "control")
    assert {kind: signs[kind] for kind in ("mojibake", *once)} == {"mojibake": 2} | dict.fromkeys(once, 1)
    severities = [f.severity for f in found.findings if f.kind == "characters"]
    assert severities == ["amber"] * 2 + ["note"] * 4
    plain = audited(clean_frame(100).with_columns(text=pl.col("text") + " naïve café 5 < 6 R&D «ja» don’t"))
    signs = plain.parts["characters"]
    assert not any(signs[kind] for kind in ("mojibake", "replacement", "html_tags", "html_entities"))


def test_findings_are_ranked_and_everything_is_json(audited):
    frame = clean_frame().with_columns(copy=pl.col("label"), note=pl.lit(None, pl.String))
    found = audited(frame.head(500), pl.concat([frame.tail(97), frame.head(3)]))
    severities = [finding.severity for finding in found.findings]
    assert severities == sorted(severities, key=["red", "amber", "note"].index)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    wanted = (
        "format_version rows findings duplicates conflicts columns balance lengths words characters missing"
    )
    assert set(document) == set(wanted.split())
    assert set(document["findings"][0]) == {"severity", "kind", "sentence", "advice", "evidence"}
    assert found.count("red") == 2


def test_labels_of_test_may_be_missing_and_template_columns_are_text(audited, load, write):
    path = write("x.csv", "q,s,label\n" + "".join(f"q{i},s{i % 3},{'ab'[i % 2]}\n" for i in range(20)))
    test = write("t.csv", "q,s\nq1,s1\n")
    rows = load({"train": path, "test": test}, text={"first": "q", "second": "s"}, validation=0)
    found = audit(rows)
    assert found.parts["columns"] == []
    assert found.rows["unlabelled"] == 1
    assert found.parts["balance"]["shift"] == {}


def test_a_saved_file_is_audited_and_what_is_wrong_is_refused(load, plain, tmp_path):
    rows = load(plain)
    rows.save(tmp_path / "rows.parquet")
    assert audit(tmp_path / "rows.parquet").to_dict() == audit(rows).to_dict()
    with pytest.raises(RunError, match="missing"):
        audit(tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"lies above 0 and at most at 1; came 1\.5"):
        audit(rows, AuditOptions(threshold=1.5))
    with pytest.raises(DataError, match="top is a whole number from 1; came 0"):
        audit(rows, AuditOptions(top=0))
    with pytest.raises(DataError, match="There is no row to audit"):
        audit(Rows(rows.frame.clear(), rows.labels, {}))


def test_an_audit_does_not_depend_on_the_order_of_the_rows(audited):
    frame = clean_frame(200).with_columns(topic=pl.col("label") + pl.col("colour"))
    frame = pl.concat([frame, frame.head(4)])
    one_way, other = audited(frame), audited(frame.sample(fraction=1, shuffle=True, seed=3))
    assert [f.sentence for f in one_way.findings] == [f.sentence for f in other.findings]
    assert one_way.parts["columns"] == other.parts["columns"]
