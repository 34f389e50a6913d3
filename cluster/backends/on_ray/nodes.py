"""Ray itself: a private one on this machine or a cluster that runs; its nodes; actors on them; tasks of a sweep."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

# Read by the import. Else SIGTERM prints a stack, every worker that dies a paragraph on stdout, every call a traceback.
os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # calls that end because another one failed
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import cluster
import collectives
import configs
import topology
import workloads
from cluster.backends.folders import RunFolder
from cluster.backends.options import address_problem
from cluster.backends.placement import ActorPlace, Node
from cluster.backends.processes import MOST_TRIES, ONE_THREAD, Lost
from cluster.backends.resources import survey
from configs.errors import ConfigError, RunError

PACKAGES = (configs, topology, collectives, workloads, cluster)
REACH_S = 5.0
SURVEY_S = 60.0
ANSWER_S = 5.0
PROGRESS_S = 1.0
RECONNECT = "RAY_gcs_rpc_server_reconnect_timeout_s"


# --- start and stop -----------------------------------------------------------------------------------------------


def refuse_second() -> None:
    """Raise ConfigError if this process uses Ray already: a second start would share it, and stop it at its end."""
    if ray.is_initialized():
        raise ConfigError(("this process uses Ray already; accepted: one backend of Ray at a time, and no ray.init",))


def start_private(folder: Path, n_workers: int, n_cpus: int | None = None) -> None:
    """Start a private Ray on this machine, with its files in the run's folder, reachable from this machine alone."""
    # More workers than its start-up concurrency make Ray print warnings on the driver's stdout, which is not Ray's.
    with _own_sigterm(), _loopback_only(), _ending_with_head():
        ray.init(
            address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR",
            _temp_dir=str(folder / "ray"), _node_ip_address="127.0.0.1", object_store_memory=100 * 2**20,
            _system_config={"worker_maximum_startup_concurrency": n_workers + 1}, num_cpus=n_cpus,
        )  # fmt: skip


@contextlib.contextmanager
def _loopback_only() -> Iterator[None]:
    """Let a Ray that starts here have the address 127.0.0.1, and so listen there alone.

    Elsewhere than on Linux it does so by itself; on Linux it takes 127.0.0.1 for a mistake and finds another address.
    """
    constants = ray._private.ray_constants  # noqa: SLF001  nothing public says it
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _ending_with_head() -> Iterator[None]:
    """Let Ray's processes that start here end soon when their head is gone, as it is once the driver was killed.

    By default its agents look for the head for a minute; that of a private Ray never comes back.
    """
    given = os.environ.get(RECONNECT)
    os.environ.setdefault(RECONNECT, "3")
    try:
        yield
    finally:
        if given is None:
            del os.environ[RECONNECT]


def connect(address: str) -> None:
    """Connect to the cluster at the address; its workers get this program's packages.

    Raises ConfigError if there is none, or if this machine is not one of its nodes.
    """
    problem = address_problem(address)
    if problem is not None:
        raise ConfigError((f"--ray-address: {problem}",))
    if address != "auto":
        _reach(address)
    packages = [str(Path(package.__path__[0])) for package in PACKAGES]
    try:
        with _own_sigterm():
            ray.init(
                address=address, log_to_driver=False, logging_level="ERROR",
                runtime_env={"py_modules": packages, "env_vars": ONE_THREAD},
            )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        ray.shutdown()
        why = str(error).strip().splitlines()[0]
        accepted = "accepted: a running cluster (ray start) of the same Ray and Python, of which this machine is a node"
        raise ConfigError((f"--ray-address: {address}: {why}; {accepted}",)) from None


def _reach(address: str) -> None:
    """Raise ConfigError if nobody listens there; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError((f"--ray-address: {address}: {error}; accepted: HOST:PORT of a running head",)) from None


def stop() -> None:
    """Stop the private Ray, or let go of the cluster."""
    ray.shutdown()


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the driver's handler of SIGTERM, which Ray replaces by one that exits with the signal's number.

    Ray's libraries crash at the end of a process in which their start was interrupted; such a process ends at once.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        atexit.register(os._exit, 1)
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


# --- nodes and actors -----------------------------------------------------------------------------------------------


def own_node() -> Node:
    """Return the node that the driver is on."""
    mine = ray.get_runtime_context().get_node_id()
    return next(Node(n["NodeID"], n["NodeManagerAddress"], 0.0) for n in ray.nodes() if n["NodeID"] == mine)


def cluster_nodes() -> list[Node]:
    """Return the nodes that have a free core, this one first, each asked for its free memory.

    Raises RunError if there is none.
    """
    mine = own_node()
    free = ray._private.state.available_resources_per_node()  # noqa: SLF001  nothing public tells the nodes apart
    alive = [n for n in ray.nodes() if n["Alive"] and free.get(n["NodeID"], {}).get("CPU", 0) > 0]
    if not alive:
        raise RunError("no node of the Ray cluster has a free core")
    asked = {
        ray.remote(survey).options(num_cpus=0, scheduling_strategy=on_node(n["NodeID"]), max_retries=0).remote(): n
        for n in alive
    }
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=SURVEY_S)
    if late:
        names = ", ".join(asked[ref]["NodeManagerAddress"] for ref in late)
        raise RunError(f"nodes that did not answer within {SURVEY_S:.0f} s: {names}")
    nodes = []
    for ref in ready:
        entry = asked[ref]
        try:
            memory_bytes, _, _ = ray.get(ref)
        except ray.exceptions.RayError as error:
            why = str(error).strip().splitlines()[-1]
            raise RunError(f"node {entry['NodeManagerAddress']} cannot run chipmesh: {why}") from None
        nodes.append(Node(entry["NodeID"], entry["NodeManagerAddress"], free[entry["NodeID"]]["CPU"], memory_bytes))
    return sorted(nodes, key=lambda node: (node.id != mine.id, node.ip, node.id))


def on_node(node_id: str) -> NodeAffinitySchedulingStrategy:
    """Return what puts a task or actor on this node and no other."""
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def lost_nodes(suspects: Iterable[str]) -> set[str]:
    """Return those of the nodes that do not answer; Ray itself takes up to half a minute to notice."""
    alive = {entry["NodeID"] for entry in ray.nodes() if entry["Alive"]}
    asked = {
        ray.remote(survey).options(num_cpus=0, scheduling_strategy=on_node(node), max_retries=0).remote(): node
        for node in set(suspects) & alive
    }
    lost = set(suspects) - alive
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S) if asked else ([], [])
    for ref in ready:
        try:
            ray.get(ref)
        except ray.exceptions.RayError:
            lost.add(asked[ref])
    return lost | {asked[ref] for ref in late}


def place_again(place: ActorPlace, lost: Collection[str]) -> ActorPlace:
    """Return where an actor that was lost comes back: on its node, or, if that is lost too, on one that is left.

    There it takes no cores from the count: those that are left may all be taken, and must do the work of the lost ones.

    Raises RunError if no node is left.
    """
    if not place.node.id or place.node.id not in lost:
        return place
    alive = {e["NodeID"]: e["NodeManagerAddress"] for e in ray.nodes() if e["Alive"] and e["NodeID"] not in lost}
    if not alive:
        raise RunError("no node of the Ray cluster is left")
    free = ray._private.state.available_resources_per_node()  # noqa: SLF001  nothing public tells the nodes apart
    node_id = min(alive, key=lambda node: (-free.get(node, {}).get("CPU", 0.0), node))
    return ActorPlace(Node(node_id, alive[node_id], 0.0), place.ranks)


def create(actor_class: type, place: ActorPlace, *args: Any) -> Any:
    """Begin to start an actor at its place; it takes its share of the node's cores as long as it lives."""
    options = {"num_cpus": place.cpus, "scheduling_strategy": on_node(place.node.id)} if place.node.id else {}
    return (
        ray.remote(actor_class)
        .options(**{"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0} | options)
        .remote(*args)
    )


def await_all(refs: Sequence[Any], what: str, deadline_s: float, on_status: Callable[[str], None]) -> list[Any]:
    """Return the results of calls, saying every second how many of them are there.

    Raises RunError with `what` if one fails or they are not there in time.
    """
    end_s = time.monotonic() + deadline_s
    left, n_said = list(refs), 0
    while left:
        wait_s = min(PROGRESS_S, end_s - time.monotonic())
        if wait_s <= 0:
            raise RunError(
                f"{len(left)} of {len(refs)} {what} were not up after {deadline_s:g} s; does the cluster have the free "
                "cores and memory, and the Python packages?"
            )
        done, left = ray.wait(left, num_returns=len(left), timeout=wait_s)
        for ref in done:
            _raise_failure(ref, what)
        n_up = len(refs) - len(left)
        if left and n_up != n_said:
            n_said = n_up
            on_status(f"{n_up} of {len(refs)} {what} are up")
    return list(ray.get(list(refs)))


def _raise_failure(ref: Any, what: str) -> None:
    try:
        ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        raise RunError(f"one of the {what} did not start: {error.cause}") from None
    except ray.exceptions.RayError as error:
        raise RunError(f"one of the {what} did not start: {first_cause(str(error))}") from None


def first_cause(text: str) -> str:
    r"""Return the line of Ray's report that says how a process ended.

    >>> first_cause("The actor died.\nWorker exit detail: Worker exits. End of file. Some common causes include: …")
    'Worker exits. End of file'
    """
    for line in text.splitlines():
        for key in ("exit detail:", "The actor is dead because", "The actor died because"):
            if key in line:
                return line.split(key, 1)[1].split(" Some common causes", 1)[0].strip().rstrip(".")
    return text.strip().partition("\n")[0]


# --- sweeps ---------------------------------------------------------------------------------------------------------


def run_in_ray(
    function: Callable[[Any], Any], tasks: Iterable[Any], n_workers: int, address: str | None = None
) -> Iterator[tuple[Any, Any | Lost]]:
    """Yield (task, function(task)) as they are done, as `run_in_processes` does, with Ray tasks of one core each.

    On all cores of the cluster at the address; without one on a private Ray of `n_workers`.
    """
    refuse_second()
    folder = RunFolder.make()
    try:
        if address is not None:
            connect(address)
        else:
            start_private(folder.path, n_workers, n_cpus=n_workers)
        n_at_once = 2 * max(1, int(ray.cluster_resources().get("CPU", n_workers)))
        remote = ray.remote(function).options(num_cpus=1, max_retries=MOST_TRIES - 1)
        todo = iter(tasks)
        pending = {remote.remote(task): task for task in islice(todo, n_at_once)}
        while pending:
            for ref in ray.wait(list(pending), num_returns=1)[0]:
                task = pending.pop(ref)
                pending |= {remote.remote(following): following for following in islice(todo, 1)}
                try:
                    result = ray.get(ref)
                except ray.exceptions.RayError as error:
                    result = Lost(f"its process died: {type(error).__name__}, {MOST_TRIES} times")
                yield task, result
    finally:
        stop()
        folder.remove()
