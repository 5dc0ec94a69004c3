"""A real Ray cluster of two nodes on this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def two_nodes(first: int, second: int) -> Iterator[Any]:
    """A cluster whose nodes have so many cores; the driver is on the first one, and the second one may be lost.

    Ray sets environment variables and leaves them; later tests would start a fresh process for each command.
    """
    before = dict(os.environ)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": first, "include_dashboard": False})
    found.add_node(num_cpus=second)
    try:
        yield found
    finally:
        found.shutdown()
        os.environ.clear()
        os.environ.update(before)
