"""The baseline: TF-IDF of n-grams and one logistic regression for each label."""

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
"""File of n-grams, IDF weights and regressions. It holds only numbers and text, so loading it can run no code."""

KINDS = {"word_ngrams": "word", "char_ngrams": "char_wb"}
"""scikit-learn's `analyzer` for each setting."""

LONGEST = 50
"""Maximum n-gram length that a file may have, in words or characters."""

_ITERATIONS = 1000
_TOLERANCE = 1e-2
"""On GoEmotions, scores equal those of scikit-learn's default, 1e-4, to four digits, in 60 % of the time."""


class NgramClassifier:
    """TF-IDF of word and character n-grams, with a logistic regression for each label.

    A label that no row or every row of train has gets the same probability for all texts: its rate in train with
    Laplace smoothing (one more row with it, one more without), so that its logit is finite.

    Attributes:
        lengths: shortest and longest n-gram by setting, for the kinds of n-grams that are used.
        parameters: number of fitted parameters, biases included.
    """

    def __init__(self, lengths: Mapping[str, Sequence[int] | None]) -> None:
        self.lengths = {name: list(found) for name, found in lengths.items() if found is not None}
        self.parameters = 0
        self._vectorizers: dict[str, Any] = {}
        self._weights = np.zeros((0, 0), dtype=np.float32)
        """[n-gram, label], float32, so that a saved classifier gives the same logits."""
        self._biases = np.zeros(0, dtype=np.float32)

    def fit(
        self,
        texts: Sequence[str],
        targets: Targets,
        settings: config.Baseline,
        *,
        known: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Fit n-grams, IDF weights and regressions on train.

        Args:
            texts: of train.
            targets: multi-hot, [row, label].
            settings: of the regressions.
            known: whether a label is not left open, [row, label]; each is fitted to the rows that know it. None: all.
        """
        from sklearn.linear_model import LogisticRegression

        features = self._fit_features(texts, settings)
        balanced = settings.class_weight is config.ClassWeight.balanced
        self._weights = np.zeros((features.shape[1], targets.shape[1]), dtype=np.float32)
        self._biases = np.zeros(targets.shape[1], dtype=np.float32)
        for label in range(targets.shape[1]):
            rows = slice(None) if known is None else np.flatnonzero(known[:, label])
            truth = targets[rows, label]
            positives = int(truth.sum())
            if positives in (0, len(truth)):
                self._biases[label] = np.log((positives + 1) / (len(truth) - positives + 1))
                self.parameters += 1
                continue
            # The dual solver is a third faster than liblinear's primal one on GoEmotions, and twice as fast as lbfgs
            # on tweets. It draws the order of rows from one random generator of the process, so labels are not
            # fitted in parallel threads.
            regression = LogisticRegression(
                C=settings.C,
                class_weight="balanced" if balanced else None,
                solver="liblinear",
                dual=True,
                tol=_TOLERANCE,
                max_iter=_ITERATIONS,
                random_state=settings.seed % 2**31,
            )
            regression.fit(features[rows], truth)
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
            except ValueError as error:  # raised here only for an empty vocabulary, before or after min_df
                raise UserError(
                    f"{name}={lengths} with min_df={settings.min_df} leaves no n-gram of the {len(texts):,} texts of "
                    f"train; lower min_df, or leave these out with {name}=null."
                ) from error
            self._vectorizers[name] = vectorizer
        return _joined(parts)

    def save(self, folder: Path) -> None:
        """Write the classifier into a folder."""
        from safetensors.numpy import save

        tensors = {"weights": self._weights, "biases": self._biases}
        for name, vectorizer in self._vectorizers.items():
            # N-grams contain no line feeds, because white space separates words. They may contain lone surrogates.
            lines = "\n".join(vectorizer.get_feature_names_out()).encode(errors="surrogatepass")
            tensors[f"{name}.text"] = np.frombuffer(lines, dtype=np.uint8)
            tensors[f"{name}.idf"] = vectorizer.idf_
        write_bytes(folder / FILE, save(tensors))


def load_ngrams(folder: Path, lengths: Mapping[str, Sequence[int]], *, labels: int) -> NgramClassifier:
    """Load the classifier of a folder.

    Args:
        folder: the model folder.
        lengths: shortest and longest n-gram by setting.
        labels: expected number of labels.

    Raises:
        UserError: the file is missing or damaged, or has another number of labels.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = safe_loading.load_weights(folder, FILE)
    manifest.check_hashes(folder, FILE)
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
