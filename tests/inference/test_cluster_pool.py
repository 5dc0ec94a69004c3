"""Tasks of workers that die are done by others; a stand-in for Ray runs them here, at once."""

import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emotion_lightning.errors import UserError
from emotion_lightning.inference.cluster import pool as pools


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__("a long traceback")
        self.cause = cause


class Method:
    def __init__(self, worker: "Worker") -> None:
        self.worker = worker

    def remote(self, given: Any = None) -> "Reference":
        return Reference(self.worker, given)


class Worker:
    """An actor; `dies` says in which of all tasks so far."""

    def __init__(self, ray: "Ray") -> None:
        self.ray, self.dead = ray, False
        self.ready, self.answer = Method(self), Method(self)
        ray.workers.append(self)


class Reference:
    def __init__(self, worker: Worker, given: Any) -> None:
        self.worker, self.given = worker, given


class Ray(types.ModuleType):
    """What the pool uses of Ray. The last task given is the first one to end, so that the order differs."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.exceptions = types.SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
        self.workers: list[Worker] = []
        self.dies: Callable[[Any, int], bool] = lambda given, time: False
        self.fails: Callable[[Any], Exception | None] = lambda given: None
        self.times: dict[Any, int] = {}
        self.most_waiting = 0

    def wait(self, references: list[Reference], **_: Any) -> tuple[list[Reference], list[Reference]]:
        self.most_waiting = max(self.most_waiting, len(references))
        dead = [one for one in references if one.worker.dead]
        chosen = dead[:1] or references[-1:]
        return chosen, [one for one in references if one not in chosen]

    def get(self, reference: Reference) -> Any:
        given, worker = reference.given, reference.worker
        if given is None:
            return 0
        self.times[given] = self.times.get(given, 0) + 1
        if worker.dead or self.dies(given, self.times[given]):
            worker.dead = True
            raise RayError("killed")
        if error := self.fails(given):
            raise RayTaskError(error)
        return -given

    def kill(self, worker: Worker) -> None:
        worker.dead = True


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    found = Ray()
    monkeypatch.setitem(sys.modules, "ray", found)
    return found


def pool(ray: Ray, count: int = 2, ahead: int = 2) -> Any:
    return pools.Pool(lambda: Worker(ray), lambda worker, given: worker.answer.remote(given), count=count, ahead=ahead)


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_each_task_has_its_result(ray: Ray, in_order: bool, count: int) -> None:
    found = list(pool(ray, count).results(range(1, 50), in_order=in_order))
    assert sorted(found) == [(i, -i) for i in range(1, 50)]
    assert not in_order or found == sorted(found)
    assert len(ray.workers) == count and ray.most_waiting <= 2 * count + count


def test_no_tasks_give_no_results(ray: Ray) -> None:
    assert list(pool(ray).results([])) == []


def test_tasks_are_read_as_they_are_needed(ray: Ray) -> None:
    read = []

    def tasks() -> Iterator[int]:
        for number in range(1, 1000):
            read.append(number)
            yield number

    results = pool(ray).results(tasks(), in_order=True)
    for _ in range(3):
        next(results)
    assert len(read) < 30


@pytest.mark.parametrize("in_order", [False, True])
def test_a_worker_that_dies_is_replaced_and_its_tasks_are_done_once(ray: Ray, in_order: bool) -> None:
    ray.dies = lambda given, time: given in (3, 20) and time == 1
    own = pool(ray)
    found = list(own.results(range(1, 50), in_order=in_order))
    assert sorted(found) == [(i, -i) for i in range(1, 50)]
    assert own.lost == 2 and len(ray.workers) == 4


def test_a_task_that_kills_its_workers_is_told(ray: Ray) -> None:
    ray.dies = lambda given, time: given == 3
    with pytest.raises(UserError, match=r"was killed 5 times.*\(rows 3\).*fewer devices="):
        list(pool(ray, ahead=1).results(range(1, 50), place=lambda given: f" (rows {given})"))


def test_a_mistake_is_told_as_the_worker_told_it(ray: Ray) -> None:
    ray.fails = lambda given: UserError("The run is damaged.") if given == 2 else None
    with pytest.raises(UserError, match=r"^The run is damaged\.$"):
        list(pool(ray).results(range(1, 5)))


def test_another_error_of_a_worker_stays_ours(ray: Ray) -> None:
    ray.fails = lambda given: ZeroDivisionError()
    with pytest.raises(RuntimeError, match="A worker failed"):
        list(pool(ray).results(range(1, 5)))


def test_workers_end_with_the_pool(ray: Ray) -> None:
    own = pool(ray)
    list(own.results(range(1, 5)))
    own.close()
    assert all(worker.dead for worker in ray.workers)
