"""Python code that uses a model folder without this project, for its README and its model card on the hub."""

import json

from emotion_lightning import config
from emotion_lightning.data.long_texts import LongTexts
from emotion_lightning.models.metadata import Base, Metadata
from emotion_lightning.runs import run_folder

TEXT = "I never thought they would come."
"""Example text in the code of a README."""


IN_FLOAT32 = (
    "This code computes in float32. Where the run computed in bfloat16 or float16, its own probabilities differ by\n"
    "rounding, in the second or third decimal."
)


def needs(metadata: Metadata) -> str:
    """Names of the packages that the code needs."""
    base, graph = metadata.base, metadata.is_graph
    names = ["onnxruntime"] if graph else ["torch"]
    names += ["peft"] if base.adapter else []
    names += (
        ["accelerate", "bitsandbytes"] if base.adapter and base.quantization is not config.Quantization.none else []
    )
    return f"{', '.join(names)} and transformers"


def block(metadata: Metadata, *, folder: str) -> list[str]:
    """Markdown lines with the code, which computes `probabilities`, [text, label], and prints the predicted labels.

    Args:
        metadata: metadata of the model folder.
        folder: Python expression of the model folder.
    """
    base, graph = metadata.base, metadata.is_graph
    return [
        "```python",
        *_imports(base, folder=folder, graph=graph),
        "",
        f"folder = {folder}",
        'card = json.loads(Path(folder, "emotion_lightning.json").read_text(encoding="utf-8"))',
        'tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")',
        *([] if graph else _network(metadata)),
        f"texts = [{json.dumps(TEXT)}]",
        *_tokens(metadata),
        *(_GRAPH if graph else _LOGITS),
        *(_joined(metadata.long_texts, graph=graph) if metadata.long_texts and metadata.long_texts.in_pieces else []),
        *(_CALIBRATION[graph] if metadata.calibration else []),
        f"probabilities = {'1 / (1 + np.exp(-logits))' if graph else 'logits.sigmoid()'}",
        'cuts = card["thresholds"][card["protocol"]]',
        *_other_cuts(metadata),
        "for text, row in zip(texts, probabilities.tolist()):",
        '    print(text, [name for name, share in zip(card["labels"], row) if share > cuts[name]])',
        "```",
    ]


def _other_cuts(metadata: Metadata) -> list[str]:
    by = metadata.group_thresholds()
    if by is None:
        return []
    column = json.dumps(by.column, ensure_ascii=False)  # a name with a line break stays in the comment
    return [f'# Those of each {column} are in card["thresholds_by"]["values"]; these are for all others.']


def pipeline(folder: str, *, max_tokens: int) -> list[str]:
    """Markdown lines with a transformers pipeline for a whole network: uncalibrated probabilities by label."""
    return [
        "```python",
        "import torch",
        "from transformers import pipeline",
        "",
        "emotions = pipeline(",
        f'    "text-classification", model={folder}, dtype=torch.float32, top_k=None, function_to_apply="sigmoid"',
        ")",
        f"print(emotions({json.dumps(TEXT)}, truncation=True, max_length={max_tokens}))",
        "```",
    ]


def _imports(base: Base, *, folder: str, graph: bool) -> list[str]:
    classes = ["AutoTokenizer"] if graph else ["AutoModelForSequenceClassification", "AutoTokenizer"]
    if base.adapter and base.quantization is not config.Quantization.none:
        classes.append("BitsAndBytesConfig")
    return [
        "import json",
        "from pathlib import Path",
        "",
        *(["import numpy as np", "import onnxruntime"] if graph else ["import torch"]),
        *(["from huggingface_hub import snapshot_download"] if "snapshot_download" in folder else []),
        *(["from peft import PeftModel"] if base.adapter else []),
        f"from transformers import {', '.join(classes)}",
    ]


def _tokens(metadata: Metadata) -> list[str]:
    tensors = f'return_tensors="{"np" if metadata.is_graph else "pt"}"'
    if metadata.template is None:
        return [
            "tokens = tokenizer(",
            f"    texts, padding=True, truncation=True, max_length={metadata.max_tokens}, {tensors}",
            ")",
        ]
    if metadata.long_texts is not None:
        return _long_texts(metadata, metadata.long_texts, room=metadata.max_tokens - metadata.template.length)
    return [
        "# Each text stands in the template that the model was trained with; only the text is truncated.",
        *_IN_TEMPLATE,
        f"    truncation=True, max_length={metadata.max_tokens - metadata.template.length},",
        ")",
        'whole = [template["before"] + ids + template["after"] for ids in parts["input_ids"]]',
        f'tokens = tokenizer.pad({{"input_ids": whole}}, {tensors})',
    ]


_IN_TEMPLATE = [
    'template = card["template"]',
    "parts = tokenizer(",
    '    [template["space"] + text for text in texts],',
    "    add_special_tokens=False, split_special_tokens=True,",
]


def _long_texts(metadata: Metadata, long_texts: LongTexts, *, room: int) -> list[str]:
    """Lines that cut long texts as in training, or divide them into pieces, each between the tokens of the template."""
    tail = room // 2
    way = {
        config.LongTexts.cut_end: [f"pieces = [[ids[:{room}]] for ids in parts]"],
        config.LongTexts.cut_start: [f"pieces = [[ids[-{room}:]] for ids in parts]"],
        config.LongTexts.middle: [
            "pieces = [",
            f"    [ids if len(ids) <= {room} else ids[:{room - tail}] + ids[len(ids) - {tail}:]] for ids in parts",
            "]",
        ],
        config.LongTexts.windows: [
            "pieces = []",
            "for ids in parts:",
            f"    step = {room} - {long_texts.overlap}  # a piece shares these tokens with the next one",
            f"    count = min({long_texts.most}, 1 + max(0, -(-(len(ids) - {room}) // step)))",
            f"    rest = min(len(ids), {room} + (count - 1) * step) - {room}",
            "    starts = [rest * i // (count - 1) for i in range(count)] if count > 1 else [0]",
            f"    pieces.append([ids[start : start + {room}] for start in starts])",
        ],
    }[long_texts.way]
    return [
        "# Long texts are read as in training, between the tokens of the template or the special tokens.",
        *_IN_TEMPLATE,
        ')["input_ids"]',
        *way,
        'whole = [template["before"] + ids + template["after"] for text in pieces for ids in text]',
        f'tokens = tokenizer.pad({{"input_ids": whole}}, return_tensors="{"np" if metadata.is_graph else "pt"}")',
    ]


def _joined(long_texts: LongTexts, *, graph: bool) -> list[str]:
    """Lines that join the logits of a text's pieces."""
    way = "max" if graph else "amax"
    way = way if long_texts.join is config.JoinWindows.maximum else "mean"
    sizes = "[len(text) for text in pieces]"
    parts = f"np.split(logits, np.cumsum({sizes})[:-1])" if graph else f"logits.split({sizes})"
    return [
        "# The logits of a text are joined from those of its pieces.",
        f"logits = {'np' if graph else 'torch'}.stack([part.{way}(0) for part in {parts}])",
    ]


def _network(metadata: Metadata) -> list[str]:
    if not metadata.base.adapter:
        return [
            "# float32, in which the small parts of the network are the run's own numbers",
            "model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()",
        ]
    quantization = _quantization(metadata.base)
    return [
        "base = AutoModelForSequenceClassification.from_pretrained(",
        f"    {_place(metadata)},",
        f"    num_labels={len(metadata.labels)},",
        "    pad_token_id=tokenizer.pad_token_id,",
        "    dtype=torch.float32,  # as what was trained; PEFT's layers stop at a mixture with bfloat16",
        *([f"    quantization_config={quantization},"] if quantization else []),
        ")",
        "model = PeftModel.from_pretrained(base, folder).eval()",
    ]


def _place(metadata: Metadata) -> str:
    """First arguments of from_pretrained for the base of an adapter, as Python.

    They start from the model folder if the base lies in or beside it, so that both can be moved together.
    """
    base = metadata.base
    if not base.local:
        return json.dumps(base.path) + (f", revision={json.dumps(base.revision)}" if base.revision else "")
    if metadata.format:
        return f'f"{{folder}}/{run_folder.BASE}"'
    if base.tiny or not base.pretrained:
        return f'f"{{folder}}/../{run_folder.BASE}"'
    return json.dumps(base.path, ensure_ascii=False)


def _quantization(base: Base) -> str | None:
    """Python expression of the base's quantization config; None without quantization."""
    kept = json.dumps(base.kept)
    return {
        "nf4": 'BitsAndBytesConfig(\n        load_in_4bit=True, bnb_4bit_quant_type="nf4", '
        f"bnb_4bit_use_double_quant=True,\n        llm_int8_skip_modules={kept},\n    )",
        "int8": f"BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules={kept})",
        "none": None,
    }[base.quantization]


_LOGITS = [
    "with torch.no_grad():",
    "    logits = model(**tokens.to(model.device)).logits.float().cpu()",
]
_GRAPH = [
    'session = onnxruntime.InferenceSession(f"{folder}/model.onnx")',
    'inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}',
    '(logits,) = session.run(["logits"], inputs)',
]
_CALIBRATION = {
    graph: [
        'scaling = [card["calibration"][name] for name in card["labels"]]',
        f'slopes, offsets = ({array}([part[name] for part in scaling]) for name in ("slope", "offset"))',
        "logits = logits * slopes + offsets",
    ]
    for graph, array in ((False, "torch.tensor"), (True, "np.array"))
}
