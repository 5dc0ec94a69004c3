"""Logistic regression on weighted n-grams, one for each label: what a network has to beat."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emotion_lightning import config
from emotion_lightning.data.labels import Targets
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.models import safe_loading
from emotion_lightning.runs import manifest
from emotion_lightning.runs.files import write_bytes

FILE = "ngrams.safetensors"
"""N-grams, their weights and the regressions: numbers and text only, so that loading it can run no code."""

KINDS = {"word_ngrams": "word", "char_ngrams": "char_wb"}
"""How scikit-learn calls the n-grams of each setting."""

LONGEST = 50
"""Words or characters of the longest n-gram that a file may ask for."""

_ITERATIONS = 1000
_TOLERANCE = 1e-2
"""On GoEmotions scores equal those of scikit-learn's own 1e-4 to the fourth digit, in 60 % of its time."""


class NgramClassifier:
    """TF-IDF of word and character n-grams, with a logistic regression for each label.

    A label that no row of train has, or every row, has the same probability everywhere: its rate there, smoothed by one
    row with it and one without (Laplace), so that its logit is finite.

    Attributes:
        lengths: shortest and longest n-gram by setting, of the kinds that are used.
        parameters: fitted numbers, biases included.
    """

    def __init__(self, lengths: Mapping[str, Sequence[int] | None]) -> None:
        self.lengths = {name: list(found) for name, found in lengths.items() if found is not None}
        self.parameters = 0
        self._vectorizers: dict[str, Any] = {}
        self._weights = np.zeros((0, 0), dtype=np.float32)
        """[n-gram, label]; in float32, so that a classifier that was saved gives the same logits."""
        self._biases = np.zeros(0, dtype=np.float32)

    def fit(self, texts: Sequence[str], targets: Targets, settings: config.Baseline) -> None:
        """Learn n-grams, their weights and the regressions from train; targets are multi-hot, [row, label]."""
        from sklearn.linear_model import LogisticRegression

        features = self._fit_features(texts, settings)
        balanced = settings.class_weight is config.ClassWeight.balanced
        self._weights = np.zeros((features.shape[1], targets.shape[1]), dtype=np.float32)
        self._biases = np.zeros(targets.shape[1], dtype=np.float32)
        for label in range(targets.shape[1]):
            truth = targets[:, label]
            positives = int(truth.sum())
            if positives in (0, len(truth)):
                self._biases[label] = np.log((positives + 1) / (len(truth) - positives + 1))
                self.parameters += 1
                continue
            # The dual solver: on GoEmotions a third faster than liblinear's primal one, on tweets twice as fast as
            # lbfgs. It draws its order of rows from one generator of the process, so labels do not share threads.
            regression = LogisticRegression(
                C=settings.C,
                class_weight="balanced" if balanced else None,
                solver="liblinear",
                dual=True,
                tol=_TOLERANCE,
                max_iter=_ITERATIONS,
                random_state=settings.seed % 2**31,
            )
            regression.fit(features, truth)
            self._weights[:, label], self._biases[label] = regression.coef_[0], regression.intercept_[0]
            self.parameters += features.shape[1] + 1

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Log-odds of each label, [row, label]."""
        if not texts:
            return np.zeros((0, len(self._biases)), dtype=np.float32)
        features = _joined([vectorizer.transform(texts) for vectorizer in self._vectorizers.values()])
        return np.asarray(features @ self._weights + self._biases, dtype=np.float32)

    def _fit_features(self, texts: Sequence[str], settings: config.Baseline) -> Any:
        parts = []
        for name, lengths in self.lengths.items():
            vectorizer = _vectorizer(name, lengths, min_df=settings.min_df, max_features=settings.max_features)
            try:
                parts.append(vectorizer.fit_transform(texts))
            except ValueError as error:  # its only complaints here are an empty vocabulary, before or after min_df
                raise UserError(
                    f"{name}={lengths} with min_df={settings.min_df} leaves no n-gram of the {len(texts):,} texts of "
                    f"train; lower min_df, or leave these out with {name}=null."
                ) from error
            self._vectorizers[name] = vectorizer
        return _joined(parts)

    def save(self, folder: Path) -> None:
        """Write the file into a folder."""
        from safetensors.numpy import save

        tensors = {"weights": self._weights, "biases": self._biases}
        for name, vectorizer in self._vectorizers.items():
            # N-grams hold no line feeds: white space ends a word. Half of a surrogate pair they may hold.
            lines = "\n".join(vectorizer.get_feature_names_out()).encode(errors="surrogatepass")
            tensors[f"{name}.text"] = np.frombuffer(lines, dtype=np.uint8)
            tensors[f"{name}.idf"] = vectorizer.idf_
        write_bytes(folder / FILE, save(tensors))


def load(folder: Path, lengths: Mapping[str, Sequence[int]], *, labels: int) -> NgramClassifier:
    """The classifier that a folder holds.

    Args:
        folder: that holds the file.
        lengths: shortest and longest n-gram by setting.
        labels: how many it must know.

    Raises:
        UserError: the file is missing, damaged, or of other labels.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = safe_loading.weights(folder, FILE)
    manifest.check(folder, FILE)
    classifier = NgramClassifier(lengths)
    try:
        tensors = load_file(file)
        for name, found in classifier.lengths.items():
            grams = tensors[f"{name}.text"].tobytes().decode(errors="surrogatepass").split("\n")
            vectorizer = _vectorizer(name, found, vocabulary={gram: place for place, gram in enumerate(grams)})
            vectorizer.idf_ = tensors[f"{name}.idf"]
            classifier._vectorizers[name] = vectorizer
        weights, biases = tensors["weights"], tensors["biases"]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{file} is damaged: {first_line(error)}") from error
    ngrams = sum(len(vectorizer.vocabulary) for vectorizer in classifier._vectorizers.values())
    if (weights.shape, biases.shape) != ((ngrams, labels), (labels,)) or {weights.dtype, biases.dtype} != {
        np.dtype(np.float32)
    }:
        raise UserError(f"{file} is damaged: its weights are not of {ngrams:,} n-grams and {labels} labels.")
    if not (np.isfinite(weights).all() and np.isfinite(biases).all()):
        raise UserError(f"{file} is damaged: a weight is no number.")
    classifier._weights, classifier._biases = weights, biases
    classifier.parameters = weights.size + biases.size
    return classifier


def _vectorizer(name: str, lengths: Sequence[int], **how: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        analyzer=KINDS[name], ngram_range=tuple(lengths), sublinear_tf=True, dtype=np.float32, **how
    )  # fmt: skip


def _joined(parts: Sequence[Any]) -> Any:
    from scipy import sparse

    return sparse.hstack(parts, format="csr")
