"""The README.md of a model folder, with the code that loads the network without this project."""

import json
from pathlib import Path

from emotion_lightning.models import stock_code
from emotion_lightning.models.card import CARD, Card
from emotion_lightning.runs import run_folder
from emotion_lightning.runs.plain_text import markdown_line


def readme_text(card: Card, method: str, scores: str) -> str:
    """Content of a model folder's README.md, which the hub shows as the model card."""
    base = card.base["path"]
    name = Path(base).name if card.base["local"] else base
    if not card.base["pretrained"]:
        name = f"a {card.base['architecture']} with random weights"
    if card.is_tiny:
        name = "the small network of emotion_lightning"
    library = "onnx" if card.is_graph else "peft" if card.base["adapter"] else "transformers"
    lines = [
        "---",
        f"library_name: {library}",
        "pipeline_tag: text-classification",
        "tags: [emotion, multi-label]",
        *([] if card.base["local"] else [f"base_model: {base}"]),
        "---",
        "",
        f"# Emotions in text: {method} on {name}",
        "",
        f"Gives each of {len(card.labels)} emotions a probability; a text may have any number of them.",
        f"Labels: {', '.join(map(markdown_line, card.labels))}.",
        "",
        *(_GEMMA_NOTICE if card.is_gemma else _TINY_NOTICE if card.is_tiny else []),
        scores,
        "",
        "```python",
        "from emotion_lightning import load",
        "",
        f'print(load(".").predict(["{stock_code.TEXT}"]))  # "." is this folder: give its path elsewhere',
        "```",
        "",
        f"Decisions use the {card.protocol} thresholds in `{CARD}`, fitted on validation. Texts are cut to",
        f"{card.max_tokens} tokens{' after cleaning: ' + ', '.join(card.clean) if card.clean else ''}.",
        "",
        *_without_project(card),
    ]
    return "\n".join(lines)


def _without_project(card: Card) -> list[str]:
    """Lines that say how to use the folder without this project, or why that is impossible."""
    if not card.base["stock"] and not card.is_graph:
        return _OWN_POOLING
    lines = [
        f"Without this project, with {stock_code.needs(card.base, graph=card.is_graph)}:",
        "",
        *stock_block(card, folder='"."  # this folder: give its path elsewhere'),
        "",
        *([] if card.is_graph else [stock_code.IN_FLOAT32, ""]),
    ]
    if not card.is_graph and not card.base["adapter"]:
        lines += [
            f"Or, for raw probabilities by name{f' (calibration is in `{CARD}`)' if card.calibration else ''}:",
            "",
            *stock_code.pipeline('"."', max_tokens=card.max_tokens),
            "",
        ]
    return lines


def stock_block(card: Card, *, folder: str) -> list[str]:
    """Markdown lines with code to load a folder without this project; `folder` is a Python expression of its path."""
    return stock_code.block(
        card.base,
        folder=folder,
        place=_place(card) if card.base["adapter"] else None,
        labels=len(card.labels),
        max_tokens=card.max_tokens,
        graph=card.is_graph,
        calibrated=bool(card.calibration),
    )


def _place(card: Card) -> str:
    """Python expression for the place of an adapter's base.

    It starts from the model folder if the base lies in or beside it, so that both can be moved together.
    """
    if not card.base["local"]:
        revision = card.base["revision"]
        return json.dumps(card.base["path"]) + (f", revision={json.dumps(revision)}" if revision else "")
    if card.format:
        return f'f"{{folder}}/{run_folder.BASE}"'
    if card.is_tiny or not card.base["pretrained"]:
        return f'f"{{folder}}/../{run_folder.BASE}"'
    return json.dumps(card.base["path"], ensure_ascii=False)


_GEMMA_NOTICE = [
    "This is a Model Derivative of Gemma. Gemma is provided under and subject to the Gemma Terms of Use found at",
    "ai.google.dev/gemma/terms.",
    "",
]


_TINY_NOTICE = [
    "That network has Gemma's architecture and none of its weights: it was trained on GoEmotions (Demszky et al.,",
    "2020; CC BY 4.0), taught by networks on all-MiniLM-L6-v2 (Apache-2.0).",
    "",
]


_OWN_POOLING = [
    "Load it with this project: transformers' own class for sequence classification pools or attends otherwise, and",
    "would give other probabilities.",
    "",
]
