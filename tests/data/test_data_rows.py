"""Ids, templates, provenance, and rows that come back whole from disk."""

from __future__ import annotations

import hashlib
import json
import random

import polars as pl
import pytest

from tunescope.data import Rows
from tunescope.errors import DataError, RunError

TWICE = [("same", "a"), ("same", "b"), ("same", "a"), ("one", "b"), ("two", "a"), ("three", "b")]
COUNTED = "in the source, counted over all splits before rows were left out as repeats or drawn."


def table(write, pairs, name="x.csv", header="text,label"):
    return write(name, f"{header}\n" + "".join(",".join(pair) + "\n" for pair in pairs))


def test_ids_are_the_texts_hash_and_repeats_are_numbered(write, load):
    rows = load(table(write, TWICE), validation=0, test=0)
    expected = hashlib.blake2b(b"same", digest_size=8).hexdigest()
    ids = dict(zip(rows.frame["position"], rows.frame["row_id"], strict=True))
    # repeats count by label first: both rows of class a, then the one of class b
    assert [ids[0], ids[2], ids[1]] == [expected, f"{expected}-1", f"{expected}-2"]
    assert ids[3] == hashlib.blake2b(b"one", digest_size=8).hexdigest()
    assert not rows.frame["row_id"].is_duplicated().any()


def test_ids_splits_and_samples_do_not_depend_on_the_order_of_the_file(write, load):
    pairs = [(f"text {i % 150}", "abc"[(i * 7 // 3) % 3]) for i in range(200)]
    shuffled = random.Random(1).sample(pairs, len(pairs))
    one = load(table(write, pairs), rows=100).frame
    two = load(table(write, shuffled, "y.csv"), rows=100).frame
    key = ["row_id", "split", "text", "label"]
    assert one.select(key).sort(key).equals(two.select(key).sort(key))
    assert one["position"].is_sorted()
    assert two["position"].is_sorted()
    assert two["text"].to_list() == [
        shuffled[i][0] for i in two["position"]
    ]  # input order, proven by position


def test_a_study_may_name_its_own_ids(write, load):
    path = table(write, [(f"t{i}", "ab"[i % 2], f"k{i}") for i in range(8)], header="text,label,key")
    assert load(path, id="key", validation=0, test=0).frame["row_id"].to_list() == [f"k{i}" for i in range(8)]


def test_ids_shared_by_given_splits_get_the_split_before_them(write, load):
    path = table(write, [(f"t{i}", "ab"[i % 2], f"k{i}") for i in range(4)], header="text,label,key")
    test = table(write, [("u", "a", "k0")], "test.csv", "text,label,key")
    rows = load({"train": path, "test": test}, id="key", validation=0)
    assert rows.frame["row_id"].to_list() == ["train/k0", "train/k1", "train/k2", "train/k3", "test/k0"]
    assert rows.frame["position"].to_list() == [0, 1, 2, 3, 4]


def test_an_id_that_stands_twice_in_test_is_placed_in_its_file(write, refusal):
    path = table(write, [(f"t{i}", "ab"[i % 2], f"k{i}") for i in range(4)], header="text,label,key")
    test = table(write, [("u", "a", "k9"), ("v", "a", "k0"), ("w", "a", "k0")], "test.csv", "text,label,key")
    message = refusal({"train": path, "test": test}, id="key", validation=0)
    assert "test.csv, row 2 (line 3): the id 'k0'" in message


def test_the_label_of_a_row_that_is_left_out_is_no_label(write, load):
    path = table(write, [*[(f"t{i}", "ab"[i % 2]) for i in range(20)], (" ", "odd")])
    assert load(path).labels.names == ("a", "b")


def test_text_pairs_by_default_and_by_template(write, load):
    path = table(write, [(f"q{i}", f"s{i}", "ab"[i % 2]) for i in range(6)], header="question,sentence,label")
    pair = {"first": "question", "second": "sentence"}
    rows = load(path, text=pair)
    assert rows.frame["text"][0] == "q0\ns0"
    assert rows.provenance["template"] == "{first}\n{second}"
    assert rows.provenance["text"] == pair
    assert rows.frame.columns[5:] == ["question", "sentence"]
    assert load(path, text=pair, template="Q: {first} {{A}}: {second}!").frame["text"][1] == "Q: q1 {A}: s1!"
    assert load(path, text="question", template="<{text}>").frame["text"][2] == "<q2>"


def test_a_null_field_makes_no_text_and_a_text_may_hold_braces(write, load, tmp_path):
    frame = pl.DataFrame(
        {
            "q": ["{x}", None, "c", "d", "e"],
            "s": ["1", "2", "3", None, "5"],
            "label": ["a", "b", "a", "b", "b"],
        }
    )
    frame = pl.concat([frame, pl.DataFrame({"q": ["f"], "s": ["6"], "label": ["b"]})])
    frame.write_parquet(tmp_path / "x.parquet")
    rows = load(str(tmp_path / "x.parquet"), text={"first": "q", "second": "s"}, validation=0, test=0)
    assert rows.frame["text"].to_list() == ["{x}\n1", "c\n3", "e\n5", "f\n6"]
    assert rows.frame["position"].to_list() == [0, 2, 4, 5]
    assert rows.provenance["dropped"] == {"all": {"null_text": 2}}
    assert any(
        "Left out, no text: 2 of 6 rows (" in n and "rows 2, 4)" in n for n in rows.provenance["notes"]
    )


@pytest.mark.parametrize(
    "template", ["{third}", "{first!r}", "{first.upper}", "{0}", "plain", "{first", "{first:>9}"]
)
def test_templates_only_name_fields(template):
    from tunescope.data.text import TextRule

    with pytest.raises(DataError, match=r"data\.template"):
        TextRule.of({"first": "q", "second": "s"}, template)


def test_columns_of_the_source_travel_and_ours_keep_their_names(write, load):
    path = table(
        write,
        [(f"t{i}", "ab"[i % 2], "s", "p", "r") for i in range(6)],
        header="review,stars,split,position,source_split",
    )
    rows = load(path, text="review", label="stars", validation=0, test=0)
    others = ["source_source_split", "source_position", "source_split"]
    assert rows.frame.columns == ["row_id", "position", "split", "text", "label", *others]
    assert set(rows.frame["split"]) == {"train"}
    assert set(rows.frame["source_split"]) == {"r"}
    assert set(rows.frame["source_source_split"]) == {"s"}


def test_splits_by_column_accept_the_usual_names(write, load):
    names = ["train", "Train", "dev", "validation", "TEST", "train", "train", "val"]
    path = table(
        write, [(f"t{i}", "ab"[i % 2], name) for i, name in enumerate(names)], header="text,label,part"
    )
    rows = load(path, split_column="part")
    expected = ["train", "train", "validation", "validation", "test", "train", "train", "validation"]
    assert rows.frame["split"].to_list() == expected
    assert rows.provenance["splits"]["given"] == ["test", "train", "validation"]
    assert "part" not in rows.frame.columns


def test_repeats_shared_texts_and_conflicts_are_counted_and_said(write, load):
    train = table(write, [("x", "a"), ("x", "a"), ("x", "b"), ("y", "b"), ("z", "a")])
    test = table(write, [("x", "a"), ("y", "b"), ("new", "b")], "test.csv")
    rows = load({"train": train, "test": test}, validation=0)
    assert rows.provenance["texts"] == {
        "repeats": 4,
        "repeats_within": {"train": 2, "test": 0},
        "shared": {"train/test": 2},
        "label_conflicts": 1,
    }
    assert {
        "2 texts stand in both train and test, as given.",
        f"4 rows repeat an earlier text {COUNTED}",
        f"1 text stands under more than one label {COUNTED}",
    } <= set(rows.provenance["notes"])


def test_missing_splits_are_made_from_train_only(write, load):
    train = table(write, [(f"t{i}", "ab"[i % 2]) for i in range(40)])
    test = table(write, [(f"u{i}", "ab"[i % 2]) for i in range(10)], "test.csv")
    rows = load({"train": train, "test": test})
    assert rows.provenance["rows"] == {"train": 36, "validation": 4, "test": 10}
    assert rows.split("test").frame["text"].str.starts_with("u").all()
    made = rows.provenance["splits"]["made"]
    assert (made["from"], made["shares"]) == ("train", {"validation": 0.1})


def test_a_file_for_test_only_is_enough_to_look_at_models(write, load):
    path = table(write, [("x", "b"), ("y", "b")], "test.csv")
    rows = load({"test": path}, labels=["a", "b"])
    assert rows.provenance["rows"] == {"train": 0, "validation": 0, "test": 2}
    assert rows.frame["label"].to_list() == [1, 1]


def test_provenance_is_json_and_holds_the_checksum_of_the_file(write, load):
    path = table(write, TWICE)
    rows = load(path)
    provenance = json.loads(json.dumps(rows.provenance, allow_nan=False))
    assert provenance == rows.provenance
    with open(path, "rb") as handle:
        assert provenance["sources"][0]["files"][0]["sha256"] == hashlib.sha256(handle.read()).hexdigest()


def test_the_fingerprint_changes_with_text_label_split_and_seed_and_not_otherwise(write, load):
    pairs = [(f"t{i}", "ab"[i % 2]) for i in range(40)]
    base = load(table(write, pairs)).provenance["fingerprint"]
    assert load(table(write, pairs, "copy.csv")).provenance["fingerprint"] == base
    assert load(table(write, [("t0!", "a"), *pairs[1:]], "b.csv")).provenance["fingerprint"] != base
    assert load(table(write, [("t0", "b"), *pairs[1:]], "c.csv")).provenance["fingerprint"] != base
    assert load(table(write, pairs), seed=1).provenance["fingerprint"] != base


def test_save_and_load_give_the_same_rows(tmp_path, write, load):
    rows = load(table(write, TWICE))
    path = tmp_path / "run" / "data" / "rows.parquet"
    rows.save(path)
    again = Rows.load(path)
    assert again.frame.equals(rows.frame)
    assert again.frame.schema == rows.frame.schema
    assert (again.labels, again.provenance) == (rows.labels, rows.provenance)
    assert sorted(p.name for p in path.parent.iterdir()) == ["rows.parquet", "rows.parquet.json"]


def test_damaged_and_missing_rows_are_named(tmp_path, write, load):
    path = tmp_path / "rows.parquet"
    load(table(write, TWICE)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RunError, match=r"rows\.parquet is damaged"):
        Rows.load(path)
    path.unlink()
    with pytest.raises(RunError, match=r"rows\.parquet is missing"):
        Rows.load(path)
    (tmp_path / "rows.parquet.json").unlink()
    with pytest.raises(RunError, match=r"rows\.parquet\.json is missing"):
        Rows.load(path)


def test_summary_counts_per_split_and_label(write, load):
    rows = load(table(write, [(f"t{i}", "aab"[i % 3]) for i in range(60)]), test=0)
    summary = rows.summary()
    assert summary["rows"] == {"train": 54, "validation": 6}
    assert summary["counts"] == {"train": {"a": 36, "b": 18}, "validation": {"a": 4, "b": 2}}
    assert rows.splits == ["train", "validation"]
    json.dumps(summary, allow_nan=False)


def test_split_names_are_checked(write, load):
    rows = load(table(write, TWICE))
    assert len(rows.split("train", "test", "validation")) == len(rows)
    with pytest.raises(DataError, match="'dev' is not a split"):
        rows.split("dev")


def test_rows_as_a_number_and_as_a_mapping(write, load):
    path = table(write, [(f"t{i}", "aaab"[i % 4]) for i in range(400)])
    rows = load(path, rows=100)
    assert rows.provenance["rows"] == {"train": 80, "validation": 10, "test": 10}
    assert rows.summary()["counts"]["train"] == {"a": 60, "b": 20}
    rows = load(path, rows={"train": 50})
    assert rows.provenance["rows"] == {"train": 50, "validation": 40, "test": 40}
    assert load(path, rows=10_000).provenance["rows"]["train"] == 320


def test_a_smaller_sample_is_part_of_a_larger_one(write, load):
    path = table(write, [(f"t{i}", "ab"[i % 2]) for i in range(400)])
    small = set(load(path, rows={"train": 40}).split("train").frame["row_id"])
    large = set(load(path, rows={"train": 160}).split("train").frame["row_id"])
    assert small < large
    assert set(load(path, seed=1, rows={"train": 40}).split("train").frame["row_id"]) != small


def test_loading_prints_nothing_by_default(write, load, capsys):
    load(table(write, TWICE))
    assert capsys.readouterr() == ("", "")
