"""Logistic regression on weighted n-grams, one for each label: what a network has to beat."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from emotion_lightning import config
from emotion_lightning.errors import UserError
from emotion_lightning.labels import Targets

_ITERATIONS = 1000
_TOLERANCE = 1e-2
"""On GoEmotions scores equal those of scikit-learn's own 1e-4 to the fourth digit, in 60 % of its time."""


class NgramClassifier:
    """TF-IDF of word and character n-grams, with a logistic regression for each label.

    A label that no row of train has, or every row, has the same probability everywhere: its rate there, smoothed by one
    row with it and one without (Laplace), so that its logit is finite.

    Attributes:
        parameters: fitted numbers, biases included.
    """

    def __init__(self, settings: config.Baseline) -> None:
        self.parameters = 0
        self._settings = settings
        self._vectorizers: dict[str, Any] = {}
        self._labels: list[Any] = []
        """For each label its regression, or its logit where train has one class only."""

    def fit(self, texts: Sequence[str], targets: Targets) -> None:
        """Learn n-grams, their weights and the regressions from train; targets are multi-hot, [row, label]."""
        from sklearn.linear_model import LogisticRegression

        features = self._fit_features(texts)
        balanced = self._settings.class_weight is config.ClassWeight.balanced
        for label in range(targets.shape[1]):
            truth = targets[:, label]
            positives = int(truth.sum())
            if positives in (0, len(truth)):
                self._labels.append(np.log((positives + 1) / (len(truth) - positives + 1)))
                self.parameters += 1
                continue
            # The dual solver: on GoEmotions a third faster than liblinear's primal one, on tweets twice as fast as
            # lbfgs. It draws its order of rows from one generator of the process, so labels do not share threads.
            regression = LogisticRegression(
                C=self._settings.C,
                class_weight="balanced" if balanced else None,
                solver="liblinear",
                dual=True,
                tol=_TOLERANCE,
                max_iter=_ITERATIONS,
                random_state=self._settings.seed % 2**31,
            )
            self._labels.append(regression.fit(features, truth))
            self.parameters += features.shape[1] + 1

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Log-odds of each label, [row, label]."""
        features = self._features([vectorizer.transform(texts) for vectorizer in self._vectorizers.values()])
        columns = [
            np.full(len(texts), label) if isinstance(label, float) else label.decision_function(features)
            for label in self._labels
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    def _fit_features(self, texts: Sequence[str]) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        settings = self._settings
        kinds = {"word_ngrams": ("word", settings.word_ngrams), "char_ngrams": ("char_wb", settings.char_ngrams)}
        parts = []
        for name, (analyzer, lengths) in kinds.items():
            if lengths is None:
                continue
            vectorizer = TfidfVectorizer(
                analyzer=analyzer,
                ngram_range=tuple(lengths),
                sublinear_tf=True,
                min_df=settings.min_df,
                max_features=settings.max_features,
                dtype=np.float32,
            )
            try:
                parts.append(vectorizer.fit_transform(texts))
            except ValueError as error:  # its only complaints here are an empty vocabulary, before or after min_df
                raise UserError(
                    f"{name}={lengths} with min_df={settings.min_df} leaves no n-gram of the {len(texts):,} texts of "
                    f"train; lower min_df, or leave these out with {name}=null."
                ) from error
            self._vectorizers[name] = vectorizer
        return self._features(parts)

    @staticmethod
    def _features(parts: Sequence[Any]) -> Any:
        from scipy import sparse

        return sparse.hstack(parts, format="csr")
