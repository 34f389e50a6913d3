"""The tree of NCCL's and RCCL's topology XML: system > cpu > pci (bridges) > gpu, nic > net.

What joins the GPUs themselves (`<nvlink>`, `<xgmi>`) is the topology where it joins all of them; otherwise the tree is
part of it, CPUs and PCI switches as switches. NICs and what stands below no GPU are left out, and so are bridges that
join one thing to one other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations

from attrs import define, field, frozen

from configs.xml_source import Element, stream_xml
from topology.importers.base import Edge, Figure, Found, Source, join_parallel, joins_all

MOST_ELEMENTS = 100_000
GPU_CLASSES = ("0x03", "0x12")
BRIDGE_CLASS = "0x0604"
NVSWITCH_CLASS = "0x0680"
_PCIE = "PCI-SIG: transfer rate * lanes * line code (8b/10b to 5 GT/s, 128b/130b to 32 GT/s, 242/256 above)"
_CPUS = Figure(10e9, "NVIDIA/nccl:src/graph/topo.h (SKL_QPI_BW, between the sockets of a host)", "estimate")


@define
class Node:
    """An element and what stands in it."""

    element: Element
    parent: Node | None
    children: list[Node] = field(factory=list)

    def all(self, name: str) -> list[Node]:
        """Return the elements of a name in this one, at any depth, in the file's order."""
        found, todo = [], [self]
        while todo:
            node = todo.pop()
            found += [node] if node.element.name == name else []
            todo += reversed(node.children)
        return found

    def get(self, key: str) -> str:
        """Return an attribute in small letters, or nothing."""
        return self.element.values.get(key, "").strip().lower()


@frozen
class Gpu:
    """A GPU: its PCI device, and its own element where the file has one."""

    pci: Node
    gpu: Node | None

    def get(self, key: str) -> str:
        """Return an attribute of the GPU's element, or nothing."""
        return self.gpu.get(key) if self.gpu else ""

    @property
    def bus_id(self) -> str:
        """Its PCI address."""
        return self.pci.get("busid")


def parse(source: Source, what: str) -> Node:
    """Return the tree of the file; raise ConfigError if its outermost element is not `<system>`."""
    roots: list[Node] = []
    stack: list[Node] = []
    n_elements = 0

    def start(element: Element, _depth: int) -> None:
        nonlocal n_elements
        n_elements += 1
        if n_elements > MOST_ELEMENTS:
            raise element.error(f"more than {MOST_ELEMENTS:,} elements; accepted: {what}")
        if not stack and element.name != "system":
            raise element.error(f"<{element.name[:40]}> stands here; accepted: <system>, {what}")
        node = Node(element, stack[-1] if stack else None)
        (stack[-1].children if stack else roots).append(node)
        stack.append(node)

    def end() -> None:
        stack.pop()

    stream_xml(source.data, source.file, what, start=start, end=end)
    return roots[0]


def gpus(source: Source, root: Node) -> list[Gpu]:
    """Return the GPUs in the order of their ranks, else of their device numbers, else of the file."""
    found = [Gpu(pci, next((c for c in pci.children if c.element.name == "gpu"), None)) for pci in root.all("pci")]
    found = [gpu for gpu in found if gpu.gpu or gpu.pci.get("class").startswith(GPU_CLASSES)]
    if not found:
        raise source.error(root.element.line, "<system>: has no GPU; accepted: <gpu> elements, or <pci> of class 0x03…")
    seen: dict[str, int] = {}
    for gpu in found:
        line = gpu.pci.element.line
        if seen.setdefault(gpu.bus_id, line) != line or not gpu.bus_id:
            where = f"that of line {seen[gpu.bus_id]} too" if gpu.bus_id else "missing"
            raise gpu.pci.element.error(f"<pci>: busid: {gpu.bus_id} is {where}; accepted: one of its own")
    for key in ("rank", "dev"):
        if all(re.fullmatch(r"[0-9]{1,9}", gpu.get(key)) for gpu in found):
            numbers = [int(gpu.get(key)) for gpu in found]
            if len(set(numbers)) == len(numbers):
                return [gpu for _, gpu in sorted(zip(numbers, found, strict=True), key=lambda pair: pair[0])]
    return found


@define
class Links:
    """The links among GPUs, and the switches that they lead to."""

    edges: list[Edge] = field(factory=list)
    switches: list[str] = field(factory=list)
    n_other: int = 0


def gpu_links(found: list[Gpu], tag: str, bandwidth: Callable[[Gpu], Figure | None]) -> Links:
    """Return the links of all GPUs by `<tag target count tclass>`; a target that is no GPU here is a switch's."""
    number = {gpu.bus_id: rank for rank, gpu in enumerate(found)}
    links = Links()
    counts: dict[tuple[int, int], int] = {}
    lines: dict[tuple[int, int], Element] = {}
    for rank, gpu in enumerate(found):
        for link in gpu.gpu.all(tag) if gpu.gpu else ():
            target, count = link.get("target"), link.element.integer("count", 1, 10_000, default=1)
            if target in number and number[target] != rank:
                pair = (rank, number[target])
                counts[pair] = counts.get(pair, 0) + count
                lines[pair] = link.element
            elif _is_switch(link) and target not in number:
                plane = _plane(links.switches, target)
                links.edges.append(Edge((rank, len(found) + plane), count, bandwidth(gpu)))
            elif link.get("tclass").startswith("0x0680"):
                links.n_other += 1
            else:
                message = f"<{tag}>: target: {target[:40]!r}; accepted: the busid of another GPU, or an NVSwitch's"
                raise link.element.error(message)
    for (a, b), count in sorted(counts.items()):
        if counts.get((b, a)) != count:
            back = counts.get((b, a), 0)
            raise lines[a, b].error(f"<{tag}>: {count} links to {found[b].bus_id}, but {back} back; accepted: as many")
        if a < b:
            links.edges.append(Edge((a, b), count, bandwidth(found[a])))
    return links


def _is_switch(link: Node) -> bool:
    """Return whether a link leads to an NVSwitch, or to one that the machine did not show."""
    target, kind = link.get("target"), link.get("tclass")
    hidden = bool(re.fullmatch(r"-1|[f:.]+[0-7]?", target))
    return hidden or (kind.startswith((NVSWITCH_CLASS, BRIDGE_CLASS)) and kind != "0x068001")


def _plane(switches: list[str], target: str) -> int:
    if target not in switches:
        switches.append(target)
    return switches.index(target)


def found_in(source: Source, root: Node, chips: list[Gpu], links: Links, chip: str) -> Found:
    """Return the topology: the GPUs' own links, and the PCI tree where they do not join all GPUs."""
    notes = []
    n_nets = len(root.all("net"))
    if n_nets:
        notes.append(f"left out: {n_nets} network ports (<net>); what joins hosts is not in this file")
    if links.n_other:
        notes.append(f"left out: {links.n_other} links of the GPUs to what is not a GPU or NVSwitch")
    edges, switches = list(links.edges), list(links.switches)
    if joins_all(edges, len(chips)):
        notes.append("left out: the PCI tree, as the GPUs' own links join them all")
    else:
        what = "do not join all GPUs" if edges else "are not in the file"
        notes.append(f"the GPUs' own links {what}: CPUs and PCI switches are part of the topology, as switches")
        tree = _tree(source, root, chips, len(chips) + len(switches))
        edges += tree.edges
        switches += tree.switches
    bus_ids = tuple(gpu.bus_id for gpu in chips)
    return Found(bus_ids + tuple(switches), join_parallel(edges), len(switches), chip=chip, notes=tuple(notes))


def _tree(source: Source, root: Node, chips: list[Gpu], first: int) -> Links:
    """Return the CPUs and PCI switches that lead to GPUs, numbered from `first`, and their edges."""
    rank = {id(gpu.pci): number for number, gpu in enumerate(chips)}
    tree = Links()

    def add(name: str) -> int:
        tree.switches.append(name)
        return first + len(tree.switches) - 1

    def leads_to_gpus(node: Node) -> list[Node]:
        return [child for child in node.children if child.element.name == "pci" and any(map(is_gpu, child.all("pci")))]

    def is_gpu(node: Node) -> bool:
        return id(node) in rank

    def descend(node: Node, above: int, slowest: Figure | None) -> None:
        slowest = _slower(slowest, _pcie(node))
        below = leads_to_gpus(node)
        here = rank.get(id(node))
        if here is None and len(below) == 1:  # a bridge on the way
            descend(below[0], above, slowest)
            return
        here = add(node.get("busid") or "PCI switch") if here is None else here
        tree.edges.append(Edge((here, above), 1, slowest))
        for child in below:
            descend(child, here, None)

    cpus: list[tuple[int, str]] = []
    for cpu in root.all("cpu"):
        below = leads_to_gpus(cpu)
        if below:
            number = add(f"cpu {cpu.get('numaid')}")
            cpus.append((number, cpu.get("host_hash")))
            for child in below:
                descend(child, number, None)
    tree.edges += [Edge((a, b), 1, _CPUS) for (a, host), (b, other) in combinations(cpus, 2) if host == other]
    if not cpus:
        raise source.error(root.element.line, "<system>: no <cpu> leads to a GPU, and their own links do not join them")
    return tree


def _slower(a: Figure | None, b: Figure | None) -> Figure | None:
    return min((x for x in (a, b) if x), key=lambda figure: figure.value, default=None)


def _pcie(pci: Node) -> Figure | None:
    """Return the payload rate of a device's PCIe link, or None where the file does not know it."""
    rate = re.match(r"([0-9]{1,3}(\.[0-9])?) ?gt/s", pci.get("link_speed"))
    lanes = re.fullmatch(r"[0-9]{1,3}", pci.get("link_width"))
    if rate is None or lanes is None or float(rate[1]) == 0 or int(lanes[0]) == 0:
        return None
    speed = float(rate[1])
    code = 0.8 if speed <= 5 else 128 / 130 if speed <= 32 else 242 / 256
    return Figure(speed * 1e9 / 8 * int(lanes[0]) * code, _PCIE, "secondary")
