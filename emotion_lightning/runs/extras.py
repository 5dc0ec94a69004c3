"""The pip command that installs the packages of an extra."""

import importlib.metadata
import re
import shlex
from pathlib import Path


def install(extra: str) -> str:
    """The pip command that installs an extra of pyproject.toml.

    In a checkout the command installs the checkout again, with the extra. An installed wheel is not on a package index,
    so for it the command lists the packages of the extra.
    """
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file():
        return f"pip install -e {shlex.quote(f'{checkout}[{extra}]')}"
    return f"pip install {' '.join(map(shlex.quote, _packages(extra)))}"


def _packages(extra: str) -> list[str]:
    """The requirements of an extra, with version bounds and without spaces."""
    requirements = importlib.metadata.requires("emotion-lightning") or []
    parts = [requirement.partition(";") for requirement in requirements]
    own = re.compile(rf"extra\s*==\s*['\"]{extra}['\"]")
    return [re.sub(r"\s", "", package) for package, _, marker in parts if own.search(marker)]
