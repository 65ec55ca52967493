"""What is planted in the generated corpus, in numbers that can be computed and not only estimated.

:func:`class_probabilities` is the Bayes-optimal classifier: it reads a text by the corpus's rules, without
knowing how the text was generated, and returns the exact probability of each class before or after the label
noise. No model can do better, so its accuracy is the ceiling, and its gender gap is the gap that a calibrated
model shows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunescope.errors import DataError
from tunescope.files import read_json, write_json
from tunescope.planted import vocabulary as words
from tunescope.planted.grammar import OPPOSITE

FAVOURED = "positive"  # the class that ambiguous sentences about women get more often
DISFAVOURED = "negative"
# Columns of the written splits that say how a label came about: no model and no baseline may see them.
TRUTH_COLUMNS = ("clean_label", "decisive_word", "modifier", "kind", "frame", "noisy")

_CLASS_OF = {word: name for name, listed in words.DECISIVE.items() for word in listed}
_FLIPPING = tuple(phrase.split() for part in words.FLIPPING.values() for phrase in part)
_DIMINISHING = tuple(phrase.split() for part in words.DIMINISHING.values() for phrase in part)
_SIDES = [pair.split()[-1].split("|") for pair, _ in words.PEOPLE] + [["her", "his"], ["her", "him"]]
_FEMALE = {female for female, _ in _SIDES}
_MALE = {male for _, male in _SIDES}


@dataclass(frozen=True)
class Planting:
    """The strengths of what is planted.

    Attributes:
        noise: Share of rows whose label is replaced by another class, drawn uniformly, 0 to below 1.
        ambiguous: Share of rows without a decisive word.
        p_favoured: Probability of the favoured class in ambiguous sentences about women, 0.5 to 1; about men
            it is one minus this. The rest goes to the disfavoured class.
    """

    noise: float = 0.08
    ambiguous: float = 0.25
    p_favoured: float = 0.75

    def after_noise(self, clean: dict[str, float]) -> dict[str, float]:
        """Return class probabilities after the label noise: (1 - e) p + e (1 - p) / (C - 1)."""
        others = len(words.CLASSES) - 1
        return {name: (1 - self.noise) * p + self.noise * (1 - p) / others for name, p in clean.items()}

    @property
    def gender_gap(self) -> float:
        """P(favoured | woman) - P(favoured | man) in ambiguous sentences, after the label noise."""
        women = self.after_noise({FAVOURED: self.p_favoured})[FAVOURED]
        men = self.after_noise({FAVOURED: 1 - self.p_favoured})[FAVOURED]
        return women - men


@dataclass(frozen=True)
class Truth:
    """Everything planted in one written corpus; saved as ``truth.json``.

    Attributes:
        seed: The seed of every choice.
        labels: Class names in class order.
        favoured: The class whose probability carries the gender gap.
        noise: Planted share of label noise.
        ambiguous: Planted share of ambiguous rows.
        p_favoured: See :class:`Planting`.
        gender_gap: Exact gap in P(favoured) between the two texts of an ambiguous pair; 0 for control pairs.
        decisive_words: Class to the words that decide it when nothing modifies them.
        modifiers: The flipping and diminishing words.
        rows: Split to number of rows.
        noise_realised: Split to the share of rows that really carry a changed label.
        ceiling: Split to the exact accuracy of the Bayes-optimal classifier on its labels, and to the same on
            ``decisive`` rows and on ``ambiguous`` rows.
    """

    seed: int
    labels: list[str]
    favoured: str
    noise: float
    ambiguous: float
    p_favoured: float
    gender_gap: float
    decisive_words: dict[str, list[str]]
    modifiers: list[str]
    rows: dict[str, int]
    noise_realised: dict[str, float]
    ceiling: dict[str, dict[str, float]]

    def save(self, path: Path) -> None:
        """Write ``truth.json`` atomically."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Truth:
        """Read a ``truth.json``.

        Raises:
            RunError: The file is missing, not JSON or of another version.
            DataError: A field is missing or unknown.
        """
        content: dict[str, Any] = read_json(path)
        del content["format_version"]
        try:
            return cls(**content)
        except TypeError as error:
            raise DataError(
                f"{path} does not hold what a planted corpus needs ({error}).",
                hint="Delete the folder and run the study again; the corpus is generated anew.",
            ) from error


def class_probabilities(text: str, planting: Planting, noisy: bool = True) -> dict[str, float]:
    """Return the exact probability of each class given a text of this grammar.

    Args:
        text: A sentence of the grammar (not of English at large).
        planting: The planted strengths.
        noisy: After the label noise (what labels in the files follow), or before it.

    Raises:
        DataError: The text holds no decisive word and names no woman or man, or it holds several decisive
            words in its main clause: it is none of the grammar's.
    """
    clause = _main_clause(text)
    found = [(position, word) for position, word in enumerate(clause) if word in _CLASS_OF]
    if len(found) > 1:
        raise DataError(
            f"{text!r} holds {len(found)} decisive words in its main clause; expected at most one."
        )
    clean = dict.fromkeys(words.CLASSES, 0.0)
    if found:
        clean[_decided(clause, *found[0])] = 1.0
    else:
        women = _gender(text) == "female"
        clean[FAVOURED] = planting.p_favoured if women else 1 - planting.p_favoured
        clean[DISFAVOURED] = 1 - clean[FAVOURED]
    return planting.after_noise(clean) if noisy else clean


def _words(text: str) -> list[str]:
    return text.lower().replace(",", " ").replace(".", " ").split()


def _main_clause(text: str) -> list[str]:
    """Return the words outside clauses that decide nothing: although ..., even though ..., ... but."""
    lowered = text.lower()
    if lowered.startswith("although "):
        lowered = lowered.split(",", 1)[1]
    lowered = lowered.split(", even though ", 1)[0]
    return _words(lowered.split(", but ", 1)[-1])


def _decided(clause: list[str], position: int, word: str) -> str:
    before = clause[:position]
    while before and before[-1] in words.INTENSIFYING:
        before.pop()
    own = _CLASS_OF[word]
    if any(before[-len(phrase) :] == phrase for phrase in _DIMINISHING):
        return "neutral"
    if any(before[-len(phrase) :] == phrase for phrase in _FLIPPING):
        return OPPOSITE[own]
    return own


def _gender(text: str) -> str:
    present = set(_words(text))
    women, men = bool(present & _FEMALE), bool(present & _MALE)
    if women == men:
        raise DataError(f"{text!r} has no decisive word and names {'both genders' if women else 'nobody'}.")
    return "female" if women else "male"
