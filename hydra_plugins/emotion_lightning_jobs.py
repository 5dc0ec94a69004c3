"""A sweeper for Hydra that runs the jobs which emotion_lightning has computed and checked before.

Hydra finds sweepers only in the namespace package hydra_plugins, which must have no __init__.py. It imports the files
there at the start of every command, so this one imports emotion_lightning only when jobs are started.
"""

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class PlannedJobs(Sweeper):
    """Hand the planned jobs to the launcher, in batches if `hydra.sweeper.max_batch_size` is set.

    It has the settings of Hydra's own sweeper, so that it can take its place under any `hydra.sweeper` setting.
    """

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None = None) -> None:
        self.max_batch_size = max_batch_size
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Create the launcher."""
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run the jobs; `arguments` is what they were computed from."""
        from emotion_lightning.cli import jobs

        assert self.launcher is not None
        return jobs.launch_planned(self.launcher, self.max_batch_size)
