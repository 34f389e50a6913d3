"""Topology files of others: a format is one file here, with a row in `IMPORTERS`.

Not imported by `topology` itself: only a command that imports a file needs it.
"""

from __future__ import annotations

from pathlib import Path

from configs.errors import ConfigError
from configs.problems import unknown
from topology.importers.astra_sim import ASTRA_SIM
from topology.importers.base import Importer, Source
from topology.importers.nccl_xml import NCCL_XML
from topology.importers.networkx_json import NETWORKX
from topology.importers.nvidia_smi import NVIDIA_SMI
from topology.importers.rccl_xml import RCCL_XML
from topology.importers.system import Options, System, system
from topology.importers.tt_metal import TT_METAL
from topology.importers.tt_umd import TT_UMD

__all__ = ["IMPORTERS", "Options", "System", "import_file"]

IMPORTERS: dict[str, Importer] = {
    "nccl": NCCL_XML,
    "rccl": RCCL_XML,
    "nvidia-smi": NVIDIA_SMI,
    "tt-umd": TT_UMD,
    "tt-metal": TT_METAL,
    "astra-sim": ASTRA_SIM,
    "networkx": NETWORKX,
}


def import_file(path: Path, form: str = "auto", options: Options | None = None) -> System:
    """Return the system that a file describes; `form` is a key of IMPORTERS, or `auto` to go by the content."""
    names = ("auto", *IMPORTERS)
    if form not in names:
        raise ConfigError((f"--format: {unknown(form, 'a format', names)}",))
    source = Source.read(path)
    importer = IMPORTERS[form] if form != "auto" else _recognised(source)
    return system(importer.read(source), source.file, importer.form, options or Options())


def _recognised(source: Source) -> Importer:
    found = [importer for importer in IMPORTERS.values() if importer.recognise(source)]
    if len(found) != 1:
        forms = ", ".join(f"{importer.form} ({name})" for name, importer in IMPORTERS.items())
        what = "no known format" if not found else "several formats at once"
        raise source.error(0, f"looks like {what}; accepted: {forms}, or --format to say which it is")
    return found[0]
