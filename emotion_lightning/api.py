"""The commands as functions, for notebooks and other programs.

settings = el.compose("peft=ia3", "data=file", "data.path=my.csv")
run = el.fit(settings)
run.predict(frame)

They do the work of the commands `train` and `evaluate` in the process of somebody else: they raise UserError and never
exit, print nothing, and leave logging, the working directory, the command line, Hydra and the settings of libraries as
they find them.
"""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from emotion_lightning import config, evaluate, train
from emotion_lightning.cli import jobs, messages, multirun
from emotion_lightning.cli.compose import Job
from emotion_lightning.config import schema
from emotion_lightning.errors import Stopped, UserError
from emotion_lightning.runs import run_folder
from emotion_lightning.runs.metrics_file import RunMetrics, read_metrics

if TYPE_CHECKING:
    from emotion_lightning.inference.frames import Frame
    from emotion_lightning.inference.predictor import Labeller, Prediction

_one_at_a_time = threading.Lock()
"""Seeds are of the whole process, so a second thread waits until the training of the first has ended."""


@dataclass
class Settings(config.Train):
    """The settings of a training, as `compose` returns them; `settings.optimizer.lr` is the setting `optimizer.lr`.

    The attributes are the [settings](settings.md) of `train`. `fit` checks their ranges again, so single values may be
    changed; to choose another option, compose anew.

    Attributes:
        options: the option chosen in each group, such as `{"peft": "ia3"}`.
    """

    options: dict[str, str]


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: the run folder, as an absolute path; `load(run.folder)` takes it at any later time.
        metrics: content of its metrics.json, such as `run.metrics["test"]["global"]["f1_macro"]`.
        settings: settings that it was trained with.
    """

    folder: Path
    metrics: RunMetrics = field(repr=False)
    settings: Settings = field(repr=False)

    @cached_property
    def model(self) -> "Labeller":
        """The trained model, as `load` returns it; loaded at the first use."""
        from emotion_lightning.inference import predictor

        return predictor.load(self.folder, accelerator=self.settings.trainer.accelerator.value)

    @overload
    def predict(
        self,
        texts: Sequence[str],
        *,
        context: Sequence[Sequence[str]] | None = None,
        progress_bar: bool = False,
    ) -> "list[Prediction]": ...

    @overload
    def predict(self, texts: "Frame", *, text: str | None = None, progress_bar: bool = False) -> "Frame": ...

    @overload
    def predict(
        self,
        texts: Any,
        *,
        text: str | None = None,
        context: Sequence[Sequence[str]] | None = None,
        progress_bar: bool = False,
    ) -> Any: ...

    def predict(
        self,
        texts: Any,
        *,
        text: str | None = None,
        context: Sequence[Sequence[str]] | None = None,
        progress_bar: bool = False,
    ) -> Any:
        """Label texts with the trained model, as the `predict` of what `load` returns.

        Args:
            texts: a text, a list of texts, or a table of pandas, polars or `datasets`.
            text: text column of a table; None: the text column of the run, or one with a usual name.
            context: for a list of texts and a run with data.context: the turns before each text, oldest first.
            progress_bar: show a progress bar in a notebook or on a terminal; nowhere else.

        Returns:
            A list of `Prediction` for a list, and a table for a table.

        Raises:
            UserError: a table has no such column, a row has no value there, or something else than texts was given.
        """
        return self.model.predict(texts, text=text, context=context, progress_bar=progress_bar)


@dataclass(frozen=True)
class Scores:
    """The result of `score`.

    Attributes:
        folder: folder with metrics, predictions and report, as an absolute path.
        metrics: content of its metrics.json, with the scores under the name of the split.
    """

    folder: Path
    metrics: RunMetrics = field(repr=False)


def compose(*overrides: str) -> Settings:
    """Compose the settings of a training and check them, without loading torch.

    Args:
        overrides: settings as on the command line of `train`, each a text of its own that needs no quotes for a shell:
            `"peft=ia3"`, `"data.path=my texts.csv"`. `resume=FOLDER`, `from_run=FOLDER` and `--config-dir=FOLDER`, with
            options of your own, work too.

    Raises:
        UserError: a setting is wrong, or the settings ask for several runs.
    """
    settings, options = jobs.compose_job("train", overrides)
    return Settings(**vars(settings), options=options)


def fit(settings: Settings, *, folder: str | Path | None = None) -> Run:
    """Train a classifier, select its best epoch and thresholds on validation, and score it on test.

    It is the training of `python -m emotion_lightning.train` on one device, with the same numbers and the same run
    folder, except for the log file: messages go to the logger `emotion_lightning`. Ctrl-C finishes the step, saves and
    raises KeyboardInterrupt; `compose("resume=FOLDER")` then goes on.

    Args:
        settings: from `compose`; they are not changed.
        folder: the run folder; None: outputs/train/DATE/TIME, or the folder that is resumed.

    Raises:
        UserError: a setting, a file or an access right is wrong.
    """
    given = deepcopy(settings)
    values = config.Train(**{part.name: getattr(given, part.name) for part in fields(config.Train)})
    schema.check_settings(values, "train")
    if settings.resume and folder is not None:
        raise UserError(f"The run goes on in {settings.resume}; leave out folder={folder}.")
    job = Job(given.options, ["emotion_lightning.fit"], own_process=False)
    with _work_in(_folder("train", folder or settings.resume), "The run in", "train") as place:
        train.train(values, place, job)
    return Run(place, read_metrics(place), given)


def score(
    run: Run | str | Path | Sequence[Run | str | Path], *overrides: str, folder: str | Path | None = None
) -> Scores:
    """Score a finished run, or an ensemble of several, on labelled data with its own thresholds, as `evaluate` does.

    Args:
        run: a run, its folder, or `hf:user/name` on the hub; several form an ensemble.
        overrides: settings as on the command line of `evaluate`, such as `"data=file", "data.path=other.csv"`; none:
            the test split of the run's own data.
        folder: folder for the results; None: outputs/evaluate/DATE/TIME.

    Raises:
        UserError: the run or the data cannot be scored.
    """
    runs = [run] if isinstance(run, Run | str | Path) else list(run)
    names = [str(one.folder if isinstance(one, Run) else one) for one in runs]
    line = [f"run={names[0] if len(names) == 1 else run_folder.format_list(names)}", *overrides]
    settings, options = jobs.compose_job("evaluate", line)
    job = Job(options, ["emotion_lightning.score", *line], own_process=False)
    with _work_in(_folder("evaluate", folder), "The evaluation in", "evaluate") as place:
        evaluate.evaluate(settings, place, job)
    return Scores(place, read_metrics(place))


def _folder(command: str, given: str | Path | None) -> Path:
    """The folder of a job, absolute: the given one, or a new one that is named as conf/command names them."""
    if given is not None:
        return Path(given).expanduser().absolute()
    named = Path("outputs", command, f"{datetime.now():%Y-%m-%d/%H-%M-%S}").absolute()
    folder, number = named, 1
    while folder.exists():  # of another job of the same second
        number += 1
        folder = named.with_name(f"{named.name}-{number}")
    return folder


@contextmanager
def _work_in(folder: Path, what: str, command: str) -> Iterator[Path]:
    """Hold the lock of a folder, and leave this process as it was found; yields the folder.

    Args:
        folder: the folder; a new one is removed if nothing was written before an error.
        what: begins the message if another process holds the lock, such as "The run in".
        command: name of the command, for messages.
    """
    from emotion_lightning.runs.as_found import as_found

    with messages.as_user_errors(command, []), _one_at_a_time:
        is_new = not folder.exists()
        try:
            with _stoppable(), as_found(), multirun.locked(folder, what):
                yield folder
        except UserError:
            with suppress(OSError):  # it is not empty
                if is_new:
                    folder.rmdir()
            raise


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let Ctrl-C stop the block in an orderly way, and end as the program itself would by the signal.

    Lightning 2.6 turns Ctrl-C into SystemExit and then ignores it for good; `Stopped` passes it.
    """
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()} if in_main else {}
    received = None
    try:
        if in_main:
            with jobs.stop_on_signals(signal.SIGINT):
                yield
        else:  # signals arrive in the main thread only
            yield
    except Stopped as stop:
        received = stop.number
    except SystemExit as stop:
        raise UserError(f"A library tried to end the program, with {stop.code!r}; its messages say why.") from stop
    finally:
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
    if received is not None:
        signal.raise_signal(received)
        raise UserError(f"Stopped by {signal.Signals(received).name}.")  # the program's own handler went on
