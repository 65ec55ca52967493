"""Real data, against the published counts; skipped where the data is not there."""

from __future__ import annotations

import polars as pl
import pytest

pytestmark = pytest.mark.shared


def test_sst2_labels_of_eight_bits(shared, load):
    rows = load(str(shared / "data" / "sst2"), labels=["negative", "positive"], test=0)
    assert pl.read_parquet(shared / "data/sst2/train.parquet")["label"].dtype == pl.Int8
    assert rows.summary()["counts"] == {
        "train": {"negative": 29_780, "positive": 37_569},
        "validation": {"negative": 428, "positive": 444},
    }
    assert rows.provenance["texts"]["shared"] == {"train/validation": 0}
    assert rows.provenance["texts"]["repeats_within"]["train"] == 371


def test_sst2_sample_of_20000_does_not_depend_on_order(shared, load, tmp_path):
    folder = shared / "data" / "sst2"
    paths = {"train": str(folder / "train.parquet"), "validation": str(folder / "validation.parquet")}
    rows = load(paths, rows={"train": 20_000}, test=0)
    assert rows.provenance["rows"] == {"train": 20_000, "validation": 872, "test": 0}
    share = 37_569 / 67_349
    assert abs((rows.split("train").frame["label"] == 1).sum() - 20_000 * share) < 1
    pl.read_parquet(paths["train"]).reverse().write_parquet(tmp_path / "train.parquet")
    again = load({**paths, "train": str(tmp_path / "train.parquet")}, rows={"train": 20_000}, test=0)
    assert set(again.frame["row_id"]) == set(rows.frame["row_id"])


def test_emotion_counts_and_shared_texts(shared, load):
    rows = load(str(shared / "data" / "emotion"))
    assert rows.provenance["rows"] == {"train": 16_000, "validation": 2_000, "test": 2_000}
    texts = rows.provenance["texts"]
    assert texts["shared"] == {"train/validation": 5, "train/test": 11, "validation/test": 3}
    assert texts["repeats_within"] == {"train": 31, "validation": 2, "test": 0}
    assert list(rows.summary()["counts"]["test"].values()) == [581, 695, 159, 275, 224, 66]
    assert "11 texts stand in both train and test, as given." in rows.provenance["notes"]


def test_emotion_partial_conflicts_never_cross_made_splits(shared, load):
    rows = load(str(shared / "data" / "emotion_partial" / "all.parquet"))
    assert rows.provenance["texts"]["label_conflicts"] == 1_801
    assert rows.frame.group_by("text").agg(pl.col("split").n_unique()).get_column("split").max() == 1
    for split, share in (("validation", 0.1), ("test", 0.1)):
        for count, whole in zip(rows.summary()["counts"][split].values(), rows_of_label(rows), strict=True):
            assert abs(count - share * whole) <= 2


def rows_of_label(rows) -> list[int]:
    return [int((rows.frame["label"] == i).sum()) for i in range(len(rows.labels))]


def test_imdb_shared_texts_and_ids_of_its_own(shared, load):
    folder = shared / "data" / "imdb"
    paths = {"train": str(folder / "train.parquet"), "test": str(folder / "test.parquet")}
    rows = load(paths, id="id")
    assert rows.provenance["texts"]["shared"] == {"train/test": 123}
    assert rows.provenance["texts"]["repeats"] == 418
    assert rows.provenance["rows"] == {"train": 22_500, "validation": 2_500, "test": 25_000}
    assert rows.split("test").frame["row_id"][0].startswith("test/")


def test_qnli_pairs_grouped_by_question(shared, load):
    rows = load(
        str(shared / "data" / "qnli" / "validation.parquet"),
        text={"first": "sentence1", "second": "sentence2"},
        labels=["entailment", "not_entailment"],
        group_by="sentence1",
    )
    source = pl.read_parquet(shared / "data/qnli/validation.parquet")
    assert rows.frame["text"][0] == f"{source['sentence1'][0]}\n{source['sentence2'][0]}"
    assert rows.frame.group_by("sentence1").agg(pl.col("split").n_unique()).get_column("split").max() == 1
    assert rows.provenance["rows"] == {"train": 4371, "validation": 546, "test": 546}


def test_regression_of_real_scores_is_refused(shared, refusal):
    path = str(shared / "data" / "gender_terms" / "professions.parquet")
    message = refusal(path, text="profession", label="stereotype_gender")
    assert "row 1: the label is 0.4, a number with a fraction" in message


def test_real_rows_survive_csv_and_jsonl(shared, load, tmp_path):
    source = pl.read_parquet(shared / "data/imdb/test.parquet").head(2000)
    source = source.with_columns(label=pl.int_range(pl.len()) % 2)
    source.write_parquet(tmp_path / "x.parquet")
    source.write_csv(tmp_path / "x.csv")
    source.write_ndjson(tmp_path / "x.jsonl")
    one, two, three = (load(str(tmp_path / f"x.{kind}")).frame for kind in ("parquet", "csv", "jsonl"))
    ours = ["row_id", "position", "split", "text", "label"]
    assert one.select(ours).equals(two.select(ours))
    assert one.select(ours).equals(three.select(ours))
