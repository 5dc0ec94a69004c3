"""The bundled classifier in NumPy: one text is answered before torch, transformers and PEFT would even be imported.

It computes what `inference.predictor` computes with the same files, in float32 and with the same 4-bit weights; a test
compares them. Everything else, such as files of texts, goes through torch, which is faster for many texts.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emotion_lightning.runs import bounded_files, manifest

RUN = Path(__file__).resolve().parent.parent / "tiny"
_BLOCK, _STATISTICS_BLOCK = 64, 256
"""Numbers that share a scale, and scales that share theirs (Dettmers et al., 2023, "QLoRA")."""
_PLACES = 65_535


@dataclass
class Answer:
    """The prediction for one text: probability of every label by name, the thresholds, and the predicted labels."""

    probabilities: dict[str, float]
    thresholds: dict[str, float]
    labels: list[str]


def answer(text: str) -> Answer | None:
    """Label a text with the bundled classifier; None if it needs the whole program: the files are not as expected.

    Raises:
        UserError: a file is damaged.
    """
    folder, base = RUN / "model", RUN / "base"
    card = bounded_files.read_json(folder / "emotion_lightning.json")
    architecture = bounded_files.read_json(base / "config.json")
    stored = card["base"]
    known = (architecture["model_type"], stored["quantization"], stored["dtype"], stored["pooling"])
    if known != ("gemma", "nf4", "float32", "last") or card.get("calibration") or card["data"]["clean"]:
        return None
    try:
        ids = _ids(folder / "tokenizer.json", text, card["max_tokens"])
    except TypeError:  # a lone surrogate, about which the program has a message
        return None
    logits = _logits(ids, _weights(), _read(folder / "adapter_model.safetensors"), architecture)
    shares = [float(share) for share in (1 / (1 + np.exp(-logits))).astype(np.float32)]
    thresholds = card["thresholds"][card["protocol"]]
    labels = [n for n, share in zip(card["labels"], shares, strict=True) if share > np.float32(thresholds[n])]
    return Answer(dict(zip(card["labels"], shares, strict=True)), thresholds, labels)


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    """The weights of the base, those of its matrices as they are in 4 bits."""
    manifest.check_hashes(RUN / "model", "adapter_model.safetensors")
    manifest.check_hashes(RUN / "base", "model.safetensors")
    stored = _read(RUN / "base" / "model.safetensors")
    return {name: four_bit(weight) if "_proj." in name else weight for name, weight in stored.items()}


def _ids(file: Path, text: str, max_tokens: int) -> list[int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return list(tokenizer.encode(text).ids)


def _read(file: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a safetensors file as float32; NumPy has no bfloat16."""
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    found = {}
    for name, entry in json.loads(content[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        part = content[8 + size + start : 8 + size + end]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(part, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(part, "<f4")
        found[name] = values.reshape(entry["shape"])
    return found


def _logits(ids: list[int], base: dict[str, np.ndarray], adapter: dict[str, np.ndarray], of: Any) -> np.ndarray:
    """Return the logits, [label], of Gemma with IA3 for one text."""
    heads, width, eps = of["num_attention_heads"], of["head_dim"], np.float32(of["rms_norm_eps"])
    turn = _rotation(len(ids), width, of["rope_parameters"]["rope_theta"])
    ahead = np.triu(np.full((len(ids), len(ids)), -np.inf, np.float32), 1)
    hidden = base["embed_tokens.weight"][ids] * np.float32(of["hidden_size"] ** 0.5)

    def norm(vectors: np.ndarray, name: str) -> np.ndarray:
        scaled = vectors / np.sqrt((vectors * vectors).mean(-1, keepdims=True) + eps)
        return scaled * (1 + base[f"{name}.weight"])

    for layer in range(of["num_hidden_layers"]):
        place = f"layers.{layer}"

        def times(vectors: np.ndarray, name: str, place: str = place) -> np.ndarray:
            return vectors @ base[f"{place}.{name}.weight"].T

        def learned(name: str, place: str = place) -> np.ndarray:
            return adapter[f"base_model.model.model.{place}.{name}.ia3_l"].reshape(-1)

        inner = norm(hidden, f"{place}.input_layernorm")
        query = times(inner, "self_attn.q_proj").reshape(len(ids), heads, width).transpose(1, 0, 2)
        key = times(inner, "self_attn.k_proj") * learned("self_attn.k_proj")
        value = times(inner, "self_attn.v_proj") * learned("self_attn.v_proj")
        scores = _rotated(query, turn) @ _rotated(key, turn).T * np.float32(width**-0.5) + ahead
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        seen = (weights @ value).transpose(1, 0, 2).reshape(len(ids), heads * width)
        hidden = hidden + times(seen, "self_attn.o_proj")
        inner = norm(hidden, f"{place}.post_attention_layernorm")
        inner = _gelu(times(inner, "mlp.gate_proj")) * times(inner, "mlp.up_proj")
        hidden = hidden + times(inner * learned("mlp.down_proj"), "mlp.down_proj")
    return np.asarray(norm(hidden[-1], "norm") @ adapter["base_model.model.score.weight"].T)


def _rotation(tokens: int, width: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of the rotary embedding, [token, width] each."""
    steps = np.float32(1) / np.float32(theta) ** (np.arange(0, width, 2, dtype=np.float32) / np.float32(width))
    angles = np.arange(tokens, dtype=np.float32)[:, None] * np.concatenate([steps, steps])
    return np.cos(angles), np.sin(angles)


def _rotated(vectors: np.ndarray, turn: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    half = vectors.shape[-1] // 2
    turned = np.concatenate([-vectors[..., half:], vectors[..., :half]], axis=-1)
    return np.asarray(vectors * turn[0] + turned * turn[1])


def _gelu(values: np.ndarray) -> np.ndarray:
    inner = np.float32((2 / np.pi) ** 0.5) * (values + np.float32(0.044715) * values**3)
    return np.asarray(np.float32(0.5) * values * (1 + np.tanh(inner)))


def four_bit(weight: np.ndarray) -> np.ndarray:
    """Return a matrix as it is after quantization to NF4, with scales in 8 bits, by bitsandbytes.

    Args:
        weight: float32; the number of its elements is a multiple of 64.
    """
    blocks = weight.reshape(-1, _BLOCK)
    scales = np.abs(blocks).max(axis=1)
    levels = np.searchsorted(_middles(_NF4), blocks * (np.float32(1) / np.maximum(scales, np.float32(1e-38)))[:, None])
    offset = scales.mean()
    return np.asarray(_NF4[levels] * (_eight_bit(scales - offset) + offset)[:, None]).reshape(weight.shape)


def _eight_bit(values: np.ndarray) -> np.ndarray:
    """Return numbers as they are after blockwise quantization to 8 bits (Dettmers et al., 2022)."""
    code = _dynamic_code()
    found = np.empty_like(values)
    for start in range(0, len(values), _STATISTICS_BLOCK):
        part = values[start : start + _STATISTICS_BLOCK]
        most = np.abs(part).max()
        # On a CPU bitsandbytes looks the nearest one up in a table of 65,536 places from -1 to 1.
        place = np.rint((part / most + 1) * np.float32(0.5 * _PLACES)) / np.float32(0.5 * _PLACES) - 1
        found[start : start + _STATISTICS_BLOCK] = code[np.searchsorted(_middles(code), place)] * most
    return found


def _middles(code: np.ndarray) -> np.ndarray:
    return np.asarray((code[:-1] + code[1:]) / 2)


_NF4 = np.array([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
                 -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
                 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
                 0.7229568362236023, 1.0], np.float32)  # fmt: skip
"""The 16 numbers of NF4, the quantiles of a normal distribution."""


@functools.cache
def _dynamic_code() -> np.ndarray:
    """The 256 numbers of the 8-bit code: seven powers of ten, each divided twice as finely as the one below it."""
    found = [np.float32(0), np.float32(1)]
    for power in range(7):
        parts = 2**power
        # In float32, from both ends to the middle, as torch.linspace does: bitsandbytes compares with these very bits.
        step = np.float32(np.float32(1) - np.float32(0.1)) / np.float32(parts)
        edges = np.array(
            [np.float32(0.1) + step * i if i < (parts + 1) // 2 else 1 - step * (parts - i) for i in range(parts + 1)],
            np.float32,
        )
        middles = np.float32(10.0 ** (power - 6)) * ((edges[:-1] + edges[1:]) / 2)
        found += [*middles, *-middles]
    return np.sort(np.array(found, np.float32))
