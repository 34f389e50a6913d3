"""Files that are malformed, or mean harm: each is refused with the file, the line if there is one, and the reason."""

import contextlib
from pathlib import Path

import pytest

from configs.errors import ConfigError
from tests.topology.importers import files
from topology.importers import IMPORTERS, import_file

BILLION_LAUGHS = (
    '<?xml version="1.0"?>\n<!DOCTYPE system [\n<!ENTITY a "ha">\n'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">\n' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + ']>\n<system version="1">&i;</system>\n'
)
EXTERNAL = '<!DOCTYPE system SYSTEM "file:///etc/passwd">\n<system/>\n'
A100 = files.nvswitch_xml(2)
UMD = files.umd([(0, 1)])
MGD = files.mgd("[4, 2]")
GRAPH_OF_ITSELF = """mesh_descriptors { name: "M" arch: BLACKHOLE device_topology { dims: [2] } channels { count: 2 } }
graph_descriptors { name: "G" instances { graph { graph_descriptor: "G" graph_id: 0 } } }
top_level_instance { graph { graph_descriptor: "G" graph_id: 0 } }
"""


def node_link(links: str, nodes: str = '{"id": 0}, {"id": 1}', more: str = "") -> str:
    """Return node-link JSON of these nodes and links."""
    return f'{{"nodes": [{nodes}], {more} "links": [{links}]}}'


CASES = [
    ("nccl", BILLION_LAUGHS, ":2: a document type; accepted: plain elements, without a DTD or entities"),
    ("nccl", EXTERNAL, ":1: a document type"),
    ("nccl", "<system>" + "<pci>" * 100_000, ":1: nested more than 64 deep"),
    ("nccl", "<system>\n" + "<cpu/>" * 100_001 + "</system>", ":2: more than 100,000 elements"),
    ("nccl", "<system>\n<cpu>\n</system>", ":3: is not XML: mismatched tag"),
    ("nccl", "<html></html>", ":1: <html> stands here; accepted: <system>"),
    ("nccl", "<system/>", ":1: <system>: has no GPU"),
    ("nccl", A100.replace(files.bus(1), files.bus(0)), "busid: 0000:10:00.0 is that of line"),
    ("nccl", A100.replace('count="2"', 'count="999999999999"', 1), ":5: <nvlink>: count: '999999999999'; accepted: 1"),
    ("nccl", A100.replace('count="2"', 'count="tbd"', 1), ":5: <nvlink>: count: 'tbd'"),
    ("nccl", A100.replace('"0000:c0:00.0" count="2" tclass="0x068000"', '"0000:99:00.0" tclass="0x030200"'),
     ":5: <nvlink>: target: '0000:99:00.0'; accepted: the busid of another GPU"),
    ("rccl", files.pairs_xml("xgmi", {(0, 1): 1}, 2).replace('count="1"', 'count="3"', 1),
     ":5: <xgmi>: 3 links to 0000:11:00.0, but 1 back; accepted: as many"),
    ("nvidia-smi", "GPU0 GPU1\nGPU0 X NV1\n", ":1: has 2 GPU columns and 1 GPU rows"),
    ("nvidia-smi", "GPU0 GPU1\nGPU0 X NV1\nGPU1 NV2 X\n", "GPU0 to GPU1 is NV1, but back it is NV2"),
    ("nvidia-smi", "GPU0 GPU1\nGPU0 X NV1\nGPU1 tbd X\n", ":3: GPU1: column GPU0: 'tbd'; accepted: NV and a number"),
    ("nvidia-smi", "GPU0 GPU1\nGPU0 X\nGPU1 SYS X\n", ":2: GPU0 X: is a row too many, or too short"),
    ("nvidia-smi", "GPU0 GPU2\nGPU0 X SYS\nGPU2 SYS X\n", ":1: the columns are GPU0 GPU2; accepted: GPU0, GPU1 and"),
    ("nvidia-smi", "GPU0 X\n", "has no line of columns"),
    ("tt-umd", UMD.replace("chip: 1", "chip: 7", 1), ":8: ethernet_connections[0]: chip: 7 is not among"),
    ("tt-umd", UMD.replace("chan: 1", "chan: 0"), "chip 0 has channel 0 in use by [0]; accepted: each channel once"),
    ("tt-umd", UMD.replace("chip: 1", "chip: 0", 1), "ethernet_connections[0]: joins chip 0 to itself"),
    ("tt-umd", UMD.replace("chan: 1", "chan: tbd"), "ethernet_connections[1]: [{'chip': 0, 'chan': 'tbd'}"),
    ("tt-umd", UMD.replace("0: wormhole_b0", "0: [1]"), "arch.0: [1]; accepted: a number and a word"),
    ("tt-umd", UMD.replace("arch:", "arch: &a\n  5: *a\nother:"), "the alias *a stands for no value before it"),
    ("tt-umd", "ethernet_connections: []\n", "arch: nothing; accepted: a mapping of chips"),
    ("tt-umd", "ethernet_connections: " + "[" * 1000 + "]" * 1000, ":1: nested more than 64 deep"),
    ("tt-metal", MGD.replace("[4, 2]", "[4, -2]"), ":5: dims: -2; accepted: 1 to 250,000"),
    ("tt-metal", MGD.replace("[4, 2]", "[99999, 99999]"), ":5: more than 250,000 devices"),
    ("tt-metal", MGD.replace("[4, 2]", "[tbd]"), ":5: dims: 'tbd'"),
    ("tt-metal", MGD.replace("count: 4", "count: 4000000000"), ":7: '4000000000' stands here; accepted: a whole numb"),
    ("tt-metal", MGD.replace('"M0" mesh_id', '"M1" mesh_id'), ":9: 'M1' is not the name of a mesh descriptor; accept"),
    ("tt-metal", MGD.replace("channels {", "channels ["), ":7: ':' stands here; accepted: a comma or ]"),
    ("tt-metal", MGD[:-3], "the file ends; accepted"),
    ("tt-metal", MGD.replace("channels { count: 4 policy: RELAXED }", ""), ":2: channels: given 0 times; accepted: o"),
    ("tt-metal", "mesh_descriptors " + "{ a " * 1000, "nested more than 64 deep"),
    ("tt-metal", MGD.replace("top_level_instance", "other"), ":1: top_level_instance: given 0 times"),
    ("tt-metal", GRAPH_OF_ITSELF, "nested more than 16 deep"),
    ("tt-metal", files.TWO_MESHES.replace("device_id: 1", ""), "connects a whole mesh, which does not say which devi"),
    ("tt-metal", files.TWO_MESHES.replace("device_id: 1", "device_id: 2"), "device 2; accepted: 0 to 1"),
    ("tt-metal", files.TWO_MESHES.replace("mesh_id: 1 device", "mesh_id: 9 device"), "G 0 / M 9 is not among the ins"),
    ("tt-metal", files.TWO_MESHES.replace("  connections", "graph_topology: RING\n  connections"), "'RING' does not"),
    ("astra-sim", files.astra("[Ring]", "[8]", "[tbd]", "[tbd]"), ":5: bandwidth[0]: 'tbd' is not a number of GB/s"),
    ("astra-sim", files.astra("[Ring]", "[8]", "[tbd]", "[tbd]"), ":6: latency[0]: 'tbd' is not a number of ns"),
    ("astra-sim", files.astra("[Ring]", "[8, 2]", "[1]", "[1]"), "the lists must have one entry per dimension each"),
    ("astra-sim", files.astra("[Torus]", "[8]", "[1]", "[1]"), ":2: topology[0]: 'Torus' is not a dimension"),
    ("astra-sim", files.astra("[Ring]", "[0]", "[1]", "[1]"), ":3: npus_count[0]: 0 is not a number of NPUs"),
    ("astra-sim", files.astra("[FullyConnected]", "[99999]", "[1]", "[1]"), ":3: npus_count: 99,999 chips with"),
    ("astra-sim", files.astra("[Ring]", "[8]", "[-1]", "[1]"), ":5: bandwidth[0]: '-1GB/s' is negative"),
    ("astra-sim", files.astra("[Ring]", "[8]", "[.nan]", "[1]"), ":5: bandwidth[0]: 'nanGB/s' is not a finite quanti"),
    ("astra-sim", files.astra("[Ring]", "[8]", "[1]", "[1]") + "extra: 1\n", ":7: extra: unknown key"),
    ("astra-sim", "npus_count: [8]\nnpus_count: [9]\n", ":2: the key 'npus_count' is given twice"),
    ("networkx", '{"nodes": [', ":1: is not JSON"),
    ("networkx", '{"nodes": ' + "[" * 100_000, "nested too deeply"),
    ("networkx", node_link('\n{"source": 0, "target": 7}'), ":2: links[0]: {'source': 0, 'target': 7}; acc"),
    ("networkx", node_link("", '{"id": 0},\n\n{"id": 0}'), ":3: nodes[1]: {'id': 0}; accepted: an object with an"),
    ("networkx", node_link('{"source": 0, "target": 0}'), "edge 0-0: a node cannot be linked to itself"),
    ("networkx", node_link('{"source": 0, "target": 1, "bandwidth_bytes_per_s": 1}'), "latency_ps of at least 0"),
    ("networkx", node_link('{"source": 0, "target": 1, "bandwidth_bytes_per_s": 1e999, "latency_ps": 1}'), "edge 0-1"),
    ("networkx", node_link("", more='"graph": {"dims": [9], "axes": ["x"], "wraps": [false]},'), "do not fit 2 chips"),
    ("networkx", node_link("", more='"graph": 3,'), "graph: 3; accepted: a dict"),
    ("networkx", node_link("", '{"id": 0, "kind": "switch"}'), "graph: at least one chip is needed"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "text", "message"), CASES, ids=[f"{form}: {m[:40]}" for form, _, m in CASES])
def test_a_bad_file_is_refused(form: str, text: str, message: str, tmp_path: Path) -> None:
    """The message names the file and says what is wrong, at once and in short lines."""
    path = tmp_path / "bad"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        import_file(path, form)
    matching = [problem for problem in error.value.problems if message in problem]
    assert matching, error.value.problems
    assert all(problem.startswith(str(path)) for problem in error.value.problems)
    assert all(len(problem) < 400 + len(str(path)) for problem in error.value.problems)
    assert len(error.value.problems) <= 20


@pytest.mark.parametrize("form", ["auto", *IMPORTERS])
@pytest.mark.parametrize("data", [b"", b" \n", b"\x00\xff\xfe\x80" * 100, b"\x89PNG\r\n", b"{}", b"<", b"[]", b"a: b"])
def test_what_is_no_topology_at_all(form: str, data: bytes, tmp_path: Path) -> None:
    """Empty and binary files are refused by every importer, not by an error of Python."""
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="x"):
        import_file(path, form)


@pytest.mark.parametrize("form", IMPORTERS)
def test_a_file_cut_anywhere_is_refused_or_a_topology(form: str, tmp_path: Path) -> None:
    """Whatever is left of a file gives a system or a ConfigError."""
    whole = {
        "nccl": A100, "rccl": files.pairs_xml("xgmi", {(0, 1): 1}, 2), "nvidia-smi": files.smi_all("NV4", 3),
        "tt-umd": UMD, "tt-metal": files.TWO_MESHES, "networkx": files.NODE_LINK,
        "astra-sim": files.astra("[Ring]", "[8]", "[1]", "[1]"),
    }[form]  # fmt: skip
    path = tmp_path / "x"
    for cut in range(1, len(whole), max(1, len(whole) // 60)):
        for text in (whole[:cut], whole[cut:], whole[:cut] + whole[cut + 3 :]):
            path.write_text(text)
            with contextlib.suppress(ConfigError):
                assert import_file(path, form).to_yaml()


def test_places_that_are_no_file(tmp_path: Path) -> None:
    """A folder and a missing file are named."""
    with pytest.raises(ConfigError, match="is a directory; accepted: a topology file"):
        import_file(tmp_path)
    with pytest.raises(ConfigError, match="nowhere: no such file"):
        import_file(tmp_path / "nowhere")
