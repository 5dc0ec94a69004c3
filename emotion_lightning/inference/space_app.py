"""Label texts on a page with the model in the folder `model`. `python app.py` opens it on this machine.

`export format=space` writes this file beside the model as app.py, so it imports nothing of emotion_lightning. It
computes what `predict` computes with the same folder: a text is cleaned, put into its template, cut or divided, and the
logits become probabilities, all as emotion_lightning.json says. `export` compares both before it writes the folder.
"""

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

MOST_TEXTS, MOST_LETTERS = 200, 10_000
"""Largest number of texts that are labelled at once, and of characters in a text."""
_ABOUT = (
    "Each label gets a probability of its own: a text may have several labels, or none. Labels are what annotators "
    "read into texts like those that the model was trained on; others would read some of them otherwise, and irony "
    "misleads it. It is not for judging single people. Texts that you type are sent to the server of this page, which "
    "does not keep them."
)
_EXAMPLES = ["I never thought they would come.", "We won! But Anna is leaving us, and I will miss her."]
_NEWLINES = re.compile(r"(\\r)?\\n|\\r")
_URL = re.compile(r"(https?://|www\.)[!#-&(-;=?-\[\]-~]+", re.IGNORECASE)
_USER = re.compile(r"(?<![\w@.])@\w{1,15}\b")


class Classifier:
    """A model folder with a graph.

    Args:
        folder: with model.onnx, tokenizer.json and emotion_lightning.json.
    """

    def __init__(self, folder: Path) -> None:
        self._card = json.loads((folder / "emotion_lightning.json").read_text(encoding="utf-8"))
        self.labels: list[str] = self._card["labels"]
        self.thresholds: dict[str, float] = self._card["thresholds"][self._card["protocol"]]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        if self._card.get("template"):
            self._tokenizer.no_truncation()
            # The names of special tokens in a text are letters, so that no text can end the part that is its own.
            self._tokenizer.encode_special_tokens = True
        else:
            self._tokenizer.enable_truncation(self._card["max_tokens"])

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probabilities of texts, [text, label], float32."""
        logits = np.array([self._logits(text) for text in texts], np.float32).reshape(len(texts), len(self.labels))
        if self._card["calibration"]:
            scaling = [self._card["calibration"][name] for name in self.labels]
            slopes, offsets = (np.array([part[name] for part in scaling]) for name in ("slope", "offset"))
            return np.asarray(_sigmoid(logits.astype(np.float64) * slopes + offsets), np.float32)
        return np.asarray(_sigmoid(logits), np.float32)

    def found(self, probabilities: np.ndarray) -> list[str]:
        """Return the labels of a text by its probabilities, [label]."""
        return [
            name
            for name, share in zip(self.labels, probabilities.tolist(), strict=True)
            if share > self.thresholds[name]
        ]

    def _logits(self, text: str) -> np.ndarray:
        """Logits of a text, [label]. Each piece is computed by itself, so nothing is padded."""
        pieces = []
        for ids in self.pieces(text):
            given = np.array([ids], np.int64)
            pieces.append(
                self._session.run(["logits"], {"input_ids": given, "attention_mask": np.ones_like(given)})[0][0]
            )
        maximum = (self._card.get("long_texts") or {}).get("join") == "maximum"
        return np.asarray(np.max(pieces, axis=0) if maximum else np.mean(pieces, axis=0))

    def pieces(self, text: str) -> list[list[int]]:
        """Return the token ids of a text: of one piece, or of several if long texts are read so."""
        text, template = cleaned(text, self._card["clean"]), self._card.get("template")
        if not template:
            return [self._tokenizer.encode(text).ids]
        ids = self._tokenizer.encode(template["space"] + text, add_special_tokens=False).ids
        room = self._card["max_tokens"] - len(template["before"]) - len(template["after"])
        parts = divided(ids, room, self._card.get("long_texts") or {"way": "cut_end"})
        return [[*template["before"], *part, *template["after"]] for part in parts]


def cleaned(text: str, steps: Sequence[str]) -> str:
    """Return a text after the steps of data.clean, whose order is fixed."""
    if "newlines" in steps:
        text = _NEWLINES.sub(" ", text)
    if "urls" in steps:
        text = _URL.sub("http", text)
    if "users" in steps:
        text = _USER.sub("@user", text)
    if "html" in steps:
        text = html.unescape(text)
    if "emojis" in steps and not text.isascii():
        import emoji

        text = emoji.replace_emoji(text, lambda _, data: f" {data['en'].strip(':').replace('_', ' ')} ")
    return text


def divided(ids: list[int], room: int, way: dict[str, Any]) -> list[list[int]]:
    """Return what is read of a text: one piece, or with `windows` several, of up to `room` tokens each.

    Args:
        ids: all tokens of the text.
        room: tokens that a piece has for the text.
        way: `long_texts` of emotion_lightning.json.
    """
    if len(ids) <= room:
        return [ids]
    if way["way"] == "cut_start":
        return [ids[-room:]]
    if way["way"] == "middle":
        tail = room // 2
        return [ids[: room - tail] + ids[len(ids) - tail :]]
    if way["way"] == "windows":
        step = room - way["overlap"]
        needed = 1 - (-(len(ids) - room) // step)
        count = min(needed, way["most"])
        rest = len(ids) - room if count == needed else (count - 1) * step
        return [ids[start : start + room] for start in (rest * i // (count - 1) for i in range(count))]
    return [ids[:room]]


def _sigmoid(values: np.ndarray) -> Any:
    return 1 / (1 + np.exp(-values))


def page(classifier: Classifier) -> Any:
    """Build the page. Labels and texts are shown in components that take them as text, never as HTML."""
    import gradio as gr

    labels = classifier.labels

    def refused(sentence: str) -> gr.Error:
        return gr.Error(sentence, print_exception=False)

    def checked(texts: list[str]) -> list[str]:
        for number, text in enumerate(texts, start=1):
            if len(text) > MOST_LETTERS:
                raise refused(f"Text {number} has {len(text):,} characters; {MOST_LETTERS:,} are the most.")
            if any("\ud800" <= letter <= "\udfff" for letter in text):  # JSON can write them, UTF-8 cannot
                raise refused(f"Text {number} holds half of a character (a lone surrogate), which is no text.")
        return texts

    def shown(name: str) -> str:
        """A label that turns no letters around it, in whichever direction its own are written."""
        return name if name.isascii() else f"\u2068{name}\u2069"

    def one(text: str) -> tuple[str, dict[str, float]]:
        if not (text or "").strip():
            raise refused("Type a text first.")
        (shares,) = classifier.probabilities(checked([text]))
        found = [f"{shown(name)} ({shares[labels.index(name)]:.0%})" for name in classifier.found(shares)]
        return ", ".join(found) or "no label", dict(zip(labels, shares.tolist(), strict=True))

    def several(lines: str) -> list[list[Any]]:
        texts = [line for line in (lines or "").splitlines() if line.strip()]
        if not texts:
            raise refused("Type or paste texts first, each on a line of its own.")
        if len(texts) > MOST_TEXTS:
            raise refused(f"These are {len(texts):,} texts; {MOST_TEXTS} are the most.")
        found = classifier.probabilities(checked(texts))
        return [
            [text, ", ".join(map(shown, classifier.found(shares))), *(round(share, 3) for share in shares.tolist())]
            for text, shares in zip(texts, found, strict=True)
        ]

    with gr.Blocks(title="Emotions in text", analytics_enabled=False) as blocks:
        gr.Markdown(f"# Emotions in text\n\n{_ABOUT}")
        with gr.Tab("One text"):
            text = gr.Textbox(label="Text", lines=4, max_length=MOST_LETTERS)
            ask = gr.Button("Label", variant="primary")
            labelled = gr.Textbox(label="Labels above their thresholds", interactive=False)
            shares = gr.Label(label="Probabilities", show_heading=False, num_top_classes=len(labels))
            gr.Examples(_EXAMPLES, inputs=text)
            gr.on([ask.click, text.submit], one, inputs=text, outputs=[labelled, shares], api_name="predict")
        with gr.Tab("Several texts"):
            lines = gr.Textbox(label=f"Texts, each on a line of its own (at most {MOST_TEXTS})", lines=8)
            ask_all = gr.Button("Label all", variant="primary")
            table = gr.Dataframe(
                label="Labels and probabilities", headers=["text", "labels", *labels], interactive=False, wrap=True,
                datatype=["str", "str", *["number"] * len(labels)],
            )  # fmt: skip
            ask_all.click(several, inputs=lines, outputs=table, api_name="predict_lines")
    return blocks


if __name__ == "__main__":
    page(Classifier(Path(__file__).parent / "model")).launch(
        show_error=True,
        run_history=False,  # texts are kept nowhere
    )
