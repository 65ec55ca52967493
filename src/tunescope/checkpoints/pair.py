"""Loading a pair: base and tuned under heads that mean something, and proof that both see the same tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch

from tunescope.capture.verify import verify
from tunescope.checkpoints.request import BaseHead, CompareRequest
from tunescope.data.rows import Rows
from tunescope.data.tokens import Tokens, tokenize
from tunescope.errors import LensError, ModelError
from tunescope.foreign import Kind, Pair, is_sentence_export, kind_of, same_weights, sentence_encoder
from tunescope.lenses import Subject
from tunescope.lenses.language.subject import LanguagePair, language_subject
from tunescope.lenses.suitable import require_same_tokens
from tunescope.models import Classifier, fit_probe, load, load_trunk
from tunescope.models.families import Pooling
from tunescope.models.source import Source, quiet_transformers
from tunescope.progress import Progress

TOKENISED_BY_BOTH = 64  # rows that both tokenizers read, to prove that they cut texts alike


@dataclass
class PairLoader:
    """Loads the subjects of a comparison; the base that was loaded last is kept, for pairs often share it.

    Attributes:
        request: What was asked for.
        rows: The rows.
        device: Where to put the models.
        kind: What the tuned models are.
        base_head: What gives bases their logits.
        progress: Where to report.
    """

    request: CompareRequest
    rows: Rows
    device: str
    kind: Kind
    base_head: BaseHead
    progress: Progress
    _bases: dict[tuple[str, Pooling], Classifier] = field(default_factory=dict, repr=False)
    _probes: dict[tuple[int, int], Classifier] = field(default_factory=dict, repr=False)

    def load(self, pair: Pair) -> Subject:
        """Load a tuned model and its base, and prove both on a probe batch.

        Raises:
            ModelError: A checkpoint cannot be used, or its labels cannot be aligned by name.
            LensError: The two do not see the same tokens.
        """
        with quiet_transformers():
            subject = self._language(pair) if self.kind == "language model" else self._classifiers(pair)
        subject.seed = pair.tuned.seed
        subject.identical = same_weights(pair.base, pair.tuned.path)
        return subject

    def _language(self, pair: Pair) -> Subject:
        limit, seed = self.request.data.max_length, self.request.seed
        wanted = LanguagePair(pair.base, pair.tuned.path, pair.tuned.arm, limit, self.device, seed)
        return language_subject(wanted, self.rows, self.progress)

    def _classifiers(self, pair: Pair) -> Subject:
        tuned = read_tuned(pair, self)
        base = self._base(pair, tuned.pooling)
        notes = self._extended(base, tuned)
        limit = self.request.data.max_length or min(tuned.max_length, base.max_length)
        base.max_length = tuned.max_length = limit
        splits = {
            one: tokenize(self.rows.split(one), tuned.tokenizer, limit, self.progress)
            for one in self.rows.splits
        }
        subject = Subject(
            pair.tuned.arm, None, base, tuned, self.base_head, splits, sampling_seed=self.request.seed,
            progress=self.progress, texts=self.rows.frame.select("row_id", "text"),
        )  # fmt: skip
        require_same_tokens(subject)
        require_same_pieces(subject, self.rows)
        verify(tuned)
        verify(base)
        subject.base = self._headed(pair, base, tuned, splits["train"])
        mine = "the checkpoint's own"
        if self.kind == "trunk":
            subject.tuned = fit_probe(tuned, splits["train"], seed=self.request.seed, progress=self.progress)
            mine = f"its folder holds none, so {subject.tuned.record['head']}"
        head = "none, so its logits are not read" if self.base_head == "none" else subject.base.record["head"]
        subject.notes = [f"Base head: {head}. Tuned head: {mine}.", *notes]
        return subject

    def _base(self, pair: Pair, pooling: Pooling) -> Classifier:
        """Load the base's trunk, or the base whole where its own head is read."""
        key = (pair.base, pooling)
        if key not in self._bases:
            self._bases.clear()
            self._probes.clear()
            self._bases[key] = self._own(pair) if self.base_head == "own" else self._trunk(pair, pooling)
        return self._bases[key]

    def _trunk(self, pair: Pair, pooling: Pooling) -> Classifier:
        path = sentence_encoder(pair.base).folder if is_sentence_export(pair.base) else pair.base
        other = pair.tuned.path if Source(pair.tuned.path).has_tokenizer else None
        return load_trunk(
            path, labels=self.rows.labels, pooling=pooling, tokenizer_of=other, device=self.device
        )

    def _own(self, pair: Pair) -> Classifier:
        kind = kind_of(pair.base)
        if kind != "classifier":
            raise ModelError(
                f"{pair.base} is a {kind}: it has no head of its own that tells these classes apart.",
                hint="Use --base-head probe, which fits one on its frozen features.",
            )
        names, mapping = self.rows.labels, self.request.label_map or None
        found = load(
            pair.base, labels=names, label_map=mapping, tokenizer_of=pair.tuned.path, device=self.device
        )
        found.record["head"] = "its own"
        return found

    def _headed(self, pair: Pair, base: Classifier, tuned: Classifier, train: Tokens) -> Classifier:
        """Give the base the head that its logits come from."""
        if self.base_head == "probe":
            key = (id(base), base.max_length)
            if key not in self._probes:
                self._probes[key] = fit_probe(base, train, seed=self.request.seed, progress=self.progress)
            return self._probes[key]
        if self.base_head == "tuned":
            if (base.width, base.family.name) != (tuned.width, tuned.family.name):
                raise ModelError(
                    f"The head of {pair.tuned.path} cannot be put on {pair.base}: their trunks differ in shape.",
                    hint="Use --base-head probe.",
                )
            base.head = tuned.head
            base.record["head"] = "the tuned head"
        return base

    def _extended(self, base: Classifier, tuned: Classifier) -> list[str]:
        """Extend the base's vocabulary to the tuned model's; such a base serves this pair alone."""
        added = extend_vocabulary(base, tuned)
        if not added:
            return []
        larger, smaller = ("tuned model", "base") if added > 0 else ("base", "tuned model")
        if added > 0:
            self._bases.clear()
        return [
            f"The {larger}'s vocabulary has {abs(added):,} entries more than the {smaller}'s; no row holds them, and "
            f"the {smaller} was given the {larger}'s vectors for them, so that they count as no change."
        ]


def read_tuned(pair: Pair, loader: PairLoader) -> Classifier:
    """Load a tuned classifier, or a trunk whose head is still to be fitted.

    Raises:
        ModelError: It cannot be used.
    """
    path, names, device = pair.tuned.path, loader.rows.labels, loader.device
    if loader.kind == "classifier":
        base = pair.base if Source(path).is_adapter else None
        mapping = loader.request.label_map or None
        found = load(path, labels=names, label_map=mapping, base=base, tokenizer_of=pair.base, device=device)
        named = Source(path).read_json("adapter_config.json").get("base_model_name_or_path") if base else None
        if named and named != base:
            found.record["assumed"].append(f"base: {base} is the {named} that the adapter was trained on")
        return found
    return read_trunk(path, loader, pair.base)


def read_trunk(path: str, loader: PairLoader, other: str | None) -> Classifier:
    """Load a trunk without a head of its own; an export of sentence-transformers with the pooling that it says.

    Raises:
        ModelError: It cannot be used.
    """
    names, device = loader.rows.labels, loader.device
    if not is_sentence_export(path):
        return load_trunk(path, labels=names, tokenizer_of=other, device=device)
    encoder = sentence_encoder(path)
    found = load_trunk(encoder.folder, labels=names, pooling=encoder.pooling, device=device)
    found.max_length = min(found.max_length, encoder.max_length or found.max_length)
    if encoder.left_out:
        after = ", ".join(encoder.left_out)
        found.record["assumed"].append(
            f"its vectors are read after {encoder.pooling} pooling, before {after}"
        )
    return found


def extend_vocabulary(base: Classifier, tuned: Classifier) -> int:
    """Give the model with fewer embeddings the other's further rows, and return how many more the tuned model had.

    Tokens that were added for training (a pad token), or rows that it cut off, would otherwise leave matrices of two
    shapes. The rows are the other model's own (zeros where the widths differ): no text may use them, which
    :func:`tunescope.lenses.suitable.require_same_tokens` proves.
    """
    added = len(_vectors(tuned)) - len(_vectors(base))
    if added == 0 or base.is_encoder_decoder or tuned.is_encoder_decoder:
        return 0
    fewer, more = (base, tuned) if added > 0 else (tuned, base)
    rows = len(_vectors(fewer))
    fewer.model.resize_token_embeddings(len(_vectors(more)), mean_resizing=False)
    with torch.no_grad():
        _vectors(fewer)[rows:] = _vectors(more)[rows:] if base.width == tuned.width else 0.0
    return added


def _vectors(model: Classifier) -> torch.Tensor:
    """Return the embeddings of a model's vocabulary, [V, D]."""
    return cast(torch.Tensor, model.trunk.get_input_embeddings().weight)


def require_same_pieces(subject: Subject, rows: Rows) -> None:
    """Refuse tokenizers that have one vocabulary and cut texts differently, or add other special tokens.

    Raises:
        LensError: A row's tokens differ.
    """
    first = next(iter(subject.splits))
    shown = Rows(rows.split(first).frame.head(TOKENISED_BY_BOTH), rows.labels, {})
    ours = tokenize(shown, subject.base.tokenizer, subject.base.max_length)
    theirs = subject.splits[first].input_ids[: len(ours)]
    for index, (one, other) in enumerate(zip(ours.input_ids, theirs, strict=True)):
        if not np.array_equal(one, other):
            raise LensError(
                f"{subject.arm}: the base's tokenizer and the tuned model's make different tokens of row "
                f"{ours.row_ids[index]}: {len(one)} ({_pieces(subject.base, one)}) and {len(other)} "
                f"({_pieces(subject.tuned, other)}), so the two would not see the same text.",
                hint="Compare a tuned model with the base that it was tuned from, tokenizer included.",
            )


def _pieces(model: Classifier, ids: np.ndarray) -> str:
    return " ".join(model.tokenizer.convert_ids_to_tokens([int(one) for one in ids[:6]])) + " ..."
