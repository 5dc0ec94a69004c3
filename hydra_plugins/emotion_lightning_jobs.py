"""A sweeper for Hydra that runs the jobs which emotion_lightning has computed and checked before; a launcher with Ray.

Hydra finds plugins only in the namespace package hydra_plugins, which must have no __init__.py. It imports the files
there at the start of every command, so this one imports emotion_lightning only when jobs are started.
"""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class PlannedJobs(Sweeper):
    """Hand the planned jobs to the launcher, in batches if `hydra.sweeper.max_batch_size` is set.

    It takes the settings of any sweeper, so that it can take its place under any `hydra.sweeper` setting.
    """

    def __init__(self, max_batch_size: int | None = None, **_: Any) -> None:
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


class RayLauncher(BasicLauncher):
    """Run each job as a task of Ray, in a process of its own. In that process it is Hydra's own launcher.

    Args:
        gpus_per_job: GPUs of a job; None: one if there are any.
        cpus_per_job: cores of a job; None: those that belong to its GPUs; without GPUs the jobs share all cores.
        address: of a running Ray; None starts one for the multirun.
    """

    def __init__(self, gpus_per_job: Any = None, cpus_per_job: Any = None, address: Any = None) -> None:
        super().__init__()
        self.settings = {"gpus_per_job": gpus_per_job, "cpus_per_job": cpus_per_job, "address": address}

    def prepare(self, count: int) -> None:
        """Join Ray and check that each of so many jobs fits, before the first one is begun."""
        from emotion_lightning.cli import ray_jobs

        ray_jobs.prepare(self.settings, count)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and wait for them; a failed one returns None, as in `jobs.run_job`."""
        from emotion_lightning.cli import ray_jobs
        from emotion_lightning.runs import ray_cluster

        if ray_cluster.in_job():
            return super().launch(job_overrides, initial_job_idx)
        assert self.config is not None
        return ray_jobs.launch(self.settings, self.config, job_overrides, initial_job_idx)
