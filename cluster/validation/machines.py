"""Rules that tell from a row's texts what was measured: the machine, the library, how it was launched."""

from __future__ import annotations

import re

from attrs import frozen

Setting = tuple[re.Pattern[str], str]
"""A pattern, and the key of a system that is set to what its group finds."""


@frozen
class Machine:
    """A family of rows: texts of system and topology that match `pattern` mean this catalogue system.

    system: of one domain, the chips that are joined without a network; a group `dims` of `shape` fills in `{dims}`.
    cluster: of several domains, whose number is overridden. settings: what else the texts say of the system.
    node: the system of one domain, where the cluster is one of other nodes.
    """

    pattern: re.Pattern[str]
    system: str
    chips_per_domain: int
    cluster: str | None = None
    shape: re.Pattern[str] | None = None
    settings: tuple[Setting, ...] = ()
    node: str | None = None
    racks: bool = False

    def n_domains(self, text: str, n_nodes: int | None) -> int:
        """Return over how many domains the ranks are spread."""
        if not self.racks:
            return n_nodes or 1
        found = re.search(r"(\d+) (?:full NVL72 )?(?:racks|domains)\b", text)
        return int(found[1]) if found else (n_nodes or 1) if re.search("pure RDMA", text) else 1

    def named(self, text: str, n_domains: int) -> str | None:
        """Return the name of the catalogue system; None where the text lacks the shape that is part of it."""
        if n_domains > 1 and self.cluster is not None:
            return self.cluster
        if self.shape is None:
            return self.system
        found = self.shape.search(text)
        if found is None:
            return None
        dims = found[1].split("x")
        return self.system.format(dims="x".join(dims if len(dims) > 2 else sorted(dims, key=int)))

    def overrides(self, text: str, n_domains: int) -> list[str]:
        """Return what makes the catalogue system as large as the measured one."""
        if n_domains > 1:
            chips = n_domains * self.chips_per_domain
            node = [f"topology.node={self.node}"] if self.node else []
            return [*node, f"topology.count={n_domains}", f"topology.network.chips={chips}"]
        found = [(pattern.search(text), key) for pattern, key in self.settings]
        return [f"{key}={match[1]}" for match, key in found if match is not None]


def _of(
    pattern: str, system: str, chips: int, cluster: str | None = None, shape: str | None = None,
    settings: tuple[Setting, ...] = (), *, node: str | None = None, racks: bool = False,
) -> Machine:  # fmt: skip
    form = re.compile(shape) if shape else None
    return Machine(re.compile(pattern), system, chips, cluster, form, settings, node, racks)


SLICE = r"\b(\d+x\d+(?:x\d+)?)\b"
ETHERNET = (
    (re.compile(r"\b(ring|line) of \d"), "topology.kind"),
    (re.compile(r"\b(?:ring|line) of (\d+)"), "topology.dims[0]"),
    (re.compile(r"\b(\d+) (?:Ethernet )?links?/dir"), "topology.link.count"),
)
"""What is said of chips in a row that are joined by Ethernet."""
MACHINES = (
    _of(r"\bGB200\b", "gb200-nvl72", 72, "gb200-superpod", racks=True),
    _of(r"\bGB300\b", "gb300-nvl72", 72, "gb200-superpod", racks=True),
    _of(r"\bGH200\b", "gh200-node", 4, "alps-gh200-4-nodes"),
    _of(r"\bH100.*(?:p5\b|EFA)", "dgx-h100", 8, "p5-48xlarge-4-nodes"),
    _of(r"\bH100.*(?:TCPXO|A3 Mega)", "dgx-h100", 8, "a3-megagpu-8g-4-nodes"),
    _of(r"\bH100\b", "dgx-h100", 8, "dgx-h100-4-nodes"),
    _of(r"\bH800\b", "hgx-h800", 8, "dgx-h100-4-nodes", node="hgx-h800"),
    _of(r"\bH200.*(?:p5en|EFA)", "dgx-h200", 8, "p5en-48xlarge-4-nodes"),
    _of(r"\bH200\b", "dgx-h200", 8, "a3-ultragpu-8g-4-nodes"),
    _of(r"\bB200.*(?:p6|EFA)", "hgx-b200", 8, "p6-b200-48xlarge-4-nodes"),
    _of(r"\bB200\b", "hgx-b200", 8, "a4-highgpu-8g-4-nodes"),
    _of(r"\bB300\b", "hgx-b300", 8, "a4-highgpu-8g-4-nodes", node="hgx-b300"),
    _of(r"\bA100\b", "dgx-a100", 8, "dgx-a100-4-nodes"),
    _of(r"\bMI300X\b", "mi300x-node", 8, "mi300x-4-nodes"),
    _of(r"\bMI325X\b", "mi325x-node", 8, "mi325x-4-nodes"),
    _of(r"\bMI355X\b", "mi355x-node", 8, "mi355x-4-nodes"),
    _of(r"\b(?:Wormhole|WH)\b.*\b(?:ring|line) of", "wormhole-t3000-ring", 64, None, None, ETHERNET),
    _of(r"\b(?:Blackhole|BH)\b.*\b(?:ring|line) of", "blackhole-galaxy-ring", 64, None, None, ETHERNET),
    _of(r"\bBlackhole Galaxy\b", "blackhole-galaxy", 32),
    _of(r"\bT3000\b", "wormhole-t3000", 8),
    _of(r"\b(?:Tenstorrent|Wormhole) Galaxy\b", "wormhole-galaxy", 32),
    _of(r"\bn300\b", "wormhole-n300", 2),
    _of(r"\bTPU v5e\b", "tpu-v5e-{dims}", 256, None, SLICE),
    _of(r"\bTPU v5p\b", "tpu-v5p-{dims}", 8960, None, SLICE),
    _of(r"\bTPU v4\b", "tpu-v4-{dims}", 4096, None, SLICE),
    _of(r"\bTPU v6e\b", "tpu-v6e-{dims}", 256, None, SLICE),
    _of(r"\bTPU ?7x\b", "tpu-v7x-{dims}", 9216, None, SLICE),
)
"""Catalogue systems by what the texts say; the first that matches."""

LIBRARIES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"\bBlackhole\b.*fabric, neighbour", "tt-fabric-blackhole"),
        (r"fabric, neighbour", "tt-fabric-wormhole"),
        (r"\bB200\b.*symmetric", "nccl-symmetric-nvswitch4"),
        (r"\bH[128]00\b.*symmetric", "nccl-symmetric-nvswitch3"),
        (r"\bB200 \|.*XLA collective_perf_table", "nccl-nvswitch4-xla"),
        (r"host buffers", "mpi-slingshot-host"),
        (r"OpenMPI|MPICH", "mpi-slingshot-gpu"),
        (r"\bA100\b.*MSCCL\+\+", "mscclpp-nvswitch2"),
        (r"\bTPU", "xla-tpu"),
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

SWITCHED = ("NVLS", "NVLS_small_chunks", "NVLSTree", "NVLSTree_small_chunks")
LOW_LATENCY = ("LL", "LL128", "Tree_LL", "Chain_LL", "P2P_LL", "Direct_LL", "Gather_LL")
RESTRICTIONS = tuple(
    (re.compile(pattern), left_out)
    for pattern, left_out in (
        (r"NVLS_ENABLE=0|NVLS off|whole-executable", SWITCHED),
        (r"forced Ring|NCCL_ALGO=Ring|^Ring\b", (*SWITCHED, "Tree_LL", "Tree")),
        (r"forced Tree|NCCL_ALGO=Tree|^Tree\b", (*SWITCHED, "LL", "LL128", "Simple", "Ring")),
        (r"forced NVLSTree|NCCL_ALGO=NVLSTree", ("LL", "LL128", "Simple", "Tree_LL", "Tree")),
        (r"NCCL_PROTO=Simple", LOW_LATENCY),
        (r"NCCL_PROTO=LL\b", ("LL128", "Simple", "Tree", "P2P", *SWITCHED, "Direct", "Ring")),
    )
)
"""Protocols that a library was told not to use, or that (registered buffers) it could not, by the note."""
