"""Bad input: each error names file, column, row and line, and says the next step."""

from __future__ import annotations

import gzip
import re

import polars as pl
import pytest

LINES = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20))

# name, content, options, what the message must say, what the next step must say
CASES = [
    ("empty.csv", "", {}, r"empty\.csv is empty\.", "labelled rows"),
    ("blank.csv", "\n\n", {}, r"blank\.csv is empty\.", "labelled rows"),
    ("head.csv", "text,label\n", {}, r"head\.csv has a header but no rows", "two labelled rows"),
    ("dup.csv", "text,a,text\n1,2,3\n", {}, r"'text' occurs twice, in columns 1 and 3", "Rename"),
    (
        "wide.csv",
        'text,label\n"x\ny",b\na,b,c\n',
        {},
        r"row 2 \(line 4\): expected 2 fields .* found 3",
        "quotes",
    ),
    ("short.csv", "text,label\na\nb,c\n", {}, r"row 1 \(line 2\): expected 2 fields .* found 1", "quotes"),
    ("open.csv", 'text,label\na,b\n"open,b\nz,a\n', {}, r"row 2 \(line 3\): .* never closed", "double"),
    ("after.csv", 'text,label\na,b\n"x"y,b\n', {}, r"row 2 \(line 3\): the quotes do not fit", "double"),
    ("wide.tsv", "text\tlabel\na\tb\nc\td\te\n", {}, r"row 2 \(line 3\): expected 2 fields", "quotes"),
    (
        "latin.csv",
        "text,label\nok,a\ncafé,b\n".encode("latin-1"),
        {},
        r"latin\.csv: byte 19 \(0xe9, line 3\) is not utf-8",
        r"data\.encoding .*cp1252",
    ),
    (
        "wide16.csv",
        "text,label\nok,a\n".encode("utf-16"),
        {},
        r"byte 0 \(0xff, line 1\) is not utf-8",
        r"data\.encoding .*utf-16",
    ),
    (
        "latin.jsonl",
        b'{"text": "caf\xe9"}\n',
        {},
        r"latin\.jsonl: byte 13 \(0xe9, line 1\) is not utf-8",
        "encoding",
    ),
    (
        "column.csv",
        "txt,label\n" + LINES,
        {},
        r"column 'text' \(data\.text\) is missing; found: 'txt', 'label'",
        "Did you mean 'txt'",
    ),
    (
        "column.csv",
        "text,Lable\n" + LINES,
        {},
        r"column 'label' \(data\.label\) is missing",
        "Did you mean 'Lable'",
    ),
    (
        "column.csv",
        "text,label\n" + LINES,
        {"group_by": "author"},
        r"column 'author' \(data\.group_by\) is missing",
        "Set data.group_by",
    ),
    (
        "split.csv",
        "text,label,part\na,x,train\nb,y,tset\n",
        {"split_column": "part"},
        r"row 2 \(line 3\): column 'part' should say train, .* says 'tset' in 1 of 2 rows",
        "Did you mean 'test'",
    ),
    (
        "numbers.jsonl",
        '{"text": 1, "label": 0}\n{"text": 2, "label": 1}\n',
        {},
        r"row 1 \(line 1\): column 'text' should hold text, and holds 1 \(Int64\)",
        "Set data.text",
    ),
    (
        "mixed.jsonl",
        '{"text": "a", "label": 0}\n\n{"text": 5, "label": 1}\n',
        {},
        r"row 2 \(line 3\): column 'text' should hold text, and holds 5 there",
        "between quotes",
    ),
    (
        "lists.jsonl",
        '{"text": ["a", "b"], "label": 0}\n{"text": ["c"], "label": 1}\n',
        {},
        r"row 1 .* holds \['a', 'b'\]",
        "Join a row's tokens",
    ),
    (
        "broken.jsonl",
        '{"text": "a", "label": 0}\n{"text": "b" "label": 1}\n',
        {},
        r"row 2 \(line 2\): not JSON",
        "one JSON object per line",
    ),
    (
        "scalar.jsonl",
        '{"text": "a", "label": 0}\n7\n',
        {},
        r"row 2 \(line 2\): expected an object, found 7",
        "Write",
    ),
    (
        "half.jsonl",
        '{"text": "a\\ud83d", "label": 0}\n',
        {},
        r"row 1 \(line 1\): column 'text' holds half a char",
        "whole",
    ),
    ("broken.json", '[{"text": "a"', {}, r"broken\.json: not JSON .*line 1", "data.format"),
    ("scalar.json", '"a"', {}, r"expected a list of objects, found a string", "Write"),
    ("uneven.json", '{"text": ["a", "b"], "label": [1]}', {}, r"columns are not equally long", "per row"),
    ("none.json", "[]", {}, r"none\.json is empty", "labelled rows"),
    ("bad.parquet", b"not parquet at all", {}, r"bad\.parquet: not a readable parquet file", "whole"),
    ("cut.arrow", b"ARROW1 cut", {}, r"cut\.arrow: not a readable arrow file", "whole"),
    ("void.parquet", b"", {}, r"void\.parquet is empty", "labelled rows"),
    ("notes.xyz", "text", {}, r"the extension '\.xyz' is not one of", "data.format"),
    ("bad.csv.gz", b"plain", {}, r"bad\.csv\.gz could not be read", "complete"),
    (
        "cut.csv.gz",
        gzip.compress(("text,label\n" + LINES * 50).encode())[:-12],
        {},
        r"could not be read",
        "complete",
    ),
    ("texts.csv", "text,label\n,a\n ,b\n", {}, r"no row has both a text and a label", "data.text"),
    (
        "ids.csv",
        "text,label,k\na,x,1\nb,y,1\n",
        {"id": "k"},
        r"row 1 \(line 2\): the id '1' .* in several rows",
        "unique",
    ),
    (
        "ids.csv",
        "text,label,k\na,x,1\nb,y,\na,x,2\nb,y,3\n",
        {"id": "k"},
        r"row 2 \(line 3\): column 'k' \(data\.id\) is empty in 1 rows",
        "every row",
    ),
    (
        "rows.csv",
        "text,label\n" + LINES,
        {"rows": 1},
        r"data\.rows: 1 leaves no train row of '.'",
        "at least 2",
    ),
    (
        "rows.csv",
        "text,label\n" + LINES,
        {"rows": {"test": 3}, "test": 0},
        r"data\.rows names 'test', but the splits are 'train', 'validation'",
        "data.rows",
    ),
    (
        "group.csv",
        "text,label,g\n" + LINES.replace("\n", ",one\n"),
        {"group_by": "g"},
        r"test cannot be made: the rows hang together",
        "finer",
    ),
]


@pytest.mark.parametrize(
    ("name", "content", "options", "message", "step"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)]
)
def test_bad_files(write, refusal, name, content, options, message, step):
    said, _, hint = refusal(write(name, content), **options).partition("\nNext: ")
    assert re.search(message, said), said
    assert re.search(step, hint), hint
    assert name in said or said.startswith("data.rows") or "cannot be made" in said


@pytest.mark.parametrize("shift", ["", "x"])  # with one of them, a letter lies across the blocks' border
def test_the_byte_of_a_wrong_encoding_is_found_beyond_the_first_block(write, refusal, shift):
    lines = "é" * 40 + ",a\n"
    good = (f"text{shift},label\n" + lines * 20_000).encode()  # more than one block of a mebibyte
    message = refusal(write("x.csv", good + b"caf\xe9,b\n"))
    assert f"byte {len(good) + 3} (0xe9, line 20002) is not utf-8" in message


def test_a_missing_file_names_the_nearest(write, refusal):
    path = write("reviews.csv", "text,label\n" + LINES)
    message = refusal(path.replace("reviews", "reveiws"))
    assert "reveiws.csv: the file is missing. The folder holds: 'reviews.csv'." in message
    assert "Did you mean 'reviews.csv'?" in message
    assert "and so is its folder" in refusal(path.replace("reviews.csv", "no/x.csv"))
    assert "no file matches the pattern" in refusal(path.replace("reviews", "*.x"))


def test_a_bad_file_among_good_ones_is_the_one_named(tmp_path, write, refusal):
    write("a.csv", "text,label\n" + LINES)
    write("b.csv", "texts,label\n" + LINES)
    message = refusal(str(tmp_path / "*.csv"))
    assert "b.csv: column 'text'" in message
    assert "a.csv" not in message


def test_a_row_of_a_second_file_is_placed_in_that_file(write, refusal):
    one = write("a.csv", "text,label\n" + LINES)
    two = write("b.csv", "text,label\nx,a\ny,odd\n")
    assert "b.csv, row 2 (line 3): the label 'odd' stands in this row only" in refusal([one, two])


def test_mapping_and_split_column_exclude_each_other(plain, refusal):
    assert "only one can hold" in refusal({"train": plain}, split_column="part")


def test_an_empty_folder_and_a_missing_text_folder(tmp_path, refusal):
    (tmp_path / "void").mkdir()
    assert "holds neither" in refusal(str(tmp_path / "void"))
    assert "no such folder" in refusal(str(tmp_path / "absent"), format="text_folder")


def test_parquet_text_that_is_no_text_names_the_first_value(tmp_path, refusal):
    pl.DataFrame({"text": [None, 7, 8], "label": [0, 1, 0]}).write_parquet(tmp_path / "x.parquet")
    assert "row 2: column 'text' should hold text, and holds 7 (Int64)" in refusal(
        str(tmp_path / "x.parquet")
    )


def test_columns_of_clashing_nested_types_are_named(tmp_path, refusal):
    base = {"text": ["a", "b"], "label": ["x", "y"]}
    pl.DataFrame({**base, "m": [[1], [2]]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({**base, "m": ["1", "2"]}).write_parquet(tmp_path / "b.parquet")
    assert "Column 'm' does not have one type" in refusal(str(tmp_path / "*.parquet"))
