"""RCCL's dialect of the topology XML: `<xgmi>` in place of `<nvlink>`, `gcn` in place of `sm`."""

from __future__ import annotations

from topology.importers.base import Figure, Found, Importer, Source
from topology.importers.pci_tree import Gpu, found_in, gpu_links, gpus, parse

FORM = "RCCL topology XML"
_XGMI = "AMD Infinity Fabric, peak per link and direction: data sheets of Instinct MI100, MI250X, MI300X, MI355X"
XGMI_BYTES_PER_S = {"908": 46e9, "90a": 50e9, "942": 64e9, "950": 76.5e9}
CHIPS_BY_DEVICE = {"0x74a1": "mi300x", "0x74a5": "mi325x", "0x75a3": "mi355x", "0x7408": "mi250x-gcd"}
CHIPS_BY_GCN = {"90a": "mi250x-gcd", "942": "mi300x", "950": "mi355x", "908": "mi100"}


def read(source: Source) -> Found:
    """Return the GPUs, joined by xGMI, else by the PCI tree."""
    root = parse(source, FORM)
    chips = gpus(source, root)
    chip = CHIPS_BY_DEVICE.get(chips[0].pci.get("device"), CHIPS_BY_GCN.get(_gcn(chips[0]), ""))
    return found_in(source, root, chips, gpu_links(chips, "xgmi", _xgmi), chip)


def _gcn(gpu: Gpu) -> str:
    """Return the architecture, which older files write as 908 or 910 and newer ones as gfx942."""
    name = gpu.get("gcn").removeprefix("gfx")
    return "90a" if name == "910" else name


def _xgmi(gpu: Gpu) -> Figure | None:
    """Return what one xGMI link of this generation carries."""
    value = XGMI_BYTES_PER_S.get(_gcn(gpu))
    return None if value is None else Figure(value, _XGMI, "vendor")


RCCL_XML = Importer(FORM, lambda source: source.has(r"<system\b") and source.has(r"<xgmi\b|\bgcn="), read)
