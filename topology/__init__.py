"""What connects the chips: nodes, links and routes.

`topology.networkx_io` is not imported here: it is slow to import, and every worker imports this.
"""

from configs.spec.topology import TopologySpec
from topology.edges import Edges
from topology.faults import refuse_cut_off, with_faults
from topology.graph import Router, Topology
from topology.kinds.compose import Cable, Compose, Nodes
from topology.kinds.dragonfly import Dragonfly
from topology.kinds.fat_tree import FatTree
from topology.kinds.fully_connected import FullyConnected
from topology.kinds.graph import Graph, GraphLink
from topology.kinds.line import Line
from topology.kinds.mesh import Mesh
from topology.kinds.ocs import Ocs
from topology.kinds.ring import Ring
from topology.kinds.switch import Switch
from topology.kinds.torus import Torus
from topology.metrics import bisection_bytes_per_s, degree, diameter_hops, islands, n_cut_off_pairs, ports
from topology.rings import hamiltonian_cycle, hamiltonian_path
from topology.routes import Route
from topology.system import build_topology, chips_of, ideal, node_systems

__all__ = [
    "TOPOLOGY_KINDS",
    "Cable",
    "Compose",
    "Dragonfly",
    "Edges",
    "FatTree",
    "FullyConnected",
    "Graph",
    "GraphLink",
    "Line",
    "Mesh",
    "Nodes",
    "Ocs",
    "Ring",
    "Route",
    "Router",
    "Switch",
    "Topology",
    "Torus",
    "bisection_bytes_per_s",
    "build_topology",
    "chips_of",
    "degree",
    "diameter_hops",
    "hamiltonian_cycle",
    "hamiltonian_path",
    "ideal",
    "islands",
    "n_cut_off_pairs",
    "node_systems",
    "ports",
    "refuse_cut_off",
    "with_faults",
]

TOPOLOGY_KINDS: dict[str, type[TopologySpec]] = {
    "compose": Compose,
    "dragonfly": Dragonfly,
    "fat_tree": FatTree,
    "fully_connected": FullyConnected,
    "graph": Graph,
    "line": Line,
    "mesh": Mesh,
    "ocs": Ocs,
    "ring": Ring,
    "switch": Switch,
    "torus": Torus,
}
