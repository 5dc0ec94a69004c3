"""Names of models on the Hugging Face hub: `hf:user/name`, or `hf:user/name@revision` for a branch, tag or commit."""

from dataclasses import dataclass

from emotion_lightning.errors import UserError

_PREFIX = "hf:"


@dataclass(frozen=True)
class HubName:
    """A model on the hub.

    Attributes:
        repository: user/name.
        revision: branch, tag or commit; None is the newest.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{_PREFIX}{self.repository}" + (f"@{self.revision}" if self.revision else "")


def is_hub(run: str | None) -> bool:
    """Whether a setting names a model on the hub rather than a folder.

    >>> is_hub("hf:me/emotions"), is_hub("outputs/train"), is_hub(None)
    (True, False, False)
    """
    return run is not None and run.startswith(_PREFIX)


def parse(run: str, *, setting: str) -> HubName:
    """Parse a hub name in the value of a setting.

    Args:
        run: the value, `hf:user/name` or `hf:user/name@revision`.
        setting: name of the setting, for the message.

    Raises:
        UserError: the value is not a hub name.

    >>> parse("hf:me/emotions@v1.0", setting="run")
    HubName(repository='me/emotions', revision='v1.0')
    """
    repository, at, revision = run.removeprefix(_PREFIX).partition("@")
    if at and not revision:
        raise UserError(f"{setting}={run} names no revision after @; leave @ out for the newest.")
    try:
        return HubName(parse_repository(repository, setting=setting), revision or None)
    except UserError:
        raise UserError(
            f"{setting}={run} is no model of the hub; give hf:user/name, or hf:user/name@revision."
        ) from None


def parse_repository(repository: str, *, setting: str) -> str:
    """Check and return a name `user/name`; raises UserError with the name of the setting if it is not valid.

    >>> parse_repository("me/emotions", setting="push")
    'me/emotions'
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    message = f"{setting}={repository} is no name on the hub; give user/name, such as {setting}=me/emotions."
    if repository.count("/") != 1:  # the hub's own check also accepts its oldest names, which have no user
        raise UserError(message)
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(message) from error
    return repository
