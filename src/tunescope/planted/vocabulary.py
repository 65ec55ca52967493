"""The words of the generated corpus; every list is disjoint from the decisive words, and a test proves it.

A gendered word is written ``female|male``; :func:`tunescope.planted.grammar.render` picks one side.
"""

from __future__ import annotations

CLASSES: tuple[str, ...] = ("negative", "neutral", "positive")

# Words that decide the label of the clause they stand in. Adjectives follow "was"; verbs take an object.
DECISIVE_ADJECTIVES: dict[str, tuple[str, ...]] = {
    "negative": (
        "awful", "dreadful", "horrible", "terrible", "dismal",
        "shabby", "gloomy", "tedious", "nasty", "hideous",
        "miserable", "disappointing",
    ),
    "neutral": ("ordinary", "average", "usual", "typical",
    "adequate", "moderate", "passable", "unremarkable"),
    "positive": (
        "wonderful", "delightful", "superb", "splendid",
        "lovely", "excellent", "charming", "brilliant", "pleasant",
        "impressive", "cheerful", "magnificent",
    ),
}  # fmt: skip
DECISIVE_VERBS: dict[str, tuple[str, ...]] = {
    "negative": ("hated", "detested", "despised", "regretted"),
    "neutral": ("tolerated", "accepted", "endured"),
    "positive": ("loved", "adored", "enjoyed", "admired"),
}
DECISIVE: dict[str, tuple[str, ...]] = {
    name: DECISIVE_ADJECTIVES[name] + DECISIVE_VERBS[name] for name in CLASSES
}

# What stands before a decisive word. Flipping turns negative and positive round, diminishing makes both
# neutral, intensifying changes nothing.
FLIPPING: dict[str, tuple[str, ...]] = {"adjective": ("not", "far from", "anything but"), "verb": ("never",)}
DIMINISHING: dict[str, tuple[str, ...]] = {
    "adjective": ("barely", "hardly", "only slightly"),
    "verb": ("barely", "hardly"),
}
INTENSIFYING: tuple[str, ...] = ("very", "really", "truly", "quite", "remarkably", "so")

# Adjectives and verbs that decide nothing, so that frames and modifiers alone say nothing about the label.
IDLE_ADJECTIVES: tuple[str, ...] = (
    "large", "narrow", "wooden", "recent", "crowded",
    "long", "short", "painted", "heated", "quiet", "expensive",
    "modern", "round", "empty", "distant", "seasonal", "foreign", "covered", "private", "busy",
)  # fmt: skip
IDLE_VERBS: tuple[str, ...] = (
    "described", "visited", "photographed", "mentioned", "discussed", "noticed", "remembered", "sketched",
    "reviewed", "studied",
)  # fmt: skip

THINGS: tuple[str, ...] = (
    "hotel", "concert", "museum", "film", "lecture",
    "dinner", "garden", "journey", "novel", "exhibition", "market",
    "bakery", "library", "theatre", "ferry", "apartment", "kitchen", "painting", "speech", "song", "festival",
    "workshop", "camera", "soup", "bridge", "restaurant", "gallery", "cottage", "menu", "parade",
)  # fmt: skip
DETERMINERS: tuple[str, ...] = ("the", "the", "our", "this", "their")
ATTRIBUTES: tuple[str, ...] = ("old", "small", "local", "famous", "northern", "second", "main", "rebuilt")
PLACES: tuple[str, ...] = (
    "near the station", "by the river", "in the village", "on the hill", "behind the church", "at the lake",
    "across the street", "next to the school",
)  # fmt: skip

# (subject form, object form): the object form follows prepositions.
PEOPLE: tuple[tuple[str, str], ...] = (
    ("she|he", "her|him"),
    ("my sister|brother", "my sister|brother"),
    ("the woman|man", "the woman|man"),
    ("our aunt|uncle", "our aunt|uncle"),
    ("my mother|father", "my mother|father"),
    ("their daughter|son", "their daughter|son"),
    ("my grandmother|grandfather", "my grandmother|grandfather"),
    ("the waitress|waiter", "the waitress|waiter"),
    ("a young girl|boy", "a young girl|boy"),
    ("the actress|actor", "the actress|actor"),
    ("our niece|nephew", "our niece|nephew"),
    ("the hostess|host", "the hostess|host"),
)
OTHERS: tuple[tuple[str, str, str], ...] = (
    ("we", "us", "our"), ("they", "them", "their"), ("the guests", "the guests", "their"),
    ("several visitors", "several visitors", "their"), ("the neighbours", "the neighbours", "their"),
)  # fmt: skip

OPENINGS: tuple[str, ...] = (
    "last summer", "on Monday", "after the long drive",
    "in {their} letter", "two years ago", "during the holidays",
    "before the storm", "with {their} friends", "in the end", "at the weekend",
)  # fmt: skip
TAILS: tuple[str, ...] = (
    "during the visit", "with {their} friends", "before the train left", "on the first evening", "for a week",
    "in spite of the rain", "as {their} colleagues had said", "while the children slept", "after lunch",
    "when the lights came on",
)  # fmt: skip
SEQUELS: tuple[str, ...] = (
    "and {they} paid the bill", "and {they} took the last bus home",
    "and {they} wrote to {their} cousin about it",
    "and {they} sat by the window for an hour", "and later {they} met {their} teacher at the corner",
    "and {they} left {their} umbrella near the door", "and {they} asked for a map of the town",
    "and on the way {they} talked about the weather and the price of tickets",
)  # fmt: skip

# What a person does in a sentence of two or three words; only in the unlabelled corpus.
DEEDS: tuple[str, ...] = (
    "went home",
    "left early",
    "waited outside",
    "phoned us",
    "took a taxi",
    "stayed there",
)

# Frames with a slot {p} for "modifier + adjective", {v} for "modifier + verb"; {s} subject, {o} thing, {w}
# object form.
PERSON_FRAMES: dict[str, str] = {
    "said-that": "{s} said that {o} was {p}",
    "thought": "{s} thought {o} seemed {p}",
    "for-whom": "for {w}, {o} was {p}",
    "told-which": "{s} told us about {o}, which was {p}",
    "according-to": "according to {w}, {o} turned out {p}",
    "diary": "{s} wrote in {their} diary that {o} had been {p}",
    "looked-to": "{o} looked {p} to {w}",
    "came-back": "when {s} came back, {o} was {p}",
    "called-us": "{s} called us because {o} had become {p}",
    "verb": "{s} {v} {o}",
    "verb-everybody": "everybody knew that {s} {v} {o}",
    "verb-admitted": "{s} admitted that {they} {v} {o}",
}
OTHER_FRAMES: dict[str, str] = {
    "was": "{o} was {p}",
    "turned-out": "{o} turned out {p}",
    "we-said": "{s} said that {o} was {p}",
    "we-verb": "{s} {v} {o}",
}
FRAGMENTS: dict[str, str] = {
    "fragment": "{p} {thing}",
    "fragment-place": "{p} {thing} {place}",
    "fragment-word": "{p}",
}
