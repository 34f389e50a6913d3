"""Rules that tell from a row's texts what was measured: the machine, the library, how it was launched."""

from __future__ import annotations

import re

from attrs import frozen


@frozen
class Machine:
    """A family of rows: texts of system and topology that match `pattern` mean this catalogue system.

    system: of one domain, the chips that are joined without a network; a group `dims` of `shape` fills in `{dims}`.
    cluster: of several domains, whose number is overridden. size: the key that is set to a number that `shape` finds.
    """

    pattern: re.Pattern[str]
    system: str
    chips_per_domain: int
    communication: str
    cluster: str | None = None
    cluster_communication: str | None = None
    shape: re.Pattern[str] | None = None
    size: str | None = None
    racks: bool = False

    def n_domains(self, text: str, n_nodes: int | None) -> int:
        """Return over how many domains the ranks are spread."""
        if not self.racks:
            return n_nodes or 1
        found = re.search(r"(\d+) (?:full NVL72 )?(?:racks|domains)\b", text)
        return int(found[1]) if found else (n_nodes or 1) if re.search("pure RDMA", text) else 1

    def named(self, text: str, n_domains: int) -> str:
        """Return the name of the catalogue system."""
        if n_domains > 1 and self.cluster is not None:
            return self.cluster
        found = self.shape.search(text) if self.shape is not None else None
        return self.system.format(dims=found[1] if found else "")

    def overrides(self, text: str, n_domains: int) -> list[str]:
        """Return what makes the catalogue system as large as the measured one."""
        if n_domains > 1:
            chips = n_domains * self.chips_per_domain
            return [f"topology.count={n_domains}", f"topology.network.chips={chips}"]
        found = self.shape.search(text) if self.shape is not None and self.size is not None else None
        return [f"{self.size}={found[1]}"] if found else []

    def default(self, n_domains: int) -> list[str]:
        """Return the library."""
        name = self.cluster_communication if n_domains > 1 else self.communication
        return [f"communication={name}"]


def _of(pattern: str, system: str, chips: int, communication: str, cluster: tuple[str, str] | None = None,
        shape: str | None = None, size: str | None = None, racks: bool = False) -> Machine:  # fmt: skip
    name, library = cluster or (None, None)
    return Machine(
        re.compile(pattern), system, chips, communication, name, library, re.compile(shape) if shape else None, size,
        racks,
    )  # fmt: skip


SLICE = r"\b(\d+x\d+(?:x\d+)?)\b"
MACHINES = (
    _of(r"\bGB200\b", "gb200-nvl72", 72, "nccl-nvl72", ("gb200-superpod", "nccl-nvl72-roce"), racks=True),
    _of(r"\bGB300\b", "gb300-nvl72", 72, "nccl-nvl72", ("gb200-superpod", "nccl-nvl72-roce"), racks=True),
    _of(r"\bGH200\b", "gh200-node", 4, "nccl-nvlink4", ("alps-gh200-4-nodes", "nccl-nvlink4-slingshot")),
    _of(r"\bH100.*(?:p5\b|EFA)", "dgx-h100", 8, "nccl-nvswitch3", ("p5-48xlarge-4-nodes", "nccl-nvswitch3-efa")),
    _of(r"\bH100.*(?:TCPXO|A3 Mega)", "dgx-h100", 8, "nccl-nvswitch3",
        ("a3-megagpu-8g-4-nodes", "nccl-nvswitch3-tcpxo")),
    _of(r"\bH100\b", "dgx-h100", 8, "nccl-nvswitch3", ("dgx-h100-4-nodes", "nccl-nvswitch3-ib")),
    _of(r"\bH800\b", "hgx-h800", 8, "nccl-nvswitch3"),
    _of(r"\bH200.*(?:p5en|EFA)", "dgx-h200", 8, "nccl-nvswitch3", ("p5en-48xlarge-4-nodes", "nccl-nvswitch3-efa")),
    _of(r"\bH200\b", "dgx-h200", 8, "nccl-nvswitch3", ("a3-ultragpu-8g-4-nodes", "nccl-nvswitch3-gib")),
    _of(r"\bB200.*(?:p6|EFA)", "hgx-b200", 8, "nccl-nvswitch4", ("p6-b200-48xlarge-4-nodes", "nccl-nvswitch4-efa")),
    _of(r"\bB200\b", "hgx-b200", 8, "nccl-nvswitch4", ("a4-highgpu-8g-4-nodes", "nccl-nvswitch4-gib")),
    _of(r"\bB300\b", "hgx-b300", 8, "nccl-nvswitch4"),
    _of(r"\bA100\b", "dgx-a100", 8, "nccl-nvswitch2", ("dgx-a100-4-nodes", "nccl-nvswitch2-ib")),
    _of(r"\bMI300X\b", "mi300x-node", 8, "rccl-mi300x", ("mi300x-4-nodes", "rccl-mi300x-ib")),
    _of(r"\bMI325X\b", "mi325x-node", 8, "rccl-mi300x", ("mi325x-4-nodes", "rccl-mi300x-ib")),
    _of(r"\bMI355X\b", "mi355x-node", 8, "rccl-mi355x", ("mi355x-4-nodes", "rccl-mi355x-pollara")),
    _of(r"\b(?:Wormhole|WH)\b.*\bring of", "wormhole-t3000-ring", 64, "tt-ccl-wormhole", None, r"ring of (\d+)",
        "topology.dims[0]"),
    _of(r"\bBlackhole\b.*\bring of", "blackhole-galaxy-ring", 64, "tt-ccl-blackhole", None, r"ring of (\d+)",
        "topology.dims[0]"),
    _of(r"\bBlackhole Galaxy\b.*\bfabric", "blackhole-galaxy", 32, "tt-fabric-blackhole"),
    _of(r"\bT3000\b.*\bfabric", "wormhole-t3000", 8, "tt-fabric-wormhole"),
    _of(r"\bTenstorrent Galaxy\b.*\bfabric", "wormhole-galaxy", 32, "tt-fabric-wormhole"),
    _of(r"\bTenstorrent Galaxy\b.*\b8-chip axis", "wormhole-galaxy", 32, "tt-ccl-wormhole"),
    _of(r"\bTPU v5e\b", "tpu-v5e-4x8", 256, "xla-tpu"),
    _of(r"\bTPU v6e\b", "tpu-v6e-{dims}", 256, "xla-tpu", None, SLICE),
    _of(r"\bTPU ?7x\b", "tpu-v7x-{dims}", 1024, "xla-tpu", None, SLICE),
    _of(r"\bGaudi ?3\b", "gaudi3-box", 8, "hccl-gaudi3"),
)  # fmt: skip
"""Catalogue systems by what the texts say; the first that matches."""

LIBRARIES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"\bB200\b.*symmetric", "nccl-symmetric-nvswitch4"),
        (r"\bH[128]00\b.*symmetric", "nccl-symmetric-nvswitch3"),
        (r"\bB200 \|.*XLA collective_perf_table", "nccl-nvswitch4-xla"),
        (r"host buffers", "mpi-slingshot-host"),
        (r"OpenMPI|MPICH", "mpi-slingshot-gpu"),
        (r"\bA100\b.*2 nodes?.*MSCCL\+\+|8x HDR200.*16.*MSCCL\+\+", "mscclpp-nvswitch2"),
        (r"\bA100\b.*MSCCL\+\+", "mscclpp-nvswitch2"),
    )
)
"""Communication libraries other than that of the system, by the texts of system, topology and note."""

LAUNCHES = tuple(
    (re.compile(pattern), mode)
    for pattern, mode in (
        (r"no (?:CUDA |HIP )?graph", "stream"),
        (r"(?:CUDA|HIP) graph", "graph"),
        (r"torch", "eager"),
        (r"XLA collective_perf_table", "executable"),
        (r"loop iterations|Kineto|device-kernel|CI baseline|fabric", "device"),
        (r"-g \d", "one_process"),
        (r"", "stream"),
    )
)
"""How the calls were launched, by the texts; the first that matches."""

RESTRICTIONS = tuple(
    (re.compile(pattern), left_out)
    for pattern, left_out in (
        (r"NVLS_ENABLE=0|NVLS off|forced Ring|NCCL_ALGO=Ring|^Ring\b", ("NVLS", "NVLSTree", "Tree_LL", "Tree")),
        (r"forced NVLSTree", ("LL", "Simple", "Tree_LL", "Tree")),
    )
)
"""Protocols that a library was told not to use, by the note."""
