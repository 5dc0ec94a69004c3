"""The worked examples of docs/how-to/extend.md as files, and parts of tests."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emotion_lightning.config import own_parts

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "extend.md"


def worked_examples(folder: Path) -> list[str]:
    """Write the files of the page into a folder, as it shows them; its commands."""
    text = PAGE.read_text(encoding="utf-8")
    for path, code in re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', text, re.DOTALL | re.MULTILINE):
        write(folder / path, code)
    return re.findall(r"^python -m (emotion_lightning\..+)$", text, re.MULTILINE)


def write(file: Path, text: str) -> Path:
    """A file in a folder that is made for it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def option(folder: Path, group: str, name: str, part: str, *lines: str, shared: str = "") -> Path:
    """The file of an option that a function builds."""
    head = f"defaults: [/schema/{group}/{name}@_here_{shared}, _self_]\n\npart: {part}\n"
    return write(folder / group / f"{name}.yaml", head + "".join(f"{line}\n" for line in lines))


@contextmanager
def forgotten() -> Iterator[None]:
    """After the block, modules of temporary folders are imported anew, and from other folders."""
    path, modules = list(sys.path), set(sys.modules)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if "pytest-" in str(getattr(sys.modules[name], "__file__", None)):
                del sys.modules[name]
        own_parts._function.cache_clear()
        assert not list(own_parts.register([], is_used=lambda option: False))
