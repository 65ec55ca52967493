"""The grammar of the generated corpus: one sentence at a time, its label decided by rules that are known.

A sentence has one *frame* with one predicate. The predicate holds a decisive word, possibly flipped or
diminished, or (in *ambiguous* sentences, which always name a woman or a man) an idle word that decides
nothing. Around it stand distractors: openings, tails, sequels, and subordinate clauses that may hold a
decisive word of another class.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from tunescope.planted import vocabulary as words

MIN_WORDS, MAX_WORDS = 2, 40
SHARE_OF_PEOPLE, SHARE_OF_FRAGMENTS = 0.45, 0.55
OPPOSITE = {"negative": "positive", "positive": "negative"}
_GENDERED = re.compile(r"(\w+)\|(\w+)")


@dataclass(frozen=True)
class Predicate:
    """What is said in the slot of a frame.

    Attributes:
        text: Modifier and word as they stand in the sentence.
        word: The decisive word, or None where the predicate decides nothing.
        modifier: The flipping or diminishing modifier that changed the word's class, else None.
        label: The class that it decides, or None.
    """

    text: str
    word: str | None = None
    modifier: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Sentence:
    """One generated sentence before a gender is chosen.

    Attributes:
        skeleton: The text, gendered words written ``female|male``.
        frame: Name of the frame in the main clause.
        subject: Subject form of the person named (``she|he``), or None where nobody of a gender is named.
        predicate: What the main clause says.
        kind: ``plain``, ``flipped``, ``diminished`` or ``ambiguous``.
    """

    skeleton: str
    frame: str
    subject: str | None
    predicate: Predicate
    kind: str

    def render(self, gender: str) -> str:
        """Return the sentence as text with the words of ``gender`` ("female"; all else is male)."""
        return render(self.skeleton, gender)


def render(skeleton: str, gender: str) -> str:
    """Pick one side of every ``female|male`` word; make it start with a capital and end with a full stop."""
    side = 1 if gender == "female" else 2
    text = _GENDERED.sub(lambda match: match.group(side), skeleton)
    return text[0].upper() + text[1:] + "."


@dataclass(frozen=True)
class Wish:
    """What a sentence must be about; None leaves it to chance.

    Attributes:
        ambiguous: No decisive word, and a person of a gender is named.
        label: The class that the decisive word decides.
        people: The subjects to choose from (an empty tuple: nobody of a gender).
        echo: Probability that a second adjective of the same class follows a decisive one.
    """

    ambiguous: bool = False
    label: str | None = None
    people: tuple[tuple[str, str], ...] | None = None
    echo: float = 0.0


def make_sentence(rng: random.Random, wish: Wish) -> Sentence:
    """Draw one sentence of 2 to 40 words; every choice comes from ``rng``."""
    while True:
        sentence = _draw(rng, wish)
        if MIN_WORDS <= len(sentence.skeleton.split()) <= MAX_WORDS:
            return sentence


def make_document(rng: random.Random) -> list[Sentence]:
    """Draw one to five sentences that share an opinion and a person, as the sentences of one review do.

    A predicate often has an echo of the same class beside it ("not awful, rather lovely"), a full sentence a
    verdict after it ("Truly lovely."), and the person comes back as she or he. This is what a language model
    learns opinions and genders from without any label: what was said, negation included, tells what comes
    next. Opinion and gender are independent here.
    """
    label = rng.choice(words.CLASSES)
    person = rng.choice(words.PEOPLE) if rng.random() < 0.7 else None
    document = []
    for number in range(rng.choice((1, 1, 2))):
        people = () if person is None else (person,) if number == 0 else words.PEOPLE[:1]
        ambiguous = person is not None and rng.random() < 0.25
        document.append(make_sentence(rng, Wish(ambiguous, label, people, echo=0.6)))
        if rng.random() < 0.4:
            document.append(_verdict(rng, label))
        if person is not None and rng.random() < 0.7:
            document.append(_sequel_sentence(rng))
    return document


def _verdict(rng: random.Random, label: str) -> Sentence:
    word = rng.choice(words.DECISIVE_ADJECTIVES[label])
    text = word if rng.random() < 0.7 else f"{rng.choice(words.INTENSIFYING)} {word}"
    return Sentence(text, "fragment-word", None, Predicate(text, word, None, label), "plain")


def _sequel_sentence(rng: random.Random) -> Sentence:
    text = f"she|he {rng.choice(words.DEEDS)}"
    return Sentence(text, "deed", "she|he", Predicate(text), "ambiguous")


def _draw(rng: random.Random, wish: Wish) -> Sentence:
    about_person = wish.ambiguous or (
        rng.random() < SHARE_OF_PEOPLE if wish.people is None else bool(wish.people)
    )
    short = not about_person and rng.random() < SHARE_OF_FRAGMENTS
    frames = words.PERSON_FRAMES if about_person else words.FRAGMENTS if short else words.OTHER_FRAMES
    name = rng.choice(list(frames))
    if about_person:
        subject, object_form = rng.choice(wish.people or words.PEOPLE)
        names = {"s": subject, "w": object_form, "they": "she|he", "their": "her|his"}
    else:
        subject_form, object_form, their = rng.choice(words.OTHERS)
        subject = None
        names = {
            "s": subject_form,
            "w": object_form,
            "they": "we" if their == "our" else "they",
            "their": their,
        }
    frame = frames[name]
    predicate = _predicate(rng, wish, verb="{v}" in frame)
    thing, place = rng.choice(words.THINGS), rng.choice(words.PLACES)
    core = frame.format(o=_thing(rng), p=predicate.text, v=predicate.text, thing=thing, place=place, **names)
    skeleton = core if short else _surround(rng, core, names, predicate)
    return Sentence(skeleton, name, subject, predicate, _kind(predicate))


def _kind(predicate: Predicate) -> str:
    if predicate.word is None:
        return "ambiguous"
    if predicate.modifier is None:
        return "plain"
    flipping = words.FLIPPING["adjective"] + words.FLIPPING["verb"]
    return "flipped" if predicate.modifier in flipping else "diminished"


def _thing(rng: random.Random) -> str:
    parts = [rng.choice(words.DETERMINERS)]
    if rng.random() < 0.35:
        parts.append(rng.choice(words.ATTRIBUTES))
    parts.append(rng.choice(words.THINGS))
    if rng.random() < 0.25:
        parts.append(rng.choice(words.PLACES))
    return " ".join(parts)


def _modified(rng: random.Random, modifier: str | None, word: str) -> str:
    intensifier = rng.choice(words.INTENSIFYING) if rng.random() < 0.3 else None
    if modifier not in (None, "not"):  # "not very good" is English, "barely very good" is not
        intensifier = None
    return " ".join(part for part in (modifier, intensifier, word) if part)


def _predicate(rng: random.Random, wish: Wish, verb: bool) -> Predicate:
    part = "verb" if verb else "adjective"
    flipping, diminishing = words.FLIPPING[part], words.DIMINISHING[part]
    chance = rng.random()
    if wish.ambiguous:
        # The same modifiers stand here too, so that "not" alone says nothing about the label.
        modifier = (
            rng.choice(flipping) if chance < 0.15 else rng.choice(diminishing) if chance < 0.22 else None
        )
        word = rng.choice(words.IDLE_VERBS if verb else words.IDLE_ADJECTIVES)
        return Predicate(_modified(rng, modifier, word))
    label = wish.label or rng.choice(words.CLASSES)
    modifier, source = None, label
    if label == "neutral" and chance < 0.35:
        modifier, source = rng.choice(diminishing), rng.choice(("negative", "positive"))
    elif label != "neutral" and chance < 0.30:
        modifier, source = rng.choice(flipping), OPPOSITE[label]
    word = rng.choice((words.DECISIVE_VERBS if verb else words.DECISIVE_ADJECTIVES)[source])
    text = _modified(rng, modifier, word)
    if not verb and wish.echo and rng.random() < wish.echo:
        text += " and " if modifier is None else ", rather "
        text += rng.choice(words.DECISIVE_ADJECTIVES[label])
    return Predicate(text, word, modifier, label)


def _surround(rng: random.Random, core: str, names: dict[str, str], predicate: Predicate) -> str:
    if rng.random() < 0.30:
        core = f"{core} {rng.choice(words.TAILS).format(**names)}"
    for sequel in rng.sample(words.SEQUELS, k=rng.choices((0, 1, 2, 3), weights=(80, 14, 4, 2))[0]):
        core = f"{core} {sequel.format(**names)}"
    if rng.random() < 0.30:
        core = f"{rng.choice(words.OPENINGS).format(**names)}, {core}"
    if rng.random() < 0.12:
        core = _concession(rng, core, predicate)
    return core


def _concession(rng: random.Random, core: str, predicate: Predicate) -> str:
    """Add a clause that decides nothing; next to a decisive word it may hold one of another class."""
    adjective = rng.choice(words.IDLE_ADJECTIVES)
    if predicate.word is not None and rng.random() < 0.6:
        other = rng.choice([name for name in words.CLASSES if name != predicate.label])
        adjective = rng.choice(words.DECISIVE_ADJECTIVES[other])
    clause = f"the {rng.choice(words.THINGS)} was {adjective}"
    shape = rng.choice(("although {clause}, {core}", "{core}, even though {clause}", "{clause}, but {core}"))
    return shape.format(clause=clause, core=core)
