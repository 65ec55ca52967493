"""Labels of any type become one map; what is no class is refused in words."""

from __future__ import annotations

import re

import polars as pl
import pytest

from tunescope.data import LabelMap
from tunescope.errors import DataError

INTEGERS = [pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64]


def parquet(tmp_path, column: pl.Series, name="data.parquet") -> str:
    texts = [f"text {i}" for i in range(len(column))]
    path = tmp_path / name
    pl.DataFrame({"text": texts, "label": column}).write_parquet(path)
    return str(path)


def cycle(values: list, dtype=None, n: int = 24) -> pl.Series:
    return pl.Series("label", [values[i % len(values)] for i in range(n)], dtype=dtype)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_of_any_width_are_labels_and_sort_as_numbers(tmp_path, load, dtype):
    rows = load(parquet(tmp_path, cycle([10, 2, 100, 1], dtype)), test=0)
    assert rows.labels.names == ("1", "2", "10", "100")
    assert rows.frame["label"].dtype == pl.Int64
    assert rows.frame["label"].to_list()[:4] == [2, 1, 3, 0]


@pytest.mark.parametrize(
    ("values", "dtype", "names", "indices"),
    [
        (["b", "a", "B"], pl.String, ("B", "a", "b"), [2, 1, 0]),
        ([True, False], pl.Boolean, ("false", "true"), [1, 0]),
        ([-1, 0, 1], pl.Int8, ("-1", "0", "1"), [0, 1, 2]),
        ([10.0, 2.0], pl.Float64, ("2", "10"), [1, 0]),
        ([10.0, 2.0], pl.Float32, ("2", "10"), [1, 0]),
        (["10", "9"], pl.String, ("9", "10"), [1, 0]),
        (["1.0", "0.0"], pl.String, ("0", "1"), [1, 0]),
        (["01", "1"], pl.String, ("01", "1"), [0, 1]),
        (["1", "x"], pl.String, ("1", "x"), [0, 1]),
        (["low", "high"], pl.Enum(["low", "middle", "high"]), ("low", "high"), [0, 1]),
        (["low", "high"], pl.Categorical(), ("high", "low"), [1, 0]),
    ],
)
def test_each_type_has_its_order(tmp_path, load, values, dtype, names, indices):
    rows = load(parquet(tmp_path, cycle(values, dtype)), validation=0, test=0)
    assert rows.labels.names == names
    assert rows.frame["label"].to_list()[: len(indices)] == indices


def test_the_same_labels_in_csv_and_parquet_meet(tmp_path, write, load):
    train = parquet(tmp_path, cycle([0, 1], pl.Int8))
    test = write("test.csv", "text,label\nx,1.0\ny,0.0\n")
    rows = load({"train": train, "test": test}, validation=0)
    assert rows.split("test").frame["label"].to_list() == [1, 0]


@pytest.mark.parametrize(
    ("values", "given", "names", "indices"),
    [
        (["b", "a"], ["b", "a"], ("b", "a"), [0, 1]),
        ([0, 1], ["negative", "positive"], ("negative", "positive"), [0, 1]),
        (["0", "1"], ["negative", "positive"], ("negative", "positive"), [0, 1]),
        ([0, 1], [1, 0], ("1", "0"), [1, 0]),
        ([0, 1], {1: "yes", 0: "no"}, ("yes", "no"), [1, 0]),
        ([1, 2, 4, 5], {1: "bad", 2: "bad", 4: "good", 5: "good"}, ("bad", "good"), [0, 0, 1, 1]),
        ([True, False], {True: "spam", False: "ham"}, ("spam", "ham"), [0, 1]),
        (["True", "False"], {True: "spam", False: "ham"}, ("spam", "ham"), [0, 1]),
        ([0.5, 1.5], {0.5: "half", 1.5: "more"}, ("half", "more"), [0, 1]),
    ],
)
def test_labels_of_the_study_decide_names_and_order(tmp_path, load, values, given, names, indices):
    rows = load(parquet(tmp_path, cycle(values)), labels=given, validation=0, test=0)
    assert rows.labels.names == names
    assert rows.frame["label"].to_list()[: len(indices)] == indices


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            cycle([0.5, 1.0, 2.25]),
            r"row 1: the label is 0\.5, a number with a fraction\. .* not do regression",
        ),
        (cycle(["3", "1.5"]), r"row 2: the label is 1\.5, a number with a fraction\. .* not do regression"),
        (
            cycle([[0, 2, 3], [1, 0, 1]]),
            r"row 1: .* holds a list, \[0, 2, 3\]\. .* multi-label classification",
        ),
        (cycle([["O", "P"], ["O", "O"]]), r"row 1: .* \['O', 'P'\]\. .* token classification"),
        (cycle([{"a": 1}]), r"column 'label' holds Struct.*, which is not a label"),
        (cycle([b"a", b"b"]), r"column 'label' holds Binary, which is not a label"),
    ],
)
def test_what_is_no_class_is_refused(tmp_path, refusal, column, message):
    # every text has two words, so a list of two labels is one for every token
    assert re.search(message, refusal(parquet(tmp_path, column)))


def test_unknown_labels_in_test_are_counted_and_placed(write, refusal, plain):
    test = write("test.csv", "text,label\nx,a\ny,mixed\nz,mixed\nu,A\n")
    message = refusal({"train": plain, "test": test})
    assert "'mixed' in 2 rows (first: " in message
    assert "test.csv, row 2 (line 3))" in message
    assert "3 of 4 rows are concerned; the labels are 'a', 'b'" in message


def test_unknown_labels_by_split_column_are_found(write, refusal):
    body = "".join(f"t{i},{'ab'[i % 2]},train\n" for i in range(6)) + "u,c,test\n"
    message = refusal(write("x.csv", "text,label,part\n" + body), split_column="part")
    assert "test (" in message
    assert "'c' in 1 row (first: " in message
    assert "row 7 (line 8)" in message


def test_yaml_booleans_for_yes_and_no_are_explained(write, refusal):
    path = write("x.csv", "text,label\n" + "".join(f"t{i},{['yes', 'no'][i % 2]}\n" for i in range(6)))
    assert "YAML reads yes, no, on and off as true and false" in refusal(path, labels=[False, True])


def test_a_named_class_without_rows_is_refused(refusal, plain):
    assert "data.labels names 'c', but no row of train has it" in refusal(plain, labels=["a", "b", "c"])


def test_one_class_only(write, refusal):
    path = write("x.csv", "text,label\na,x\nb,x\nc,x\n")
    assert "all 3 rows have the one label 'x'; a classifier needs two" in refusal(path)


def test_a_label_with_one_row_names_label_and_row(write, refusal):
    path = write("x.csv", 'text,label\n"a\nb",x\nc,x\nd,y\ne,z\nf,z\n')
    message = refusal(path)
    assert "x.csv, row 3 (line 5): the label 'y' stands in this row only; a class needs two rows" in message
    assert "data.labels" in message


def test_null_labels_are_dropped_from_train_and_kept_in_test(write, load):
    train = write("train.csv", "text,label\na,x\nb,y\nc,x\nd,y\nlost,\n")
    test = write("test.csv", "text,label\nkept,\ne,x\n")
    rows = load({"train": train, "test": test}, validation=0)
    assert rows.split("train").frame["text"].to_list() == ["a", "b", "c", "d"]
    assert rows.split("test").frame["label"].to_list() == [None, 0]
    assert rows.split("test").label_array.tolist() == [-1, 0]
    assert rows.provenance["dropped"] == {"train": {"null_label": 1}}
    assert any("Left out, no label: 1 of 5 train rows" in note for note in rows.provenance["notes"])
    assert "1 of 2 test rows have no label; they are predicted only." in rows.provenance["notes"]


def test_a_test_file_without_the_label_column_is_unlabelled_only_beside_a_train_file(
    write, load, refusal, plain
):
    test = write("test.csv", "text\nx\ny\n")
    assert load({"train": plain, "test": test}).split("test").label_array.tolist() == [-1, -1]
    assert "column 'label' (data.label) is missing" in refusal({"test": test})


def test_label_map_refuses_twins_and_names_the_nearest():
    labels = LabelMap(("negative", "positive"))
    assert (labels.index("positive"), len(labels), labels.to_list()) == (1, 2, ["negative", "positive"])
    with pytest.raises(DataError, match=r"'Positve' is not a label.*\nNext: Did you mean 'positive'"):
        labels.index("Positve")
    with pytest.raises(DataError, match="same name: 'a'"):
        LabelMap(("a", "b", "a"))
