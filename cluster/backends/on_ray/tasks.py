"""Tasks of a sweep, spread over Ray."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import ray

from cluster.backends.folders import RunFolder
from cluster.backends.on_ray.start import cluster_at, private_ray, refuse_second
from cluster.backends.processes import MOST_TRIES, Lost


def run_in_ray(
    function: Callable[[Any], Any], tasks: Iterable[Any], n_workers: int, address: str | None = None
) -> Iterator[tuple[Any, Any | Lost]]:
    """Yield (task, function(task)) as they are done, as `run_in_processes` does, with Ray tasks of one core each.

    On all cores of the cluster at the address; without one on a private Ray of `n_workers`. A task whose process dies,
    or is ended for lack of memory, is tried once more.
    """
    refuse_second()
    with contextlib.ExitStack() as cleanup:
        folder = RunFolder.make()
        cleanup.callback(folder.remove)
        ours = private_ray(folder.path, n_workers, n_cpus=n_workers) if address is None else cluster_at(address)
        cleanup.enter_context(ours)
        n_at_once = 2 * max(1, int(ray.cluster_resources().get("CPU", n_workers)))
        remote = ray.remote(function).options(num_cpus=1, max_retries=0)  # where memory is short, Ray's own have no end
        todo = iter(tasks)
        pending = {remote.remote(task): (task, 1) for task in islice(todo, n_at_once)}
        while pending:
            for ref in ray.wait(list(pending), num_returns=1)[0]:
                task, n_tries = pending.pop(ref)
                try:
                    result = ray.get(ref)
                except ray.exceptions.RayTaskError as error:
                    result = Lost(f"it cannot run there: {error.cause!r}")
                except ray.exceptions.RayError as error:
                    if n_tries < MOST_TRIES:
                        pending[remote.remote(task)] = task, n_tries + 1
                        continue
                    result = Lost(f"its process died: {type(error).__name__}, {MOST_TRIES} times")
                pending |= {remote.remote(following): (following, 1) for following in islice(todo, 1)}
                yield task, result
