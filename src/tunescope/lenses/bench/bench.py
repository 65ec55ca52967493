"""What one text does in base and tuned, and what it does with parts of the models switched off.

Switching off uses the ablation lens's own machinery (:mod:`tunescope.lenses.ablation`): the clean pass is stored, a
change starts in its own block, and the result equals edits inside a full pass to 1e-5.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from tunescope.capture.hooks import read
from tunescope.capture.sites import Site
from tunescope.capture.stored import StoredPass, store
from tunescope.config.window import WindowConfig
from tunescope.data.rows import rows_of_texts
from tunescope.data.tokens import Tokens, tokenize
from tunescope.errors import LensError
from tunescope.evaluation.predict import logits_of
from tunescope.evaluation.words import left_out
from tunescope.lenses.ablation.components import Variant, every, joint, parse
from tunescope.lenses.ablation.replacement import Replacer, Statistics
from tunescope.lenses.ablation.sweep import require_finite_pass
from tunescope.lenses.ablation.sweep_stack import Stack
from tunescope.lenses.bench.at_once import are_apart, at_once
from tunescope.lenses.bench.means import means_in_pieces
from tunescope.lenses.bench.text import ReadText, read_text
from tunescope.lenses.subject import LensRows, Subject, Which
from tunescope.models.activations import fast_activations
from tunescope.models.classifier import Classifier
from tunescope.models.language import LanguageModel
from tunescope.rewriting import Lexicon, Unresolved, load_lexicon, rewrite

Answer = TypeVar("Answer")
Edit = Literal["zero", "mean"]
REFERENCE_ROWS = 512  # the ablation lens's default, so that its numbers and these are the same
TOKENS_AT_ONCE = 1024
KEPT_BYTES = 2**28  # of stored passes
TEXTS_AT_ONCE = 8
LEXICONS = ("gender", "names", "race", "synonyms")
_SWITCH = re.compile(r"L\d+(?:H\d+|\.attention|\.mlp)")


@dataclass
class Bench:
    """Base and tuned of one training, ready to be asked about single texts. Not for several threads at once.

    What a person waits for runs in both models at the same time (:mod:`tunescope.lenses.bench.at_once`).

    Attributes:
        subject: The two models; the base under its base head, left out of predictions where that is ``none``.
        window: Which part of a long text is kept.
        reference_rows: Train rows that means are taken over.
    """

    subject: Subject
    window: WindowConfig | None = None
    reference_rows: int = REFERENCE_ROWS
    _texts: OrderedDict[str, ReadText] = field(default_factory=OrderedDict, repr=False)
    _passes: OrderedDict[tuple[Which, str], StoredPass] = field(default_factory=OrderedDict, repr=False)
    _means: dict[Which, Statistics] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.subject.tuned.is_encoder_decoder:
            raise LensError(
                f"The bench looks into models of one stack; {self.subject.tuned.family.name} is an encoder-decoder.",
                hint="The report has this run's lenses.",
            )
        if isinstance(self.subject.tuned, LanguageModel):
            raise LensError(
                "The bench compares the probabilities of classes; a language model has none.",
                hint="The report has this run's lenses.",
            )
        if not same_shape(self.subject):
            raise LensError(
                "The bench switches the same heads and layers off in both models; base and tuned differ in shape.",
                hint="The report has this run's lenses.",
            )
        for model in (self.subject.base, self.subject.tuned):
            model.eval()
        self._apart = are_apart(self.subject)

    @property
    def models(self) -> dict[Which, Classifier]:
        """The models that predict, base first where it has a head."""
        return dict(self.subject.models_with_logits())

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the logits."""
        return tuple(self.subject.tuned.labels.names)

    def read(self, text: str) -> ReadText:
        """Return a text as the models read it.

        Raises:
            DataError: It is empty, has no token, or is far too long.
        """
        if text not in self._texts:
            self._texts[text] = read_text(self.subject.tuned, text, self.window)
            while len(self._texts) > 32:
                self._texts.popitem(last=False)
        return self._texts[text]

    def predict(self, text: str) -> dict[Which, np.ndarray]:
        """Return the logits [C] of each model."""
        return {which: stored.logits[0].cpu().numpy() for which, stored in self._passes_of(text).items()}

    def switched(self, text: str, off: Sequence[str], edit: Edit = "zero") -> dict[Which, np.ndarray]:
        """Return the logits [C] of each model with components switched off together.

        Args:
            text: The text.
            off: Components: ``L3H7`` (head), ``L3.attention``, ``L3.mlp``.
            edit: ``zero``, or ``mean`` over the real tokens of train rows (see :meth:`prepare_means`).

        Raises:
            LensError: A component is not in this model, or the means are not there yet.
        """
        if not off:
            return self.predict(text)
        stored = self._passes_of(text)

        def changed(which: Which, model: Classifier) -> np.ndarray:
            variant = joint([_component(model, name, edit) for name in off], "switched off", edit)
            return self._changed(which, stored[which], [variant], edit)[0]

        return self._each(self.models, changed)

    def grid(self, text: str, edit: Edit = "zero") -> Iterator[dict[str, Any]]:
        """Switch off every head, attention and MLP by itself, last layer first, a layer of one model at a time.

        Yields:
            ``model``, ``layer``, ``heads`` (logits [H, C]), ``attention`` and ``mlp`` (logits [C]).
        """
        stored = self._passes_of(text)
        for layer in reversed(range(self.subject.tuned.n_layers)):
            for which, model in self.models.items():
                mine = [
                    one for one in every(model, ("heads", "attention", "mlp"), edit) if one.layer == layer
                ]
                logits = self._changed(which, stored[which], mine, edit)
                heads = model.n_heads
                yield {"model": which, "layer": layer, "heads": logits[:heads], "attention": logits[heads],
                       "mlp": logits[heads + 1]}  # fmt: skip

    def words(self, text: str, most: int = 300) -> Iterator[dict[str, Any]]:
        """Leave out each word in turn, a few words of one model at a time.

        Yields:
            ``model``, ``first`` (the place of the first of these words) and ``logits`` [K, C] without each.
        """
        whole = self.read(text)
        if len(whole.words) < 2:
            return  # without its only word there is no text
        variants = left_out(text)[:most]
        for first in range(0, len(variants), TEXTS_AT_ONCE):
            some = variants[first : first + TEXTS_AT_ONCE]
            for which in self.models:
                yield {"model": which, "first": first, "logits": self.logits(which, some)}

    def logits(self, which: Which, texts: Sequence[str]) -> np.ndarray:
        """Return one model's logits [N, C] of whole texts."""
        return np.asarray(logits_of(self.models[which], self._tokens(which, texts)))

    def attention(self, text: str, layer: int, head: int) -> dict[Which, np.ndarray]:
        """Return one head's attention [T, T] in base and tuned: who looks (rows) at whom (columns).

        Raises:
            LensError: There is no such head.
        """
        _component(self.subject.tuned, f"L{layer}H{head}", "zero")
        whole, site = self.read(text), Site("attn_pattern", layer)

        def pattern(_which: Which, model: Classifier) -> np.ndarray:
            found = read(model, [site], whole.inputs(model.device))[site]
            return np.asarray(found[0, head].float().cpu().numpy())

        return self._each({"base": self.subject.base, "tuned": self.subject.tuned}, pattern)

    def swaps(self, text: str) -> Iterator[dict[str, Any]]:
        """Rewrite the text by each shipped lexicon and predict the counterpart.

        Yields:
            ``lexicon`` and either ``reason`` (why the counterpart cannot be known) or ``text``, ``changes`` (old and
            new words with their places in the new text) and ``logits`` (a model's [C]). A lexicon without a term in
            the text gives nothing.
        """
        for name in LEXICONS:
            made = rewrite(text, _lexicon(name))
            if made is None:
                continue
            if isinstance(made, Unresolved):
                yield {"lexicon": name, "reason": made.reason, "term": made.term}
                continue
            tokens = {which: self._tokens(which, [made.rewritten]) for which in self.models}
            logits = self._each(self.models, partial(_first_logits, tokens))
            changes = [
                {"old": one.old, "new": one.new, "start": one.new_start, "end": one.new_end}
                for one in made.changes
            ]
            yield {"lexicon": name, "text": made.rewritten, "changes": changes, "logits": logits}

    def prepare_means(self) -> Iterator[float]:
        """Average the components over train rows, once, in small pieces; yields the share that is done."""
        missing = [which for which in self.models if which not in self._means]
        rows = LensRows(split="train", n=max(4, self.reference_rows))
        for number, which in enumerate(missing):
            reference, found = self.subject.draw(rows, labelled=False), Statistics()
            for share in means_in_pieces(self.models[which], reference, found):
                yield (number + share) / len(missing)
            self._means[which] = found

    @property
    def has_means(self) -> bool:
        """Whether components can be replaced by their means already."""
        return set(self.models) <= set(self._means)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the stored passes."""
        return sum(_bytes(one) for one in self._passes.values())

    def _each(
        self, models: dict[Which, Classifier], task: Callable[[Which, Classifier], Answer]
    ) -> dict[Which, Answer]:
        """Do a task with each model, at the same time where they have nothing in common."""
        tasks = {which: partial(task, which, model) for which, model in models.items()}
        return at_once(tasks) if self._apart else {which: one() for which, one in tasks.items()}

    def _tokens(self, which: Which, texts: Sequence[str]) -> Tokens:
        model = self.models[which]  # both may have one tokenizer, which is not for several threads
        rows = rows_of_texts(texts, model.labels)
        return tokenize(rows, model.tokenizer, model.max_length, window=self.window).first_windows()

    def _passes_of(self, text: str) -> dict[Which, StoredPass]:
        """Return the clean pass of a text in each model, and keep it."""
        whole = self.read(text)
        kept = {which: self._passes[which, text] for which in self.models if (which, text) in self._passes}
        missing = {which: model for which, model in self.models.items() if which not in kept}
        kept |= self._each(missing, lambda _which, model: _stored(model, whole))
        for which in self.models:
            self._passes[which, text] = kept[which]
            self._passes.move_to_end((which, text))
        while len(self._passes) > 2 and self.stored_bytes > KEPT_BYTES:
            self._passes.popitem(last=False)
        return kept

    def _changed(
        self, which: Which, stored: StoredPass, variants: Sequence[Variant], edit: Edit
    ) -> np.ndarray:
        """Return the logits [V, C] of changes that start in one block each, run together where they share it."""
        if edit == "mean" and which not in self._means:
            raise LensError("The means over train rows are not there yet.", hint="Ask for them first.")
        model, known = self.models[which], self._means.get(which, Statistics())
        replacer = Replacer(model, known, ["text"], stored.length, 0)
        together, found = max(1, TOKENS_AT_ONCE // stored.length), []
        with torch.inference_mode(), fast_activations(model.model):
            for first in range(0, len(variants), together):
                some = variants[first : first + together]
                drawn = stored.logits.new_zeros(len(some), model.width)  # no random control is asked for
                found.append(Stack(model, stored, replacer, some, drawn).logits()[:, 0])
        return torch.cat(found).float().cpu().numpy()


def same_shape(subject: Subject) -> bool:
    """Whether base and tuned have as many layers and heads."""
    base, tuned = subject.base, subject.tuned
    return (base.n_layers, base.n_heads) == (tuned.n_layers, tuned.n_heads)


def _stored(model: Classifier, whole: ReadText) -> StoredPass:
    """Run a text once and keep what every change starts from."""
    with torch.inference_mode(), fast_activations(model.model):
        stored = store(model, whole.inputs(model.device))
        require_finite_pass(stored, stored.logits, ["of this text"])
    return stored


def _component(model: Classifier, name: str, edit: Edit) -> Variant:
    if _SWITCH.fullmatch(name) is None:
        raise LensError(
            f"{name!r} cannot be switched off here.", hint="Write for example L3H7, L3.attention or L3.mlp."
        )
    return parse(model, name, edit)


def _bytes(stored: StoredPass) -> int:
    tensors = [value for values in stored.values.values() for value in values] + list(stored.trace.resid_pre)
    return sum(one.numel() * one.element_size() for one in tensors)


@cache
def _lexicon(name: str) -> Lexicon:
    return load_lexicon(name)


def _first_logits(tokens: Mapping[Which, Tokens], which: Which, model: Classifier) -> np.ndarray:
    """Return the logits [C] of the only row."""
    return np.asarray(logits_of(model, tokens[which])[0])
