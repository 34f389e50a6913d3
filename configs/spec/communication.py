"""What a communication library adds to the links."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from configs.algorithm_names import base_name, split_name
from configs.errors import ConfigError
from configs.fields import above, at_least
from configs.problems import unknown
from configs.spec.provenance import Provenance


@frozen
class ProtocolSpec:
    """One way in which a library carries out schedules; `auto` takes the fastest pair of algorithm and protocol.

    algorithms: what it serves, as `auto` names them. operations: of those only these; empty: all.
    base_ps: once per call, on every rank. step_ps, network_step_ps: before every message, inside a node and between
    nodes (`topology.Topology.domain_of_chip`). message_ps: a rank's messages of one step leave so far apart.
    payload, network_payload: the fraction of the bytes on a wire that is data, inside a node and between nodes.
    min_ranks, max_ranks, max_size_bytes (of a rank's input): the library's own limits.
    """

    algorithms: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    base_ps: int = 0
    step_ps: int = 0
    network_step_ps: int = 0
    message_ps: int = 0
    payload: float = field(default=1.0, metadata=above(0, 1))
    network_payload: float = field(default=1.0, metadata=above(0, 1))
    min_ranks: int = field(default=2, metadata=at_least(2))
    max_ranks: int | None = field(default=None, metadata=at_least(2))
    max_size_bytes: int | None = field(default=None, metadata=at_least(0))

    def serves(self, op: str, n_ranks: int, size_bytes: float) -> bool:
        """Tell whether the library uses it for such a call."""
        return (
            (not self.operations or op in self.operations)
            and self.min_ranks <= n_ranks <= (self.max_ranks or n_ranks)
            and size_bytes <= (self.max_size_bytes if self.max_size_bytes is not None else size_bytes)
        )


NO_PROTOCOL = ProtocolSpec()


@frozen
class CommunicationSpec:
    """What the communication library adds to the links; `ideal` is all zeros and the whole link.

    launch_ps: once per collective or point-to-point call, on every rank.
    launches_ps: further ones by the way in which a program launches it; `mode` is the way, without one there is none.
    step_ps: once per step of a schedule, on every rank.
    link_efficiency: the fraction of every link's bandwidth that carries payload.
    in_network_min_ranks: `auto` lets switches add only for groups of at least so many ranks.
    protocols: the ways in which schedules are carried out, None for one that is left out; a schedule that none of them
    serves takes the figures above.
    """

    launch_ps: int = 0
    launches_ps: Mapping[str, int] = field(factory=dict)
    mode: str | None = None
    step_ps: int = 0
    link_efficiency: float = field(default=1.0, metadata=above(0, 1))
    in_network_min_ranks: int = field(default=2, metadata=at_least(2))
    protocols: Mapping[str, ProtocolSpec | None] = field(factory=dict)
    name: str = field(default="", eq=False)
    description: str = field(default="", eq=False)
    provenance: Mapping[str, Provenance] = field(factory=dict, eq=False)

    def __attrs_post_init__(self) -> None:
        if self.mode is not None and self.mode not in self.launches_ps:
            raise ConfigError((f"mode: {unknown(self.mode, 'a way of launching', tuple(self.launches_ps))}",))

    @property
    def call_ps(self) -> int:
        """What the launch of a call costs."""
        return self.launch_ps + (self.launches_ps[self.mode] if self.mode is not None else 0)

    @property
    def used_protocols(self) -> dict[str, ProtocolSpec]:
        """The protocols that are not left out, by name."""
        return {name: protocol for name, protocol in sorted(self.protocols.items()) if protocol is not None}

    def protocol_of(self, op: str, algorithm: str, n_ranks: int, size_bytes: float) -> ProtocolSpec:
        """Return the protocol that an algorithm's name says (`ring:protocol=LL`), or the first by name that serves it.

        Raises ConfigError for a protocol that there is not.
        """
        name, parameters = split_name(algorithm)
        said = parameters.get("protocol")
        if said is not None:
            if said not in self.used_protocols:
                names = tuple(self.used_protocols)
                raise ConfigError((f"{algorithm}: {unknown(said, 'a protocol of this system', names)}",))
            return self.used_protocols[str(said)]
        for protocol in self.used_protocols.values():
            if name in map(base_name, protocol.algorithms) and protocol.serves(op, n_ranks, size_bytes):
                return protocol
        return NO_PROTOCOL
