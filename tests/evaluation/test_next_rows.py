"""Texts worth labelling: uncertain, different, never twice."""

import numpy as np
import pytest

from emotion_lightning.evaluation import next_rows

WORDS = ["the bus was late again", "my sister won the cup", "rain on the tent all night", "who ate my sandwich"]


def pool(texts: list[str], shares: np.ndarray, wanted: int) -> next_rows.Pool:
    found = next_rows.Pool(wanted)
    for start in range(0, len(texts), 7):
        part = slice(start, start + 7)
        found.add([f"r{i}" for i in range(len(texts))[part]], texts[part], shares[part])
    return found


def test_uncertainty_is_the_sum_of_entropies() -> None:
    found = next_rows.uncertainty(np.array([[0.5, 0.5], [1.0, 0.0], [0.25, 1.0]]))
    assert found == pytest.approx([2 * np.log(2), 0, -0.25 * np.log(0.25) - 0.75 * np.log(0.75)], abs=1e-9)


def test_the_pool_keeps_the_most_uncertain_of_a_stream() -> None:
    draws = np.random.default_rng(0)
    shares = draws.random((300, 3))
    kept = pool([f"text {i}" for i in range(300)], shares, 4).best()
    expected = np.argsort(-next_rows.uncertainty(shares), kind="stable")[:40]
    assert [candidate.id for candidate in kept] == [f"r{i}" for i in expected]


def test_repeated_and_empty_texts_are_not_chosen() -> None:
    texts = ["So tired", "so  TIRED ", " ", "what now"]
    kept = pool(texts, np.full((4, 2), 0.5), 4).best()
    assert [candidate.text for candidate in kept] == ["So tired", "what now"]


def test_chosen_texts_differ() -> None:
    texts = [f"{WORDS[i % 4]} {'and again ' * (i % 3)}{i}" for i in range(40)]
    # The texts about the bus are the most uncertain by far.
    shares = np.array([[0.5, 0.5] if i % 4 == 0 else [0.35, 0.4] for i in range(40)])
    chosen = next_rows.choose(pool(texts, shares, 4).best(), 4, seed=1)
    assert len({candidate.text[:12] for candidate in chosen}) == 4
    assert [c.uncertainty for c in chosen] == sorted((c.uncertainty for c in chosen), reverse=True)


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_as_many_are_chosen_as_are_wanted_or_there_are(count: int) -> None:
    # The same words in another order are one point for the clusters.
    texts = [
        " ".join(order)
        for order in ("ab cd ef", "cd ab ef", "ef cd ab", "ab ef cd", "cd ef ab")[:count]
        for order in [order.split()]
    ]
    chosen = next_rows.choose(pool(texts, np.full((count, 2), 0.5), 3).best(), 3, seed=1)
    assert len({candidate.id for candidate in chosen}) == min(3, count)
