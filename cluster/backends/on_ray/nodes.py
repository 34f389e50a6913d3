"""The nodes of a Ray cluster: what they have free, which do not answer, where an actor comes back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.backends.placement import ActorPlace, Node
from cluster.backends.resources import survey
from configs.errors import RunError

SURVEY_S = 60.0
ANSWER_S = 5.0


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


def lost_nodes(nodes: Collection[str], suspects: Iterable[str]) -> set[str]:
    """Return those of the nodes that are lost, as far as Ray knows, and those of the suspects that do not answer.

    Ray itself takes up to half a minute to notice.
    """
    alive = {entry["NodeID"] for entry in ray.nodes() if entry["Alive"]}
    asked = {
        ray.remote(survey).options(num_cpus=0, scheduling_strategy=on_node(node), max_retries=0).remote(): node
        for node in set(suspects) & alive
    }
    lost = {*nodes, *suspects} - alive
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S) if asked else ([], [])
    for ref in ready:
        try:
            ray.get(ref)
        except ray.exceptions.RayError:
            lost.add(asked[ref])
    return lost | {asked[ref] for ref in late}


def ask(node_id: str, function: Callable[[], Any], timeout_s: float) -> Any:
    """Return what a function returns on a node, or None if that takes too long."""
    try:
        ref = ray.remote(function).options(num_cpus=0, scheduling_strategy=on_node(node_id), max_retries=0).remote()
        return ray.get(ref, timeout=timeout_s)
    except ray.exceptions.RayError:
        return None


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
