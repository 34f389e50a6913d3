"""Chips as Ray actors: one actor per chip, or several chips packed into each.

Ray is the control plane: it starts, watches and stops the actors (`actors`, `nodes`, `start`) and carries programs and
results. The chips' messages go over direct connections (`cluster.backends.dataplane`), what they hand over while they
run over the control connection (`cluster.backends.control`). One Ray call per run and actor, never one per message or
step.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Sequence
from typing import Any, Self

import ray
from attrs import define, field

from cluster.backends.base import Outcome, Program, Setting
from cluster.backends.control import ControlServer
from cluster.backends.folders import RunFolder
from cluster.backends.greeting import Listeners
from cluster.backends.on_ray.actor import Assignment
from cluster.backends.on_ray.actors import Actors
from cluster.backends.on_ray.attempt import Attempt
from cluster.backends.on_ray.nodes import cluster_nodes, own_node
from cluster.backends.on_ray.start import cluster_at, private_ray, refuse_second
from cluster.backends.options import RayOptions
from cluster.backends.placement import ActorPlace, Node, place_actors
from cluster.backends.processes import n_cores
from cluster.backends.resources import free_memory_bytes
from cluster.backends.supervision import LossError, Watch
from cluster.checkpoints import MOST_RESTARTS, Checkpoints, OnRestart, Restart
from cluster.chip import Emit
from cluster.selection import Choose, Chooser
from configs.errors import ChipDiedError, RunError
from workloads.roles import Roles

_LOG = logging.getLogger("chipmesh")


@define(eq=False)
class RayBackend:
    """Actors at their places, on a private Ray or on a cluster."""

    setting: Setting
    actors: Actors
    _cleanup: contextlib.ExitStack
    _choose: Choose = field(init=False)
    _run: int = 0
    _token: str = ""
    """Of the connections between the actors: a new one after a loss."""
    _failed: bool = False

    @_choose.default
    def _default_choose(self) -> Choose:
        return Chooser(self.setting.system, self.setting.contention, self.setting.topology)

    @classmethod
    def start(cls, setting: Setting, options: RayOptions) -> Self:
        """Start Ray, or connect to the cluster, and start the actors; return when all of them are up.

        Raises ConfigError if there is no such cluster or the chips do not fit on it, RunError if actors do not come up.
        """
        refuse_second()
        with contextlib.ExitStack() as cleanup:
            folder = RunFolder.make()
            cleanup.callback(folder.remove)
            mine, places = _places(setting, options, folder, cleanup)
            reach = len({mine.id, *(place.node.id for place in places)}) > 1
            listeners = Listeners.open(folder.path / "driver.sock", mine.id, mine.ip if reach else None)
            control = ControlServer(listeners, secrets.token_hex(16), _LOG.warning)
            cleanup.callback(control.close)
            owner = {rank: index for index, place in enumerate(places) for rank in place.ranks}
            actors = Actors(setting, options, folder, control, list(places), owner, reach)
            cleanup.callback(actors.end)
            actors.start()
            return cls(setting, actors, cleanup.pop_all(), token=control.token)

    def run(
        self, program: Program, args: Sequence[Any], emit: Emit, on_restart: OnRestart, roles: Roles | None = None
    ) -> list[Outcome]:
        """Run the program on every chip, whatever the roles."""
        del roles
        if self._failed:
            raise RunError("an earlier run on this cluster failed and its actors are lost; launch a new one")
        self._failed = True  # until this run has succeeded
        checkpoints = Checkpoints(self.setting.n_chips)
        watch = Watch(self.actors.control, self.actors.owner, emit, self._choose, ray.put, checkpoints)
        loss: LossError | None = None
        n_losses, from_step = 0, 0
        while True:
            try:
                if loss is not None:
                    self._bring_back(loss, checkpoints, on_restart)
                outcomes = self._attempt(program, args, watch)
            except LossError as error:
                if self.setting.on_failure == "fail":
                    raise ChipDiedError(f"{error.what}; the run is lost") from None
                loss, n_losses = error, n_losses + 1 if checkpoints.step == from_step else 1
                from_step = checkpoints.step
                if n_losses > MOST_RESTARTS:
                    again = f"{MOST_RESTARTS} restarts from step {from_step} came no further"
                    raise ChipDiedError(f"{error.what}; {again}; the run is lost") from None
            else:
                self._failed = False
                return outcomes

    def _attempt(self, program: Program, args: Sequence[Any], watch: Watch) -> list[Outcome]:
        """Run the program from the last checkpoint; raise LossError, with all actors that must be replaced."""
        self._run += 1
        watch.begin(self._run)
        every = self.setting.checkpoint_every if self.setting.on_failure == "restart" else 0
        kept, n_emitted = watch.checkpoints.latest(), dict(watch.n_emitted)
        assignment = Assignment(self._run, self._token, self.actors.addresses, every, kept, n_emitted)
        attempt = Attempt(self._run, self.actors, watch, self.actors.run(assignment, program, args))
        try:
            return attempt.outcomes()
        except LossError as loss:
            if self.setting.on_failure == "fail":
                raise
            raise attempt.stop(loss) from None

    def _bring_back(self, loss: LossError, checkpoints: Checkpoints, on_restart: OnRestart) -> None:
        """Start new actors in the place of those that are lost."""
        began_s = time.monotonic()
        self._token = secrets.token_hex(16)
        try:
            replaced = self.actors.replace(loss.actors)
        except RunError as error:
            raise LossError(loss.actors, f"{loss.what}; {error}") from None
        chips = tuple(rank for index in replaced for rank in self.actors.places[index].ranks)
        what = loss.what + self.actors.with_it(set(replaced).difference(loss.actors))
        on_restart(Restart(what, chips, checkpoints.step, time.monotonic() - began_s))

    def close(self) -> None:
        """Stop Ray, or let go of the cluster, and remove the run's folder."""
        self._cleanup.close()


def _places(
    setting: Setting, options: RayOptions, folder: RunFolder, cleanup: contextlib.ExitStack
) -> tuple[Node, tuple[ActorPlace, ...]]:
    """Start Ray or connect to it; return this node and the actors' places."""
    groups = options.all_groups(setting.n_chips)
    if options.address is None:
        mine = Node("", "127.0.0.1", n_cores(), free_memory_bytes())
        places = place_actors(groups, [mine], options.chips_per_actor, options.chip_bytes)
        cleanup.enter_context(private_ray(folder.path, len(places)))
        return mine, places
    cleanup.enter_context(cluster_at(options.address))
    nodes = cluster_nodes()
    places = place_actors(groups, nodes, options.chips_per_actor, options.chip_bytes)
    used = len({place.node.id for place in places})
    options.on_status(f"starting {len(places)} actors on {used} of {len(nodes)} nodes")
    return own_node(), places
