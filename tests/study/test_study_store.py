"""The activation store in a study: what it spares, that numbers stay the same, and that it goes at the end."""

from __future__ import annotations

import collections
import re

import polars as pl
import pytest
import yaml
from study_helpers import Listening, make_study, raw_study, write_reviews
from test_study import contents
from typer.testing import CliRunner

from tunescope.cli import app
from tunescope.errors import Interrupted, RunError
from tunescope.evaluation import predict
from tunescope.models.store import ActivationStore
from tunescope.study import measure, run


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    return write_reviews(tmp_path_factory.mktemp("stored") / "reviews.csv", rows=90)


def raw(reviews, model, *, seeds=(0, 1), **training) -> dict:
    arms = [
        {"name": "last", "model": str(model), "method": "last_k", "k": 1},
        {"name": "head", "model": str(model), "method": "head_only"},
    ]
    made = raw_study(reviews, model, arms=arms, audit=False, seeds=list(seeds))
    made["training"] |= {"num_train_epochs": 1, "report_to": "none", **training}
    return made


class Counting:
    """Counts rows that are computed, by what computes them, in every module that does."""

    def __init__(self, patched):
        self.rows, self.stored = collections.Counter(), collections.Counter()
        import tunescope.models.probe as probe
        import tunescope.models.store as store

        batches, before, predicted = probe.model_batches, store.states_before, predict
        patched.setattr("tunescope.models.probe.model_batches", self._features(batches))

        def states(classifier, depth, **inputs):
            self.rows["states"] += len(inputs["lengths"])
            return before(classifier, depth, **inputs)

        patched.setattr("tunescope.models.store.states_before", states)

        def predicting(classifier, tokens, progress, states=None):
            self.stored[None if states is None else states.depth] += len(tokens)
            return predicted(classifier, tokens, progress, states)

        patched.setattr("tunescope.study.measure.predict", predicting)

    def _features(self, batches):
        def counted(*arguments, **named):
            for batch in batches(*arguments, **named):
                self.rows["features"] += len(batch.row_ids)
                yield batch

        return counted


@pytest.fixture(scope="module")
def both(reviews, gpt2_folder, tmp_path_factory):
    """The same study with the store and without, and what each computed."""
    found = {}
    for name, use in (("with", "auto"), ("without", "never")):
        folder = tmp_path_factory.mktemp("runs") / name
        with pytest.MonkeyPatch.context() as patched:
            counted, said = Counting(patched), Listening()
            study = make_study(raw(reviews, gpt2_folder, activation_store=use))
            found[name] = (run(study, folder, device="cpu", progress=said), counted, said.lines)
    return found


def test_every_number_is_the_same_with_the_store_and_without(both):
    ours, theirs = (contents(both[name][0]) for name in ("with", "without"))
    about_the_store = re.compile(r"study|log\.jsonl|metrics\.json|training\.json")
    names = {name for name in theirs if not about_the_store.search(name)}
    assert names == {name for name in ours if not about_the_store.search(name)}
    assert sum(name.endswith(".safetensors") for name in names) == 4
    assert any(name.startswith("results/") and name.endswith(".parquet") for name in names)
    for name in names:
        assert ours[name] == theirs[name], name
    for arm in ("last", "head"):
        for seed in (0, 1):
            one, other = (found[f"arms/{arm}/seed-{seed}/metrics.json"] for found in (ours, theirs))
            assert one["records"] == other["records"]
            assert one["slices"] == other["slices"]
            assert "store" in one["cost"]["choices"]
            assert "store" not in other["cost"]["choices"]


def test_features_and_states_of_a_row_are_computed_once(both):
    rows = pl.read_parquet(both["with"][0] / "data" / "rows.parquet")
    split = dict(rows["split"].value_counts().iter_rows())
    counted = both["with"][1]
    # The probe baseline, the base heads of four lens stages, and two seeds of head_only share one computation.
    assert counted.rows["features"] == rows.height
    # Train and validation are filled by the first training, test by the first evaluation, as there is another seed.
    assert counted.rows["states"] == rows.height
    assert counted.stored == {1: 2 * rows.height, 2: 2 * rows.height}
    plain = both["without"][1]
    assert plain.rows["features"] == (1 + 4) * split["train"] + 2 * (split["train"] + split["validation"])
    assert plain.rows["states"] == 0
    assert plain.stored == {None: 4 * rows.height}


def test_the_store_is_listed_and_removed_at_the_end(both):
    folder, _, lines = both["with"]
    (line,) = [line for line in lines if "activation store" in line]
    assert re.fullmatch(r"  activation store: 6 entries, \d+\.\d MB, removed \(--keep-store .*/store", line)
    assert not list(folder.glob("*store*")) + list(folder.glob(".store*"))
    assert not any("activation store" in line for line in both["without"][2])


def test_a_resumed_run_does_not_fill_again_and_keeps_the_store_on_request(
    reviews, gpt2_folder, tmp_path, monkeypatch
):
    study = make_study(raw(reviews, gpt2_folder, seeds=[0]))
    folder = tmp_path / "moods"
    with monkeypatch.context() as patched:
        patched.setattr(measure, "cost", _stop)
        with pytest.raises(Interrupted):
            run(study, folder, device="cpu")
    filled = [("pooled", 2)] * 3 + [("states", 1)] * 2
    # One seed: nobody predicts test rows again, so their states are not stored.
    assert sorted((one.kind, one.depth) for one in ActivationStore(folder / "store").entries()) == filled
    for stage in (folder / "stages").glob("train-*"):
        stage.unlink()  # trained again, from what is stored
    said = Listening()
    with monkeypatch.context() as patched:
        patched.setattr("tunescope.models.store.states_before", lambda *_, **__: pytest.fail("filled again"))
        patched.setattr("tunescope.models.probe.model_batches", lambda *_: pytest.fail("computed again"))
        run(study, folder, device="cpu", progress=said, keep_store=True)
    (line,) = [line for line in said.lines if "activation store" in line]
    assert re.fullmatch(r"  activation store: 5 entries, \d+\.\d MB, kept: .*/store", line)
    assert sorted((one.kind, one.depth) for one in ActivationStore(folder / "store").entries()) == filled
    run(study, folder, device="cpu")  # nothing to do, and without the flag nothing to keep
    assert not (folder / "store").exists()


def _stop(*_):
    raise KeyboardInterrupt


def test_a_budget_that_is_too_small_is_one_sentence_for_the_user(reviews, gpt2_folder, tmp_path):
    made = raw(reviews, gpt2_folder, seeds=[0], activation_store="always", activation_store_bytes=1000)
    with pytest.raises(
        RunError, match=r"needs [\d,]+ more bytes; it holds 0, and its budget is 1,000\."
    ) as e:
        run(make_study(made), tmp_path / "run", device="cpu")
    assert e.value.hint == (
        "Set training.activation_store_bytes higher, or training.activation_store to never."
    )
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(made))
    answer = CliRunner().invoke(
        app, ["run", str(file), "--output-dir", str(tmp_path / "run"), "--device", "cpu", "-q"]
    )
    assert answer.exit_code == 6
    assert "The activation store needs" in answer.stderr
    assert "training.activation_store_bytes" in answer.stderr
    assert "Traceback" not in answer.output
