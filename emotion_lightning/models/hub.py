"""Models on the Hugging Face hub: check access and download."""

import dataclasses
import difflib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emotion_lightning.config import hub_name, redaction
from emotion_lightning.errors import LOG_IN, UserError, first_line, no_access
from emotion_lightning.models.metadata import METADATA, read_metadata
from emotion_lightning.runs import manifest

log = logging.getLogger(__name__)


WEIGHTS = ("*.safetensors", "*.onnx", "*.onnx.data")
REPOSITORY_FILES = (*WEIGHTS, "*.json", "tokenizer.model", manifest.NAME)
"""Files that are downloaded from and uploaded to a model's repository: data, never pickles or code."""
MAY_WRITE = f"{LOG_IN}, with a token that may write"


def fetch_run(run: str, *, setting: str = "run") -> str:
    """Return the folder of a run; a run on the hub is downloaded into the hub's cache first.

    Without a network, or with HF_HUB_OFFLINE=1, the cached copy is used.

    Args:
        run: `hf:user/name`, or a folder, which is returned unchanged.
        setting: setting that `run` comes from, for messages.

    Raises:
        UserError: the model does not exist, there is no access to it, or it is offline and not in the cache.
    """
    if not hub_name.is_hub(run):
        return run
    name = hub_name.parse(run, setting=setting)

    from huggingface_hub import HfApi
    from huggingface_hub.constants import is_offline_mode

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
        with hub_access(name, elsewhere):
            # First one request without retries: a download would retry for most of a minute before it fails.
            found = HfApi().model_info(name.repository, revision=name.revision, timeout=10)
            if METADATA not in {file.rfilename for file in found.siblings or []}:
                raise UserError(f"{setting}={run} is not a model of this project: its repository holds no {METADATA}.")
            folder = _download(name)
    except Unreachable as error:
        if cached := _cached(name):
            log.warning("The hub cannot be reached: %s is taken from the cache, as it was when last fetched.", run)
            return cached
        raise UserError(str(error)) from error
    _check_base(Path(folder))
    return folder


def _check_base(folder: Path) -> None:
    """Raise UserError if the base of an adapter is not available: otherwise that shows only much later."""
    base = read_metadata(folder).base_or_none
    if base is not None and base.adapter and not base.local:
        check_hub(base.path, base.revision)


def pinned_run(run: str, *, setting: str) -> str:
    """Download a run and return its name with the current commit; a folder is returned unchanged."""
    if not hub_name.is_hub(run):
        return run
    commit = Path(fetch_run(run, setting=setting)).name  # the cache names its folders by commit
    return str(dataclasses.replace(hub_name.parse(run, setting=setting), revision=commit))


def _download(name: hub_name.HubName, *, local_files_only: bool = False) -> str:
    from huggingface_hub import snapshot_download

    return str(
        snapshot_download(
            name.repository,
            revision=name.revision,
            allow_patterns=list(REPOSITORY_FILES),
            local_files_only=local_files_only,
        )
    )


def _cached(name: hub_name.HubName) -> str | None:
    """Folder in the cache, or None if it is missing or incomplete."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = _download(name, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    return folder if (Path(folder) / METADATA).is_file() else None


class Unreachable(Exception):
    """The hub did not answer, or failed with an unexpected error."""


@contextmanager
def hub_access(name: hub_name.HubName, otherwise: str, *, writes: bool = False) -> Iterator[None]:
    """Turn errors of the hub client into a message with the steps to take.

    Args:
        name: repository and revision that are accessed.
        otherwise: what to do without the hub, for messages.
        writes: whether the repository is written to.

    Raises:
        UserError: the repository or revision does not exist, or access is denied.
        Unreachable: the hub cannot be reached or fails.
    """
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    page = hub_page(name.repository)
    log_in = MAY_WRITE if writes else LOG_IN

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
    except Exception as error:  # errors of the hub client, of httpx and of the operating system
        http = next((cause for cause in _causes(error) if isinstance(cause, HfHubHTTPError)), None)
        status = None if http is None else http.response.status_code
        if status == 401:
            raise UserError(steps("the hub does not accept your token", log_in)) from error
        if status == 403:
            raise UserError(steps(f"your token may not {'write there' if writes else 'read it'}", log_in)) from error
        if isinstance(error, OSError) and error.errno is not None:
            raise  # such as a full disk
        reason = f"the hub cannot be reached, or fails ({_short(error)})"
        raise Unreachable(steps(reason, "See to the network and to HF_ENDPOINT, or try again later")) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _short(error: BaseException) -> str:
    """First line of an error's message; those of the hub client start with empty lines and end with advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redaction.hide_secrets(lines[0])[:200] if lines else type(error).__name__


def hub_page(repository: str) -> str:
    """URL of a repository's page on the hub."""
    from huggingface_hub import HfApi

    return f"{HfApi().endpoint}/{repository}"


def check_hub(path: str, revision: str | None) -> None:
    """Raise UserError with the steps to take if a model on the hub is not available."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    cached = try_to_load_from_cache(path, "config.json", revision=revision)
    if isinstance(cached, str):
        return
    page = f"https://huggingface.co/{path}"
    try:
        # One request without retries: from_pretrained would retry for most of a minute before it fails.
        HfApi().auth_check(path)
    except GatedRepoError as error:
        raise UserError(_steps(path, f"its licence must be accepted first ({page})")) from error
    except RepositoryNotFoundError as error:
        raise UserError(_steps(path, "the hub does not know it, or it is private")) from error
    except Exception as error:  # errors of the hub client, of httpx and of the operating system
        raise UserError(_steps(path, f"the hub cannot be reached ({first_line(error)})")) from error


def _steps(path: str, reason: str) -> str:
    near = difflib.get_close_matches(Path(path).name, _model_folders(Path(path).parent), n=1)
    mean = f" (did you mean {Path(path).parent / near[0]}?)" if near else ""
    folder = f"there is no folder of that name{mean}, and " if near or "/" not in path else ""
    return no_access(
        path,
        folder + reason,
        f"Accept the licence on https://huggingface.co/{path}",
        LOG_IN,
        otherwise="point model.path at a folder that holds the model; model=tiny needs no download.",
    )


def _model_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder that hold a model."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if (entry / "config.json").is_file())
    except OSError:
        return []
