"""From a template and a row to tokens: a text that is too long is cut, the template and the answer never."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tunescope.config.window import WindowConfig
from tunescope.errors import ConfigError
from tunescope.prompting.language_model import LanguageModel
from tunescope.prompting.scores import Prompt
from tunescope.tuning.zero_shot import MASK, fields_of


@dataclass(frozen=True)
class Template:
    """A prompt with its fields.

    Attributes:
        text: As written.
        pieces: Pairs of literal text and the field after it.
        columns: The fields but ``{mask}``, each once.
    """

    text: str
    pieces: tuple[tuple[str, str | None], ...]
    columns: tuple[str, ...]

    @classmethod
    def of(cls, text: str, model: LanguageModel) -> Template:
        """Read a template and check that it asks what the model can answer.

        Raises:
            ConfigError: It lacks ``{mask}`` for a masked model, has it for a causal one, or ends with a space.
        """
        pieces = tuple(fields_of(text))
        names = [name for _, name in pieces if name is not None]
        if model.kind == "masked" and MASK not in names:
            raise ConfigError(
                f"prompt {text!r} has no {{mask}}: {model.record['path']} is a masked language model, which "
                "answers where a mask stands.",
                hint=f"Write for example {text.rstrip() + ' It was {mask}.'!r}.",
            )
        if model.kind == "causal" and MASK in names:
            raise ConfigError(
                f"prompt {text!r} has {{mask}}: {model.record['path']} is a causal language model, which answers "
                "after the prompt.",
                hint="Let the prompt end where the answer begins, without {mask}.",
            )
        last, ending = pieces[-1]
        if model.kind == "causal" and ending is None and last != last.rstrip():
            raise ConfigError(
                f"prompt {text!r} ends with a space, which would be a token of its own that no text has there.",
                hint="End it with the last visible character, and begin the verbalizers with the space.",
            )
        return cls(text, pieces, tuple(dict.fromkeys(name for name in names if name != MASK)))

    def halves(self, values: Mapping[str, str]) -> tuple[str, str]:
        """Return the text before and after the answer, with the fields filled in."""
        halves = ["", ""]
        side = 0
        for literal, name in self.pieces:
            halves[side] += literal
            if name == MASK:
                side = 1
            elif name is not None:
                halves[side] += values[name]
        return halves[0], halves[1]


@dataclass(frozen=True)
class Reading:
    """How much of a text is read; the same words as in a study's ``data`` section.

    Attributes:
        max_length: The most tokens of a prompt with its answer, special tokens included; None means what the
            model's positions can number, at most 512.
        window: Which part of a text that does not fit is kept. Sliding windows each get the whole template,
            and their log-probabilities are averaged.
    """

    max_length: int | None = None
    window: WindowConfig = field(default_factory=lambda: WindowConfig.model_validate("head"))


@dataclass(frozen=True)
class Encoded:
    """One row's prompts.

    Attributes:
        prompts: One, or one a sliding window.
        tokens: Tokens of the whole prompt, uncut and without answer.
        truncated: Whether some of the text is in none of the prompts.
    """

    prompts: tuple[Prompt, ...]
    tokens: int
    truncated: bool


class Encoder:
    """Turns rows into prompts of at most ``room`` tokens.

    Args:
        model: The language model, for its tokenizer and special tokens.
        room: The most tokens of a prompt without its answer.
        window: What is kept of a longer text.
    """

    def __init__(self, model: LanguageModel, room: int, window: WindowConfig) -> None:
        self.model = model
        self.room = room
        self.window = window
        mask = model.tokenizer.special_tokens_map.get("mask_token")
        added = model.tokenizer.added_tokens_decoder.values()
        own = next((token for token in added if mask is not None and token.content == str(mask)), None)
        # RoBERTa's mask swallows the space before it, and halves are encoded apart from the mask.
        self._swallows = (bool(own and own.lstrip), bool(own and own.rstrip))

    def encode(self, template: Template, rows: Sequence[Mapping[str, str]]) -> list[Encoded]:
        """Encode rows, each a mapping from field to text.

        Raises:
            ConfigError: The template leaves no room for text, or a prompt has no token at all.
        """
        self._check(template)
        prompts = self._prompts([template.halves(row) for row in rows])
        out = []
        for row, prompt in zip(rows, prompts, strict=True):
            tokens = len(prompt.before) + len(prompt.after)
            if tokens == 0:
                raise ConfigError(
                    f"prompt {template.text!r} has no token when its field is empty, so nothing precedes the answer.",
                    hint="Put some words into the prompt, or leave '' out of content_free.",
                )
            if tokens <= self.room:
                out.append(Encoded((prompt,), tokens, False))
            else:
                out.append(self._cut(template, row, tokens))
        return out

    def _check(self, template: Template) -> None:
        (bare,) = self._prompts([template.halves(dict.fromkeys(template.columns, ""))])
        used = len(bare.before) + len(bare.after)
        if used >= self.room:
            raise ConfigError(
                f"prompt {template.text!r} takes {used} tokens by itself, and {self.room} are left beside the "
                "answer: there is no room for text.",
                hint="Write a shorter prompt, or set data.max_length higher.",
            )

    def _prompts(self, halves: Sequence[tuple[str, str]]) -> list[Prompt]:
        left, right = self._swallows
        before = self.model.plain_ids([one.rstrip() if left else one for one, _ in halves])
        if self.model.kind == "causal":
            return [Prompt((*self.model.before, *ids)) for ids in before]
        after = self.model.plain_ids([one.lstrip() if right else one for _, one in halves])
        return [
            Prompt((*self.model.before, *first), (*second, *self.model.after))
            for first, second in zip(before, after, strict=True)
        ]

    def _cut(self, template: Template, row: Mapping[str, str], tokens: int) -> Encoded:
        """Cut the longest fields, all to one length, until the prompt fits."""
        places = {name: self._places(row[name]) for name in template.columns}
        sizes = {name: len(offsets) for name, offsets in places.items()}
        width = _level(list(sizes.values()), self.room - (tokens - sum(sizes.values())))
        while True:
            choices = {name: _spans(sizes[name], width, self.window) for name in template.columns}
            longest = max(choices, key=lambda name: (len(choices[name]), sizes[name]))
            views = []
            for spans in choices[longest]:
                chosen = {name: choices[name][0] for name in template.columns} | {longest: spans}
                views.append(
                    {name: _part(row[name], places[name], chosen[name]) for name in template.columns}
                )
            prompts = self._prompts([template.halves(view) for view in views])
            over = max(len(prompt.before) + len(prompt.after) for prompt in prompts) - self.room
            if over <= 0 or width == 0:
                covered = _covered(choices[longest]) >= sizes[longest]
                others = all(_covered(choices[name][:1]) >= sizes[name] for name in sizes if name != longest)
                return Encoded(tuple(prompts), tokens, not (covered and others))
            # Cut texts can take more tokens than they had as parts of the whole.
            width = max(0, width - max(1, over // len(sizes)))

    def _places(self, text: str) -> list[tuple[int, int]]:
        encoded = self.model.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
        )
        return [(int(start), int(stop)) for start, stop in encoded["offset_mapping"]]


Span = tuple[int, int]


def _level(sizes: list[int], room: int) -> int:
    """Return the largest length to which fields of these sizes are cut so that their sum is at most ``room``."""
    left, level = max(room, 0), 0
    for number, size in enumerate(sorted(sizes)):
        level = left // (len(sizes) - number)
        if size > level:
            return level
        left -= size
    return max(sizes)


def _spans(size: int, width: int, window: WindowConfig) -> list[tuple[Span, ...]]:
    """Return which tokens of ``size`` each window of ``width`` tokens shows, as spans in order."""
    if size <= width:
        return [((0, size),)]
    if window.keep == "tail":
        return [((size - width, size),)]
    if window.keep == "head_tail":
        head = (width + 1) // 2
        return [((0, head), (size - (width - head), size))]
    if window.keep == "head" or width == 0:
        return [((0, width),)]
    stride = window.stride or max(1, width // 2)
    starts = [0]
    while starts[-1] + width < size and len(starts) < window.most_windows:
        starts.append(starts[-1] + stride)
    return [((start, min(start + width, size)),) for start in starts if start < size]


def _covered(windows: list[tuple[Span, ...]]) -> int:
    """Count the tokens that at least one window shows."""
    spans = sorted(span for spans in windows for span in spans)
    ends = [(0, 0), *spans]
    total, reach = 0, 0
    for _, (start, stop) in pairwise(ends):
        total += max(0, stop - max(start, reach))
        reach = max(reach, stop)
    return total


def _part(text: str, places: list[Span], spans: tuple[Span, ...]) -> str:
    """Return the characters of the tokens in ``spans``; a whole text keeps its outer spaces."""
    if spans == ((0, len(places)),):
        return text
    return "".join(text[places[start][0] : places[stop - 1][1]] for start, stop in spans if stop > start)
