"""Do explanations say the truth? The deletion test, and what an explanation costs.

python benchmarks/explanations.py [--run FOLDER] [--data GOEMOTIONS] [--count 200] [--steps 32]

Of each text of the test split with at least ten words, the label with the highest probability is explained. Then five
words are taken out of the text, and the network reads it again. The words are chosen in three ways: those that speak
most for the label by integrated gradients (`explain`), five at random (the mean over ten draws), and those that lower
the probability most when each is taken out alone, which needs a reading for each word (`one by one`). The first must
move the probability more than the second; the third is the peer, made for this very test.

Without --data the test split of the bundled sample is read, with it that of GoEmotions in this folder.
"""

import argparse
import json
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import common
import numpy as np

WORDS, LEAST, DRAWS = 5, 10, 10


def without(text: str, words: Sequence[Any]) -> str:
    """The text without these words."""
    for word in sorted(words, key=lambda word: -word.start):
        text = text[: word.start] + text[word.end :]
    return text


def test_texts(data: str | None) -> list[str]:
    """The texts of the test split."""
    from emotion_lightning.data import sources

    settings = common.settings_of(["data=goemotions", f"data.dir={data}"] if data else ["data=sample"])
    corpus = sources.split_corpus(sources.read_corpus(settings.data), settings.data, tell=False)
    return list(corpus.splits["test"].texts)


def measure(run: Any, texts: list[str], *, count: int, steps: int, seed: int = 1) -> dict[str, Any]:
    """Return the table of the deletion test over the first texts of a random order."""
    chance = np.random.default_rng(seed)
    labels = run.metadata.labels
    chosen = [texts[i] for i in chance.permutation(len(texts)) if len(texts[i].split()) >= LEAST][:count]
    before = run.probabilities(chosen).numpy()
    top = before.argmax(axis=1)
    run.explain(chosen[:2], steps=steps)  # what is loaded at the first call is no cost of a text
    wall, cpu = time.perf_counter(), time.process_time()
    found = [run.explain(text, [labels[label]], steps=steps)[0] for text, label in zip(chosen, top, strict=True)]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu

    def left(changed: list[str], of: np.ndarray) -> np.ndarray:
        return run.probabilities(changed).numpy()[np.arange(len(changed)), of]

    start = before[np.arange(len(chosen)), top]
    by_gradient = [
        without(one.text, sorted(one.words, key=lambda word: -word.attributions[one.labels[0]])[:WORDS])
        for one in found
    ]
    at_random = np.stack([
        left([without(one.text, chance.choice(np.array(one.words, dtype=object), WORDS, False)) for one in found], top)
        for _ in range(DRAWS)
    ])  # fmt: skip
    alone = [(number, word) for number, one in enumerate(found) for word in one.words]
    clock = time.process_time()
    single = left([without(chosen[n], [word]) for n, word in alone], top[[n for n, _ in alone]])
    clock = time.process_time() - clock
    one_by_one = []
    for number, one in enumerate(found):
        of_text = [(value, word) for value, (n, word) in zip(single, alone, strict=True) if n == number]
        lowest = sorted(of_text, key=lambda pair: pair[0])[:WORDS]
        one_by_one.append(without(one.text, [word for _, word in lowest]))
    fall = {
        "explain": start - left(by_gradient, top),
        "random": start - at_random.mean(axis=0),
        "one by one": start - left(one_by_one, top),
    }
    return {
        "texts": len(chosen),
        "words": float(np.mean([len(one.words) for one in found])),
        "tokens": float(run.tokenize(chosen)[0].lengths.mean()),
        "probability": float(start.mean()),
        "fall": {name: float(values.mean()) for name, values in fall.items()},
        "more_than_random": float((fall["explain"] > fall["random"]).mean()),
        "largest_error": max(one.largest_error for one in found),
        "median_error": float(np.median([one.largest_error for one in found])),
        "seconds_a_text": wall / len(chosen),
        "cpu_seconds_a_text": cpu / len(chosen),
        "cpu_seconds_a_text_one_by_one": clock / len(chosen),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="run folder; the bundled classifier unless given")
    parser.add_argument("--data", help="folder of GoEmotions; the bundled sample unless given")
    parser.add_argument("--count", type=int, default=200, help="texts")
    parser.add_argument("--steps", type=int, nargs="+", default=[32])
    parser.add_argument("--accelerator", default="auto")
    asked = parser.parse_args()
    from emotion_lightning import load

    run = load(asked.run, accelerator=asked.accelerator)
    texts = test_texts(asked.data)
    results = {}
    for steps in asked.steps:
        found = results[steps] = measure(run, texts, count=asked.count, steps=steps)
        print(f"{'GoEmotions' if asked.data else 'sample'}, {steps} steps: {found['texts']} texts of "
              f"{found['words']:.0f} words, {found['tokens']:.0f} tokens")  # fmt: skip
        print(f"  probability {found['probability']:.3f}; without five words it falls by")
        for name, value in found["fall"].items():
            print(f"    {value:+.3f}  {name}")
        print(f"  explain moves it more than random in {found['more_than_random']:.1%} of the texts")
        print(f"  error: median {found['median_error']:.2g}, largest {found['largest_error']:.2g}")
        print(f"  {found['seconds_a_text']:.2f} s a text, {found['cpu_seconds_a_text']:.2f} of CPU "
              f"({found['cpu_seconds_a_text_one_by_one']:.2f} one by one)", flush=True)  # fmt: skip
    folder = common.REPO / "outputs" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"explanations-{datetime.now():%Y%m%d-%H%M%S}.json"
    (folder / name).write_text(json.dumps({"run": asked.run, "data": asked.data, "steps": results}, indent=1))


if __name__ == "__main__":
    main()
