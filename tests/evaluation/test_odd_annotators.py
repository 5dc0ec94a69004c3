"""Annotators who differ, against kappas counted by hand and by scikit-learn, and on planted ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from emotion_lightning.data.agreement import Judgements
from emotion_lightning.data.rows import Rows
from emotion_lightning.evaluation import odd_annotators

LABELS = ["joy", "anger"]


def judgements(
    texts: Sequence[int], who: Sequence[str | None], answers: Any, *, known: Any = None, shares: bool = False
) -> Judgements:
    values = np.asarray(answers, dtype=np.float32)
    rows = Rows(
        [str(text) for text in texts],
        [f"text {text}" for text in texts],
        (values >= 0.5).astype(np.float32),
        annotators=list(who),
        shares=values if shares else None,
        open=None if known is None else ~np.asarray(known),
    )
    return Judgements(LABELS[: values.shape[1]], {"whole": rows}, {"whole": np.array(texts)}, "rater")


def crowd(
    right: dict[str, float], *, texts: int = 200, raters: int | None = None, seed: int = 0
) -> tuple[list[int], list[str], Any]:
    """Annotators who each say the truth so often, on all texts or on `raters` of them a text."""
    random = np.random.default_rng(seed)
    truth = random.random((texts, 2)) < 0.3
    numbers, who, answers = [], [], []
    for text in range(texts):
        for name in random.permutation(list(right))[:raters]:
            numbers.append(text)
            who.append(str(name))
            answers.append(np.where(random.random(2) < right[str(name)], truth[text], random.random(2) < 0.3))
    return numbers, who, np.array(answers, dtype=float)


def ranked(*given: Any, **more: Any) -> odd_annotators.OddAnnotators:
    found = odd_annotators.rank(judgements(*given, **more))
    assert found is not None
    return found


def test_kappa_with_one_other_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(1)
    one, other = random.random(300) < 0.4, random.random(300) < 0.4
    other = np.where(random.random(300) < 0.6, one, other)
    answers = np.stack([one, other], axis=1).reshape(-1, 1)
    found = ranked(np.repeat(np.arange(300), 2), ["a", "b"] * 300, answers)
    expected = cohen_kappa_score(one, other)
    assert found.paired and found.odd == []
    assert [who.kappa for who in found.annotators] == [pytest.approx(expected, abs=1e-9)] * 2
    for who in found.annotators:
        assert who.others is None and who.difference == who.kappa and who.low < who.kappa < who.high  # type: ignore[operator]


def test_kappa_with_several_others_is_one_minus_their_differences_over_those_by_chance() -> None:
    texts, who, answers = crowd({"a": 0.9, "b": 0.7, "c": 0.8, "d": 0.5}, texts=50)
    by_name = {one.name: one for one in ranked(texts, who, answers).annotators}
    for name, one in by_name.items():
        own = answers[np.array(who) == name]
        others = np.array(
            [answers[[t == text and w != name for t, w in zip(texts, who, strict=True)]] for text in range(50)]
        )
        chance = apart = among = chance_among = 0.0
        for label in range(2):
            x, ys = own[:, label], others[:, :, label]
            apart += sum(((x[i] - ys[i]) ** 2).mean() for i in range(50))
            chance += 50 * np.mean([((x[i] - ys[j]) ** 2).mean() for i in range(50) for j in range(50)])
            pairs = [(0, 1), (0, 2), (1, 2)]
            among += sum(np.mean([(ys[i, a] - ys[i, b]) ** 2 for a, b in pairs]) for i in range(50))
            rate = ys.mean()
            chance_among += 50 * 2 * rate * (1 - rate)
        assert one.kappa == pytest.approx(1 - apart / chance, abs=1e-9)
        assert one.others == pytest.approx(1 - among / chance_among, abs=1e-9)
        assert one.difference == pytest.approx(one.kappa - one.others, abs=1e-12)
        assert one.rates.tolist() == pytest.approx(own.mean(axis=0)) and one.texts == 50
        assert one.rates_of_others.tolist() == pytest.approx(others.mean(axis=(0, 1)))


def test_a_planted_annotator_who_guesses_comes_first_and_is_the_only_odd_one() -> None:
    right = {f"r{number}": 0.8 for number in range(8)} | {"guesses": 0.0}
    found = ranked(*crowd(right, texts=400, raters=4))
    assert found.annotators[0].name == "guesses" and [one.name for one in found.odd] == ["guesses"]
    assert found.alone == 0 and not found.paired
    assert found.annotators[0].kappa == pytest.approx(0, abs=0.1)


def test_equally_good_annotators_are_seldom_odd() -> None:
    odd = [len(ranked(*crowd(dict.fromkeys("abcdef", 0.7), texts=150, raters=3, seed=seed)).odd) for seed in range(8)]
    assert sum(odd) <= 5  # of 48, with intervals of 95 %


def test_those_of_hard_texts_are_not_odd_because_their_others_do_not_agree_either() -> None:
    easy, hard = (crowd({f"{kind}{i}": right for i in range(4)}, texts=200) for kind, right in (("e", 0.9), ("h", 0.3)))
    texts = [*easy[0], *(200 + text for text in hard[0])]
    found = ranked(texts, [*easy[1], *hard[1]], np.concatenate([easy[2], hard[2]]))
    kappas = {one.name: one.kappa for one in found.annotators}
    assert max(kappas[f"h{i}"] for i in range(4)) < min(kappas[f"e{i}"] for i in range(4))  # type: ignore[type-var]
    assert len(found.odd) <= 1


def test_an_annotator_of_few_texts_is_not_ranked_and_comes_last() -> None:
    texts, who, answers = crowd({"a": 0.8, "b": 0.8, "c": 0.8}, texts=100)
    few = odd_annotators.FEW - 1
    extra = [1 - answers[3 * text] for text in range(few)]
    found = ranked([*texts, *range(few)], [*who, *["new"] * few], np.concatenate([answers, extra]))
    assert [one.ranked for one in found.annotators] == [True, True, True, False]
    last = found.annotators[-1]
    assert (last.name, last.texts, last.low) == ("new", few, None) and last.kappa is not None and last.kappa < 0


def test_open_labels_and_texts_of_one_annotator_are_not_compared() -> None:
    texts, who, answers = crowd({"a": 0.8, "b": 0.8, "c": 0.6}, texts=60)
    known = np.ones(answers.shape, dtype=bool)
    known[::3, 1] = False
    changed = np.where(known, answers, 1 - answers)
    more = [*texts, 90, 91], [*who, "a", "hermit"]
    last = np.ones((2, 2))
    found = [
        ranked(*more, np.concatenate([values, last]), known=np.concatenate([known, last > 0]))
        for values in (answers, changed)
    ]
    assert [one.kappa for one in found[0].annotators] == [one.kappa for one in found[1].annotators]
    assert found[0].alone == 1 and {one.texts for one in found[0].annotators} == {60}


def test_answers_to_one_text_twice_count_with_their_mean_and_unknown_annotators_as_others() -> None:
    texts, who, answers = crowd({"a": 0.8, "b": 0.8, "c": 0.6}, texts=60)
    once = {one.name: one for one in ranked(texts, who, answers).annotators}
    twice = ranked([*texts, *texts], [*who, *who], np.concatenate([answers, answers]))
    assert {one.name: one.kappa for one in twice.annotators} == {name: one.kappa for name, one in once.items()}
    unknown = ranked(texts, [None if name == "c" else name for name in who], answers)
    assert {one.name: one.kappa for one in unknown.annotators} == {name: once[name].kappa for name in "ab"}


def test_intensities_are_compared_by_their_squared_difference() -> None:
    random = np.random.default_rng(2)
    level = random.integers(0, 4, 200) / 3
    answers = np.stack([level, level, np.clip(level + 1 / 3, 0, 1)], axis=1).reshape(-1, 1)
    found = ranked(np.repeat(np.arange(200), 3), ["a", "b", "high"] * 200, answers, shares=True)
    first = found.annotators[0]
    assert first.name == "high" and first.others == pytest.approx(1) and 0.5 < first.kappa < 1  # type: ignore[operator]
    (said,) = odd_annotators.most_different(first, ["joy"])
    assert said == f"joy {answers[2::3].mean():.2f} (others {level.mean():.2f})"


def test_data_that_does_not_say_who_labelled_ranks_nobody() -> None:
    assert odd_annotators.rank(judgements([0, 0], [None, None], [[1], [0]])) is None


def test_where_everybody_says_the_same_there_is_no_kappa() -> None:
    found = ranked(np.repeat(np.arange(40), 3), ["a", "b", "c"] * 40, np.zeros((120, 2)))
    assert all(one.kappa is None and one.difference is None and not one.ranked for one in found.annotators)
    assert odd_annotators.most_different(found.annotators[0], LABELS) == []
