"""Tiny random networks of every architecture that transformers can classify texts with."""

from contextlib import suppress
from typing import Any

SIZES = {
    32: ["hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "word_embed_proj_dim",
         "true_hidden_size", "mamba_dt_rank", "input_embedding_size", "d_latents"],
    64: ["intermediate_size", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner", "ffn_dim", "hidden_dim",
         "d_inner", "ffn_hidden_size", "moe_intermediate_size", "shared_expert_intermediate_size",
         "shared_intermediate_size", "feed_forward_size", "dff", "expansion_dim"],
    2: ["num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
        "num_decoder_layers", "num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
        "decoder_attention_heads", "num_key_value_heads", "kv_n_heads"],
    16: ["head_dim", "d_kv", "d_head", "global_head_dim", "attention_head_size", "kv_channels"],
    256: ["vocab_size"],
    128: ["max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"],
}  # fmt: skip
"""Values of the settings that a config may have, by their names in transformers."""


NAMED = [
    "albert", "bert", "bloom", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "eurobert",
    "falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "modernbert", "mpnet",
    "nomic_bert", "olmo2", "opt", "phi3", "qwen2", "qwen3", "roberta", "roformer", "smollm3", "t5",
    "xlm-roberta",
]  # fmt: skip
"""Architectures that must train with every method and in every form of weights."""


def tiny_config(model_type: str, **values: Any) -> Any:
    """A config with two layers of 32 numbers, whatever the names of its settings are."""
    from transformers import AutoConfig

    values = OWN.get(model_type, {}) | values
    known = AutoConfig.for_model(model_type)
    words = int(values.get("vocab_size", 256))
    _shrink(known, words)
    chosen = {name: value for name, value in known.to_dict().items() if name in _names()} | _kinds(known) | values
    config = AutoConfig.for_model(model_type, **{n: v for n, v in chosen.items() if n not in LEFT.get(model_type, ())})
    _shrink(config, words)
    for name, value in values.items():
        setattr(config, name, value)
    return config


OWN: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 2, "n_routed_experts": 4, "n_group": 1, "topk_group": 1},
    "gptj": {"rotary_dim": 8},
    "layoutlmv3": {"visual_embed": False, "coordinate_size": 6, "shape_size": 4},
    "lilt": {"channel_shrink_ratio": 2, "hidden_size": 36, "intermediate_size": 72},
    "ctrl": {"eos_token_id": None},
    "esm": {"mask_token_id": 3},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "attention_layers": ["global", "local"]},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "ministral": {"head_dim": 16},
    "nemotron": {"head_dim": 16, "num_key_value_heads": 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "t5": {"decoder_start_token_id": 0, "eos_token_id": 1},
    "mt5": {"decoder_start_token_id": 0, "eos_token_id": 1},
    "umt5": {"decoder_start_token_id": 0, "eos_token_id": 1},
    "mobilebert": {"true_hidden_size": 32, "intra_bottleneck_size": 32},
    "xlnet": {"d_head": 16},
}
"""Settings that an architecture needs beyond the sizes."""
MLA = ("axk1", "axk2", "deepseek_v2", "deepseek_v3", "minicpm3", "mistral4")
"""Architectures whose heads have parts with and without positions."""
LEFT: dict[str, tuple[str, ...]] = {kind: ("head_dim",) for kind in MLA} | {
    "falcon": ("head_dim",),
    "funnel": ("num_hidden_layers",),
    "xlnet": ("max_position_embeddings",),
}
"""Settings that an architecture computes from others."""


def _kinds(config: Any) -> dict[str, Any]:
    """The kinds of two layers, where layers differ: one of each kind."""
    kinds = list(dict.fromkeys(config.to_dict().get("layer_types") or []))
    return {"layer_types": [kinds[0], kinds[-1]]} if kinds else {}


def _names() -> set[str]:
    return {name for names in SIZES.values() for name in names}


def _shrink(config: Any, words: int) -> None:
    for size, names in SIZES.items():
        for name in names:
            try:
                known = isinstance(getattr(config, name, None), int)
                left = LEFT.get(str(config.model_type), ())
                if known and name not in left and name != getattr(config, "attribute_map", {}).get(name):
                    setattr(config, name, words if name == "vocab_size" else size)
            except (AttributeError, NotImplementedError):  # computed from other settings
                continue
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "mask_token_id",
                 "image_token_id", "decoder_start_token_id"):  # fmt: skip
        number = getattr(config, name, None)
        if isinstance(number, list) or (isinstance(number, int) and number >= 256):
            setattr(config, name, {"pad_token_id": 0, "eos_token_id": 1}.get(name, 2))
    for name, value in _kinds(config).items():
        with suppress(AttributeError):  # computed from other settings
            setattr(config, name, value)
    for inner in getattr(config, "sub_configs", {}):
        if (part := getattr(config, inner, None)) is not None:
            _shrink(part, words)


def text_types() -> list[str]:
    """Names of all architectures that AutoModelForSequenceClassification knows."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    return list(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
