"""Studies: what is searched is checked early, trials that fail or are killed cost nothing but themselves."""

import contextlib
import csv
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import SMALL
from helpers.browser import laid_out
from helpers.servers import PATIENCE, postgresql, postgresql_programs
from helpers.stand_in import STAND_IN, importable, trials_by_stand_in

from emotion_lightning import config
from emotion_lightning.cli.compose import settings_of
from emotion_lightning.config import schema
from emotion_lightning.errors import UserError
from emotion_lightning.tuning import fork_server, search_space, study, study_facts, study_page, trial

FAST = ["logger=none", "study.storage=memory", "study.pruner=none", "hydra.run.dir=out"]


def searched(**parameters: Any) -> str:
    """An option file of the space group."""
    content = {name.replace("__", "."): value for name, value in parameters.items()}
    return "defaults: [/schema/space/space@_here_, _self_]\n" + json.dumps({"parameters": content})[1:-1] + "\n"


@pytest.fixture
def tune(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Run a study of stand-ins over this space; its exit code."""
    trials_by_stand_in(monkeypatch)
    monkeypatch.setattr(study, "_POLL", 0.02)

    def start(*arguments: str, **parameters: Any) -> int:
        options = tmp_path / "mine" / "space"
        options.mkdir(parents=True, exist_ok=True)
        (options / "mine.yaml").write_text(searched(**parameters))
        return int(run("tune", "--config-dir", str(tmp_path / "mine"), "space=mine", *arguments))

    return start


LR = {"low": 1e-4, "high": 1e-1, "log": True}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


# ------------------------------------------------------------------------------------------------------------ the space


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "there is nothing to search"),
        ({"optimizer.lrr": [1]}, "Unknown setting optimizer.lrr; did you mean optimizer.lr?"),
        ({"optimizer.lr": []}, "optimizer.lr=[] has nothing to choose from"),
        ({"optimizer.lr": [0.1, 0.2, 0.1]}, "names 0.1 twice"),
        ({"optimizer.lr": 0.1}, "neither a list of choices, [a, b], nor a range"),
        ({"optimizer.lr": ["fast", 0.1]}, "optimizer.lr=fast is not possible"),
        ({"optimizer.lr": {"low": 0, "high": 1, "log": True}}, "a logarithm needs low above 0"),
        ({"optimizer.lr": {"low": 0, "high": 1}}, "optimizer.lr=0 is not possible. optimizer.lr=0.0 is out of range"),
        ({"optimizer.warmup": {"low": 0, "high": 2}}, "optimizer.warmup=2 is not possible"),
        ({"optimizer.lr": {"low": 1, "high": 1}}, "low must be below high"),
        ({"optimizer.lr": {"low": 1}}, "lacks high"),
        ({"optimizer.lr": {"low": 1, "hihg": 2}}, "unknown hihg; did you mean high?"),
        ({"optimizer.lr": {"low": "a", "high": 2}}, "low=a is no number"),
        ({"optimizer.lr": {"low": 1e-3, "high": 1, "log": "yes"}}, "log=yes must be true or false"),
        ({"optimizer.lr": {"low": 1e-3, "high": 1, "log": True, "step": 0.1}}, "log and step exclude each other"),
        ({"optimizer.lr": {"low": 1, "high": 2, "step": 3}}, "step must be above 0 and not larger"),
        ({"data.batch_size": {"low": 1.5, "high": 3}}, "data.batch_size takes whole numbers, low=1.5"),
        ({"data.batch_size": [0, 16]}, "data.batch_size=0 is out of range"),
        ({"optimizer.schedule": {"low": 1, "high": 2}}, "optimizer.schedule is no number"),
        ({"optimizer.schedule": ["cosine", "square"]}, "one of linear, cosine, constant"),
        ({"peft": ["ia3", "iaa3"]}, "Unknown option peft=iaa3; did you mean ia3?"),
        ({"peft": ["ia3", "full"]}, "peft=full cannot train model.quantization=nf4"),
        ({"peft.r": [4, 8]}, "peft.r is not a setting of the chosen peft option"),
        ({"logger.project": ["a", "b"]}, "changes no score"),
        ({"seed": [1, 2]}, "seed is given and searched"),
        ({"study.trials": [1, 2]}, "Unknown setting study.trials"),
    ],
    ids=str,
)
def test_a_wrong_space_is_refused_before_the_first_trial(parameters: dict[str, Any], message: str) -> None:
    schema.register()
    with pytest.raises(UserError, match=re.escape(message)):
        search_space.read_space(config.Space(parameters), ["seed=1"], load=lambda line: settings_of("train", line))


@pytest.mark.parametrize("name", sorted(file.stem for file in (schema.conf_folder() / "space").glob("*.yaml")))
def test_every_space_of_conf_is_possible(settings: Any, name: str) -> None:
    space = settings(f"space={name}", command="tune").space
    found = search_space.read_space(space, [], load=lambda line: settings_of("train", line))
    assert {parameter.name for parameter in found.parameters} == set(space.parameters)


def test_a_setting_is_searched_only_where_the_chosen_option_has_it() -> None:
    schema.register()
    space = config.Space({"peft.r": [4, 8], "peft": ["ia3", "lora"], "data.clean": [[], ["urls"]]})
    found = search_space.read_space(space, [], load=lambda line: settings_of("train", line))
    values = {"peft": "ia3", "peft.r": 8, "data.clean": "['urls']"}
    assert found.suggest(optuna.trial.FixedTrial(values)) == {"peft": "ia3", "data.clean": ["urls"]}
    chosen = found.suggest(optuna.trial.FixedTrial(values | {"peft": "lora"}))
    loaded = settings_of("train", search_space.overrides(chosen))
    assert (loaded.peft.r, loaded.data.clean) == (8, [config.CleaningStep.urls])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("study.objectives=[f1_macro,loss]", "study.pruner=median cannot tell which trials are poor"),
        ("study.objectives=[train_seconds]", "needs a score at each epoch"),
        ("study.objectives=[]", "must name each objective once"),
        ("study.objectives=[f1]", "study.objectives takes a list of f1_macro"),
        ("study.storage=studies.db", "is none of file, memory, or a database's URL"),
        ("study.storage=sqlite:///x.db", "name this one with study.name=NAME"),
        ("resume=x", "resume= is of train"),
        ("study.trials=0", "study.trials=0 is out of range"),
        ("space=ia", "did you mean ia3?"),
        ("-m seed=1,2", "tune starts its trials itself; leave out -m"),
    ],
)
def test_a_wrong_study_is_refused(run: Any, capfd: Any, tmp_path: Path, argument: str, message: str) -> None:
    assert run("tune", *argument.split()) == 2
    assert capfd.readouterr().err.count(message) == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("nodb://me:hunter22@host/x", "is no URL of a database"),
        ("postgresql+psycopg://me:hunter22@127.0.0.1:1/x", "cannot be used: connection failed"),
        ("oracle+cx_oracle://me:hunter22@host/x", "needs a driver that is not installed"),
    ],
)
def test_a_storage_that_is_not_there_is_told_without_its_password(
    tune: Any, capfd: Any, tmp_path: Path, storage: str, message: str
) -> None:
    assert tune(*FAST, f"study.storage={storage}", "study.name=x", optimizer__lr=LR) == 2
    said = capfd.readouterr().err
    assert message in said and "me:<redacted>@" in said and "Traceback" not in said
    for text in [said, *(file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file())]:
        assert "hunter22" not in text


# ----------------------------------------------------------------------------------------------------------- the trials


@pytest.mark.slow
def test_a_study_ends_with_its_best_settings_ready_to_be_used(tune: Any, capfd: Any, tmp_path: Path) -> None:
    assert tune(*FAST, "data.max_rows=7", "study.trials=12", optimizer__lr=LR, peft=["ia3", "lora"]) == 0
    folder = tmp_path / "out"
    raised = json.loads((folder / "study.json").read_text())
    (best,) = raised["best"]
    table = rows(folder)
    assert len(table) == raised["trials"]["complete"] == 12
    assert best["values"]["f1_macro"] == max(float(row["f1_macro"]) for row in table)
    assert best["command"] in capfd.readouterr().err
    line = settings_of("train", shlex.split(best["command"])[3:])
    file = settings_of("train", ["--config-dir", str(folder), "experiment=best"])
    assert line == file
    assert (line.optimizer.lr, line.data.max_rows) == (best["parameters"]["optimizer.lr"], 7)
    # The first point that the stand-in rewards is a rate of 0.01: tpe comes nearer than chance does.
    assert 0.003 < line.optimizer.lr < 0.03
    assert raised["importance"]["f1_macro"]["optimizer.lr"] > 0.6
    page = (folder / "report.html").read_text()
    assert best["command"].split("peft=")[0].strip() in page.replace("&#39;", "'")
    pictures = {file.stem for file in (folder / "pictures").glob("*.png")}
    assert pictures == {"history", "parameters", "importance", "curves"}


@pytest.mark.slow
def test_a_study_repeats_itself_and_goes_on_with_what_an_uninterrupted_one_would_try(tune: Any, tmp_path: Path) -> None:
    asked = ["logger=none", "study.pruner=none", "study.startup_trials=2"]
    for folder, counts in {"whole": [5], "parts": [2, 5]}.items():
        for count in counts:
            assert tune(*asked, f"study.trials={count}", f"hydra.run.dir={folder}", optimizer__lr=LR) == 0
    whole, parts = ([row["optimizer.lr"] for row in rows(tmp_path / name)] for name in ("whole", "parts"))
    assert whole == parts and len(set(whole)) == 5
    shutil.move(tmp_path / "parts", tmp_path / "moved")
    assert tune(*asked, "study.trials=6", "hydra.run.dir=moved", optimizer__lr=LR) == 0
    assert len(rows(tmp_path / "moved")) == 6


@pytest.mark.slow
def test_workers_must_ask_for_the_same(tune: Any, tmp_path: Path, capfd: Any) -> None:
    asked = ["logger=none", "study.pruner=none", "study.trials=1", "hydra.run.dir=out"]
    assert tune(*asked, optimizer__lr=LR) == 0
    assert tune(*asked, "logger=csv", "data.workers=1", optimizer__lr=LR) == 0  # these change no result
    assert tune(*asked, "optimizer.weight_decay=0.5", optimizer__lr=LR) == 2
    assert "has optimizer.weight_decay=0.01, this line optimizer.weight_decay=0.5" in capfd.readouterr().err
    assert tune(*asked, optimizer__lr=LR | {"high": 0.2}) == 2
    assert tune(*asked, "study.objectives=[loss]", optimizer__lr=LR) == 2


@pytest.mark.slow
def test_a_poor_trial_is_pruned_however_late_it_is_looked_at(tune: Any, tmp_path: Path) -> None:
    asked = ["logger=none", "study.storage=memory", "study.trials=12", "study.startup_trials=3", "study.sampler=random"]
    ends = []
    for pruner in ("median", "median", "hyperband"):
        asked_now = [*asked, f"study.pruner={pruner}", "trainer.max_epochs=9", f"hydra.run.dir={len(ends)}"]
        assert tune(*asked_now, optimizer__lr=LR) == 0
        ends.append([(row["state"], row["epochs"]) for row in rows(tmp_path / str(len(ends)))])
    assert ends[0] == ends[1]
    for found in ends:
        states = [state for state, _ in found]
        assert states.count("pruned") >= 2 and "complete" in states
        assert all(int(epoch) < 9 for state, epoch in found if state == "pruned")
    assert all(state == "complete" for state, _ in ends[0][:3])


@pytest.mark.slow
def test_failed_trials_are_recorded_and_made_up_for(tune: Any, tmp_path: Path) -> None:
    seeds = [901, 902, 903, 904, 1, 2, 3]
    assert (
        tune(*FAST, "study.trials=4", "study.sampler=random", "study.seed=3", "study.max_failures=20", seed=seeds) == 0
    )
    table = rows(tmp_path / "out")
    notes = {row["seed"]: row["note"] for row in table}
    assert sum(row["state"] == "complete" for row in table) == 4
    assert all((row["state"] == "failed") == (int(row["seed"]) > 900) for row in table)
    raised = {
        "901": "RuntimeError: the library fell over",
        "902": "data.path=gone.csv does not exist.",
        "903": "killed by SIGKILL, as the system does where memory ends",
        "904": "f1_macro is nan.",
    }
    met = set(raised) & set(notes)
    assert len(met) >= 3
    assert {seed: notes[seed] for seed in met} == {seed: raised[seed] for seed in met}


def test_too_many_failures_in_a_row_stop_the_study(tune: Any, capfd: Any, tmp_path: Path) -> None:
    assert tune(*FAST, "study.max_failures=3", seed=[902, 901]) == 2
    said = capfd.readouterr().err
    assert "3 trials failed in a row" in said and "output.txt" in said and "Traceback" not in said
    assert len(rows(tmp_path / "out")) == 3


@pytest.mark.slow
def test_several_objectives_give_the_trials_that_nothing_beats(tune: Any, tmp_path: Path) -> None:
    asked = [
        "study.objectives=[f1_macro,trainable_parameters,train_seconds]",
        "study.trials=10",
        "study.sampler=random",
    ]
    assert tune(*FAST, *asked, optimizer__lr=LR, peft=["ia3", "lora", "head"]) == 0
    table = rows(tmp_path / "out")
    names = ("f1_macro", "trainable_parameters", "train_seconds")
    points = {row["trial"]: [float(row[name]) for name in names] for row in table}
    beats = {
        one: [o for o, (f, p, s) in points.items()
              if (f >= a and p <= b and s <= c) and (f, p, s) != (a, b, c)]
        for one, (a, b, c) in points.items()
    }  # fmt: skip
    assert {row["trial"] for row in table if row["best"] == "1"} == {one for one, by in beats.items() if not by}
    assert (tmp_path / "out" / "pictures" / "front.png").is_file()
    files = {file.stem for file in (tmp_path / "out" / "experiment").glob("*.yaml")}
    assert "best" in files and len(files) == sum(row["best"] == "1" for row in table)


# ------------------------------------------------------------------------------------------------------------ the stops

_DRIVER = (
    "from emotion_lightning import tune; from emotion_lightning.tuning import trial; "
    f"trial.TRAIN, trial.LIBRARIES = {STAND_IN!r}, (); tune.main()"
)


Worker = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """Starts processes that work at a study of stand-ins; none outlives the test."""
    (tmp_path / "mine" / "space").mkdir(parents=True)
    (tmp_path / "mine" / "space" / "mine.yaml").write_text(searched(optimizer__lr=LR))
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, pause: float = 0.3) -> subprocess.Popen[str]:
        line = [sys.executable, "-c", _DRIVER, "--config-dir", "mine", "space=mine"]
        # Signs of life so far apart that a busy machine is not taken for a dead worker.
        line += ["logger=none", "study.heartbeat=3", *arguments]
        environment = {**os.environ, "STAND_IN_PAUSE": str(pause), "OMP_NUM_THREADS": "1", "PYTHONPATH": importable()}
        started.append(subprocess.Popen(line, cwd=tmp_path, env=environment, stderr=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True))  # fmt: skip
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if not what():
        process.kill()
        raise AssertionError(process.communicate())


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.exhaustive)],
)
@pytest.mark.slow
def test_a_stopped_study_says_how_it_goes_on(tmp_path: Path, worker: Worker, number: int, code: int) -> None:
    stopped = worker("study.trials=2", "study.pruner=none", "hydra.run.dir=out")
    until((tmp_path / "out" / "trials" / "0" / "history.csv").exists, stopped)
    stopped.send_signal(number)
    _, said = stopped.communicate(timeout=PATIENCE)
    assert stopped.returncode == code, said
    assert rows(tmp_path / "out")[0]["state"] == "stopped"
    (line,) = re.findall(r"2 of 2 trials are left\. Go on with: python -m emotion_lightning\.tune (.*)", said)
    again = worker(*shlex.split(line), pause=0)
    _, said = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, said
    table = rows(tmp_path / "out")
    assert [row["state"] for row in table] == ["stopped", "complete", "complete"]
    assert table[0]["optimizer.lr"] == table[1]["optimizer.lr"] != table[2]["optimizer.lr"]


def stand_ins_in(folder: Path) -> list[int]:
    # By what they write to: a forked process has the command line of the one that forked it.
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/1"):
        with contextlib.suppress(OSError):
            if Path(os.readlink(link)).is_relative_to(folder):
                found.append(int(link.parts[2]))
    return found


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of a database of a PostgreSQL server of its own."""
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("needs PostgreSQL's server programs (apt-get install postgresql)")
    with postgresql(programs) as url:
        yield url


@pytest.mark.slow
def test_two_workers_share_a_postgresql_study_and_one_takes_over_from_the_killed(
    database: str, tmp_path: Path, worker: Worker
) -> None:
    asked = [f"study.storage={database}", "study.name=shared", "study.trials=5", "study.pruner=none"]
    killed = worker(*asked, "hydra.run.dir=killed")
    survivor = worker(*asked, "hydra.run.dir=survivor")
    until(lambda: len(list(tmp_path.glob("killed/trials/*/history.csv"))) > 0, killed)
    killed.kill()
    killed.communicate()
    _, said = survivor.communicate(timeout=PATIENCE)
    assert survivor.returncode == 0, said
    assert stand_ins_in(tmp_path / "killed") == []  # its training ended with it
    table = rows(tmp_path / "survivor")
    states = [row["state"] for row in table]
    assert states.count("complete") == 5
    (lost,) = [row for row in table if row["state"] == "lost"]
    assert "killed" in lost["folder"]
    again = [row for row in table if row["optimizer.lr"] == lost["optimizer.lr"] and row is not lost]
    assert [row["state"] for row in again] == ["complete"]
    assert len({row["optimizer.lr"] for row in table}) == len([s for s in states if s != "withdrawn"]) - 1


@pytest.mark.slow
def test_workers_at_the_same_moment_make_exactly_as_many_trials_as_asked(
    database: str, tmp_path: Path, worker: Worker
) -> None:
    asked = [f"study.storage={database}", "study.name=many", "study.trials=3", "study.pruner=none"]
    workers = [worker(*asked, f"hydra.run.dir=w{i}", pause=0.05) for i in range(2)]
    for one in workers:
        _, said = one.communicate(timeout=PATIENCE)
        assert one.returncode == 0, said
    assert [row["state"] for row in rows(tmp_path / "w0")].count("complete") == 3
    assert len(list(tmp_path.glob("w*/trials/*/metrics.json"))) == 3


# ------------------------------------------------------------------------------------------------------- real trainings


@pytest.mark.parametrize("name", trial.LIBRARIES)
def test_what_trials_are_forked_with_can_be_imported(name: str) -> None:
    importlib.import_module(name)  # else each trial would quietly be a fresh process


@pytest.mark.slow
def test_a_real_trial_gives_the_number_that_its_command_gives(
    run: Any, capfd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    start = fork_server.Server.start
    monkeypatch.setattr(
        fork_server.Server, "start", lambda *given, **named: started.append(start(*given, **named)) or started[-1]
    )
    assert run("tune", *SMALL, "trainer.max_epochs=1", "study.trials=1", "hydra.run.dir=out") == 0
    (best,) = json.loads((tmp_path / "out" / "study.json").read_text())["best"]
    assert run("train", *shlex.split(best["command"])[3:], "hydra.run.dir=again") == 0
    metrics = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert metrics["validation"]["global"]["f1_macro"] == best["values"]["f1_macro"]
    # Forked or not, to the last bit.
    if sys.platform == "linux":
        assert [process.is_forked for process in started] == [True]
    for file in ("history.csv", "predictions/validation.csv", "model/adapter_model.safetensors"):
        assert (tmp_path / best["folder"] / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    # What is chosen must not hang on test: a trial has not looked at it, and is scored on it when asked for.
    kept = tmp_path / best["folder"]
    assert "test" not in json.loads((kept / "metrics.json").read_text())
    assert not (kept / "predictions" / "test.csv").exists()
    assert "rows of test were left out" in (kept / "report.html").read_text()
    (line,) = re.findall(r"Its scores on test: python -m emotion_lightning\.evaluate (.*)", capfd.readouterr().err)
    assert run("evaluate", *shlex.split(line), "hydra.run.dir=scored") == 0
    scored = json.loads((tmp_path / "scored" / "metrics.json").read_text())
    assert scored["test"]["global"] == metrics["test"]["global"]


@pytest.mark.exhaustive
def test_a_trial_of_two_processes_has_the_same_values_in_both(tmp_path: Path) -> None:
    line = [*SMALL, "trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def python(*arguments: str) -> None:
        done = subprocess.run([sys.executable, "-m", *arguments], cwd=tmp_path, env=environment, capture_output=True,
                              text=True, timeout=PATIENCE)  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]

    python("emotion_lightning.tune", *line, "study.trials=1", "study.pruner=none", "hydra.run.dir=out")
    raised = json.loads((tmp_path / "out" / "study.json").read_text())
    assert raised["trials"] == {"complete": 1}
    (best,) = raised["best"]
    python(*shlex.split(best["command"])[2:], "hydra.run.dir=again")
    metrics = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert metrics["validation"]["global"]["f1_macro"] == best["values"]["f1_macro"]


@pytest.mark.parametrize(("count", "few"), [(0, True), (29, True), (30, False)])
def test_a_page_says_at_its_top_when_trials_are_too_few(tmp_path: Path, count: int, few: bool) -> None:
    trials = [
        study_facts.Trial(i, "complete", {"optimizer.lr": 0.001 * (i + 1)}, [0.4 + 0.001 * i]) for i in range(count)
    ]
    facts = study_facts.StudyFacts(
        "mine", [config.Objective.f1_macro], trials, [count - 1] if count else [],
        {config.Objective.f1_macro: {"optimizer.lr": 1.0} if count else {}}, ["optimizer.lr"],
    )  # fmt: skip
    study_page._page(tmp_path, facts, {count - 1: "python -m emotion_lightning.train"}, ["space=learning_rate"])
    page = (tmp_path / "report.html").read_text()
    said = f"{count} complete trials of 1 parameter are too few to say what matters: about 30 are due"
    assert (said in page) == few
    if few:
        assert page.index(said) < page.index("<nav")
        assert page.count(said) == (2 if count else 1)  # beside the picture too, where there is one
    wide, pictures, loaded = laid_out(page, tmp_path, width=390)
    assert wide <= 390 and loaded
