"""Everything that decides a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import field, frozen

from configs.fields import at_least, between
from configs.spec.cost import CostSpec
from configs.spec.dtype import DtypeSpec, TiersSpec
from configs.spec.model import ModelSpec
from configs.spec.parallel import IDENTITY, ExpertsSpec, ParallelSpec, PlacementSpec
from configs.spec.software import SoftwareSpec
from configs.spec.system import SystemSpec
from configs.spec.workload import MOST_ROWS, WorkloadSpec

Numerics = Literal["real", "shapes"]


Contention = Literal["fluid", "none"]


OnFailure = Literal["fail", "restart"]


@frozen
class ExperimentSpec:
    """Everything that decides a run; two equal specs give the same tokens and the same timeline.

    micro_batches: parts of a replica's rows that take turns on its chips; `overlap: true` is short for (at least) two.
    on_failure: whether a run on Ray goes on when a process is lost; checkpoint_every: from a step of so many, or else
    from its start. They decide no result.
    """

    name: str
    system: SystemSpec
    model: ModelSpec
    workload: WorkloadSpec
    parallel: ParallelSpec = ParallelSpec()
    placement: PlacementSpec = IDENTITY
    experts: ExpertsSpec = ExpertsSpec()
    numerics: Numerics = "real"
    dtype: DtypeSpec = DtypeSpec()
    tiers: TiersSpec = TiersSpec()
    software: SoftwareSpec = SoftwareSpec()
    collectives: Mapping[str, str] = field(factory=dict)
    contention: Contention = "fluid"
    overlap: bool = False
    micro_batches: int = field(default=1, metadata=between(1, MOST_ROWS))
    seed: int = field(default=0, metadata=at_least(0))
    cost: CostSpec | None = None
    on_failure: OnFailure = field(default="fail", eq=False)
    checkpoint_every: int | None = field(default=None, eq=False, metadata=at_least(1))
    description: str = field(default="", eq=False)

    @property
    def n_parts(self) -> int:
        """How many parts of the rows take turns."""
        return max(self.micro_batches, 2 if self.overlap else 1)
