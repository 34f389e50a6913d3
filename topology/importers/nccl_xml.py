"""NCCL's topology XML: a dump (`NCCL_TOPO_DUMP_FILE`) or a file that clouds ship for a machine."""

from __future__ import annotations

from topology.importers.base import Figure, Found, Importer, Source
from topology.importers.pci_tree import Gpu, found_in, gpu_links, gpus, parse

FORM = "NCCL topology XML"
_NVLINK = "NVIDIA NVLink generations, per link and direction: stas00/ml-engineering:network/README.md"
NVLINK_BYTES_PER_S = {"60": 20e9, "70": 25e9, "80": 25e9, "90": 25e9, "100": 50e9, "103": 50e9}
CHIPS_BY_DEVICE = {
    "0x1db1": "v100-sxm2",
    "0x1db5": "v100-sxm2",
    "0x20b0": "a100-sxm-40gb",
    "0x20b2": "a100-sxm-80gb",
    "0x2330": "h100-sxm",
    "0x2331": "h100-pcie",
    "0x2335": "h200-sxm",
    "0x2901": "b200-sxm",
}
CHIPS_BY_SM = {"70": "v100-sxm2", "80": "a100-sxm-80gb", "90": "h100-sxm", "100": "b200-sxm"}


def read(source: Source) -> Found:
    """Return the GPUs, joined by NVLinks and NVSwitches, else by the PCI tree."""
    root = parse(source, FORM)
    chips = gpus(source, root)
    chip = CHIPS_BY_DEVICE.get(chips[0].pci.get("device"), CHIPS_BY_SM.get(chips[0].get("sm"), ""))
    return found_in(source, root, chips, gpu_links(chips, "nvlink", _nvlink), chip)


def _nvlink(gpu: Gpu) -> Figure | None:
    """Return what one NVLink of this generation carries."""
    value = NVLINK_BYTES_PER_S.get(gpu.get("sm"))
    return None if value is None else Figure(value, _NVLINK, "vendor")


NCCL_XML = Importer(FORM, lambda source: source.has(r"<system\b") and not source.has(r"<xgmi\b|\bgcn="), read)
