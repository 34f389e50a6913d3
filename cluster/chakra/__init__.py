"""Execution traces of MLCommons Chakra, out and in (docs/traces.md): the form that ASTRA-sim takes."""

from cluster.chakra.read import Execution, read_chakra
from cluster.chakra.replay import Replayed, replay
from cluster.chakra.write import write_chakra

__all__ = ["Execution", "Replayed", "read_chakra", "replay", "write_chakra"]
