"""What goes into the model in a training: padded rows, rows without padding, stored states, or features."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from tunescope.data.tokens import Tokens
from tunescope.errors import ConfigError, RunError
from tunescope.models import Classifier, features
from tunescope.models.packed import packing_problem
from tunescope.models.prefix import FromStored
from tunescope.models.store import ActivationStore
from tunescope.progress import SILENT, Progress
from tunescope.training.rows import FeatureRows, PackedRows, StoredRows, TokenRows


@dataclass(frozen=True)
class InputOptions:
    """How rows become inputs.

    Attributes:
        padding: ``bucket`` (rows of about equal length, padded), ``none`` (no padding at all), or ``auto`` (none
            where the model can).
        store: Folder of the activation store, or None for none.
        store_use: ``auto`` (where it can serve and fits the disk), ``always`` (or an error), or ``never``.
        store_bytes: The store's budget in bytes, or None.
        compute: ``float32`` or ``bfloat16``: the precision that frozen blocks compute in.
        compiled: The model is compiled, which wants batches of few shapes.
        frozen_trunk: Only the head is trained.
    """

    padding: Literal["none", "bucket", "auto"] = "auto"
    store: Path | None = None
    store_use: Literal["auto", "always", "never"] = "auto"
    store_bytes: int | None = None
    compute: str = "float32"
    compiled: bool = False
    frozen_trunk: bool = False


@dataclass
class TrainInputs:
    """Rows of a training and the module that takes them.

    Attributes:
        train: Train rows.
        validation: Validation rows, or None.
        choices: What was chosen and why: ``padding``, ``padding_reason``, ``store``, ``store_reason``.
        from_states: Whether rows are stored states, for :class:`tunescope.models.prefix.FromStored`.
        from_features: Whether rows are pooled features, for the head alone.
    """

    train: TokenRows
    validation: TokenRows | None
    choices: dict[str, Any] = field(default_factory=dict)
    from_states: bool = False
    from_features: bool = False

    def module(self, classifier: Classifier) -> nn.Module:
        """Return what is trained on the rows of tokens or states."""
        return FromStored(classifier) if self.from_states else classifier


def train_inputs(
    classifier: Classifier,
    train: Tokens,
    validation: Tokens | None,
    options: InputOptions,
    progress: Progress = SILENT,
) -> TrainInputs:
    """Choose how rows go into the model, computing and storing what frozen blocks give where that pays.

    Args:
        classifier: Prepared by its tuning method, on its device.
        train: Labelled train rows.
        validation: Labelled validation rows, or None.
        options: What is wanted.
        progress: Where to report; a store that was wanted and is not used is said there.

    Raises:
        ConfigError: ``padding: none`` and the model cannot, or ``store_use: always`` and the store cannot serve.
        RunError: ``store_use: always`` and the store does not fit the disk or its budget.
    """
    store = None
    if options.store is not None and options.store_use != "never":
        store = ActivationStore(options.store, options.store_bytes, progress=progress)
    if options.frozen_trunk:
        return _features(classifier, train, validation, store, options, progress)
    reason = _padding_reason(classifier, options)
    if reason is not None:
        if options.padding == "none":
            raise ConfigError(
                f"training.padding: none cannot be used: {reason}.", hint="Use bucket or auto instead."
            )
        _refuse_store(store, options, f"batches are padded ({reason})")
        rows = None if validation is None else TokenRows(validation)
        return TrainInputs(TokenRows(train), rows, {"padding": "bucket", "padding_reason": reason})
    choices: dict[str, Any] = {"padding": "none"}
    if store is not None and classifier.frozen_blocks > 0:
        found = _stored(classifier, train, validation, store, options)
        if isinstance(found, TrainInputs):
            found.choices.update(choices)
            return found
        choices["store_reason"] = found
        progress.say(f"  without the activation store: {found}")
    rows = None if validation is None else PackedRows(validation)
    return TrainInputs(PackedRows(train), rows, choices)


def _padding_reason(classifier: Classifier, options: InputOptions) -> str | None:
    """Say why batches are padded, or None where they need not be."""
    if options.padding == "bucket":
        return "training.padding says bucket"
    if options.compiled:
        return "a compiled model wants few shapes of batches"
    if classifier.pooling == "last_padded":
        return "the pooling last_padded reads padding"
    return packing_problem(classifier.model, classifier.family)


def _refuse_store(store: ActivationStore | None, options: InputOptions, reason: str) -> None:
    if store is not None and options.store_use == "always":
        raise ConfigError(
            f"training.activation_store: always cannot be met: {reason}.",
            hint="Use auto: training then runs without the store where it cannot serve.",
        )


def _stored(
    classifier: Classifier,
    train: Tokens,
    validation: Tokens | None,
    store: ActivationStore,
    options: InputOptions,
) -> TrainInputs | str:
    """Return rows of stored states, or why there are none."""
    depth = classifier.frozen_blocks
    for tokens in (train, *(() if validation is None else (validation,))):
        problem = store.problem(classifier, tokens, depth)
        if problem is not None:
            _refuse_store(store, options, problem)
            return problem
    try:
        states = store.obtain(classifier, train, depth, options.compute)
        known = None
        if validation is not None:
            known = StoredRows(validation, store.obtain(classifier, validation, depth, options.compute))
    except RunError as error:
        if options.store_use == "always":
            raise
        return error.message
    choices = {"store": f"states before block {states.depth}, from {store.folder}"}
    return TrainInputs(StoredRows(train, states), known, choices, from_states=True)


def _features(
    classifier: Classifier,
    train: Tokens,
    validation: Tokens | None,
    store: ActivationStore | None,
    options: InputOptions,
    progress: Progress,
) -> TrainInputs:
    classifier.eval()
    choices: dict[str, Any] = {} if store is None else {"store": f"features, from {store.folder}"}
    done = []
    for tokens in (train, validation):
        try:
            done.append(None if tokens is None else _vectors(classifier, tokens, progress, store))
        except RunError as error:
            if options.store_use == "always" or tokens is None:
                raise
            progress.say(f"  without the activation store: {error.message}")
            choices, store = {"store_reason": error.message}, None
            done.append(_vectors(classifier, tokens, progress, None))
    grouped = _padding_reason(classifier, options) is not None  # the order of batches that tokens would have
    known = None if validation is None or done[1] is None else FeatureRows(validation, done[1], grouped)
    assert done[0] is not None
    return TrainInputs(FeatureRows(train, done[0], grouped), known, choices, from_features=True)


def _vectors(
    classifier: Classifier, tokens: Tokens, progress: Progress, store: ActivationStore | None
) -> np.ndarray:
    """Return the pooled vector of every window of every row, [W, D]."""
    windows, _ = tokens.each_window()
    return features(classifier, windows, progress, store)
