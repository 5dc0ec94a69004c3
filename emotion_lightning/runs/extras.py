"""How to install the packages of an extra, in words that work where this program was installed from."""

import importlib.metadata
import re
import shlex
from pathlib import Path


def install(extra: str) -> str:
    """A command that installs what an extra of pyproject.toml names.

    In a checkout it installs the checkout once more, with the extra. An installed wheel may come from anywhere, and no
    package index has it: there the command names the packages themselves.
    """
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file():
        return f"pip install -e {shlex.quote(f'{checkout}[{extra}]')}"
    return f"pip install {' '.join(map(shlex.quote, _packages(extra)))}"


def _packages(extra: str) -> list[str]:
    """The requirements that only this extra adds, with their bounds, without blanks."""
    requirements = importlib.metadata.requires("emotion-lightning") or []
    parts = [requirement.partition(";") for requirement in requirements]
    own = re.compile(rf"extra\s*==\s*['\"]{extra}['\"]")
    return [re.sub(r"\s", "", package) for package, _, marker in parts if own.search(marker)]
