"""The lowest versions that are tried are those that pyproject.toml allows."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(file: str) -> dict[str, Requirement]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def named(*tools: str) -> dict[str, Requirement]:
    """The dependencies of the commands, with those of extras for tools if these are named."""
    extras = PROJECT["optional-dependencies"]
    chosen = extras.keys() - {"dev", "docs", "liger"} | set(tools)  # Liger is for CUDA, where no test environment is
    lines = [*PROJECT["dependencies"], *(line for extra in chosen for line in extras[extra])]
    return {canonicalize_name(found.name): found for found in map(Requirement, lines)}


def version(requirement: Requirement, operator: str) -> Version:
    (found,) = (part.version for part in requirement.specifier if part.operator == operator)
    return Version(found)


def test_the_lowest_versions_are_the_bounds_of_pyproject() -> None:
    lowest, bounds = requirements("constraints-lowest.txt"), named()
    assert lowest.keys() == bounds.keys()
    assert {name: version(pin, "==") for name, pin in lowest.items()} == {
        name: version(bound, ">=") for name, bound in bounds.items()
    }


def test_the_versions_of_the_tests_are_within_the_bounds() -> None:
    pinned = requirements("constraints.txt")
    for name, bound in named("docs").items():
        assert bound.specifier.contains(version(pinned[name], "==")), name
