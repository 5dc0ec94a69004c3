"""The README.md of a model folder, with the code that loads the network without this project."""

import json
from pathlib import Path

from emotion_lightning.models import stock_code
from emotion_lightning.models.metadata import METADATA, Metadata
from emotion_lightning.runs import run_folder
from emotion_lightning.runs.plain_text import markdown_line


def readme_text(metadata: Metadata, method: str, scores: str) -> str:
    """Content of a model folder's README.md, which the hub shows as the model card."""
    base = metadata.base.path
    name = Path(base).name if metadata.base.local else base
    if not metadata.base.pretrained:
        name = f"a {metadata.base.architecture} with random weights"
    if metadata.is_tiny:
        name = "the small network of emotion_lightning"
    library = "onnx" if metadata.is_graph else "peft" if metadata.base.adapter else "transformers"
    lines = [
        "---",
        f"library_name: {library}",
        "pipeline_tag: text-classification",
        "tags: [emotion, multi-label]",
        *([] if metadata.base.local else [f"base_model: {base}"]),
        "---",
        "",
        f"# Emotions in text: {method} on {name}",
        "",
        f"Gives each of {len(metadata.labels)} emotions a probability; a text may have any number of them.",
        f"Labels: {', '.join(map(markdown_line, metadata.labels))}.",
        "",
        *(_GEMMA_NOTICE if metadata.is_gemma else _TINY_NOTICE if metadata.is_tiny else []),
        scores,
        "",
        "```python",
        "from emotion_lightning import load",
        "",
        f'print(load(".").predict(["{stock_code.TEXT}"]))  # "." is this folder: give its path elsewhere',
        "```",
        "",
        f"Decisions use the {metadata.protocol} thresholds in `{METADATA}`, fitted on validation. Texts are cut to",
        f"{metadata.max_tokens} tokens{' after cleaning: ' + ', '.join(metadata.clean) if metadata.clean else ''}.",
        "",
        *_without_project(metadata),
    ]
    return "\n".join(lines)


def _without_project(metadata: Metadata) -> list[str]:
    """Lines that say how to use the folder without this project, or why that is impossible."""
    if not metadata.base.stock and not metadata.is_graph:
        return _OWN_POOLING
    lines = [
        f"Without this project, with {stock_code.needs(metadata.base, graph=metadata.is_graph)}:",
        "",
        *stock_block(metadata, folder='"."  # this folder: give its path elsewhere'),
        "",
        *([] if metadata.is_graph else [stock_code.IN_FLOAT32, ""]),
    ]
    if not metadata.is_graph and not metadata.base.adapter:
        lines += [
            f"Or, for raw probabilities by name{f' (calibration is in `{METADATA}`)' if metadata.calibration else ''}:",
            "",
            *stock_code.pipeline('"."', max_tokens=metadata.max_tokens),
            "",
        ]
    return lines


def stock_block(metadata: Metadata, *, folder: str) -> list[str]:
    """Markdown lines with code to load a folder without this project; `folder` is a Python expression of its path."""
    return stock_code.block(
        metadata.base,
        folder=folder,
        place=_place(metadata) if metadata.base.adapter else None,
        labels=len(metadata.labels),
        max_tokens=metadata.max_tokens,
        graph=metadata.is_graph,
        calibrated=bool(metadata.calibration),
    )


def _place(metadata: Metadata) -> str:
    """Python expression for the place of an adapter's base.

    It starts from the model folder if the base lies in or beside it, so that both can be moved together.
    """
    if not metadata.base.local:
        revision = metadata.base.revision
        return json.dumps(metadata.base.path) + (f", revision={json.dumps(revision)}" if revision else "")
    if metadata.format:
        return f'f"{{folder}}/{run_folder.BASE}"'
    if metadata.is_tiny or not metadata.base.pretrained:
        return f'f"{{folder}}/../{run_folder.BASE}"'
    return json.dumps(metadata.base.path, ensure_ascii=False)


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
