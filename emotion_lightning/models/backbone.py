"""The pretrained network, quantised or not, with a classification head."""

import logging
import os
import re
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning import config
from emotion_lightning.config.model import TINY
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.models import first_token, float16, pooling, safe_loading, weights
from emotion_lightning.models.device import compute_dtype
from emotion_lightning.models.hub import check_hub
from emotion_lightning.runs import manifest, run_folder
from emotion_lightning.runs.files import follow_umask

log = logging.getLogger(__name__)

BUNDLED_RUN = Path(__file__).parents[1] / "tiny"
"""A run folder in the package: the bundled network and an adapter for the emotions of the sample dataset."""

BUNDLED = BUNDLED_RUN / run_folder.BASE
"""The bundled network. Its tokenizer is also used for every architecture with random weights."""

_SHORT = 256
"""Texts of up to this many tokens count as short."""


def check_access(settings: config.Model) -> None:
    """Raise UserError if the model's files are not available; call it before any other work."""
    if has_own_base(settings):
        return
    path = Path(settings.path).expanduser()
    if path.exists() or settings.path.startswith((".", "/", "~")):
        if not (path / "config.json").is_file():
            raise UserError(f"model.path={settings.path} is not a model folder: it holds no config.json.")
        return
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", settings.path):
        raise UserError(f"model.path={settings.path} is neither a folder nor a hub id such as google/gemma-1.1-2b-it.")
    check_hub(settings.path, settings.revision)


def load_tokenizer(settings: config.Model) -> Any:
    """Load the model's tokenizer and set it to pad on the right."""
    from transformers import AutoTokenizer

    if settings.pretrained:
        path, revision = local(settings.path), settings.revision or "main"
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
        first_token.ensure_first_token(
            tokenizer, path, revision=revision, model_type=str(settings.architecture.get("model_type", ""))
        )
    else:
        tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def head_modules(settings: config.Model) -> list[str]:
    """Names of the modules that every method trains in full: the head, and the pooler if the pooling uses it."""
    assert settings.head is not None, "auto.resolve fills it"
    used = settings.pooler is not None and settings.pooling is config.Pooling.first
    return [str(settings.pooler), *settings.head] if used else list(settings.head)


def kept_modules(settings: config.Model) -> list[str]:
    """Patterns, in the form of transformers' quantizers, of the names of modules that are never quantised."""
    # transformers matches a pattern from the start of the name, and a pooler lies inside the backbone.
    return [*(settings.head or []), *([rf".*\.{settings.pooler}"] if settings.pooler else [])]


def unused_module(settings: config.Model) -> str | None:
    """Name of the pooler if the pooling does not use it, so that it never has a gradient; otherwise None."""
    return settings.pooler if settings.pooler not in head_modules(settings) else None


def build_network(
    settings: config.Model,
    labels: Sequence[str],
    *,
    tokenizer: Any,
    full: bool,
    device: torch.device,
    seed: int,
    base_folder: Path,
    max_tokens: int = _SHORT,
    spread: bool = False,
) -> Any:
    """Load the network with a classification head in float32 and move it to its device.

    Args:
        settings: which network, its quantization and dtype.
        labels: names of the head's outputs.
        tokenizer: its padding token is set in the network.
        full: whether all weights are trained; they are then all in float32.
        device: device of the network.
        seed: seed of random weights and of the head.
        base_folder: where the base is saved if it has random weights or is a copy of the bundled network.
        max_tokens: length of the longest text, in tokens.
        spread: whether its frozen weights will be spread over processes; until then the network is in main memory.
    """
    compute = compute_dtype(settings.dtype, device)
    if not settings.pretrained:
        path = random_base(settings, labels, tokenizer, seed, base_folder)
    elif settings.path == TINY and not full:
        path = _copy_of_tiny(base_folder)
    else:
        path = local(settings.path)
    torch.manual_seed(seed)  # for the head's initial weights
    network = load_network(
        path,
        revision=settings.revision if settings.pretrained else None,
        quantization=settings.quantization,
        dtype=torch.float32 if full else compute,
        head=head_modules(settings),
        kept=kept_modules(settings),
        attention=settings.attention,
        attn_implementation=attention_kernel(settings.attn_implementation, device, compute, max_tokens=max_tokens),
        labels=labels,
        pad_token_id=tokenizer.pad_token_id,
        device=torch.device("cpu") if spread else device,
        full=full,
        # Weights of one dtype are gathered as they are; torch takes those of several to bytes and back.
        storage=compute if spread else torch.uint8,
    )
    _check_padding(network, exact=full or compute is torch.float32)
    keep_in_range(network, compute)
    if settings.activation_checkpointing:
        # transformers up to 5.17 calls this method gradient_checkpointing_enable.
        enable = getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable
        enable()
    return network


def attention_kernel(
    asked: config.AttentionKernel, device: torch.device, compute: torch.dtype, *, max_tokens: int
) -> config.AttentionKernel:
    """Choose the attention kernel: replaces `auto` by `eager` for short texts on a CPU in bfloat16.

    transformers would choose sdpa there, which is slow: forward and backward on texts of 12 to 256 tokens take 1.2 to
    7 times as long as with eager (torch 2.13). In float32 both take the same time.
    """
    slow = device.type == "cpu" and compute is torch.bfloat16
    return config.AttentionKernel.eager if slow and plain_attention_may_serve(asked, max_tokens) else asked


def plain_attention_may_serve(asked: config.AttentionKernel, max_tokens: int) -> bool:
    """Whether the kernel is `auto` and texts are short enough to store attention scores of all pairs of tokens."""
    return asked is config.AttentionKernel.auto and max_tokens <= _SHORT


def load_network(
    path: str,
    *,
    revision: str | None,
    quantization: config.Quantization,
    dtype: torch.dtype,
    head: Sequence[str],
    kept: Sequence[str],
    attention: config.Attention,
    attn_implementation: config.AttentionKernel,
    labels: Sequence[str],
    pad_token_id: int,
    device: torch.device,
    full: bool = False,
    storage: torch.dtype = torch.uint8,
) -> Any:
    """Load a network for sequence classification and check its weights.

    Args:
        path: hub id or folder.
        revision: branch, tag or commit on the hub; None means main.
        quantization: quantization of the weights.
        dtype: dtype of weights that are not quantised, and compute dtype of quantised ones.
        head: modules that compute in float32.
        kept: name patterns of modules that are never quantised.
        attention: causal or bidirectional.
        attn_implementation: attention kernel.
        labels: names of the head's outputs.
        pad_token_id: padding token of the tokenizer.
        device: device of the network.
        full: whether all weights are trained and stored.
        storage: dtype of the tensors that hold 4-bit weights; it does not change their values.

    Raises:
        UserError: the weights cannot be read, are incomplete, or do not match their config.json.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers.utils import logging as transformers_logging

    if Path(path).is_dir():
        manifest.check_hashes(Path(path), "*.safetensors", "*.json")
    extra: dict[str, Any] = {}
    if quantization is not config.Quantization.none:
        extra["quantization_config"] = _quantization(quantization, dtype, kept, storage)
        # device_map="auto" would spread the model over several devices. By default, every DDP process would load it
        # onto the first GPU.
        extra["device_map"] = {"": device}
    if attn_implementation is not config.AttentionKernel.auto:
        extra["attn_implementation"] = attn_implementation.value
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # no warning that the head is newly initialised
    try:
        architecture = AutoConfig.from_pretrained(
            path,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={name: position for position, name in enumerate(labels)},
            problem_type="multi_label_classification",
            trust_remote_code=False,
            revision=revision or "main",
        )
        safe_loading.check_architecture(architecture, path)
        read = partial(
            AutoModelForSequenceClassification.from_pretrained,
            path,
            config=architecture,
            ignore_mismatched_sizes=True,  # a head for other labels is replaced by a new one
            output_loading_info=True,
            dtype=dtype,
            # Never run code that comes with a model, and never open a pickle.
            trust_remote_code=False,
            use_safetensors=True,
            revision=revision or "main",
            **extra,
        )
        network, found = read()
        if prefix := weights.prefix(network, found):
            log.warning("The weights of %s stand behind %s in its checkpoint; they are taken without it.", path, prefix)
            del network  # memory may not hold a large network twice
            network, found = read(key_mapping={f"^{re.escape(prefix)}": ""})
    except (OSError, ValueError, ImportError) as error:
        hint = "" if attn_implementation is config.AttentionKernel.auto else " Try model.attn_implementation=auto."
        raise UserError(f"The model {path} cannot be loaded: {first_line(error)}{hint}") from error
    finally:
        transformers_logging.set_verbosity(level)
    _check_head(network, head)
    weights.check_shapes(network, found["mismatched_keys"], head=head[-1], path=path)
    # Trained modules may be missing from the weights. An unused pooler may be missing too; `kept` names it.
    new = [*head, *(name.rpartition(".")[2] for name in kept)]
    network.fresh_head = any(head[-1] in name.split(".") for name in weights.made_up(found))
    weights.check_missing(network, found, new=new, full=full, head=list(head), path=path)
    check_padding_token(network, pad_token_id)
    network.config.use_cache = False  # otherwise each forward pass fills a key-value cache that nothing reads
    network.config.pad_token_id = pad_token_id
    _keep_gradients_on_cpu(network)
    _float32_head(network, head)
    _set_attention(network, attention)
    return network if quantization is not config.Quantization.none else network.to(device)


def keep_in_range(network: Any, compute: torch.dtype) -> None:
    """Prevent overflow in a decoder that computes in float16; call it before an adapter is attached.

    Encoders such as BERT do not need it: each of their layers ends in a norm.
    """
    if compute is torch.float16 and pooling.is_generic(network):
        float16.patch_decoder(pooling.backbone_of(network))


def compile_(network: Any) -> None:
    """Compile the backbone in place, for batches of any shape; names and weights do not change.

    Raises:
        UserError: the network is on a CPU and there is no C++ compiler, which torch.compile needs there.
    """
    backbone = pooling.backbone_of(network)
    if next(backbone.parameters()).device.type == "cpu" and not any(map(shutil.which, _COMPILERS)):
        raise UserError("trainer.compile=true needs a C++ compiler (Debian: g++), or trainer.compile=false.")
    # Otherwise torch would compile again for each length of a batch until it reaches its recompile limit.
    backbone.compile(dynamic=True)


_COMPILERS = tuple(filter(None, (os.environ.get("CXX"), "g++", "clang++", "c++")))


def _set_attention(network: Any, attention: config.Attention) -> None:
    causal = attention is config.Attention.causal
    kind = network.config.model_type
    if pooling.is_decoder(network):
        # Do not set `use_bidirectional_attention`: transformers 5.23 applies it only in part, depending on padding.
        network.config.is_causal = causal
        network.config.get_text_config().is_causal = causal  # another one where a network also sees pictures
        if not causal and not _first_sees_last(network):
            raise UserError(
                f"model.attention=bidirectional, but transformers gives {kind} causal attention alone; set "
                "model.attention=causal."
            )
    elif causal:
        raise UserError(
            f"model.attention=causal, but {kind} was trained to see all tokens; set model.attention=bidirectional, or "
            "choose a decoder such as model=gemma."
        )


def _first_sees_last(network: Any) -> bool:
    """Whether another last token changes the vector of the first one."""
    backbone = pooling.backbone_of(network)
    ids = torch.tensor([[5, 6, 7], [5, 6, 8]], device=next(network.parameters()).device)
    try:
        with torch.no_grad():
            first = backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0]
    except Exception:  # MPT, for example, always expects a mask
        return False
    return not torch.allclose(first[0], first[1], rtol=1e-4, atol=1e-5)


def _check_padding(network: Any, *, exact: bool) -> None:
    """Raise UserError if padding changes the vectors of a text, as a convolution over its tokens does.

    Args:
        network: without an adapter.
        exact: whether it computes in float32, so that a small difference is not rounding.
    """
    if pooling.is_generic(network) or network.config.is_encoder_decoder:
        return
    backbone, kind = pooling.backbone_of(network), network.config.model_type
    ids = torch.tensor([[5, 6, 7], [6, 7, 8]], device=next(network.parameters()).device)
    padding = torch.zeros((2, 5), dtype=torch.long, device=ids.device)
    padded = torch.cat([ids, padding + network.config.pad_token_id], dim=1)
    mask = torch.cat([torch.ones_like(ids), padding], dim=1)
    try:
        with torch.no_grad():
            alone = backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.float()
            together = backbone(input_ids=padded, attention_mask=mask).last_hidden_state[:, :3].float()
        difference = float((alone - together).abs().max() / alone.abs().max())
    except Exception as error:  # an architecture that needs more than texts, or longer ones
        raise UserError(
            f"transformers cannot compute a text of three tokens with {kind} ({first_line(error)[:100]}); choose a "
            "model of another architecture."
        ) from error
    if difference > (1e-3 if exact else 0.1):
        raise UserError(
            f"Padding changes the vectors of a text in {kind} (by {difference:.1g} of their size), so the answer for a "
            "text would depend on the others in its batch; choose a model of another architecture."
        )


def check_padding_token(network: Any, pad_token_id: int) -> None:
    """Raise UserError if the network, which may be without weights, has no vector for the tokenizer's padding token."""
    check_vocabulary(network, pad_token_id, what="The tokenizer's padding token")


def check_vocabulary(network: Any, largest: int, *, what: str) -> None:
    """Raise UserError if the network has no vector for a token.

    Args:
        network: with or without an adapter.
        largest: the largest token id.
        what: where the id comes from, for the message.
    """
    try:
        rows = network.get_input_embeddings().weight.shape[0]
    except NotImplementedError:  # CANINE has no vocabulary
        return
    if largest >= rows:
        raise UserError(
            f"{what} has the id {largest}, but the network has vectors for {rows:,} tokens only (0 to {rows - 1}): the "
            "tokenizer in model.path is that of another model. Put the model's own tokenizer there."
        )


def has_own_base(settings: config.Model) -> bool:
    """Whether a run stores its own base: random weights exist nowhere else, and `tiny` may change between versions."""
    return not settings.pretrained or settings.path == TINY


def local(path: str) -> str:
    """Resolve `model.path` to a folder, or return it unchanged if it is a hub id."""
    if path == TINY:
        return str(BUNDLED)
    folder = Path(path).expanduser()
    return str(folder) if folder.exists() else path


def random_base(settings: config.Model, labels: Sequence[str], tokenizer: Any, seed: int, base_folder: Path) -> str:
    """Create the architecture with random weights, save it as the base of the adapter, and return its folder."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    values = dict(settings.architecture)
    try:
        model_type = values.pop("model_type")
        architecture = AutoConfig.for_model(
            model_type,
            **values,
            num_labels=len(labels),
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    except Exception as error:  # KeyError, ValueError, and an error class that transformers defines for each field
        raise UserError(f"model.architecture cannot be built: {first_line(error)[:200]}") from error

    def write(folder: Path) -> None:
        torch.manual_seed(seed)
        # Large networks are created in bfloat16: in float32, 2.5 billion weights would take 10 GB.
        network = AutoModelForSequenceClassification.from_config(
            architecture, dtype=torch.float32 if settings.dtype is config.Dtype.float32 else torch.bfloat16
        )
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return _kept(base_folder, write)


def _copy_of_tiny(base_folder: Path) -> str:
    return _kept(base_folder, partial(shutil.copytree, BUNDLED))


def _kept(base_folder: Path, write: Callable[[Path], object]) -> str:
    """Write a run's own base if its folder does not have it yet, and return the folder.

    Raises:
        UserError: the folder is there, but not as this function writes it.
    """
    from filelock import FileLock

    base_folder.parent.mkdir(parents=True, exist_ok=True)
    # All processes of a distributed run call this at the same time.
    part, lock = base_folder.with_suffix(".part"), base_folder.with_suffix(".lock")
    try:
        with FileLock(lock):
            if not (base_folder / "config.json").exists():
                if base_folder.exists() and (not base_folder.is_dir() or any(base_folder.iterdir())):
                    raise UserError(f"{base_folder} is damaged: it has no config.json. Start anew with from_run=.")
                # Rename the folder only when it is complete: a killed process would otherwise leave half a base.
                shutil.rmtree(part, ignore_errors=True)
                try:
                    write(part)
                    follow_umask(*(file for file in part.iterdir() if file.is_file()))
                    manifest.write_hashes(part)
                    part.rename(base_folder)
                finally:
                    shutil.rmtree(part, ignore_errors=True)  # left over after an error, such as a full disk
    finally:
        lock.unlink(missing_ok=True)
    return str(base_folder)


def _quantization(
    quantization: config.Quantization, dtype: torch.dtype, kept: Sequence[str], storage: torch.dtype
) -> Any:
    from transformers import BitsAndBytesConfig

    # bitsandbytes would quantise any head that is not named lm_head, and a quantised head cannot be trained.
    if quantization is config.Quantization.int8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(kept))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=storage,
        llm_int8_skip_modules=list(kept),
    )


def _keep_gradients_on_cpu(network: nn.Module) -> None:
    # On CPUs with AVX512_BF16, an evaluation pass repacks 4-bit weights for a kernel without a backward pass. The
    # gradients of all layers below then become None without an error (bitsandbytes 0.50, since its PR 1804).
    for module in network.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]  # bitsandbytes' own attribute


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32, also in a network of lower precision."""

    def forward(self, input: Tensor) -> Tensor:
        """[…, in] to […, out], float32."""
        with torch.autocast(input.device.type, enabled=False):
            return nn.functional.linear(
                input.float(), self.weight.float(), self.bias if self.bias is None else self.bias.float()
            )


def _float32_head(network: nn.Module, head: Sequence[str]) -> None:
    # A bfloat16 head does not change at small learning rates, and the gradient scaler fails on a float16 head
    # (peft#341).
    for name, module in network.named_modules():
        if name.split(".")[-1] not in head:
            continue
        module.float()
        for layer in module.modules():
            if type(layer) is nn.Linear:
                layer.__class__ = Float32Linear


def _check_head(network: nn.Module, head: Sequence[str]) -> None:
    """Raise UserError if the network lacks a module of the head."""
    there = {name.split(".")[-1] for name, _ in network.named_modules()}
    if missing := [part for part in head if part not in there]:
        beside = ",".join(pooling.beside_backbone(network))
        raise UserError(
            f"model.head or model.pooler names {', '.join(missing)}, but the model has no such module: beside its "
            f"backbone it has {beside.replace(',', ', ')}. Set model.head=[{beside}] and model.pooler=null, or choose "
            "model=auto."
        )
