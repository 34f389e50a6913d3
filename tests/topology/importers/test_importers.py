"""The common suite of the importers: a new format adds rows to ROWS."""

import itertools
import os
from pathlib import Path

import pytest
import yaml
from attrs import frozen

from cluster.vocabulary import VOCABULARY
from configs.catalogue_files import catalogue_names
from configs.errors import ConfigError
from configs.loader import load_system
from configs.spec.system import SystemSpec
from tests.topology.importers import files
from topology import Topology, build_topology
from topology.importers import IMPORTERS, Options, import_file, nccl_xml, rccl_xml, tt_metal, tt_umd

T3K = [(0, 2), (0, 4), (0, 1), (1, 3), (1, 5), (2, 6), (2, 3), (3, 7), (4, 5), (6, 7)]
SHUFFLED_MESH = [
    (5 * a % 13, 5 * b % 13) for a in range(12) for b in (a + 3, a + 1) if b < 12 and (b == a + 3 or b % 3)
]
T3K_PLACES = {0: (1, 0), 1: (1, 1), 2: (2, 0), 3: (2, 1), 4: (0, 0), 5: (0, 1), 6: (3, 0), 7: (3, 1)}
ALL_OF_8 = dict.fromkeys(itertools.combinations(range(8), 2), 1)
PAIRS = {(0, 1): 1, (2, 3): 1}


@frozen
class Row:
    """A file and what it gives: bandwidth and latency of the first edge; the chip where any catalogue gives it."""

    name: str
    form: str
    text: str
    kind: str
    dims: tuple[int, ...]
    n_switches: int
    n_edges: int
    n_links: int
    bandwidth_bytes_per_s: float
    latency_ps: int
    chip: str = ""


ROWS = [
    Row("dgx a100", "nccl", files.nvswitch_xml(), "switch", (8,), 6, 48, 96, 50e9, 1_000_000),
    Row("unlike planes", "nccl", files.nvswitch_xml(4, (5, 4)), "switch", (4,), 2, 8, 36, 125e9, 1_000_000),
    Row("v100 cube mesh", "nccl", files.pairs_xml("nvlink", files.CUBE_MESH, 8, attributes='sm="70"', device=""),
        "graph", (8,), 0, 16, 24, 25e9, 1_000_000),
    Row("pcie only", "nccl", files.system_xml([files.gpu_xml(g, "") for g in range(4)]),
        "graph", (4,), 4, 7, 7, 8e9 * 16 / 8 * 128 / 130, 1_000_000),
    Row("nvlink pairs", "nccl", files.pairs_xml("nvlink", PAIRS, 4), "graph", (4,), 4, 9, 9, 25e9, 1_000_000),
    Row("mi300x", "rccl", files.pairs_xml("xgmi", ALL_OF_8, 8, attributes='gcn="gfx942"', device=""),
        "fully_connected", (8,), 0, 28, 28, 64e9, 1_000_000),
    Row("nv12", "nvidia-smi", files.smi_all("NV12", 8, nics=2), "switch", (8,), 1, 8, 96, 300e9, 1_000_000),
    Row("nv4 one by one", "nvidia-smi", files.smi_all("NV4", 4), "fully_connected", (4,), 0, 6, 24, 100e9, 1_000_000),
    Row("nv cube mesh", "nvidia-smi", files.smi({p: f"NV{n}" for p, n in files.CUBE_MESH.items()}, 8, nics=4),
        "graph", (8,), 0, 16, 24, 25e9, 1_000_000),
    Row("pcie tree", "nvidia-smi", files.smi({(0, 1): "PIX", (2, 3): "PIX"}, 4),
        "graph", (4,), 3, 6, 6, 25e9, 1_000_000, "h100-sxm"),
    Row("n300", "tt-umd", files.umd([(0, 1)], places={0: (0, 0), 1: (1, 0)}),
        "line", (2,), 0, 1, 2, 25e9, 711_000, "wormhole-n300"),
    Row("t3k", "tt-umd", files.umd(T3K, places=T3K_PLACES), "mesh", (4, 2), 0, 10, 20, 25e9, 711_000, "wormhole-n300"),
    Row("quietbox", "tt-umd", files.umd([(0, 2), (0, 3), (1, 3), (1, 2)], lanes=4, board="p150", arch="blackhole"),
        "ring", (4,), 0, 4, 16, 200e9, 515_000, ""),
    Row("mesh without coordinates", "tt-umd", files.umd(SHUFFLED_MESH, lanes=4, board="ubb"),
        "mesh", (4, 3), 0, 17, 68, 50e9, 711_000, "wormhole-galaxy-module"),
    Row("galaxy torus", "tt-metal", files.mgd("[ 8, 4 ]", "[ RING, RING ]"),
        "torus", (8, 4), 0, 64, 256, 50e9, 711_000, "wormhole-galaxy-module"),
    Row("loudbox", "tt-metal", files.mgd("[4, 2]", count=2), "mesh", (4, 2), 0, 10, 20, 25e9, 711_000, "wormhole-n300"),
    Row("an express link", "tt-metal", files.mgd("[4]", more="express_connections { src: 0 dst: 2 }\n"),
        "graph", (4,), 0, 4, 16, 50e9, 711_000, "wormhole-n300"),
    Row("two meshes", "tt-metal", files.TWO_MESHES, "line", (4,), 0, 3, 6, 100e9, 515_000, ""),
    Row("hgx", "astra-sim", files.astra("[ Switch ]", "[ 8 ]", "[400 ]", "[ 936.25 ]"),
        "switch", (8,), 1, 8, 8, 400e9, 936_250, "h100-sxm"),
    Row("torus", "astra-sim", files.astra("[Ring, Ring]", "[4, 8]", "[80.0, 80.0]", "[1000, 1000]"),
        "torus", (4, 8), 0, 64, 64, 80e9, 1_000_000),
    Row("unlike axes", "astra-sim", files.astra("[Ring, FullyConnected]", "[2, 3]", "[1, 2]", "[3, 4]"),
        "graph", (2, 3), 0, 9, 9, 1e9, 3_000),
    Row("switches of nodes", "astra-sim", files.astra("[Switch, Ring]", "[2, 3]", "[1, 1]", "[3, 3]"),
        "graph", (2, 3), 3, 12, 12, 1e9, 3_000),
    Row("node-link", "networkx", files.NODE_LINK, "graph", (2,), 1, 2, 3, 5e9, 7_000, "h100-sxm"),
]  # fmt: skip


@pytest.fixture(params=ROWS, ids=lambda row: row.name)
def row(request: pytest.FixtureRequest) -> Row:
    """Give each row in turn."""
    return request.param


def import_text(
    folder: Path, text: str, form: str = "auto", options: Options | None = None
) -> tuple[SystemSpec, Topology]:
    """Import a file and load the system file that it becomes."""
    path, target = folder / "some file.txt", folder / "system.yaml"
    path.write_text(text)
    target.write_text(import_file(path, form, options).to_yaml())
    spec = load_system(target, (), VOCABULARY)
    return spec, build_topology(spec)


def test_every_importer_has_a_row() -> None:
    """A format of the table that is not in ROWS is untested."""
    assert {row.form for row in ROWS} == set(IMPORTERS)


def test_a_file_gives_its_topology(row: Row, tmp_path: Path) -> None:
    """Kind, chips, switches, edges, links and figures are those of the file."""
    spec, topology = import_text(tmp_path, row.text, row.form)
    assert (topology.kind, topology.dims, topology.n_switches) == (row.kind, row.dims, row.n_switches)
    assert (len(topology.link_src) // 2, topology.n_links) == (row.n_edges, row.n_links)
    assert topology.link_bandwidth_bytes_per_s[0] == pytest.approx(row.bandwidth_bytes_per_s, rel=1e-15)
    assert topology.link_latency_ps[0] == row.latency_ps
    assert not row.chip or spec.chip.name == row.chip


def test_auto_recognises_the_format(row: Row, tmp_path: Path) -> None:
    """Only one importer takes a file for its own, and going by the content gives the same."""
    path = tmp_path / "file"
    path.write_text(row.text)
    assert import_file(path).mapping == import_file(path, row.form).mapping


def test_every_figure_has_its_source(row: Row, tmp_path: Path) -> None:
    """Bandwidth and latency cite the file, a public source, or say that they are assumed."""
    spec, _ = import_text(tmp_path, row.text, row.form)
    for figure in ("link.bandwidth", "link.latency"):
        assert spec.provenance[f"topology.{figure}"].source
    assumed = [p for p in spec.provenance.values() if p.source.startswith("assumed")]
    assert all(p.confidence == "estimate" for p in assumed)
    assert any("some file.txt" in p.source for p in spec.provenance.values())


def test_options_stand_in_for_what_the_file_does_not_say(row: Row, tmp_path: Path) -> None:
    """Given chip, bandwidth and latency leave nothing assumed, and change nothing that the file says."""
    options = Options("tpu-v4", 7e9, 123_000)
    _, before = import_text(tmp_path, row.text, row.form)
    spec, after = import_text(tmp_path, row.text, row.form, options)
    assert spec.chip.name == "tpu-v4"
    assert not [p for p in spec.provenance.values() if p.source.startswith("assumed")]
    changed = before.link_latency_ps != after.link_latency_ps
    assert set(after.link_latency_ps[changed].tolist()) <= {123_000}
    assert before.n_links == after.n_links


def test_what_is_assumed_is_said(tmp_path: Path) -> None:
    """The notes name the figure, its value and the option, and stand at the head of the system file."""
    path = tmp_path / "x"
    path.write_text(files.smi_all("NV4", 4))
    system = import_file(path)
    assert "bandwidth of 6 edges is assumed, 25GB/s a link (--link-bandwidth)" in system.notes
    assert "latency of 6 edges is assumed, 1us (--link-latency)" in system.notes
    assert any("--chip" in note for note in system.notes)
    assert all(f"# {note}" in system.to_yaml() for note in system.notes)


def test_attributes_that_mean_nothing_here_are_named(tmp_path: Path) -> None:
    """A weight is not a bandwidth: it is left out, and said to be."""
    path = tmp_path / "x"
    path.write_text(
        '{"nodes": [{"id": 1, "colour": 2}, {"id": 3}], "edges": [{"source": 1, "target": 3, "weight": 9}]}'
    )
    notes = import_file(path).notes
    assert "left out: attributes 'weight' of links" in notes
    assert "left out: attributes 'colour' of nodes" in notes


def test_ranks_that_differ_from_the_file_are_named(tmp_path: Path) -> None:
    """Coordinates decide the ranks of a mesh, and a walk those of a ring; the notes say which chip is which."""
    path = tmp_path / "x"
    path.write_text(files.umd(T3K, places=T3K_PLACES))
    assert any("chip 4, chip 5, chip 0, chip 1" in note for note in import_file(path).notes)
    path.write_text(files.umd([(0, 2), (0, 3), (1, 3), (1, 2)]))
    assert any("chip 0, chip 2, chip 1, chip 3" in note for note in import_file(path).notes)


def test_ranks_of_gpus_are_the_file_s(tmp_path: Path) -> None:
    """A ring of GPUs whose numbers do not go round it keeps its numbers."""
    ring = {(0, 2): 1, (1, 2): 1, (1, 3): 1, (0, 3): 1}
    _, topology = import_text(tmp_path, files.pairs_xml("nvlink", ring, 4))
    assert topology.kind == "graph"
    assert topology.neighbours(0).tolist() == [2, 3]


def test_pcie_of_nvidia_smi_becomes_a_tree(tmp_path: Path) -> None:
    """What two GPUs have in common is a switch; the nearer the fewer hops."""
    cells = {(0, 1): "PIX", (2, 3): "PIX", (0, 2): "NODE", (0, 3): "NODE", (1, 2): "NODE", (1, 3): "NODE"}
    _, topology = import_text(tmp_path, files.smi(cells, 6))
    hops = [[len(topology.route(a, b).links) for b in (1, 2, 4)] for a in (0,)]
    assert hops == [[2, 4, 4]]
    assert len(topology.route(4, 5).links) == 2


def test_nvswitches_that_the_dump_does_not_show(tmp_path: Path) -> None:
    """A target that is no address, and a class of bridge, stand for an NVSwitch."""
    for target, kind in (("fffffff:ffff:ff", "0x068000"), ("-1", "0x068000"), ("0000:c4:00.0", "0x060400")):
        link = f'<nvlink target="{target}" count="18" tclass="{kind}"/>'
        text = files.system_xml([files.gpu_xml(g, link, attributes='sm="90"') for g in range(8)])
        _, topology = import_text(tmp_path, text)
        assert (topology.kind, topology.n_switches, topology.n_links) == ("switch", 1, 144)


def test_the_system_file_is_yaml_that_others_read(row: Row, tmp_path: Path) -> None:
    """Another YAML reader finds the same values: nothing depends on how ours takes words."""
    path = tmp_path / "on"
    path.write_text(row.text)
    system = import_file(path)
    assert yaml.safe_load(system.to_yaml()) == yaml.safe_load(yaml.safe_dump(_plain(system.mapping)))


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", [b"\xff\xfe.xml", b"a\nb: [.xml", b"1e9", b"on.yaml", b" .xml"])
def test_any_file_name_will_do(name: bytes, tmp_path: Path) -> None:
    """The system file cites the file by its name, in whatever bytes that is, and can be read again."""
    path, target = tmp_path / os.fsdecode(name), tmp_path / "system"
    path.write_text(files.nvswitch_xml())
    target.write_text(import_file(path).to_yaml())
    assert build_topology(load_system(target, (), VOCABULARY)).n_chips == 8


def test_chips_that_formats_name_are_in_the_catalogue() -> None:
    """A device, board or architecture stands for a chip that there is; MI100 is known to be missing."""
    tables = (nccl_xml.CHIPS_BY_DEVICE, nccl_xml.CHIPS_BY_SM, rccl_xml.CHIPS_BY_DEVICE, rccl_xml.CHIPS_BY_GCN,
              tt_umd.BOARDS, tt_metal.BOARDS, tt_metal.RACKS)  # fmt: skip
    named = {name for table in tables for name in table.values()}
    assert named - set(catalogue_names("chips")) == {"mi100"}


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    """The message lists the formats."""
    (tmp_path / "x").write_text("hello")
    with pytest.raises(ConfigError, match=r"x: looks like no known format; accepted: .*nvidia-smi"):
        import_file(tmp_path / "x")
    with pytest.raises(ConfigError, match="--format: 'nvidia' is not a format; accepted: auto, nccl"):
        import_file(tmp_path / "x", "nvidia")
