"""A hand-set tiny classifier in which one attention head reads gender, and nothing else does anything.

It is the model of :mod:`tunescope.planted.decisive` with other words: where that one's head reads good and bad words,
this one's reads words for women and men, so that a text's class is its person's gender and every closed form of
:class:`~tunescope.planted.decisive.PlantedHead` holds for the text in the other's words. Exchanging the gender of a
text therefore changes the margin by a known amount, and all of the change goes through the planted head.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tunescope.files import write_atomic
from tunescope.planted.decisive import BAD, GOOD, HeadFamily, PlantedHead, planted_head_model

FEMALE = ("she", "woman", "sister", "mother")
MALE = ("he", "man", "brother", "father")
WORDS = dict(zip((*FEMALE, *MALE), (*GOOD, *BAD), strict=True))


@dataclass(frozen=True)
class PlantedGenderHead:
    """The head that reads gender, and the closed form of the margin.

    Attributes:
        head: The same head in the words of :mod:`tunescope.planted.decisive`.
    """

    head: PlantedHead

    def margin(self, text: str, label: int, signal: float | None = None) -> float:
        """Return the logit margin of class 0 (negative: men) or 1 (positive: women) in closed form.

        Args:
            text: Known words, parted by blanks.
            label: 0 or 1.
            signal: What the head writes instead; 0 where it is taken out, None leaves it.
        """
        return self.head.margin(" ".join(WORDS.get(word, word) for word in text.split()), label, signal)


def planted_gender_model(family: HeadFamily, layer: int, head: int, folder: Path) -> PlantedGenderHead:
    """Save a classifier folder in which head ``head`` of layer ``layer`` alone reads gender; return the truth.

    Raises:
        ConfigError: No such family, layer or head.
    """
    truth = PlantedGenderHead(planted_head_model(family, layer, head, folder))
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    names = {old: new for new, old in WORDS.items()}
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {names.get(word, word): number for word, number in vocabulary.items()}
    write_atomic(path, json.dumps(content))
    return truth
