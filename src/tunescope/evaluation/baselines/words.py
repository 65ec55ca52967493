"""TF-IDF with logistic regression: what counting words can do, regularised by cross-validation on train rows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunescope.errors import DataError
from tunescope.seeds import derive_seed

STRENGTHS = (0.1, 1.0, 10.0, 100.0)
FOLDS = 3
CHOOSING_ROWS = 4000
FEATURES = 50_000
ITERATIONS = 1000
ABSENT = -30.0  # the logit of a class without a train row: its probability is nothing


@dataclass(frozen=True)
class WordModel:
    """A fitted TF-IDF and logistic regression.

    Attributes:
        vectorizer: From texts to weights of words and pairs of words.
        model: The logistic regression.
        classes: C.
        about: What was fitted, in words.
    """

    vectorizer: Any
    model: Any
    classes: int
    about: str

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return logarithms of probabilities `[n, C]`."""
        found = np.full((len(texts), self.classes), ABSENT)
        if len(texts):
            chances = self.model.predict_log_proba(self.vectorizer.transform(texts))
            found[:, self.model.classes_] = np.maximum(chances, ABSENT)
        return found


def fit_words(
    texts: Sequence[str], labels: np.ndarray, classes: int, seed: int, groups: np.ndarray | None = None
) -> WordModel:
    """Fit words and pairs of neighbouring words to labels; the strength is chosen on folds of these rows alone.

    Args:
        texts: `[n]` train texts.
        labels: `[n]` class indices.
        classes: C.
        seed: Seeds the folds and the rows that strengths are tried on, at most 4,000.
        groups: `[n]` group of each row, kept whole in the folds; or None.

    Raises:
        DataError: The texts hold no word, or all rows have one label.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    if len(np.unique(labels)) < 2:
        raise DataError("TF-IDF needs train rows of at least two labels.")
    vectorizer = TfidfVectorizer(
        sublinear_tf=True,
        ngram_range=(1, 2),
        min_df=2 if len(texts) >= 100 else 1,
        max_features=FEATURES,
        token_pattern=r"(?u)\b\w+\b",
    )
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError as error:
        raise DataError(f"TF-IDF found no word in {len(texts)} train texts ({error}).") from error
    chosen, how = _strength(features, labels, seed, groups)
    model, converged = _fit(features, labels, chosen)
    about = f"{features.shape[1]:,} words and pairs of words, C = {chosen:g} ({how})"
    if not converged:
        about += f"; not converged in {ITERATIONS} iterations"
    return WordModel(vectorizer, model, classes, about)


def _strength(features: Any, labels: np.ndarray, seed: int, groups: np.ndarray | None) -> tuple[float, str]:
    """Choose C by accuracy on folds of train rows; of equals, the stronger penalty."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    generator = np.random.default_rng(derive_seed(seed, "tfidf"))
    rows = np.arange(len(labels))
    if len(rows) > CHOOSING_ROWS:
        rows = np.sort(generator.permutation(len(labels))[:CHOOSING_ROWS])
    own = labels[rows]
    smallest = int(np.bincount(own)[np.unique(own)].min())
    kept = None if groups is None else groups[rows]
    too_few = smallest < FOLDS if kept is None else len(np.unique(kept)) < FOLDS
    if too_few:
        return 1.0, f"too few rows for {FOLDS} folds"
    kind = StratifiedKFold if kept is None else StratifiedGroupKFold
    folds = kind(n_splits=FOLDS, shuffle=True, random_state=derive_seed(seed, "tfidf folds"))
    scores = np.zeros(len(STRENGTHS))
    with warnings.catch_warnings():
        # Groups may leave a fold without a rare class; that is no fault of the rows.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        parts = list(folds.split(rows, own, kept))
    for train, held in parts:
        if len(np.unique(own[train])) < 2:
            continue
        for i, strength in enumerate(STRENGTHS):
            model, _ = _fit(features[rows[train]], own[train], strength)
            scores[i] += (model.predict(features[rows[held]]) == own[held]).sum()
    return STRENGTHS[int(scores.argmax())], f"{FOLDS}-fold cross-validation of {len(rows):,} train rows"


def _fit(features: Any, labels: np.ndarray, strength: float) -> tuple[Any, bool]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = LogisticRegression(C=strength, max_iter=ITERATIONS, tol=1e-3).fit(features, labels)
    converged = True
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            converged = False
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return model, converged
