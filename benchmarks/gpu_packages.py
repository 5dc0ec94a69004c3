"""The packages of gpu_bundle.sh: packed on one machine, chosen on another.

python benchmarks/gpu_packages.py pack FOLDER        # copies them out of this environment
python benchmarks/gpu_packages.py choose FOLDER      # prints the folder of those that this machine lacks

A machine keeps its own version of a package where the project can work with it. What is chosen is then checked as a
whole: a package whose needs are not met ends this with a message, and not an import in the middle of a run.
"""

import importlib
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parent.parent

UNUSED = {"datasets", "jinja2", "matplotlib", "wandb"}
"""Requirements of the project that gpu.py never imports."""

GIVEN = {"torch"}
"""What the machine has, with all that it needs."""


def main() -> None:
    """Pack, or choose."""
    task, folder = sys.argv[1], Path(sys.argv[2])
    {"pack": pack, "choose": choose}[task](folder)


def roots() -> list[Requirement]:
    """What the project asks for, but for what gpu.py does not use."""
    with (REPO / "pyproject.toml").open("rb") as opened:
        asked = map(Requirement, tomllib.load(opened)["project"]["dependencies"])
    return [one for one in asked if canonicalize_name(one.name) not in UNUSED]


def needs(distribution: metadata.Distribution) -> Iterator[Requirement]:
    """What a package needs on this machine, with none of its extras."""
    for text in distribution.requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def tree(path: list[str] | None = None) -> dict[str, metadata.Distribution | None]:
    """All that gpu.py needs, by name: a package, or None where there is none; nothing below what the machine has.

    Args:
        path: folders to look into, first come first; None is sys.path.
    """
    there = installed(path)
    found: dict[str, metadata.Distribution | None] = {}
    left = list(roots())
    while left:
        name = canonicalize_name(left.pop().name)
        if name not in found and name not in GIVEN:
            found[name] = there.get(name)
            if one := found[name]:
                left.extend(needs(one))
    return found


def installed(path: list[str] | None = None) -> dict[str, metadata.Distribution]:
    """Packages by name; of two versions, the one that Python would import."""
    found: dict[str, metadata.Distribution] = {}
    for one in metadata.distributions(**({} if path is None else {"path": path})):
        found.setdefault(canonicalize_name(one.metadata["Name"]), one)
    return found


def pack(folder: Path) -> None:
    """Copy each package into a folder of its name, but for those that are compiled for one version of Python."""
    for name, one in sorted(tree().items()):
        if one is None:
            sys.exit(f"{name} is not installed here: gpu_bundle.sh packs what the project's own environment has.")
        if bound_to_python(one):
            print(f"not packed, since it is compiled for this Python alone: {name}")
            continue
        for file in one.files or []:
            # ".." are commands; of bitsandbytes' many libraries, those of CUDA 12.8 to 13 and of CPUs will do.
            if (
                ".." in file.parts
                or file.suffix == ".pyc"
                or re.search(r"libbitsandbytes_(?!cpu|cuda1(28|3))", file.name)
            ):
                continue
            target = folder / name / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)


def bound_to_python(distribution: metadata.Distribution) -> bool:
    """Whether a package runs with one version of Python alone.

    A wheel says so in its tag. abi3 is for all later versions, none for any.
    """
    tags = re.findall(r"^Tag: [^-]+-([^-]+)-", distribution.read_text("WHEEL") or "", flags=re.MULTILINE)
    return not any(abi in ("abi3", "none") for abi in tags)


def choose(folder: Path) -> None:
    """Leave in the folder what this machine lacks, and print the folder that holds it."""
    chosen = folder.parent / "site"
    chosen.mkdir()
    # The bundle's `packaging` may be among them, for this program's sake: it does not count as the machine's.
    machine = [one for one in sys.path if not Path(one).is_relative_to(folder)]
    for _ in range(10):  # a package that is taken may need others
        taken = [name for name in lacking([str(chosen), *machine]) if (folder / name).exists()]
        for name in taken:
            shutil.copytree(folder / name, chosen, dirs_exist_ok=True)
            shutil.rmtree(folder / name)
            print(f"taken from the bundle: {name}", file=sys.stderr)
        importlib.invalidate_caches()  # copytree gives the folder an old time, by which it would count as read
        if not taken:
            break
    if unmet := lacking([str(chosen), *machine]):
        told = "\n".join(f"  {need}" for need in unmet.values())
        sys.exit(f"This machine lacks packages that are not in the bundle:\n{told}\nInstall them with pip.")
    print(chosen)


def lacking(path: list[str]) -> dict[str, str]:
    """Packages that are missing or of a version that does not serve, and by whom they are needed."""
    found: dict[str, str] = {}
    packages = tree(path)
    asking = [("the project", one) for one in roots()]
    asking += [(name, need) for name, one in packages.items() if one for need in needs(one)]
    for who, need in asking:
        name = canonicalize_name(need.name)
        if name in GIVEN:
            continue
        there = packages[name]
        if there is None or not need.specifier.contains(there.version, prereleases=True):
            version = f"version {there.version} is there" if there else "it is missing"
            found[name] = f"{need.name}{need.specifier}, for {who}: {version}"
    return found


if __name__ == "__main__":
    main()
