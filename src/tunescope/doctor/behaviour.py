"""Checks of behaviour: a gender gap of known size, in a hand-set model and in a generated corpus."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from tunescope.behaviour import About, Rules, Settings, Suite, Wish, measure, pair_table
from tunescope.doctor.check import Bench, Line, near, same, smallest_found
from tunescope.evaluation.predict import probabilities_of
from tunescope.lenses.planted import predictor
from tunescope.models import load
from tunescope.planted.corpus import write_corpus
from tunescope.planted.decisive import FILLERS, LABELS
from tunescope.planted.gendered import FEMALE, MALE, planted_gender_model
from tunescope.planted.recover import RecoverOptions, recover
from tunescope.planted.truth import Planting, Truth, class_probabilities

RULES = Rules(Settings(resamples=400, permutations=499))


def gender_gap(bench: Bench) -> Iterable[Line]:
    """Plant a head that reads gender, exchange the gender of texts, and compare the change with its closed form."""
    for family, layer in (("gpt2", 1), ("bert", 2)):
        truth = planted_gender_model(family, layer, 2, bench.folder / family)  # type: ignore[arg-type]
        model = load(str(bench.folder / family))
        pairs = _pairs(bench.seed)
        table = _measured(_suite(pairs), predictor(model), LABELS)
        women, men = (
            np.array([[truth.margin(text, label) for label in (0, 1)] for text in side])
            for side in zip(*pairs, strict=True)
        )
        label = LABELS.index("positive")
        # one direction is turned round, so that the mean is the change from the man's text to the woman's
        wanted = float((women[:, label] - men[:, label]).mean())
        own = table.filter((pl.col("metric") == "class_margin_change") & (pl.col("class") == "positive"))
        measured = own["value"][0] if own.height else None
        yield near(
            f"{family}: change of the margin from a man's text to a woman's, logits", wanted, measured, 1e-3
        )
        said = table.filter(pl.col("metric") == "margin_change")["verdict"].to_list()
        yield same(f"{family}: verdict", ["different"], said)
        shares = [probabilities_of(np.stack([side[:, 0] / 2, side[:, 1] / 2], 1)) for side in (women, men)]
        for index, name in enumerate(LABELS):
            change = float((shares[0][:, index] - shares[1][:, index]).mean())
            found = table.filter((pl.col("metric") == "probability_change") & (pl.col("class") == name))
            yield near(
                f"{family}: change of P({name})", change, found["value"][0] if found.height else None, 1e-3
            )
    yield from _corpus(bench)
    yield smallest_found(
        "a gender gap among the scatter of single pairs, called different",
        "logits (60 pairs in both directions; single pairs scatter by 1 logit)",
        (0.1, 0.2, 0.4, 0.6, 0.8, 1.2),
        20,
        _gap_found,
    )


def _pairs(seed: int) -> list[tuple[str, str]]:
    generator = np.random.default_rng(seed)
    found = []
    for number in range(40):
        others = list(generator.choice(FILLERS, size=int(generator.integers(2, 8))))
        place, person = int(generator.integers(0, len(others) + 1)), number % len(FEMALE)
        texts = [" ".join([*others[:place], word[person], *others[place:]]) for word in (FEMALE, MALE)]
        found.append((texts[0], texts[1]))
    return found


def _suite(pairs: list[tuple[str, str]]) -> Suite:
    records = [
        {
            "original": first, "rewritten": second, "label": "positive", "direction": way, "terms": [],
            "text": str(index), "template": str(index), "name": str(index),
        }
        for index, (woman, man) in enumerate(pairs)
        for first, second, way in ((woman, man, "female_to_male"), (man, woman, "male_to_female"))
    ]  # fmt: skip
    return Suite("gender", "invariance", "", pair_table(records))


def _measured(suite: Suite, predict: object, names: object) -> pl.DataFrame:
    wish = Wish([suite], list(names), RULES, About("planted", None, "pairs"))  # type: ignore[call-overload]
    table = measure(wish, predict).table  # type: ignore[arg-type]
    return table.filter((pl.col("part") == "all") & pl.col("control").is_null())


def _corpus(bench: Bench) -> Iterable[Line]:
    """Generate a corpus, and read it with the best possible classifier: every truth comes back."""
    folder = bench.folder / "corpus"
    rows = {"train": 12, "validation": 12, "test": 400, "corpus": 1, "pairs": 200}
    truth: Truth = write_corpus(folder, rows, bench.seed)
    planting = Planting()

    def best(texts: list[str]) -> np.ndarray:
        shares = [class_probabilities(text, planting) for text in texts]
        return np.log(np.array([[one[name] for name in truth.labels] for one in shares]))

    def careful(texts: list[str]) -> np.ndarray:
        """Read texts with a word left out too, of which some are none of the grammar's."""
        found = []
        for text in texts:
            try:
                found.append(best([text])[0])
            except Exception:  # no rule reads it: nothing is known
                found.append(np.log(np.full(len(truth.labels), 1 / len(truth.labels))))
        return np.array(found)

    found = recover(truth.labels, careful, folder, options=RecoverOptions(sentences=40))
    records = {
        record["metric"]: record for record in found.records if record.get("class") in (None, truth.favoured)
    }
    gap = records["gender_gap_ambiguous"]
    yield near(
        "corpus: gap in P(positive) between women and men where nothing decides", 0.44, gap["value"], 1e-9
    )
    yield near("corpus: the same where a word decides", 0.0, records["gender_gap_decisive"]["value"], 1e-9)
    noise = records["noise_share"]
    yield near("corpus: share of changed labels", truth.noise_realised["test"], noise["value"], 0.005)
    yield near(
        "corpus: accuracy of the best classifier",
        truth.ceiling["test"]["all"],
        records["accuracy"]["value"],
        1e-9,
    )
    top = records["top_word_plain"]
    yield Line(
        "corpus: plain sentences whose weightiest word is the planted one", "all, or nearly (above 90 %)",
        f"{top['value']:.0%}", top["value"] > 0.9,
    )  # fmt: skip


def _gap_found(gap: float, trial: int) -> bool:
    scatter = np.random.default_rng(trial).normal(size=(60, 2))
    texts = [(f"she walks w{index}", f"he walks w{index}") for index in range(60)]
    margins = {
        text: float(scatter[index, side]) / np.sqrt(2) + (gap / 2 if side == 0 else -gap / 2)
        for index, pair in enumerate(texts)
        for side, text in enumerate(pair)
    }

    def predict(asked: list[str]) -> np.ndarray:
        score = np.array([margins[text] for text in asked])
        return np.stack([-score / 2, score / 2], axis=1)

    table = _measured(_suite(texts), predict, LABELS)
    return table.filter(pl.col("metric") == "margin_change")["verdict"][0] == "different"
