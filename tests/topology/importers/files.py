"""Topology files of the forms that others write, made up for the tests."""

from __future__ import annotations

CUBE_MESH = {
    (0, 1): 1, (0, 2): 1, (0, 3): 2, (0, 4): 2, (1, 2): 2, (1, 3): 1, (1, 5): 2, (2, 3): 2,
    (2, 6): 1, (3, 7): 1, (4, 5): 1, (4, 6): 1, (4, 7): 2, (5, 6): 2, (5, 7): 1, (6, 7): 2,
}  # fmt: skip


def bus(gpu: int) -> str:
    """Return the PCI address that the files here give a GPU."""
    return f"0000:{0x10 + gpu:02x}:00.0"


def gpu_xml(gpu: int, links: str, *, attributes: str = 'sm="80"', device: str = "0x20b2") -> str:
    """Return a PCI device with its GPU."""
    pci = f'<pci busid="{bus(gpu)}" class="0x030200" device="{device}" link_speed="16.0 GT/s PCIe" link_width="16">'
    return f'{pci}<gpu dev="{gpu}" rank="{gpu}" {attributes}>{links}</gpu></pci>\n'


def system_xml(gpus: list[str]) -> str:
    """Return a host of two sockets, each with a PCI switch over half of the GPUs, and a NIC."""
    half = len(gpus) // 2
    text = '<!-- a made-up host -->\n<system version="1">\n'
    for socket, some in enumerate((gpus[:half], gpus[half:])):
        nic = f'<pci busid="0000:e{socket}:00.0" class="0x020000"><nic><net dev="{socket}" speed="1"/></nic></pci>'
        switch = f'<pci busid="0000:f{socket}:00.0" class="0x060400" link_speed="8 GT/s" link_width="16">'
        text += f'<cpu numaid="{socket}" arch="x86_64">\n{switch}\n{"".join(some)}{nic}\n</pci>\n</cpu>\n'
    return text + "</system>\n"


def nvswitch_xml(n: int = 8, planes: tuple[int, ...] = (2,) * 6) -> str:
    """Return GPUs that all have the same NVLinks to the same NVSwitches."""
    links = "".join(
        f'<nvlink target="0000:c{plane}:00.0" count="{count}" tclass="0x068000"/>' for plane, count in enumerate(planes)
    )
    return system_xml([gpu_xml(gpu, links) for gpu in range(n)])


def pairs_xml(tag: str, edges: dict[tuple[int, int], int], n: int, **more: str) -> str:
    """Return GPUs that are joined one by one."""
    links = [""] * n
    for (a, b), count in edges.items():
        for one, other in ((a, b), (b, a)):
            links[one] += f'<{tag} target="{bus(other)}" count="{count}" tclass="0x030200"/>'
    return system_xml([gpu_xml(gpu, links[gpu], **more) for gpu in range(n)])


def smi(cell: dict[tuple[int, int], str], n: int, *, nics: int = 0) -> str:
    """Return the matrix of nvidia-smi, with NICs and affinities beside it."""
    names = [f"GPU{k}" for k in range(n)] + [f"NIC{k}" for k in range(nics)]
    lines = [
        "$ nvidia-smi topo -m",
        "\t" + "\t".join(f"\x1b[4m{x}\x1b[0m" for x in names) + "\tCPU Affinity\tNUMA Affinity",
    ]
    for a in range(n):
        cells = ["X" if a == b else cell.get((min(a, b), max(a, b)), "SYS") for b in range(n)]
        lines.append("\t".join([f"GPU{a}", *cells, *["PXB"] * nics, "0-31,64-95", "0"]))
    lines += [f"NIC{k}\t" + "\t".join(["PXB"] * n) + "\t X" for k in range(nics)]
    return "\n".join(
        [*lines, "", "Legend:", "", "  X    = Self", "  NV#  = Connection traversing a bonded set of # NVLinks", ""]
    )


def smi_all(word: str, n: int, **more: int) -> str:
    """Return the matrix with the same word for every pair."""
    return smi({(a, b): word for a in range(n) for b in range(n)}, n, **more)


def umd(
    pairs: list[tuple[int, int]], *, lanes: int = 2, places: dict[int, tuple[int, int]] | None = None,
    arch: str = "wormhole_b0", board: str = "n300",
) -> str:  # fmt: skip
    """Return a cluster descriptor in which each pair has so many channels."""
    chips = sorted({chip for pair in pairs for chip in pair})
    text = "arch:\n" + "".join(f"  {chip}: {arch}\n" for chip in chips)
    if places is None:
        text += "chips:\n  {}\n"
    else:
        text += "chips: {\n" + "".join(f"  {c}: [{x},{y},0,0],\n" for c, (x, y) in places.items()) + "}\n"
    used = dict.fromkeys(chips, 0)
    text += "ethernet_connections:\n"
    for a, b in pairs:
        for _ in range(lanes):
            text += f"  -\n    - chip: {a}\n      chan: {used[a]}\n    - chip: {b}\n      chan: {used[b]}\n"
            used[a], used[b] = used[a] + 1, used[b] + 1
    text += "ethernet_connections_to_remote_devices:\n  []\nchips_with_mmio:\n  - 0: 1\n"
    return text + f"boards: [[{{board_id: 72058994491072686}}, {{board_type: {board}}}, {{chips: {chips}}}]]\n"


def mgd(dims: str, types: str = "", *, count: int = 4, arch: str = "WORMHOLE_B0", more: str = "") -> str:
    """Return a mesh graph descriptor of one mesh."""
    kinds = f" dim_types: {types}" if types else ""
    return (
        f'# one mesh\nmesh_descriptors {{\n  name: "M0"\n  arch: {arch}\n  device_topology {{ dims: {dims}{kinds} }}\n'
        f"  host_topology   {{ dims: [ 1, 1 ] }}\n  channels {{ count: {count} policy: RELAXED }}\n{more}}}\n"
        'top_level_instance { mesh { mesh_descriptor: "M0" mesh_id: 0 } }\n'
    )


TWO_MESHES = """
mesh_descriptors: < name: 'M' arch: BLACKHOLE device_topology: { dims: [2] } channels: { count: 2 } >
graph_descriptors {
  name: "G" type: "FABRIC"
  instances { mesh { mesh_descriptor: "M" mesh_id: 0 } }
  instances { mesh { mesh_descriptor: "M" mesh_id: 1 } }
  connections {
    nodes { mesh { mesh_descriptor: "M" mesh_id: 0 device_id: 1 } }
    nodes { mesh { mesh_descriptor: "M" mesh_id: 1 device_id: 0 } }
    channels { count: 2 }
  }
}
top_level_instance { graph { graph_descriptor: "G" graph_id: 0 } }
"""


def astra(topology: str, npus: str, bandwidth: str, latency: str) -> str:
    """Return a network file."""
    return (
        f"# a made-up network\ntopology: {topology}  # Ring, FullyConnected, Switch\nnpus_count: {npus}\n\n"
        f"bandwidth: {bandwidth}  # GB/s\nlatency: {latency}  # ns\n"
    )


NODE_LINK = """{"directed": false, "multigraph": false, "graph": {},
 "nodes": [{"id": "a"}, {"id": "b"}, {"id": "leaf", "kind": "switch"}],
 "links": [
  {"source": "a", "target": "leaf", "bandwidth_bytes_per_s": 5e9, "latency_ps": 7000},
  {"source": "b", "target": "leaf", "bandwidth_bytes_per_s": 1e10, "latency_ps": 7000, "count": 2}
 ]}
"""
