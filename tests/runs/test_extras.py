"""Commands in messages that install what is missing work where the program was installed from."""

import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from emotion_lightning.runs import extras

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
NAMED = ["excel", "explain", "mlflow", "near", "onnx", "ray", "serve", "slurm", "tensorboard", "tune"]


def test_all_extras_that_messages_name_exist() -> None:
    assert set(NAMED) == PROJECT["optional-dependencies"].keys() - {"dev", "docs", "liger"}  # no command needs these


@pytest.mark.parametrize("extra", NAMED)
def test_from_a_checkout_it_is_installed_with_the_extra(extra: str) -> None:
    pip, install, flag, what = shlex.split(extras.install(extra))
    assert (pip, install, flag) == ("pip", "install", "-e")
    folder, _, named = what.partition("[")
    assert Path(folder, "pyproject.toml").is_file() and named == f"{extra}]"


@pytest.mark.parametrize("extra", NAMED)
def test_from_a_wheel_the_packages_are_named(extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package without its checkout, and pip itself, which finds that every package named is there."""
    package = tmp_path / "emotion_lightning" / "runs"
    package.mkdir(parents=True)
    (package / "extras.py").write_bytes(Path(extras.__file__).read_bytes())
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    metadata = tmp_path / "emotion_lightning-0.1.0.dist-info"
    metadata.mkdir()
    lines = ["Metadata-Version: 2.4", "Name: emotion-lightning", "Version: 0.1.0"]
    lines += [f"Requires-Dist: {requirement}" for requirement in PROJECT["dependencies"]]
    for name, requirements in PROJECT["optional-dependencies"].items():
        lines += [f"Provides-Extra: {name}"]
        lines += [f"Requires-Dist: {requirement} ; extra == '{name}'" for requirement in requirements]
    (metadata / "METADATA").write_text("\n".join(lines) + "\n")
    code = f"from emotion_lightning.runs import extras; print(extras.install({extra!r}))"
    environment = {"PYTHONPATH": str(tmp_path)}
    raised = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    pip, install, *packages = shlex.split(raised.stdout)
    assert (pip, install) == ("pip", "install")
    assert packages == PROJECT["optional-dependencies"][extra]
    package_of = {
        "excel": "python_calamine", "explain": "captum", "near": "rensa", "serve": "litserve", "slurm": "submitit",
        "tune": "optuna",
    }  # fmt: skip
    pytest.importorskip(package_of.get(extra, extra))
    done = subprocess.run(
        [sys.executable, "-m", pip, install, "--dry-run", "--no-index", "--no-deps", *packages],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "Would install" not in done.stdout, done.stdout + done.stderr
