"""What several networks say about the words of a text becomes one explanation."""

import pytest

from emotion_lightning.evaluation.explanations import Explanation, Word, mean

TEXT = "Unhappy, again"


def explanation(*words: tuple[int, int, float], error: float = 0.0) -> Explanation:
    total = sum(value for *_, value in words)
    return Explanation(
        text=TEXT,
        labels=["joy"],
        words=[Word(TEXT[start:end], start, end, {"joy": value}) for start, end, value in words],
        logits={"joy": total - 1},
        baseline_logits={"joy": -1.0},
        errors={"joy": error},
    )


def test_words_that_overlap_become_one_and_the_sum_stays() -> None:
    both = mean([explanation((0, 8, -2.0), (9, 14, 1.0), error=0.2), explanation((0, 7, -1.0), (7, 8, 0.5))])
    assert [(word.text, word.start, word.end) for word in both.words] == [("Unhappy,", 0, 8), ("again", 9, 14)]
    assert [word.attributions["joy"] for word in both.words] == [-1.25, 0.5]  # the second network read no `again`
    total = sum(word.attributions["joy"] for word in both.words)
    assert total == pytest.approx(both.logits["joy"] - both.baseline_logits["joy"])
    assert both.errors == {"joy": 0.1}


def test_the_mean_of_one_is_itself() -> None:
    assert mean([explanation((0, 7, 0.5), (9, 14, 1.0))]) == explanation((0, 7, 0.5), (9, 14, 1.0))


def test_the_strongest_words_are_those_for_and_against() -> None:
    found = explanation((0, 7, -2.0), (7, 8, 0.5), (9, 14, 1.0), error=-0.3)
    assert [word.text for word in found.strongest("joy")] == ["Unhappy", "again", ","]
    assert found.largest_error == 0.3
