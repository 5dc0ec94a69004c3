"""Redact passwords, tokens and keys in everything that is written, logged, printed or sent.

A secret is detected by its position (the password of a URL, a query parameter such as `sig`, a setting named `api_key`)
or by its value: the value of an environment variable with a name such as HF_TOKEN is redacted everywhere.
"""

import functools
import html
import json
import logging
import os
import re
import traceback
import urllib.parse
from collections.abc import Iterator
from typing import Any

from emotion_lightning import terminal

HIDDEN = "<redacted>"

_WORDS = r"token|key|secret|password|passwd|passphrase|pwd|credentials?|signature|sig|jwt|auth|authorization"
_SETTING = re.compile(rf"(^|[-_.])(api_?|access_?)?({_WORDS})$", re.IGNORECASE)
_VARIABLE = re.compile(
    r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|_PWD|_PASS|_JWT)S?[0-9]*(_|$)", re.IGNORECASE
)
_NO_SECRETS = re.compile(r"TOKENIZERS|PUBLIC_?KEY", re.IGNORECASE)
_SHORTEST = 8
"""Minimum length of a variable's value to be redacted: a shorter one may occur in a text for another reason."""

# pathlib reduces // to one slash. After three slashes comes a path, without a host.
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)(?P<slashes>:/{1,2})(?=[^\s/])", re.IGNORECASE)
_USER_AND_PASSWORD = re.compile(r"[^\s/?#:@'\"<>]*:\S*@")
# A password may contain spaces and @, so inside a text it ends at the last @ of the line; this may hide a few other
# words. Words after a port, as in `http://host:80 refused a@b`, are not a password.
_WITH_SPACES = re.compile(rf"[^\s/?#:@'\"<>]*:(?:{HIDDEN}@|(?!\d+(?:\W|$))(?=\S)[^\n]*@)")
_IN_QUERY = rf"(?P<name>[?&;#](?:[\w.-]|%[0-9A-Fa-f]{{2}})*(?:{_WORDS})=)"
_PARAMETER = re.compile(_IN_QUERY + r"[^&#\s'\"<>]+", re.IGNORECASE)
_PARAMETER_OF_VALUE = re.compile(_IN_QUERY + r"[^&#]+", re.IGNORECASE)
_TOKEN_AS_USER = re.compile(r"(\w+\+)?(https?|wss?|ftps?)", re.IGNORECASE)
"""URL schemes in which the user may be a token, also before a password, as in `https://TOKEN:x-oauth-basic@host`."""
_NAME_THEIR_USER = re.compile(
    r"(postgres|postgresql|mysql|mariadb|oracle|mssql|cockroachdb|ssh|sftp)(\+\w+)?|(git|svn)\+ssh", re.IGNORECASE
)
"""URL schemes in which a user without a password is a name; in other schemes it may be a token."""


def hide_secrets(said: str, *, is_value: bool = False) -> str:
    """A text without secrets.

    Args:
        said: any text.
        is_value: whether the text is the value of a setting. If such a value is a URL, the URL extends to the end of
            the text, including spaces.

    >>> hide_secrets("postgresql://me:hunter2@host/studies")
    'postgresql://me:<redacted>@host/studies'
    >>> hide_secrets("https://a-token@host/x.csv?sig=abc&page=2 is not there")
    'https://<redacted>@host/x.csv?sig=<redacted>&page=2 is not there'
    """
    kept = values_of_environment(said)
    is_url = is_value and bool(_URL.match(kept.lstrip("'\"[( ")))
    parameter = _PARAMETER_OF_VALUE if is_url else _PARAMETER
    return parameter.sub(rf"\g<name>{HIDDEN}", _without_passwords(kept, is_url=is_url))


def values_of_environment(said: str) -> str:
    """A text, of any length, without the values of variables such as HF_TOKEN; everything else is unchanged."""
    for secret in _secrets():
        said = said.replace(secret, HIDDEN)
    return said


def tree(content: Any) -> Any:
    """A copy of nested dicts and lists with the secrets in all texts redacted."""
    if isinstance(content, dict):
        return {tree(name): tree(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [tree(value) for value in content]
    return hide_secrets(content, is_value=True) if isinstance(content, str) else content


def settings(content: Any) -> Any:
    """A copy of nested settings without secrets; values of settings named token, api_key or similar are redacted too.

    Args:
        content: settings as nested dicts and lists.
    """
    if isinstance(content, dict):
        return {tree(name): _of_setting(name, value) for name, value in content.items()}
    if isinstance(content, list):
        return [settings(value) for value in content]
    return tree(content)


_NO_SECRETS_IN = ("roles", "architecture")
"""Groups of settings with names such as `key` and `share_att_key`, whose values are patterns and sizes."""


def _of_setting(name: Any, value: Any) -> Any:
    if name in _NO_SECRETS_IN:
        return tree(value)
    return HIDDEN if _is_secret(name, value) else settings(value)


def _is_secret(name: Any, value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return False
    named = _SETTING.search(str(name))
    # A number is a password perhaps, but no key or token.
    return named is not None and (
        not isinstance(value, int | float) or named[3].lower().startswith(("pass", "pwd", "secret"))
    )


def argument(given: str) -> str:
    """An argument of a command line, without secrets."""
    name, equals, shown = given.partition("=")
    return f"{hide_secrets(name)}={value(name, shown)}" if equals else hide_secrets(given)


def value(name: str, given: str) -> str:
    """The value of a setting on a command line, without secrets."""
    if _SETTING.search(re.split(r"[.@]", name)[-1]) and not any(part in name.split(".") for part in _NO_SECRETS_IN):
        return HIDDEN
    quote = given[:1] if len(given) > 1 and given[0] == given[-1] and given[0] in "'\"" else ""
    return f"{quote}{hide_secrets(given[len(quote) : len(given) - len(quote)], is_value=True)}{quote}"


def in_logs() -> None:
    """Redact secrets and escape control characters in all log records of this process from now on.

    This is done in the record factory, because handlers that libraries add have their own formatters.
    """
    if not isinstance(made := logging.getLogRecordFactory(), _Records):
        logging.setLogRecordFactory(_Records(made))


class _Records:
    """A log record factory that redacts secrets and escapes control characters in message, traceback and stack."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def __call__(self, *arguments: Any, **named: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._made(*arguments, **named)
        try:
            said = record.getMessage()
        except (TypeError, ValueError, KeyError):  # the format does not fit the arguments; logging reports it
            return record
        if (kept := terminal.safe(hide_secrets(said))) != said:
            record.msg, record.args = kept, ()
        if record.exc_info and record.exc_info[0] is not None:
            # A formatter uses exc_text if it is set, and does not format the traceback again.
            message = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            record.exc_text = terminal.safe(hide_secrets(message))
        if record.stack_info:
            record.stack_info = terminal.safe(hide_secrets(record.stack_info))
        return record


# ------------------------------------------------------------------------------------------------------ the environment


def _secrets() -> list[str]:
    """Values of secret environment variables in all their spellings, the longest first."""
    found: set[str] = set()
    for name in filter(is_secret_variable, os.environ):
        value = os.environ[name].strip()
        # The path of an existing file, such as a key file, is not a secret.
        if len(value) >= _SHORTEST and not (os.path.isabs(value) and os.path.exists(value)):
            found.update(_spelled(value))
    return sorted(found, key=len, reverse=True)


@functools.cache
def is_secret_variable(name: str) -> bool:
    """Whether an environment variable holds a secret, judging by its name.

    >>> [name for name in ("HF_TOKEN", "PGPASSWORD", "DB_PASSWORD_PROD", "TOKENIZERS_PARALLELISM", "MAX_TOKENS")
    ...  if is_secret_variable(name)]
    ['HF_TOKEN', 'PGPASSWORD', 'DB_PASSWORD_PROD', 'MAX_TOKENS']
    """
    return bool(_VARIABLE.search(name)) and not _NO_SECRETS.search(name)


def _spelled(secret: str) -> Iterator[str]:
    """Yield the spellings of a secret: plain, URL-encoded, as a Python literal, in JSON and in HTML."""
    yield secret
    yield urllib.parse.quote(secret, safe="")
    yield urllib.parse.quote(secret)
    yield urllib.parse.quote_plus(secret)
    yield repr(secret)[1:-1]
    yield json.dumps(secret)[1:-1]
    yield html.escape(secret)


# ----------------------------------------------------------------------------------------------------------------- URLs


def _without_passwords(said: str, *, is_url: bool) -> str:
    kept, at = [], 0
    while found := _URL.search(said, at):
        rest = said[found.end() :]
        # A URL in quotes extends to the closing quote.
        quote = said[found.start() - 1 : found.start()]
        end = re.search(rf"{quote}(?=[\s,;:.)\]}}]|$)", rest) if quote in ("'", '"') else None
        user = _user(rest[: end.start()] if end else rest, is_url=is_url or end is not None)
        kept += [said[at : found.end()], _hidden_user(found["scheme"], user) if user else ""]
        at = found.end() + len(user)
    return "".join(kept) + said[at:]


def _user(rest: str, *, is_url: bool) -> str:
    """User and password at the start of a URL's text after its scheme, including the @; empty if there are none."""
    found = re.match(r"[^/?#:@]*:.*@", rest, re.DOTALL) if is_url else None
    if found := found or _WITH_SPACES.match(rest.partition("://")[0]) or _USER_AND_PASSWORD.match(rest):
        return found[0]
    try:
        user, at, _ = urllib.parse.urlsplit("//" + rest.split(maxsplit=1)[0]).netloc.rpartition("@")
    except ValueError:  # an unmatched bracket, as in an incomplete IPv6 address
        return ""
    return user + at


def _hidden_user(scheme: str, user: str) -> str:
    name, colon, _ = user.removesuffix("@").partition(":")
    if _TOKEN_AS_USER.fullmatch(scheme):
        return f"{HIDDEN}@"
    if colon:
        return f"{name}:{HIDDEN}@"
    return user if _NAME_THEIR_USER.fullmatch(scheme) else f"{HIDDEN}@"
