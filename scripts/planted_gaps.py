"""The gender gap that really tuned models show, beside the gap that was planted in their data.

    python scripts/planted_gaps.py [FOLDER] [--gender 0.5 0.75 0.95] [--seeds 0] [--arm full]

The recipe ``quickstart`` is run once a strength with its arm ``full`` (the strengths share the unlabelled text, and so
one language model);  what is measured is the behaviour suite of the
corpus's ambiguous pairs, in both directions, with intervals clustered by sentence, template and person. It prints a
table, and ends with 1 where a gap does not grow with the planted one, or an interval does not hold it.
A free core needs two minutes for a seed's language model and one for each strength.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import polars as pl

from tunescope.behaviour import About, Rules, Settings, Suite, Wish, measure, pair_table
from tunescope.config import load_study
from tunescope.config.load import find_study
from tunescope.lenses.planted import predictor
from tunescope.models import load
from tunescope.planted.truth import FAVOURED, Truth
from tunescope.study import LENSES, METHODS, run

PAIRS = Path("data/planted/pairs.parquet")


@dataclass(frozen=True)
class Gap:
    """One tuned model's gap: P(favoured) of a woman's text minus a man's, over ambiguous pairs.

    Attributes:
        gender: The planted strength P(favoured | woman).
        seed: Of the corpus and the training.
        planted: The exact gap after label noise.
        value: The measured gap.
        low: Lower end of its 95 % interval.
        high: Upper end.
        verdict: Of the suite.
        n: Pairs.
    """

    gender: float
    seed: int
    planted: float
    value: float
    low: float
    high: float
    verdict: str
    n: int

    @property
    def covered(self) -> bool:
        """Whether the interval holds the planted gap."""
        return self.low <= self.planted <= self.high


def tuned_gap(folder: Path, gender: float, seed: int, arm: str, language_model: Path | None) -> Gap:
    """Run quickstart at one strength, and measure the gap of one tuned arm.

    Args:
        folder: The run folder.
        gender: The planted strength.
        seed: Of the corpus and the training.
        arm: The arm that is tuned.
        language_model: What an earlier run trained on the corpus's text; None: this run trains it.
    """
    overrides = [f"data.path=planted:quickstart?gender={gender}", f"data.seed={seed}", f"seeds=[{seed}]",
                 "lenses=[planted]", "audit=false"]  # fmt: skip
    study = load_study(find_study("quickstart"), overrides, methods=METHODS, lenses=LENSES)
    known = {} if language_model is None else {"model": str(language_model), "scratch": None}
    arms = [one.model_copy(update=known) for one in study.arms if one.name == arm]
    study = study.model_copy(update={"arms": arms})
    run(study, folder)
    model = load(str(folder / "arms" / arm / f"seed-{seed}" / "model"))
    wish = Wish(
        [pairs(folder / PAIRS)], model.labels.names, Rules(Settings(seed=seed)), About(arm, None, "pairs")
    )
    table = measure(wish, predictor(model)).table
    whole = table.filter((pl.col("part") == "all") & pl.col("control").is_null())
    gap = whole.filter((pl.col("metric") == "probability_change") & (pl.col("class") == FAVOURED))
    one = gap.row(0, named=True)
    verdict = whole.filter(pl.col("metric") == "margin_change")["verdict"][0]
    planted = Truth.load(folder / PAIRS.with_name("truth.json")).gender_gap
    return Gap(gender, seed, planted, one["value"], one["low"], one["high"], verdict, one["n"])


def pairs(path: Path) -> Suite:
    """Return the corpus's ambiguous pairs as a suite in both directions; followed is the favoured class."""
    table = pl.read_parquet(path).filter(pl.col("ambiguous")).with_row_index("number")
    records = [
        {
            "original": row[f"text_{first}"], "rewritten": row[f"text_{second}"], "label": FAVOURED,
            "direction": f"{first}_to_{second}", "text": str(row["number"]), "template": str(row["frame"]),
            "name": str(row["subject"]),
        }
        for row in table.iter_rows(named=True)
        for first, second in (("female", "male"), ("male", "female"))
    ]  # fmt: skip
    return Suite("gender", "invariance", f"pairs of {path}", pair_table(records))


def misses(gaps: list[Gap]) -> list[str]:
    """Return what is not as planted: gaps out of order within a seed, intervals without the planted gap."""
    said = [
        f"gender={one.gender}, seed {one.seed}: [{one.low:+.3f}, {one.high:+.3f}] does not hold {one.planted:+.3f}"
        for one in gaps
        if not one.covered
    ]
    for seed in sorted({one.seed for one in gaps}):
        own = sorted((one for one in gaps if one.seed == seed), key=lambda one: one.gender)
        said += [
            f"seed {seed}: the gap at gender={after.gender} ({after.value:+.3f}) is not above that at "
            f"gender={before.gender} ({before.value:+.3f})"
            for before, after in pairwise(own)
            if after.value <= before.value
        ]
    return said


def main() -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder", nargs="?", type=Path, help="where the runs go; a temporary folder by default"
    )
    parser.add_argument("--gender", nargs="+", type=float, default=[0.5, 0.75, 0.95])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--arm", default="full")
    parser.add_argument(
        "--language-model", type=Path, help="a model that quickstart trained on the same text"
    )
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="planted-gaps-"))
    print("gender  seed  planted  measured  95 % interval     covered  verdict of the margin  pairs")
    gaps = []
    for seed in asked.seeds:
        known = asked.language_model
        for gender in asked.gender:
            own = folder / f"gender-{gender}-seed-{seed}"
            one = tuned_gap(own, gender, seed, asked.arm, known)
            known = known or next(own.glob("scratch/*/model"))
            gaps.append(one)
            interval = f"[{one.low:+.3f}, {one.high:+.3f}]"
            print(
                f"{gender:6.2f}  {seed:4d}  {one.planted:+7.3f}  {one.value:+8.3f}  {interval}  "
                f"{'yes' if one.covered else 'no':>7}  {one.verdict:>21}  {one.n}",
                flush=True,
            )
    missed = misses(gaps)
    print("\n".join(missed) or "Every gap is covered, and they grow with what was planted.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
