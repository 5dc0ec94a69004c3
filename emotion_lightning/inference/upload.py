"""Upload models to the Hugging Face hub, with a model card."""

import dataclasses
import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

from emotion_lightning import config
from emotion_lightning.config import hub_name, redaction
from emotion_lightning.errors import UserError, first_line, no_access
from emotion_lightning.inference import hub_card
from emotion_lightning.models import model_folder
from emotion_lightning.models.hub import MAY_WRITE, REPOSITORY_FILES, WEIGHTS, Unreachable, hub_access, hub_page
from emotion_lightning.models.metadata import METADATA, Metadata, find_model_folder, read_metadata
from emotion_lightning.runs import bounded_files, environment, manifest, run_folder

log = logging.getLogger(__name__)
_WEIGHT_ENDINGS = tuple(kind.removeprefix("*") for kind in WEIGHTS)
_LATER = "leave push= out, and export and push it later."
_OF_A_MODEL = re.compile(
    r"(base/)?(adapter_|model\b|pytorch_model\b|tf_model\b|flax_model\b).*|config\.json|.*\.(onnx|bin|gguf)"
)
"""Files of a repository that belong to a model. A repository with files of two models could not be loaded."""


def upload(folder: Path, repository: str, *, private: bool = True, run: Path | None = None) -> str:
    """Upload a model folder in one commit, with a model card.

    Other files of the repository are kept.

    Args:
        folder: a model folder of a run or of an export.
        repository: user/name; created if it does not exist.
        private: create a private repository, and raise if an existing one is public.
        run: folder of the run, whose scores and settings go into the model card; None: the parent of the model folder.

    Returns:
        The address of the repository.

    Raises:
        UserError: the folder is incomplete or contains a secret, the repository contains another model, or the user has
            no access to it. Nothing is uploaded in these cases.
    """
    name = hub_name.HubName(hub_name.parse_repository(repository, setting="push"))
    source = find_model_folder(str(folder))
    metadata = read_metadata(source)
    run = source.parent if run is None else run
    _check_whole(source, metadata, run)
    manifest.check_hashes(source, "*")
    metadata, files = _files(source, metadata)
    _refuse_secrets(source, files)

    check_login(repository)

    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    try:
        with hub_access(name, _LATER, writes=True):
            standing = _standing(repository, files, private=private)
            base = _base_id(metadata, run)
            facts = hub_card.ModelCardFacts(
                repository,
                metadata,
                _form(files),
                base,
                _licence(metadata, base),
                *hub_card.scores_and_settings(run),
                checked="export.json" in files,
            )
            files |= hub_card.card_files(facts)
            _refuse_secrets(source, files)
            files[manifest.NAME] = _manifest(files)
            if standing is None:
                api.create_repo(repository, private=private)
            api.create_commit(
                repository,
                [CommitOperationAdd(path, content) for path, content in sorted(files.items())],
                commit_message=f"Upload with emotion_lightning {environment.versions()['emotion-lightning']}",
                parent_commit=standing.sha if standing else None,
            )
    except Unreachable as error:
        raise UserError(str(error)) from error
    seen = "private" if (standing.private if standing else private) else "public"
    log.info("Uploaded %d files to %s (%s)", len(files), hub_page(repository), seen)
    return hub_page(repository)


def upload_space(folder: Path, repository: str, *, private: bool = True) -> str:
    """Upload the folder of a Space in one commit, as it stands.

    Other files of the repository are kept.

    Args:
        folder: what `export format=space` wrote.
        repository: user/name; created if it does not exist.
        private: create a private Space, and raise if an existing one is public.

    Returns:
        The address of the Space.

    Raises:
        UserError: the folder contains a secret, the repository is another Space, or the user has no access to it.
            Nothing is uploaded in these cases.
    """
    name = hub_name.HubName(hub_name.parse_repository(repository, setting="push"))
    manifest.check_hashes(folder / run_folder.MODEL, "*")
    files: dict[str, Path | bytes] = {
        file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()
    }
    _refuse_secrets(folder, files)
    check_login(repository)

    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api, page = HfApi(), hub_page(f"spaces/{repository}")
    try:
        with hub_access(name, _LATER, writes=True):
            try:
                standing: Any = api.space_info(repository, timeout=10)
            except RepositoryNotFoundError:
                standing = None
                api.create_repo(repository, repo_type="space", space_sdk="gradio", private=private)
            if standing is not None:
                _check_space(repository, page, standing, private=private)
            api.create_commit(
                repository,
                [CommitOperationAdd(path, content) for path, content in files.items()],
                commit_message=f"Upload with emotion_lightning {environment.versions()['emotion-lightning']}",
                parent_commit=standing.sha if standing else None,
                repo_type="space",
            )
    except Unreachable as error:
        raise UserError(str(error)) from error
    seen = "private" if (standing.private if standing else private) else "public"
    log.info("Uploaded %d files to %s (%s)", len(files), page, seen)
    return page


def _check_space(repository: str, page: str, standing: Any, *, private: bool) -> None:
    """Raise UserError if an existing Space is public but `private` is asked for, or holds another program."""
    if private and not standing.private:
        raise UserError(f"push={repository} is public already: push it with private=false, or to another name.")
    names = {file.rfilename for file in standing.siblings or []}
    if f"{run_folder.MODEL}/{METADATA}" not in names and names - {".gitattributes", "README.md"}:
        raise UserError(
            f"push={repository} is another Space. Push to another name, or delete it first on {page}/settings."
        )


def check_login(repository: str) -> None:
    """Check that the user is logged in to the hub.

    Raises:
        UserError: nobody is logged in (the message lists the steps), or the hub cannot be reached.
    """
    name = hub_name.HubName(hub_name.parse_repository(repository, setting="push"))

    from huggingface_hub import HfApi, get_token
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode():
        raise UserError(f"push={repository} needs the hub, which HF_HUB_OFFLINE=1 forbids to ask; unset it.")
    if get_token() is None:
        raise UserError(no_access(repository, "nobody is logged in on this machine", MAY_WRITE, otherwise=_LATER))
    try:
        with hub_access(name, _LATER, writes=True):
            HfApi().whoami()
    except Unreachable as error:
        raise UserError(str(error)) from error


def _check_whole(source: Path, metadata: Metadata, run: Path) -> None:
    """Raise UserError if training is not finished, or if files of the model are missing or damaged."""
    from safetensors import safe_open

    if (run / run_folder.SETTINGS).exists() and not (run / run_folder.METRICS).exists():
        raise UserError(f"{run} has not finished training; go on with {run_folder.resume_command(run)}, then push it.")
    weights = sorted(file for kind in WEIGHTS for file in source.glob(kind))
    needed = ["tokenizer.json", *(["adapter_config.json"] if metadata.base.adapter else [])]
    if missing := [name for name in needed if not (source / name).is_file()] + ([] if weights else ["its weights"]):
        raise UserError(f"{source} is damaged: {missing[0]} is missing.")
    for file in weights:
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, framework="pt"):
                    pass
            except Exception as error:  # safetensors has an error class of its own
                raise UserError(f"{file} is damaged: {first_line(error)}") from error


def _files(source: Path, metadata: Metadata) -> tuple[Metadata, dict[str, Path | bytes]]:
    """Return the metadata and the files to upload, by path in the repository, without paths of this machine."""
    files: dict[str, Path | bytes] = {file.name: file for kind in REPOSITORY_FILES for file in source.glob(kind)}
    base = metadata.base
    if base.adapter and base.local:
        place = Path(model_folder.base_path(source, metadata))
        kinds = ("config.json", "*.safetensors", "*.safetensors.index.json")
        files |= {f"{run_folder.BASE}/{file.name}": file for kind in kinds for file in place.glob(kind)}
        log.info("The base model goes along, a copy of %s: it has no id on the hub.", place)
        base = dataclasses.replace(base, path=run_folder.BASE, revision=None)
    elif base.local:
        base = dataclasses.replace(base, path=Path(base.path).name)
    metadata = dataclasses.replace(
        metadata,
        # With a format, the base model is looked for in this folder only.
        format=config.ExportFormat.adapter.value if base.adapter else metadata.format,
        base_or_none=base,
        data=run_folder.without_paths(metadata.data),
        data_hashes=run_folder.without_paths(metadata.data_hashes),
    )
    for path, file in files.items():
        if path.endswith(".json") and path != "tokenizer.json" and isinstance(file, Path):
            content = bounded_files.read_json(file)
            if path == "tokenizer_config.json":  # its tokens may look like paths and must stay
                content = {name: value for name, value in content.items() if name not in _OF_THIS_MACHINE}
            else:
                content = run_folder.without_paths(content)
            if path == "adapter_config.json":
                content["base_model_name_or_path"] = base.path
            files[path] = json.dumps(content, indent=2, ensure_ascii=False).encode()
    files[METADATA] = json.dumps(metadata.plain(), indent=2, ensure_ascii=False).encode()
    return metadata, files


def _manifest(files: dict[str, Path | bytes]) -> bytes:
    sums = {
        place: manifest.digest(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
        for place, content in files.items()
        if place != manifest.NAME
    }
    return manifest.hashes_text(sums).encode()


_OF_THIS_MACHINE = ("is_local", "local_files_only", "name_or_path")
"""Fields in which transformers stores where a tokenizer was loaded from."""


def _form(files: dict[str, Path | bytes]) -> hub_card.Form:
    if any(path.endswith(".onnx") for path in files):
        return hub_card.Form.graph
    return hub_card.Form.adapter if "adapter_config.json" in files else hub_card.Form.whole


def _refuse_secrets(source: Path, files: dict[str, Path | bytes]) -> None:
    """Raise UserError if a file of the folder or of the upload contains a token, a key or a password."""
    held: dict[str, Path | bytes] = {str(file): file for file in sorted(source.rglob("*")) if file.is_file()}
    for place, content in (held | files).items():
        text = _text(content)
        secret = _SECRET.search(text)
        # Neighbouring pieces of URLs in a vocabulary can look like a URL with a password.
        if secret or (not place.endswith("tokenizer.json") and redaction.hide_secrets(text) != text):
            line = f", line {text[: secret.start()].count(chr(10)) + 1}" if secret else ""
            raise UserError(
                f"{place}{line} holds what looks like a token or a password; nothing was uploaded. Take it out."
            )


_SECRET = re.compile(
    r"\b(hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|sk-[\w-]{32,}"
    r"|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{20,}|wandb_v1_\w{30,})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)


def _text(content: Path | bytes) -> str:
    """Return the text of a file; for safetensors the header, which may contain free text."""
    if isinstance(content, bytes):
        return content.decode(errors="replace")
    if content.suffix == ".safetensors":
        with content.open("rb") as opened:
            return opened.read(int.from_bytes(opened.read(8), "little")).decode(errors="replace")
    return "" if content.name.endswith(_WEIGHT_ENDINGS) else content.read_text(encoding="utf-8", errors="replace")


def _standing(repository: str, files: dict[str, Path | bytes], *, private: bool) -> Any:
    """Return the hub's information about an existing repository; None if it does not exist.

    Raises:
        UserError: it is public but `private` is asked for, or it contains another model or another form of this one.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        found = HfApi().model_info(repository, timeout=10)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None
    if private and not found.private:
        raise UserError(f"push={repository} is public already: push it with private=false, or to another name.")
    names = {file.rfilename for file in found.siblings or []}
    ours = METADATA in names
    if others := sorted(name for name in names - (files.keys() if ours else set()) if _OF_A_MODEL.fullmatch(name)):
        raise UserError(
            f"push={repository} holds {'it in another form' if ours else 'another model'} ({others[0]}): of two "
            "in one place none could be loaded. Push to another name, or delete it first on "
            f"{hub_page(repository)}/tree/main."
        )
    return found


def _base_id(metadata: Metadata, run: Path) -> str | None:
    """Return the hub id of the base model, from the metadata or, for a merged network, from its run; else None."""
    own = run / run_folder.MODEL
    for base in (metadata.base, *([read_metadata(own).base] if (own / METADATA).is_file() else [])):
        if base.pretrained and not base.local:
            return base.path
    return None


def _licence(metadata: Metadata, base: str | None) -> str | None:
    """Return the hub's name of the base model's licence, which also covers the trained model; None if it is unknown."""
    if (known := hub_card.known_licence(metadata)) or base is None:
        return known

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        data = HfApi().model_info(base, timeout=10).card_data
    except HfHubHTTPError:
        return None
    return None if data is None else data.get("license")
