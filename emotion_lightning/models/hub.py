"""Models of the Hugging Face hub: whether they can be had, and how they are fetched."""

import dataclasses
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emotion_lightning.config import hub_name, redaction
from emotion_lightning.errors import LOG_IN, UserError, first_line, no_access
from emotion_lightning.models.card import CARD, read_card
from emotion_lightning.runs import manifest, quiet

log = logging.getLogger(__name__)


WEIGHTS = ("*.safetensors", "*.onnx", "*.onnx.data")
REPOSITORY_FILES = (*WEIGHTS, "*.json", "tokenizer.model", manifest.NAME)
"""What is taken from a model's repository and put there: data, never pickles or code."""
MAY_WRITE = f"{LOG_IN}, with a token that may write"


def fetch_run(run: str, *, setting: str = "run") -> str:
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
        with hub_access(name, elsewhere):
            # One request without retries first: a download would try for most of a minute before it gives up.
            found = HfApi().model_info(name.repository, revision=name.revision, timeout=10)
            if CARD not in {file.rfilename for file in found.siblings or []}:
                raise UserError(f"{setting}={run} is not a model of this project: its repository holds no {CARD}.")
            folder = _download(name)
    except Unreachable as error:
        if cached := _cached(name):
            log.warning("The hub cannot be reached: %s is taken from the cache, as it was when last fetched.", run)
            return cached
        raise UserError(str(error)) from error
    _check_base(Path(folder))
    return folder


def _check_base(folder: Path) -> None:
    """Raise UserError at once where an adapter's base cannot be had: the hub is asked for it much later else."""
    pass

    base = read_card(folder).base
    if base["adapter"] and not base["local"]:
        check_hub(base["path"], base["revision"])


def pinned_run(run: str, *, setting: str) -> str:
    """The same name with the commit that it stands for now, fetched; a folder is what it is."""
    if not hub_name.is_hub(run):
        return run
    commit = Path(fetch_run(run, setting=setting)).name  # the cache names its folders so
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
    """The folder in the cache, if it is there and whole."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = _download(name, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    return folder if (Path(folder) / CARD).is_file() else None


class Unreachable(Exception):
    """The hub did not answer, or not as a hub does."""


@contextmanager
def hub_access(name: hub_name.HubName, otherwise: str, *, writes: bool = False) -> Iterator[None]:
    """Turn the hub client's errors into one message with the steps."""
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
        raise Unreachable(steps(reason, "See to the network and to HF_ENDPOINT, or try again later")) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _short(error: BaseException) -> str:
    """What an error says, in one line; the client's own begin with empty ones and end with advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redaction.text(lines[0])[:200] if lines else type(error).__name__


def hub_page(repository: str) -> str:
    """The address of a repository's page on the hub."""
    from huggingface_hub import HfApi

    return f"{HfApi().endpoint}/{repository}"


def check_hub(path: str, revision: str | None) -> None:
    """Raise UserError with the steps to take if a model of the hub cannot be had."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    cached = try_to_load_from_cache(path, "config.json", revision=revision)
    if isinstance(cached, str):
        return
    page = f"https://huggingface.co/{path}"
    try:
        # One request without retries: from_pretrained itself would try for most of a minute before it gives up.
        HfApi().auth_check(path)
    except GatedRepoError as error:
        raise UserError(_steps(path, f"its licence must be accepted first ({page})")) from error
    except RepositoryNotFoundError as error:
        raise UserError(_steps(path, "the hub does not know it, or it is private")) from error
    except Exception as error:  # the hub client raises errors of its own, of httpx and of the system
        raise UserError(_steps(path, f"the hub cannot be reached ({first_line(error)})")) from error


def _steps(path: str, reason: str) -> str:
    return no_access(
        path,
        reason,
        f"Accept the licence on https://huggingface.co/{path}",
        LOG_IN,
        otherwise="point model.path at a folder that holds the model; model=tiny needs no download.",
    )
