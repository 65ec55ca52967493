"""Writing the generated corpus: labelled splits, unlabelled text, gender pairs, and the truth about them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tunescope.errors import ConfigError, DataError
from tunescope.files import atomic_path, write_atomic
from tunescope.planted import vocabulary as words
from tunescope.planted.grammar import Sentence, Wish, make_document, make_sentence
from tunescope.planted.truth import DISFAVOURED, FAVOURED, Planting, Truth, class_probabilities

SPLITS = ("train", "validation", "test")
# The order in which texts are drawn: what is drawn first does not change when a later part grows.
_PARTS = ("test", "validation", "pairs", "train")

CORPORA: dict[str, dict[str, int]] = {
    "quickstart": {"train": 6000, "validation": 600, "test": 1200, "corpus": 9000, "pairs": 400},
    "tiny": {"train": 400, "validation": 100, "test": 100, "corpus": 400, "pairs": 40},
}


@dataclass(frozen=True)
class _Labelled:
    sentence: Sentence
    gender: str  # female, male or none
    clean: str
    label: str

    def row(self) -> dict[str, Any]:
        return {
            "text": self.sentence.render(self.gender),
            "label": self.label,
            "clean_label": self.clean,
            "gender": self.gender,
            "decisive_word": self.sentence.predicate.word,
            "modifier": self.sentence.predicate.modifier,
            "kind": self.sentence.kind,
            "frame": self.sentence.frame,
            "noisy": self.label != self.clean,
        }


def write_planted(name: str, folder: Path, seed: int) -> Truth:
    """Write the corpus that a study calls ``planted:NAME``.

    Args:
        name: A name of ``CORPORA``; ``NAME?gender=P`` plants another strength of the link between gender and label
            (``p_favoured`` of :class:`~tunescope.planted.truth.Planting`, 0.5 for none).
        folder: Where to write.
        seed: Seeds every choice.

    Raises:
        ConfigError: There is no planted corpus of that name, or P is no share from 0.5 to 1.
    """
    corpus, _, asked = name.partition("?")
    if corpus not in CORPORA:
        raise ConfigError(
            f"There is no planted corpus {corpus!r}; known: {', '.join(sorted(CORPORA))}.",
            hint="Write data.path as planted:quickstart.",
        )
    return write_corpus(folder, CORPORA[corpus], seed, _planting(asked) if asked else None)


def _planting(asked: str) -> Planting:
    key, _, value = asked.partition("=")
    try:
        share = float(value)
    except ValueError:
        share = float("nan")
    if key != "gender" or not 0.5 <= share <= 1:
        raise ConfigError(
            f"What stands after '?' in a planted corpus's name is gender=P with P from 0.5 (no gap) to 1; "
            f"got {asked!r}.",
            hint="Write data.path as planted:quickstart?gender=0.9.",
        )
    return Planting(p_favoured=share)


def write_corpus(folder: Path, rows: Mapping[str, int], seed: int, planting: Planting | None = None) -> Truth:
    """Generate a corpus and write it into ``folder``; the same arguments give the same texts and labels.

    Written are ``train``, ``validation`` and ``test.parquet`` (text, label, clean_label, gender,
    decisive_word, modifier, kind, frame, noisy), ``corpus.txt`` (unlabelled texts of one to five sentences,
    one a line), ``pairs.parquet`` (text_female, text_male, expected_gap, ambiguous, subject) and
    ``truth.json``. No sentence stands in two of them.

    In every split the share of changed labels is exact to one row, among decisive and among ambiguous rows,
    and so are the shares of the classes among ambiguous rows of each gender; only which rows they are is
    drawn.

    Args:
        folder: Where to write; made if it is missing.
        rows: Number of rows of ``train``, ``validation``, ``test``, ``corpus`` and ``pairs``.
        seed: Seeds every choice.
        planting: The planted strengths; None means the defaults.

    Raises:
        DataError: ``rows`` lacks a part or asks for fewer rows than a part needs (12; corpus 1).
    """
    _check(rows)
    planting = planting or Planting()
    seen: set[str] = set()
    drawn = {part: _draw(part, rows[part], seed, planting, seen) for part in _PARTS}
    tables = {}
    for split in SPLITS:
        rng = random.Random(f"{seed}/{split}/labels")
        tables[split] = pl.DataFrame(
            [item.row() for item in _label(drawn[split], planting, rng)], infer_schema_length=None
        )
        _write_parquet(tables[split], folder / f"{split}.parquet")
    write_atomic(folder / "corpus.txt", "\n".join(_documents(rows["corpus"], seed, seen)) + "\n")
    _write_parquet(
        _pair_table([sentence for sentence, _ in drawn["pairs"]], planting), folder / "pairs.parquet"
    )
    truth = _truth(tables, planting, rows, seed)
    truth.save(folder / "truth.json")
    return truth


def _check(rows: Mapping[str, int]) -> None:
    for part in (*_PARTS, "corpus"):
        least = 1 if part == "corpus" else 12
        if rows.get(part, 0) < least:
            raise DataError(
                f"A planted corpus needs at least {least} rows of {part!r}; asked for {rows.get(part)}."
            )


def _draw(part: str, count: int, seed: int, planting: Planting, seen: set[str]) -> list[tuple[Sentence, str]]:
    """Draw sentences whose texts, in both genders, were never drawn before."""
    rng = random.Random(f"{seed}/{part}")
    n_ambiguous = round(count * (0.5 if part == "pairs" else planting.ambiguous))
    drawn: list[tuple[Sentence, str]] = []
    while len(drawn) < count:
        sentence = make_sentence(rng, Wish(ambiguous=len(drawn) < n_ambiguous))
        texts = {sentence.render("female"), sentence.render("male")}
        if texts & seen or (part == "pairs" and sentence.subject is None):
            continue
        seen |= texts
        gender = "none" if sentence.subject is None else ("female", "male")[len(drawn) % 2]
        drawn.append((sentence, gender))
    if part != "pairs":
        rng.shuffle(drawn)
    return drawn


def _documents(count: int, seed: int, seen: set[str]) -> list[str]:
    """Draw unlabelled texts of one to five sentences, without any sentence that was drawn before."""
    rng = random.Random(f"{seed}/corpus")
    texts: list[str] = []
    taken: set[str] = set()
    while len(texts) < count:
        document, gender = make_document(rng), rng.choice(("female", "male"))
        rendered = [sentence.render(gender) for sentence in document]
        text = " ".join(rendered)
        if text not in taken and not seen.intersection([*rendered, text]):
            taken.add(text)
            texts.append(text)
    return texts


def _label(drawn: list[tuple[Sentence, str]], planting: Planting, rng: random.Random) -> list[_Labelled]:
    clean = [sentence.predicate.label for sentence, _ in drawn]
    for gender in ("female", "male"):
        rows = [
            i for i, (sentence, its) in enumerate(drawn) if sentence.kind == "ambiguous" and its == gender
        ]
        p = planting.p_favoured if gender == "female" else 1 - planting.p_favoured
        favoured = set(rng.sample(rows, round(p * len(rows))))
        for i in rows:
            clean[i] = FAVOURED if i in favoured else DISFAVOURED
    noisy: set[int] = set()
    for ambiguous in (True, False):
        rows = [i for i, (sentence, _) in enumerate(drawn) if (sentence.kind == "ambiguous") == ambiguous]
        noisy |= set(rng.sample(rows, round(planting.noise * len(rows))))
    labelled = []
    for i, (sentence, gender) in enumerate(drawn):
        before = str(clean[i])
        others = [name for name in words.CLASSES if name != before]
        labelled.append(_Labelled(sentence, gender, before, rng.choice(others) if i in noisy else before))
    return labelled


def _pair_table(sentences: list[Sentence], planting: Planting) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "text_female": sentence.render("female"),
                "text_male": sentence.render("male"),
                "ambiguous": sentence.kind == "ambiguous",
                "expected_gap": planting.gender_gap if sentence.kind == "ambiguous" else 0.0,
                "subject": sentence.subject,
                "frame": sentence.frame,
            }
            for sentence in sentences
        ]
    )


def _truth(
    tables: Mapping[str, pl.DataFrame], planting: Planting, rows: Mapping[str, int], seed: int
) -> Truth:
    return Truth(
        seed=seed,
        labels=list(words.CLASSES),
        favoured=FAVOURED,
        noise=planting.noise,
        ambiguous=planting.ambiguous,
        p_favoured=planting.p_favoured,
        gender_gap=planting.gender_gap,
        decisive_words={name: sorted(listed) for name, listed in words.DECISIVE.items()},
        modifiers=sorted(
            {phrase for group in (words.FLIPPING, words.DIMINISHING) for p in group.values() for phrase in p}
        ),
        rows={part: rows[part] for part in sorted(rows)},
        noise_realised={
            split: float(table["noisy"].cast(pl.Float64).sum()) / len(table)
            for split, table in tables.items()
        },
        ceiling={split: _ceiling(table, planting) for split, table in tables.items()},
    )


def _ceiling(table: pl.DataFrame, planting: Planting) -> dict[str, float]:
    """Return the share of labels that the Bayes-optimal classifier meets: all, decisive, ambiguous rows."""
    best = []
    for text in table["text"]:
        probabilities = class_probabilities(text, planting)
        best.append(max(probabilities, key=probabilities.__getitem__))
    met = (table["label"] == pl.Series(best)).cast(pl.Float64)
    ambiguous = table["kind"] == "ambiguous"

    def share(rows: pl.Series) -> float:
        kept = met.filter(rows)
        return float(kept.sum()) / len(kept)

    every = pl.Series([True] * len(table))
    return {"all": share(every), "decisive": share(~ambiguous), "ambiguous": share(ambiguous)}


def _write_parquet(table: pl.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        table.write_parquet(temporary)
