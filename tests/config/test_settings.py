"""Settings: every shipped file composes, every mistake gets one message that names it."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from emotion_lightning import config
from emotion_lightning.cli import help, override_grammar
from emotion_lightning.cli.compose import settings_of
from emotion_lightning.cli.jobs import check_jobs
from emotion_lightning.config import label_keys, redaction, schema, stored_settings
from emotion_lightning.errors import UserError
from emotion_lightning.runs import run_folder

CONF = schema.conf_folder()
OPTIONS = sorted(
    f"{file.parent.name}={file.stem}"
    for group in (
        "data",
        "model",
        "peft",
        "loss",
        "optimizer",
        "thresholds",
        "callbacks",
        "extra_callback",
        "extra_metric",
        "trainer",
        "logger",
    )
    for file in (CONF / group).glob("*.yaml")
    if file.stem != "same"
)
EXPERIMENTS = sorted(file.stem for file in (CONF / "experiment").glob("*.yaml"))
NEEDED = {"data=file": ["data.path=x.csv"], "data=hub": ["data.path=x/y"], "peft=full": ["model.quantization=none"],
          "model=auto": ["model.path=any"],
          "loss=ordinal": ["data=file", "data.path=x.csv", "data.scale=3"]}  # fmt: skip


def test_all_option_files_are_tested() -> None:
    assert len(OPTIONS) >= 40
    assert set(schema.groups("train")) == {option.partition("=")[0] for option in OPTIONS}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes(settings: Any, option: str) -> None:
    loaded = settings(option, *NEEDED.get(option, []))
    assert dataclasses.is_dataclass(getattr(loaded, option.partition("=")[0]))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_its_values_win(settings: Any, experiment: str) -> None:
    asked = OmegaConf.load(CONF / "experiment" / f"{experiment}.yaml")
    del asked["defaults"]
    found = OmegaConf.create(schema.plain(settings(f"experiment={experiment}")))
    assert asked
    assert OmegaConf.merge(found, asked) == found


@pytest.mark.parametrize("command", ["train", "inspect", "tune"])
@pytest.mark.parametrize("template", schema.option_files("template"))
def test_every_template_composes_and_has_a_place_for_the_text(settings: Any, command: str, template: str) -> None:
    found = settings(f"template={template}", command=command).data
    assert found.template is not None and found.template != settings().data.template
    assert "{text}" in (found.question if found.template == config.CHAT else found.template)


def test_every_method_names_roles_that_every_model_has(settings: Any) -> None:
    methods = [settings(f"peft={name}", "model.quantization=none").peft for name in schema.option_files("peft")]
    needed = {role for method in methods for role in getattr(method, "targets", [])}
    for name in schema.option_files("model"):
        model = settings(f"model={name}", *NEEDED.get(f"model={name}", [])).model
        assert model.is_open or needed <= set(model.roles), name


@pytest.mark.parametrize("name", sorted(config.SCHEMAS))
def test_every_setting_has_a_meaning_and_no_default(name: str) -> None:
    node = config.SCHEMAS[name]
    groups = (
        schema.groups(name) | {"predict", "data", "study", "distill", "frozen", "serve", "ray"}
        if name in config.COMMANDS
        else set()
    )
    for field in dataclasses.fields(node):
        assert field.default is dataclasses.MISSING
        assert field.name in groups or help.meanings(node).get(field.name, "").endswith((".", ")")), field.name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimizer.lrr=0.1"], "Unknown setting optimizer.lrr; did you mean optimizer.lr?"),
        (["+optimizer.lrr=0.1"], "Unknown setting optimizer.lrr; did you mean optimizer.lr?"),
        (["++optimizer.lrr=0.1"], "Unknown setting optimizer.lrr; did you mean optimizer.lr?"),
        (["+treshold=0.3"], "Unknown setting treshold; did you mean thresholds?"),
        (["optimzer=adamw"], "Unknown setting optimzer; did you mean optimizer?"),
        (["trainer.max_epoch=3"], "did you mean trainer.max_epochs?"),
        (["optimizer.lr=fast"], "optimizer.lr=fast is not possible: optimizer.lr takes a number or null."),
        (["seed=abc"], "seed=abc is not possible: seed takes a whole number."),
        (["seed=1.5"], "seed takes a whole number"),
        (["peft.targets=key"], "peft.targets takes a list"),
        (["model.quantization=nf5"], "model.quantization takes one of nf4, int8, none"),
        (["peft=lora", "peft.feedforward=[key]"], "peft.feedforward is not a setting of the chosen peft option"),
        (["peft=iaa3"], "Unknown option peft=iaa3; did you mean ia3?"),
        (["peft=null"], "peft=null is no option"),
        (["peft="], "peft= is no option"),
        (["experiment=nope"], "Unknown option experiment=nope"),
        (["optimizer.lr=-1"], "optimizer.lr=-1.0 is out of range: it must be above 0"),
        (["optimizer.lr=nan"], "optimizer.lr=nan is out of range"),
        (["optimizer.weight_decay=inf"], "optimizer.weight_decay=inf is out of range"),
        (["data.batch_size=0"], "data.batch_size=0 is out of range: it must be at least 1"),
        (["data.batch_tokens=63"], "data.batch_tokens=63 is less than one text may take, data.max_tokens=64"),
        (["peft.lr=null"], "peft.lr takes a number"),
        (["~seed"], "seed"),
        (["peft=full"], "peft=full cannot train model.quantization=nf4"),
        (["peft.targets=[kee]", "peft.feedforward=[]"], "names the role kee"),
        (["data=file"], "data=file needs either data.path"),
        (["data=file", "data.path=a", "data.test=b"], "is split for you"),
        (["data.path=a.csv"], "data.path is not a setting of the chosen data option"),
        (["model.roles.key=("], "is not a regular expression"),
        (["peft.layers=top"], "peft.layers=top must be all, upper_half, or a list of numbers of layers such as [4,5]"),
        (["peft.layers=[]"], "peft.layers=[] must be all, upper_half, or a list"),
        (["peft.layers=3"], "peft.layers=3 must be all, upper_half, or a list"),
        (["peft.layers=[true]"], "peft.layers=[True] must be all, upper_half, or a list"),
        (["peft.layers=[1.5]"], "peft.layers=[1.5] must be all, upper_half, or a list"),
        (["peft.layers=null"], "peft.layers=None must be all, upper_half, or a list"),
        (["peft.layers={a: 1}"], "must be all, upper_half, or a list"),
        (["peft.layers=[1,1]"], "peft.layers=[1,1] must name each layer once"),
        (["-m", "peft.layers=all,[1,1]"], "peft.layers=[1,1] must name each layer once"),
        (["peft=head", "peft.layers=[1]"], "peft.layers is not a setting of the chosen peft option"),
        (["frozen.reuse=yes"], "frozen.reuse takes one of auto, always, never"),
        (["frozen.memory_gb=-1"], "frozen.memory_gb=-1.0 is out of range"),
        (["peft=full", "model.quantization=none", "frozen.reuse=always"], "peft=full freezes nothing"),
        (["trainer.compile=true", "frozen.reuse=always"], "Leave one of them out"),
        (["callbacks.monitor=val/f1"], "callbacks.monitor=val/f1 is not measured; choose one of val/f1_macro"),
        (["trainer.accelerator=tpu"], "trainer.accelerator takes one of auto, cpu, gpu, mps"),
        (["data=semeval2018", "data.language=Fr"], "data.language takes one of En, Ar, Es"),
        (["data=same"], "data=same is for evaluate"),
        (["data.clean=[emoji]"], "data.clean takes a list of html, newlines, users, urls, emojis"),
        (["data.folds=5"], "data.folds=5 needs data.fold=1 to 5"),
        (["data.fold=1"], "data.fold=1 is no part of data.folds=null"),
        (["data.folds=3", "data.fold=4"], "data.fold=4 is no part of data.folds=3"),
        (["optimizer.weight_decay=-1"], "optimizer.weight_decay=-1.0 is out of range"),
        (
            ["optimizer.weight_decay=inf"],
            "optimizer.weight_decay=inf is out of range: it must be at least 0 and finite",
        ),
        (["data=file", "data.path=a", "data.encoding=idna"], "data.encoding=idna is no text encoding"),
        (["data=file", "data.path=a", "data.encoding=latin9x"], "data.encoding=latin9x is no text encoding"),
        (["data=file", "data.path=a", "data.encoding=hex"], "data.encoding=hex is no text encoding"),
        (["data=file", "data.path=a", "data.encoding=cp1522"], "did you mean cp1252?"),
        (["data=file", "data.path=a", "data.empty_texts=skip"], "data.empty_texts takes one of refuse, keep, drop"),
        (["data=file", "data.path=a", "data.test_share=0.95"], "leave no rows to train on"),
        (["nonsense"], "Cannot read 'nonsense'; settings are given as name=value"),
        (["=3"], "=3 lacks a name"),
        (["data=file", "data.path="], "data.path is empty"),
        (["model.pretrained=false", "model.path=somewhere"], "model.path=somewhere would not be read"),
        (["model.head=[]"], "model.head=[] leaves no module"),
        (["trainer.max_steps=0"], "trainer.max_steps=0 is out of range"),
        (["--config-dir", "gone"], "--config-dir gone is not a folder"),
        (["-m", "optimizer.lr=1e-3,fast"], "optimizer.lr=1e-3,fast is not possible"),
        (["-m", "optimizer.lr=1e-3,-1"], "optimizer.lr=-1.0 is out of range"),
        (["-m", "peft=ia3,iaa3"], "Unknown option peft=iaa3"),
        (["-m", "+optimizer.lrr=1,2"], "Unknown setting optimizer.lrr"),
        (["resume=auto"], "resume=auto found no unfinished run"),
        (["resume=gone"], "gone is not a folder"),
        (["from_run=gone"], "gone is not a folder"),
    ],
)
def test_a_mistake_gets_one_message_and_code_2_and_leaves_nothing(
    run: Any, tmp_path: Path, capfd: Any, arguments: list[str], message: str
) -> None:
    assert run("train", *arguments) == 2
    printed = capfd.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err and "hydra" not in printed.err.lower()
    assert len(printed.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("export", ["output=x"], "run is not set; give it as run=VALUE."),
        ("predict", ["run=gone", "text=hello"], "run=gone is not a folder"),
        ("predict", ["run=gone"], "predict needs either input=FILE"),
        ("predict", ["run=gone", "input=a.csv", "output=b.xls"], "predictions are written as .csv, .jsonl, .parquet"),
        ("predict", ["run=gone", "input=a.csv", "output=b.csv"], "a.csv does not exist"),
        (
            "predict",
            ["run=gone", "input=a.csv", "data.empty_texts=drop"],
            "without a prediction; choose keep or refuse",
        ),
        ("evaluate", ["run=gone", "data=file"], "data=file needs either data.path"),
        ("evaluate", [], "run is not set"),
        ("inspect", ["data=file"], "data=file needs either data.path"),
        ("inspect", ["data=same"], "data=same is for evaluate"),
        ("inspect", ["model.pretrained=false", "model.path=x"], "model.path=x would not be read"),
        ("inspect", ["peft=ia3"], "Unknown setting peft"),
        ("evaluate", ["run=gone"], "run=gone is not a folder"),
        ("evaluate", ["run=gone", "splt=test"], "Unknown setting splt; did you mean split?"),
    ],
)
def test_the_other_commands_say_what_is_wrong_too(
    run: Any, capfd: Any, verb: str, arguments: list[str], message: str
) -> None:
    assert run(verb, *arguments) == 2
    assert message in capfd.readouterr().err


def test_full_error_shows_the_traceback(run: Any, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert run("train", "seed=abc") == 2
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["optimizer.lrr=1"], ["-m", "seed=1,x"]])
def test_help_and_mistakes_answer_before_torch_is_imported(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['train', *{arguments!r}]\n"
        "try: runpy.run_module('emotion_lightning.train', run_name='__main__', alter_sys=True)\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'transformers', 'lightning', 'wandb') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_lists_every_setting_with_its_value_and_meaning(run: Any, capfd: Any) -> None:
    assert run("train", "peft=lora", "--help") == 0
    printed = capfd.readouterr().out
    assert "peft.r=16" in printed and "Rank of the update." in printed and "*lora" in printed


def test_help_of_a_sweep_is_that_of_its_first_job(run: Any, capfd: Any) -> None:
    swept = ["peft=lora,ia3", "seed=range(5,7)", "data.path=a.csv,b.csv", "loss=glob(weighted*)"]
    for arguments in (["-m", *swept, "optimizer.lr=interval(0.1,1)", "data=file"], swept[:2]):
        assert run("train", *arguments, "--help") == 0
        printed = capfd.readouterr().out
        assert "*lora" in printed and "peft.r=16" in printed and "seed=5" in printed and "*weighted_bce" in printed


@pytest.mark.parametrize("verb", sorted(config.COMMANDS))
def test_every_command_has_help(run: Any, capfd: Any, verb: str) -> None:
    lists = ["data.clean=[html,urls]"] if verb in ("train", "inspect", "baseline") else []
    assert run(verb, *lists, "--help") == 0
    printed = capfd.readouterr().out
    assert f"python -m emotion_lightning.{verb}" in printed
    assert not lists or "data.clean=[html, urls]" in printed


def test_cfg_job_prints_the_settings_as_yaml(run: Any, capfd: Any) -> None:
    assert run("train", "--cfg", "job", "optimizer.lr=0.25") == 0
    assert "lr: 0.25" in capfd.readouterr().out


def test_shell_completion_completes_options(run: Any, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", "emotion-train peft=i")
    assert run("train", "-sc", "query=bash") == 0
    assert capfd.readouterr().out.split() == ["peft=ia3", "peft=ia3_all"]


def composed(verb: str, *arguments: str, multirun: bool = False) -> Any:
    schema.register()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return compose(verb, override_grammar.quote_texts(verb, list(arguments), multirun=multirun))


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_text_on_the_command_line_is_taken_literally(text: str) -> None:
    assert composed("predict", "run=x", f"text={text}").text == text


@pytest.mark.parametrize(
    "path", ["my file, (1).csv", "a=b/[c]{d}.csv", "it's.csv", "größe 😀.csv", "C:\\data\\x.csv", "~/x.csv", "a:b,c"]
)
def test_paths_on_the_command_line_are_taken_literally(path: str) -> None:
    assert composed("train", "data=file", f"data.path={path}").data.path == path
    assert composed("predict", "run=x", f"input={path}").input == path


def test_separator_may_be_a_comma_also_in_a_multirun() -> None:
    assert composed("train", "data=file", "data.separator=,").data.separator == ","
    assert composed("train", "data=file", "data.separator=,", multirun=True).data.separator == ","


def test_a_path_quoted_for_hydra_and_null_keep_their_meaning() -> None:
    assert composed("train", "data=file", "data.path='a b.csv'").data.path == "a b.csv"
    assert composed("train", "data=goemotions", "data.dir=null").data.dir is None


def test_paths_sweep_in_a_multirun() -> None:
    assert override_grammar.quote_texts("train", ["data.path=a b.csv,c.csv"], multirun=True) == [
        "data.path='a b.csv','c.csv'"
    ]
    assert override_grammar.quote_texts("train", ["data.path=[a.csv,b.csv],c.csv"], multirun=True) == [
        "data.path='[a.csv,b.csv]','c.csv'"
    ]
    assert composed("train", "data=file", "data.train=[a.csv,b.csv]").data.train == "[a.csv,b.csv]"


def test_settings_written_and_read_back_are_the_same(settings: Any, tmp_path: Path) -> None:
    before = settings("peft=lora", "optimizer.lr=1e-3", "+model.roles.extra='it, is: [a] {b}'", "logger.tags=[a b,c]",
                      "logger.notes='null'", "+model.architecture.rope_theta=10000.0")  # fmt: skip
    chosen = {"data": "sample", "model": "tiny", "peft": "lora"}
    run_folder.write_settings(tmp_path, before, chosen)
    stored = run_folder.settings_as_overrides(tmp_path, changed=[])
    after = settings(*[override_grammar.override(name, value, set(chosen)) for name, value in stored.items()])
    assert after == before


def test_layers_and_the_place_of_states_are_stored_and_an_earlier_run_has_neither(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = settings("peft.layers=[3,-1]", "frozen.folder=here")
    chosen = {"data": "sample", "model": "tiny", "peft": "ia3"}
    run_folder.write_settings(tmp_path, before, chosen)
    stored = run_folder.settings_as_overrides(tmp_path, changed=[])
    after = settings(*[override_grammar.override(name, value, set(chosen)) for name, value in stored.items()])
    assert after.peft == before.peft and after.frozen.folder == str(tmp_path / "here")
    assert settings("peft.layers=upper_half").peft.layers == "upper_half"

    tree = yaml.safe_load((tmp_path / run_folder.SETTINGS).read_text())
    del tree["frozen"], tree["peft"]["layers"]
    (tmp_path / run_folder.SETTINGS).write_text(yaml.safe_dump(tree))
    stored = run_folder.settings_as_overrides(tmp_path, changed=[])
    again = settings(*[override_grammar.override(name, value, set(chosen)) for name, value in stored.items()])
    assert again.peft.layers == "all"
    assert again.frozen.reuse is config.Reuse.never  # as that version trained


def test_secrets_are_hidden_and_look_alikes_are_not() -> None:
    tree = {"wandb": {"api_key": "k", "token": None}, "pad_token": "t", "tokenizer": "x", "max_tokens": 3,
            "hub_token": "s", "password": "p", "roles": {"key": "k_proj"}}  # fmt: skip
    hidden = redaction.settings(tree)
    assert hidden["wandb"]["api_key"] == hidden["password"] == hidden["hub_token"] == "<redacted>"
    assert (hidden["tokenizer"], hidden["max_tokens"], hidden["roles"]) == ("x", 3, {"key": "k_proj"})


def test_own_options_come_from_config_dir(run: Any, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "mine" / "peft").mkdir(parents=True)
    (tmp_path / "mine" / "peft" / "mine.yaml").write_text(
        "defaults: [/schema/peft/head@_here_, _self_]\nlr: 0.5\nhead_lr: 0.25\n"
    )
    assert run("train", "--config-dir", "mine", "peft=mine", "--cfg", "job", "--package", "peft") == 0
    assert "lr: 0.5" in capfd.readouterr().out


def test_a_folder_without_a_model_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    from emotion_lightning.models.metadata import find_model_folder

    with pytest.raises(UserError, match="holds neither"):
        find_model_folder(str(tmp_path))


def test_commands_work_from_any_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "emotion_lightning.train", "--cfg", "job"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(config.__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 0
    assert "max_epochs" in done.stdout


@pytest.mark.parametrize("sweep", sorted(file.stem for file in (CONF / "sweep").glob("*.yaml")))
def test_every_sweep_preset_composes(sweep: str) -> None:
    schema.register()
    plan = check_jobs("train", ["-m", f"sweep={sweep}"], typed=set())
    assert plan is not None and len(plan.jobs) == len({str(job.settings) for job in plan.jobs}) > 1


@pytest.mark.parametrize("file", sorted((CONF / "wandb_sweep").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_wandb_sweep_gives_settings_that_load(settings: Any, file: Path) -> None:
    import yaml
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load(file.read_text())
    ends = {}
    for name, parameter in sweep["parameters"].items():
        values = parameter.get("values") or [parameter[key] for key in ("min", "max", "value") if key in parameter]
        ends[name] = values[0], values[-1]
    for end in (0, 1):
        chosen = {name: {"value": values[end]} for name, values in ends.items()}
        loaded = settings(*create_sweep_command_args({"args": chosen})["args_no_hyphens"])
        assert isinstance(loaded.optimizer.lr, float)
    assert sweep["metric"]["name"] in {*config.MONITORS, "validation/f1_macro"}
    assert sweep["command"][2:] == ["-m", "emotion_lightning.train", "${args_no_hyphens}"]


# ------------------------------------------------------------------------------------------------------ names of labels


@pytest.mark.parametrize(
    ("argument", "name", "value"),
    [
        ("data.rename={happiness: joy}", "rename", {"happiness": "joy"}),
        ("data.rename={happiness:joy,b:c}", "rename", {"happiness": "joy", "b": "c"}),
        ("data.rename={Ärger: anger, très content: joy}", "rename", {"Ärger": "anger", "très content": "joy"}),
        ("data.rename={'a, b: {c}': \"it's\", 😀: y}", "rename", {"a, b: {c}": "it's", "😀": "y"}),
        ("data.rename={1: one, true: yes, null: x}", "rename", {"1": "one", "true": "yes", "null": "x"}),
        (r"data.rename={no\ joy:a}", "rename", {"no joy": "a"}),
        ("data.rename={a$${oc.env:HOME}: b}", "rename", None),
        ("data.merge={joy: [Ärger, 1, 'no, thing']}", "merge", {"joy": ["Ärger", "1", "no, thing"]}),
        ("data.merge={}", "merge", {}),
        ("data.drop_labels=[Ärger,joy]", "drop_labels", ["Ärger", "joy"]),
        ("data.drop_labels=[neutral]", "drop_labels", ["neutral"]),
    ],
)
def test_labels_are_named_in_any_script(argument: str, name: str, value: Any) -> None:
    schema.register()
    if value is None:
        with pytest.raises(UserError):
            settings_of("train", [argument])
    else:
        assert getattr(settings_of("train", [argument]).data, name) == value


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "data.merge={joy: happiness}",
            r"data.merge takes a list of labels for each new label, as in data.merge=\{joy: \[",
        ),
        ("data.rename={joy: [a]}", r"data.rename takes one name for each label, as in data.rename=\{happiness: joy\}"),
        ("data.rename={joy", r"is no mapping; write it as in data.rename=\{happiness: joy\}, in quotes for the shell"),
        ("data.rename=joy", "data.rename takes a mapping"),
        ("data.merge={joy: [a, {b: c}]}", "data.merge takes a list of labels for each new label"),
        ("data.drop_labels=neutral", "data.drop_labels takes a list"),
        ("data.near_duplicates=0.3", "out of range: it must be at least 0.6"),
        ("data.group_column=author", "belongs to data=file or hub"),
        ("mapping=goemotions_ekman", r"Unknown option mapping=goemotions_ekman; did you mean goemotions_to_ekman\?"),
    ],
)
def test_wrong_names_of_labels_are_told(argument: str, message: str) -> None:
    schema.register()
    with pytest.raises(UserError, match=message):
        settings_of("train", [argument])


@pytest.mark.parametrize("command", ["train", "tune", "inspect", "baseline", "evaluate", "compare"])
@pytest.mark.parametrize("option", sorted(file.stem for file in (CONF / "mapping").glob("*.yaml")))
def test_every_mapping_composes_for_every_command(settings: Any, command: str, option: str) -> None:
    needed = {"evaluate": ["run=x"], "compare": ["runs=x"]}.get(command, [])
    assert len(settings(*needed, f"mapping={option}", command=command).data.merge) in (3, 6, 10)


def test_names_of_labels_are_stored_and_repeated_as_they_are(tmp_path: Path) -> None:
    schema.register()
    rename = {"Ärger: {1}": "it's, anger", "${x}": "b", "a.b": "c", "  ": "d"}
    merge = {"no joy \\ 😀": ["c", "${y}", "[z]"]}
    given = settings_of("train", ["data.drop_labels=[b]"])
    given.data.rename, given.data.merge = rename, merge
    run_folder.write_settings(tmp_path, given, {"data": "sample", "model": "tiny"})
    overrides = run_folder.settings_as_overrides(tmp_path, changed=[])
    options = schema.groups("train")
    prepared = [override_grammar.override(name, value, options) for name, value in overrides.items()]
    schema.register()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        cfg = compose("train", prepared)
    again = OmegaConf.to_object(cfg.data)
    assert {label_keys.decoded(key): value for key, value in again.rename.items()} == rename
    assert {label_keys.decoded(key): value for key, value in again.merge.items()} == merge
    assert again.drop_labels == ["b"]


def test_another_mapping_replaces_that_of_a_repeated_run(tmp_path: Path) -> None:
    schema.register()
    given = settings_of("train", ["mapping=goemotions_to_ekman", "data.drop_labels=[neutral]"])
    run_folder.write_settings(tmp_path, given, {"data": "sample", "model": "tiny"})
    assert settings_of("train", [f"from_run={tmp_path}"]).data.merge == given.data.merge
    other = settings_of("train", [f"from_run={tmp_path}", "mapping=goemotions_to_sentiment"]).data
    assert set(other.merge) == {"positive", "negative", "ambiguous"} and other.drop_labels == []


def test_runs_from_before_the_names_could_be_changed_are_read_as_they_were() -> None:
    older = {"max_tokens": 64, "labels_column": None, "test_share": 0.1}
    added = stored_settings.with_added(older)
    assert (added["rename"], added["merge"], added["drop_labels"]) == ({}, {}, [])
    assert added["near_duplicates"] is None and added["group_column"] is None
    assert "group_column" not in stored_settings.with_added({"max_tokens": 64})
