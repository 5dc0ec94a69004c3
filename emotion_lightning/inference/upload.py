"""Models on the Hugging Face hub: fetched where a setting says `hf:user/name`, uploaded with a card for strangers."""

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emotion_lightning import config
from emotion_lightning.config import hub_name, redaction
from emotion_lightning.errors import LOG_IN, UserError, first_line, no_access
from emotion_lightning.inference import hub_card
from emotion_lightning.models import model_folder
from emotion_lightning.runs import bounded_files, environment, manifest, quiet, run_folder

log = logging.getLogger(__name__)

_WEIGHTS = ("*.safetensors", "*.onnx", "*.onnx.data")
FILES = (*_WEIGHTS, "*.json", "tokenizer.model", manifest.NAME)
"""What is taken from a model's repository and put there: data, never pickles or code."""
_WEIGHT_ENDINGS = tuple(kind.removeprefix("*") for kind in _WEIGHTS)
_MAY_WRITE = f"{LOG_IN}, with a token that may write"
_LATER = "leave push= out, and export and push it later."
_OF_A_MODEL = re.compile(
    r"(base/)?(adapter_|model\b|pytorch_model\b|tf_model\b|flax_model\b).*|config\.json|.*\.(onnx|bin|gguf)"
)
"""Files of a repository that a model is made of: of two models at once, none is whole."""


# ----------------------------------------------------------------------------------------------------------- from there


def fetch(run: str, *, setting: str = "run") -> str:
    """The folder of a run: what `hf:user/name` names is downloaded to the hub's own cache; a folder is what it is.

    Without a network, or with HF_HUB_OFFLINE=1, what the cache has of it is taken.

    Raises:
        UserError: there is no such model, or no access to it.
    """
    if not hub_name.is_hub(run):
        return run
    name = hub_name.parse(run, setting=setting)

    from huggingface_hub import HfApi
    from huggingface_hub.constants import is_offline_mode

    quiet.requests()
    is_commit = re.fullmatch("[0-9a-f]{40}", name.revision or "")
    if (is_commit or is_offline_mode()) and (cached := _cached(name)):
        return cached
    elsewhere = f"give a folder as {setting}=FOLDER."
    if is_offline_mode():
        raise UserError(
            f"{setting}={run} is not in the cache of this machine, or not all of it, and HF_HUB_OFFLINE=1 forbids to "
            f"download it: fetch it once without HF_HUB_OFFLINE, or {elsewhere}"
        )
    try:
        with _access(name, elsewhere):
            # One request without retries first: a download would try for most of a minute before it gives up.
            found = HfApi().model_info(name.repository, revision=name.revision, timeout=10)
            if model_folder.CARD not in {file.rfilename for file in found.siblings or []}:
                raise UserError(
                    f"{setting}={run} is not a model of this project: its repository holds no {model_folder.CARD}."
                )
            folder = _download(name)
    except _Unreachable as error:
        if cached := _cached(name):
            log.warning("The hub cannot be reached: %s is taken from the cache, as it was when last fetched.", run)
            return cached
        raise UserError(str(error)) from error
    _check_base(Path(folder))
    return folder


def _check_base(folder: Path) -> None:
    """Raise UserError at once where an adapter's base cannot be had: the hub is asked for it much later else."""
    from emotion_lightning.models import backbone

    base = model_folder.read_card(folder).base
    if base["adapter"] and not base["local"]:
        backbone.check_hub(base["path"], base["revision"])


def pinned(run: str, *, setting: str) -> str:
    """The same name with the commit that it stands for now, fetched; a folder is what it is."""
    if not hub_name.is_hub(run):
        return run
    commit = Path(fetch(run, setting=setting)).name  # the cache names its folders so
    return str(dataclasses.replace(hub_name.parse(run, setting=setting), revision=commit))


def _download(name: hub_name.HubName, *, local_files_only: bool = False) -> str:
    from huggingface_hub import snapshot_download

    return str(
        snapshot_download(
            name.repository,
            revision=name.revision,
            allow_patterns=list(FILES),
            local_files_only=local_files_only,
        )
    )


def _cached(name: hub_name.HubName) -> str | None:
    """The folder in the cache, if it is there and whole."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = _download(name, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    return folder if (Path(folder) / model_folder.CARD).is_file() else None


# ------------------------------------------------------------------------------------------------------------- to there


def upload(folder: Path, repository: str, *, private: bool = True, run: Path | None = None) -> str:
    """Upload a model folder in one commit, with a card that says what it is; its address.

    Files that the repository has beside it stay as they are.

    Args:
        folder: of a model, as a run or an export holds it.
        repository: user/name; made if there is none.
        private: a new repository is seen by its owner alone, and a public one is not written to.
        run: folder of the run that trained it, whose scores and settings the card tells; None looks beside the model.

    Raises:
        UserError: the folder is not whole or holds something secret, the repository holds another model, or there is no
            access to it. Nothing has been uploaded then.
    """
    name = hub_name.HubName(hub_name.parse_repository(repository, setting="push"))
    source = model_folder.model_folder(str(folder))
    card = model_folder.read_card(source)
    run = source.parent if run is None else run
    _check_whole(source, card, run)
    manifest.check(source, "*")
    card, files = _files(source, card)
    _refuse_secrets(source, files)

    check_login(repository)

    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    try:
        with _access(name, _LATER, writes=True):
            standing = _standing(repository, files, private=private)
            base = _base_id(card, run)
            story = hub_card.Story(
                repository,
                card,
                _form(files),
                base,
                _licence(card, base),
                *hub_card.scores_and_settings(run),
                checked="export.json" in files,
            )
            files |= hub_card.files(story)
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
    except _Unreachable as error:
        raise UserError(str(error)) from error
    seen = "private" if (standing.private if standing else private) else "public"
    log.info("Uploaded %d files to %s (%s)", len(files), _page(repository), seen)
    return _page(repository)


def check_login(repository: str) -> None:
    """Raise UserError with the steps where nobody is logged in on this machine, or the hub cannot be asked."""
    name = hub_name.HubName(hub_name.parse_repository(repository, setting="push"))

    from huggingface_hub import HfApi, get_token
    from huggingface_hub.constants import is_offline_mode

    quiet.requests()
    if is_offline_mode():
        raise UserError(f"push={repository} needs the hub, which HF_HUB_OFFLINE=1 forbids to ask; unset it.")
    if get_token() is None:
        raise UserError(no_access(repository, "nobody is logged in on this machine", _MAY_WRITE, otherwise=_LATER))
    try:
        with _access(name, _LATER, writes=True):
            HfApi().whoami()
    except _Unreachable as error:
        raise UserError(str(error)) from error


def _check_whole(source: Path, card: model_folder.Card, run: Path) -> None:
    """Raise UserError for a model that training has not finished, or whose files are not whole."""
    from safetensors import safe_open

    if (run / run_folder.SETTINGS).exists() and not (run / run_folder.METRICS).exists():
        raise UserError(f"{run} has not finished training; go on with {run_folder.resume(run)}, then push it.")
    weights = sorted(file for kind in _WEIGHTS for file in source.glob(kind))
    needed = ["tokenizer.json", *(["adapter_config.json"] if card.base["adapter"] else [])]
    if missing := [name for name in needed if not (source / name).is_file()] + ([] if weights else ["its weights"]):
        raise UserError(f"{source} is damaged: {missing[0]} is missing.")
    for file in weights:
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, framework="pt"):
                    pass
            except Exception as error:  # safetensors has an error class of its own
                raise UserError(f"{file} is damaged: {first_line(error)}") from error


def _files(source: Path, card: model_folder.Card) -> tuple[model_folder.Card, dict[str, Path | bytes]]:
    """The card as others get it, and what is uploaded, by its place in the repository; no paths of this machine."""
    files: dict[str, Path | bytes] = {file.name: file for kind in FILES for file in source.glob(kind)}
    base = dict(card.base)
    if base["adapter"] and base["local"]:
        place = Path(model_folder.base_path(source, card))
        kinds = ("config.json", "*.safetensors", "*.safetensors.index.json")
        files |= {f"{run_folder.BASE}/{file.name}": file for kind in kinds for file in place.glob(kind)}
        log.info("The base model goes along, a copy of %s: it has no id on the hub.", place)
        base |= {"path": run_folder.BASE, "revision": None}
    elif base["local"]:
        base["path"] = Path(base["path"]).name
    card = dataclasses.replace(
        card,
        # So that a base is looked for in the folder, and nowhere else.
        format=config.ExportFormat.adapter.value if base["adapter"] else card.format,
        base=base,
        data=run_folder.without_places(card.data),
        data_hashes=run_folder.without_places(card.data_hashes),
    )
    for path, file in files.items():
        if path.endswith(".json") and path != "tokenizer.json" and isinstance(file, Path):
            content = bounded_files.read_json(file)
            if path == "tokenizer_config.json":  # its tokens may look like paths
                content = {name: value for name, value in content.items() if name not in _OF_THIS_MACHINE}
            else:
                content = run_folder.without_places(content)
            if path == "adapter_config.json":
                content["base_model_name_or_path"] = base["path"]
            files[path] = json.dumps(content, indent=2, ensure_ascii=False).encode()
    files[model_folder.CARD] = json.dumps(card.__dict__, indent=2, ensure_ascii=False).encode()
    return card, files


def _manifest(files: dict[str, Path | bytes]) -> bytes:
    sums = {
        place: manifest.digest(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
        for place, content in files.items()
        if place != manifest.NAME
    }
    return manifest.text(sums).encode()


_OF_THIS_MACHINE = ("is_local", "local_files_only", "name_or_path")
"""What transformers notes of where a tokenizer came from."""


def _form(files: dict[str, Path | bytes]) -> hub_card.Form:
    if any(path.endswith(".onnx") for path in files):
        return hub_card.Form.graph
    return hub_card.Form.adapter if "adapter_config.json" in files else hub_card.Form.whole


def _refuse_secrets(source: Path, files: dict[str, Path | bytes]) -> None:
    """Raise UserError for a folder, or what is made of it, that holds a token, a key or a password."""
    held: dict[str, Path | bytes] = {str(file): file for file in sorted(source.rglob("*")) if file.is_file()}
    for place, content in (held | files).items():
        text = _text(content)
        secret = _SECRET.search(text)
        # A vocabulary has pieces of URLs in a row, which look like one with a password.
        if secret or (not place.endswith("tokenizer.json") and redaction.text(text) != text):
            line = f", line {text[: secret.start()].count(chr(10)) + 1}" if secret else ""
            raise UserError(
                f"{place}{line} holds what looks like a token or a password; nothing was uploaded. Take it out."
            )


_SECRET = re.compile(
    r"\b(hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|sk-[\w-]{32,}"
    r"|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{20,}|wandb_v1_\w{30,})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)


def _text(content: Path | bytes) -> str:
    """What a file says in words; of weights their header, which has room for some."""
    if isinstance(content, bytes):
        return content.decode(errors="replace")
    if content.suffix == ".safetensors":
        with content.open("rb") as opened:
            return opened.read(int.from_bytes(opened.read(8), "little")).decode(errors="replace")
    return "" if content.name.endswith(_WEIGHT_ENDINGS) else content.read_text(encoding="utf-8", errors="replace")


def _standing(repository: str, files: dict[str, Path | bytes], *, private: bool) -> Any:
    """What the hub has under this name, None for nothing; UserError where a model cannot be put there."""
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
    ours = model_folder.CARD in names
    if others := sorted(name for name in names - (files.keys() if ours else set()) if _OF_A_MODEL.fullmatch(name)):
        raise UserError(
            f"push={repository} holds {'it in another form' if ours else 'another model'} ({others[0]}): of two "
            "in one place none could be loaded. Push to another name, or delete it first on "
            f"{_page(repository)}/tree/main."
        )
    return found


def _base_id(card: model_folder.Card, run: Path) -> str | None:
    """The base's id on the hub; a whole network does not say what it was made of, but its run does."""
    own = run / run_folder.MODEL
    for base in (card.base, *([model_folder.read_card(own).base] if (own / model_folder.CARD).is_file() else [])):
        if base["pretrained"] and not base["local"]:
            return str(base["path"])
    return None


def _licence(card: model_folder.Card, base: str | None) -> str | None:
    """The licence of the base as the hub knows it, which what was trained on it comes under; None where it does not."""
    if not card.base["pretrained"]:
        return hub_card.OWN_LICENCE
    if card.is_gemma:
        return hub_card.GEMMA_LICENCE
    if base is None:
        return None

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        told = HfApi().model_info(base, timeout=10).card_data
    except HfHubHTTPError:
        return None
    return None if told is None else told.get("license")


# ----------------------------------------------------------------------------------------------------------- both ways


class _Unreachable(Exception):
    """The hub did not answer, or not as a hub does."""


@contextmanager
def _access(name: hub_name.HubName, otherwise: str, *, writes: bool = False) -> Iterator[None]:
    """Turn the hub client's errors into one message with the steps."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    page = _page(name.repository)
    log_in = _MAY_WRITE if writes else LOG_IN

    def steps(reason: str, *more: str) -> str:
        return no_access(name.repository, reason, *more, otherwise=otherwise)

    try:
        yield
    except UserError:
        raise
    except GatedRepoError as error:
        raise UserError(steps("its terms must be accepted first", f"Accept them on {page}", log_in)) from error
    except RevisionNotFoundError as error:
        raise UserError(
            f"{name.repository} has no branch, tag or commit {name.revision}; see {page}/commits."
        ) from error
    except RepositoryNotFoundError as error:
        reason = "the hub does not know it, or it is private"
        raise UserError(steps(reason, f"Look whether {page} is what you mean", log_in)) from error
    except Exception as error:  # besides those of the hub's client, of httpx and of the system
        http = next((cause for cause in _causes(error) if isinstance(cause, HfHubHTTPError)), None)
        status = None if http is None else http.response.status_code
        if status == 401:
            raise UserError(steps("the hub does not accept your token", log_in)) from error
        if status == 403:
            raise UserError(steps(f"your token may not {'write there' if writes else 'read it'}", log_in)) from error
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk
        reason = f"the hub cannot be reached, or fails ({_short(error)})"
        raise _Unreachable(steps(reason, "See to the network and to HF_ENDPOINT, or try again later")) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _short(error: BaseException) -> str:
    """What an error says, in one line; the client's own begin with empty ones and end with advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redaction.text(lines[0])[:200] if lines else type(error).__name__


def _page(repository: str) -> str:
    from huggingface_hub import HfApi

    return f"{HfApi().endpoint}/{repository}"
