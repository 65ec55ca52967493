"""Every kind of source gives the same rows, character for character."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re

import fsspec
import polars as pl
import pytest

from tunescope.data import read_table
from tunescope.errors import DataError, MissingDependencyError

LINES = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20))


def by_csv_module(frame, path, **options):
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, **options)
        writer.writerow(frame.columns)
        writer.writerows(frame.iter_rows())


def by_json_lines(frame, path, ascii_only=False):
    with open(path, "w", encoding="utf-8", newline="\n") as handle:
        handle.writelines(
            json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in frame.iter_rows(named=True)
        )


def by_json(frame, path, wrap=None):
    rows = frame.to_dict(as_series=False) if wrap == "columns" else frame.to_dicts()
    with open(path, "w", encoding="utf-8") as handle:
        json.dump({"data": rows} if wrap == "data" else rows, handle)


def by_gzip(frame, path):
    by_csv_module(frame, path)
    with open(path, "rb") as handle:
        content = handle.read()
    with gzip.open(path, "wb") as handle:
        handle.write(content)


WRITERS = {
    "plain.csv": by_csv_module,
    "all.csv": lambda f, p: by_csv_module(f, p, quoting=csv.QUOTE_ALL, lineterminator="\n"),
    "polars.csv": lambda f, p: f.write_csv(p),
    "semi.csv": lambda f, p: by_csv_module(f, p, delimiter=";"),
    "x.tsv": lambda f, p: by_csv_module(f, p, delimiter="\t"),
    "x.csv.gz": by_gzip,
    "x.jsonl": by_json_lines,
    "ascii.jsonl": lambda f, p: by_json_lines(f, p, ascii_only=True),
    "lines.json": by_json_lines,
    "list.json": by_json,
    "data.json": lambda f, p: by_json(f, p, "data"),
    "columns.json": lambda f, p: by_json(f, p, "columns"),
    "x.parquet": lambda f, p: f.write_parquet(p),
    "x.arrow": lambda f, p: f.write_ipc(p),
    "x.feather": lambda f, p: f.write_ipc(p, compression="zstd"),
    "stream.arrow": lambda f, p: f.write_ipc_stream(p),
}


@pytest.mark.parametrize("name", WRITERS)
def test_nasty_text_goes_through_every_format_unharmed(tmp_path, nasty, name):
    frame = pl.DataFrame({"text": list(nasty.values()), "label": list(nasty)})
    WRITERS[name](frame, str(tmp_path / name))
    assert read_table(str(tmp_path / name)).select("text", "label").equals(frame)


@pytest.mark.parametrize("name", ["plain.csv", "x.jsonl", "x.parquet"])
def test_nasty_text_goes_through_loading_saving_and_loading_again(tmp_path, load, nasty, name):
    from tunescope.data import Rows

    texts = [*nasty.values(), *[f"{text} again" for text in nasty.values()]]
    frame = pl.DataFrame({"text": texts, "label": ["a", "b"] * len(nasty)})
    WRITERS[name](frame, str(tmp_path / name))
    rows = load(str(tmp_path / name))
    rows.save(tmp_path / "run" / "rows.parquet")
    again = Rows.load(tmp_path / "run" / "rows.parquet")
    assert again.frame["text"].to_list() == texts
    assert max(map(len, texts)) > 100_000


def test_a_field_longer_than_csvs_own_limit(write):
    text = "x" * 200_000
    before = csv.field_size_limit()
    assert read_table(write("x.csv", f"text,label\n{text},a\n"))["text"].to_list() == [text]
    assert csv.field_size_limit() == before


def test_a_byte_order_mark_is_not_part_of_the_first_column(write):
    assert read_table(write("x.csv", "text,label\na,b\n", "utf-8-sig")).columns == ["text", "label"]


def test_another_encoding(write, load):
    path = write("x.csv", "text,label\n" + "".join(f"café {i},{'ab'[i % 2]}\n" for i in range(20)), "cp1252")
    assert load(path, encoding="cp1252").frame["text"][0] == "café 0"
    path = write("y.csv", "text,label\nשלום,b\n", "utf-16")
    assert read_table(path, encoding="utf-16")["text"].to_list() == ["שלום"]


def test_quotes_in_a_tsv_without_quoting_are_characters(write):
    path = write("x.tsv", 'sentence\tlabel\n"open only\t0\nplain "inner" one\t1\nclosed"\t0\n')
    assert read_table(path)["sentence"].to_list() == ['"open only', 'plain "inner" one', 'closed"']


def test_cells_of_a_csv_stay_strings(write):
    frame = read_table(write("x.csv", "text,label,zip\n42,1,00501\ntrue,0,1e5\n"))
    assert frame.rows() == [("42", "1", "00501"), ("true", "0", "1e5")]


def test_blank_lines_are_no_rows_and_nameless_columns_get_a_number(write):
    frame = read_table(write("x.csv", ",text,label\n\n0,a,b\n\n1,c,d\n\n"))
    assert frame.columns == ["column_1", "text", "label"]
    assert frame["text"].to_list() == ["a", "c"]


def test_globs_lists_and_one_file_give_the_same_rows(tmp_path, write, load):
    body = LINES.splitlines(keepends=True)
    whole = write("whole.csv", "text,label\n" + LINES)
    one = write("part/1.csv", "text,label\n" + "".join(body[:7]))
    two = write("part/2.csv", "text,label\n" + "".join(body[7:]))
    expected = load(whole).frame
    assert load([one, two]).frame.equals(expected)
    assert load(str(tmp_path / "part" / "*.csv")).frame.equals(expected)
    assert [f["rows"] for f in load([one, two]).provenance["sources"][0]["files"]] == [7, 13]


def test_files_with_other_columns_and_types_meet(tmp_path, load):
    body = {"text": ["a", "b"], "label": ["x", "y"]}
    pl.DataFrame({**body, "n": pl.Series([1, 2], dtype=pl.Int8), "z": ["p", "q"]}).write_parquet(
        tmp_path / "1.parquet"
    )
    pl.DataFrame({"n": [0.5, 300], **body, "z": [7, 8], "more": [True, False]}).write_parquet(
        tmp_path / "2.parquet"
    )
    frame = load(str(tmp_path / "*.parquet"), validation=0, test=0).frame
    assert frame["n"].to_list() == [1.0, 2.0, 0.5, 300.0]
    assert frame["z"].to_list() == ["p", "q", "7", "8"]
    assert frame["more"].to_list() == [None, None, True, False]


def test_a_file_whose_name_holds_brackets_is_taken_literally(write):
    path = write("odd[1].csv", "text,label\na,b\n")
    assert read_table(path).height == 1


def test_fsspec_urls(load, plain):
    memory = fsspec.filesystem("memory")
    with open(plain, "rb") as handle:
        content = handle.read()
    memory.pipe("/tunescope/a.csv", content)
    buffer = io.BytesIO()
    pl.read_csv(plain).write_parquet(buffer)
    memory.pipe("/tunescope/b.parquet", buffer.getvalue())
    try:
        local = load(plain).frame
        assert load("memory://tunescope/a.csv").frame.equals(local)
        assert load("memory://tunescope/*.parquet").frame.equals(local)
        assert load("memory://tunescope/b.parquet").provenance["sources"][0]["files"][0]["sha256"]
        with pytest.raises(DataError, match=r"missing\.csv: the file is missing\. The folder holds"):
            load("memory://tunescope/missing.csv")
    finally:
        memory.rm("/tunescope", recursive=True)


def test_an_url_that_needs_a_package_names_the_install_command():
    try:
        import s3fs  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependencyError, match=r'pip install "fsspec\[s3\]"'):
            read_table("s3://bucket/x.csv")
    else:
        pytest.skip("s3fs is installed here")


def test_a_folder_of_texts_per_class(tmp_path, write, load, nasty):
    for i, text in enumerate(nasty.values()):
        write(f"reviews/{'neg' if i % 2 else 'pos'}/{i}.txt", text)
    rows = load(str(tmp_path / "reviews"), validation=0, test=0)
    assert rows.labels.names == ("neg", "pos")
    assert sorted(rows.frame["text"]) == sorted(nasty.values())
    assert set(rows.frame["file"]) == {f"{i}.txt" for i in range(len(nasty))}


def test_a_folder_of_texts_with_splits(tmp_path, write, load):
    for split in ("train", "test"):
        for i in range(4):
            write(f"aclImdb/{split}/{'neg' if i % 2 else 'pos'}/{i}.txt", f"{split} {i}")
        write(f"aclImdb/{split}/urls.txt", "not a row")
    rows = load(str(tmp_path / "aclImdb"), validation=0)
    assert rows.provenance["rows"] == {"train": 4, "validation": 0, "test": 4}
    assert rows.split("test").frame["text"].str.starts_with("test").all()


def test_a_blank_text_file_is_named(tmp_path, write, load):
    for i in range(4):
        write(f"x/{'neg' if i % 2 else 'pos'}/{i}.txt", f"text {i}")
    write("x/neg/blank.txt", " \n")
    notes = load(str(tmp_path / "x"), validation=0, test=0).provenance["notes"]
    assert any(re.search(r"Left out, blank text: 1 of 5 rows \(.*neg/blank\.txt\)", note) for note in notes)


def test_a_folder_of_files_named_by_split(tmp_path, write, load):
    write("d/train-00000-of-00002.csv", "text,label\n" + LINES)
    write("d/train-00001-of-00002.csv", "text,label\nmore,a\n")
    write("d/dev.csv", "text,label\nx,a\n")
    write("d/test.csv", "text,label\ny,b\nz,b\n")
    write("d/README.md", "not data")
    rows = load(str(tmp_path / "d"))
    assert rows.provenance["rows"] == {"train": 21, "validation": 1, "test": 2}
    assert rows.provenance["splits"]["made"] is None


def test_a_folder_with_some_unnamed_files_is_refused(tmp_path, write, refusal):
    write("d/train.csv", "text,label\n" + LINES)
    write("d/extra.csv", "text,label\n" + LINES)
    assert "some files name a split and others do not: 'extra.csv'" in refusal(str(tmp_path / "d"))


def saved(tmp_path):
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["zebra", "ant"])}
    )
    train = datasets.Dataset.from_dict(
        {"text": [f"t{i}" for i in range(20)], "label": [i % 2 for i in range(20)]}, features=features
    )
    test = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [1, -1]}, features=features)
    extra = datasets.Dataset.from_dict({"text": ["u"], "label": [-1]}, features=features)
    both = datasets.DatasetDict({"train": train, "test": test, "unsupervised": extra})
    both.save_to_disk(str(tmp_path / "saved"))
    train.select([3, 2, 1, 0]).save_to_disk(str(tmp_path / "one"))
    return tmp_path


def test_folders_saved_by_datasets_keep_names_and_order_of_classes(tmp_path, load):
    saved(tmp_path)
    rows = load(str(tmp_path / "saved"))
    assert rows.labels.names == ("zebra", "ant")
    assert rows.provenance["rows"] == {"train": 18, "validation": 2, "test": 2}
    assert rows.split("test").frame["label"].to_list() == [1, None]
    assert any("were not read: unsupervised" in note for note in rows.provenance["notes"])
    assert read_table(str(tmp_path / "one"))["text"].to_list() == ["t3", "t2", "t1", "t0"]
    assert set(read_table(str(tmp_path / "saved"))["split"]) == {"train", "test", "unsupervised"}


def test_a_torn_saved_folder_is_named(tmp_path):
    folder = saved(tmp_path) / "one"
    next(folder.glob("*.arrow")).unlink()
    with pytest.raises(DataError, match="one looks like a folder saved by datasets but cannot be loaded"):
        read_table(str(folder))


def test_the_hub_without_network_is_one_sentence(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError) as caught:
        read_table("nobody/nothing", name="plain", revision="main")
    message = str(caught.value)
    assert "'nobody/nothing' is no file or folder here" in message
    assert "HF_HUB_OFFLINE forbids" in message
    assert "save_to_disk" in message


def test_an_unreachable_hub_is_told_from_an_offline_one(monkeypatch):
    import datasets

    def fail(*_, **__):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(DataError, match="the hub cannot be reached"):
        read_table("nobody/nothing")


def test_what_the_hub_gives_and_is_asked(monkeypatch, tmp_path, load):
    import datasets

    saved(tmp_path)
    asked = []

    def give(path, name=None, revision=None):
        asked.append((path, name, revision))
        return datasets.load_from_disk(str(tmp_path / "saved"))

    monkeypatch.setattr(datasets, "load_dataset", give)
    rows = load("org/set", name="config", revision="abc")
    assert asked == [("org/set", "config", "abc")]
    assert rows.labels.names == ("zebra", "ant")
    assert rows.provenance["sources"][0]["revision"] == "abc"
    assert rows.provenance["sources"][0]["fingerprint"]
