"""Options that Hydra has composed once are not composed again, and settings are what Hydra makes of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from emotion_lightning.config import composition, schema

TRAIN = ["logger=none", "model.pretrained=false", "data.max_rows=48", "trainer.max_epochs=1"]


def composed(*overrides: str) -> str:
    schema.register()
    with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
        return OmegaConf.to_yaml(compose("train", list(overrides), return_hydra_config=True), resolve=False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Any]]:
    """Note the calls of a method of Hydra's loader."""

    def note(name: str) -> list[Any]:
        found: list[Any] = []
        method = getattr(ConfigLoaderImpl, name)

        def noted(*arguments: Any, **options: Any) -> Any:
            found.append(arguments)
            return method(*arguments, **options)

        monkeypatch.setattr(ConfigLoaderImpl, name, noted)
        return found

    return note


@pytest.mark.parametrize(
    "overrides",
    [
        ["peft=lora", "peft.r=4", "seed=3"],
        ["peft=lora", "peft.r=8", "callbacks.patience=1"],
        ["experiment=semeval2018_minilm_ia3", "data.dir=a/b"],
        ["peft=head", "hydra/launcher=basic", "hydra.run.dir=x", "+optimizer.x={a: 1}"],
    ],
)
def test_remembered_options_compose_as_hydra_does(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = [composed(*overrides), composed(*overrides)]
    with monkeypatch.context() as without:
        without.setattr(composition._Results, "get", lambda self, key, compute: compute())
        without.delattr(ConfigStore, "__deepcopy__")
        assert remembered == [composed(*overrides)] * 2


def test_hydra_composes_a_job_three_times_and_merges_its_options_once(calls: Any, run: Any) -> None:
    loads, loaded = calls("load_configuration"), calls("_load_single_config")
    assert run("train", *TRAIN, "data=goemotions", "data.dir=nowhere") == 2
    first = len(loaded)
    assert run("train", *TRAIN, "data=goemotions", "data.dir=elsewhere") == 2
    # If a newer Hydra composes a job once, measure anew whether `composition` is still worth it.
    assert len(loads) == 6
    assert len(loaded) == first <= 42


def test_a_folder_of_options_may_change(run: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    option = tmp_path / "mine" / "peft" / "own.yaml"
    option.parent.mkdir(parents=True)
    for rank in (3, 5):
        option.write_text(f"defaults: [lora, _self_]\nr: {rank}\n")
        assert run("train", *TRAIN, "--config-dir", "mine", "peft=own", "--cfg", "job") == 0
        assert f"r: {rank}" in capfd.readouterr().out
