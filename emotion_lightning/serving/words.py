"""Words that decided, as far as the loaded classifier can tell them: the one place that asks for an explanation."""

from collections.abc import Sequence
from typing import Any

from emotion_lightning.errors import UserError


def can_explain(model: Any) -> bool:
    """Whether a Labeller explains its answers: a baseline and a graph do not, and others need an extra."""
    try:
        model.check_explainable()
    except UserError:
        return False
    return True


def explain(model: Any, texts: Sequence[str], labels: Sequence[Sequence[str]]) -> list[list[dict[str, Any]]]:
    """Return the words of each text, with their place in it and their scores by label, in the form of `messages.Word`.

    Args:
        model: a Labeller.
        texts: the texts.
        labels: the labels to explain, for each text.

    Raises:
        UserError: the classifier cannot be explained.
    """
    if not can_explain(model):
        raise UserError("This classifier cannot tell which words decided; ask without explain.")
    found = []
    for text, wanted in zip(texts, labels, strict=True):
        (explanation,) = model.explain([text], list(wanted))
        found.append(
            [
                {"word": word.text, "start": word.start, "end": word.end, "scores": dict(word.attributions)}
                for word in explanation.words
            ]
        )
    return found
