"""Which machine, library and call the texts of a row mean, also of machines without a measured row."""

from __future__ import annotations

import pytest
from attrs import evolve

from cluster.validation.cases import case_of
from cluster.validation.rows import DecodeRow
from cluster.validation.vocabulary import Case, Skipped
from tests.cluster.validation.test_validate import row

TT = "Tenstorrent Wormhole LoudBox/T3000 (8 WH chips = 4 n300)"


@pytest.mark.parametrize(
    ("changed", "system", "overrides"),
    [
        ({"system": TT, "topology": "line of 4", "n_chips": 4}, "wormhole-t3000-ring", {"topology.kind=line"}),
        (
            {"system": "Tenstorrent Blackhole Galaxy", "topology": "ring of 8", "algorithm_or_note": "2 links/dir"},
            "blackhole-galaxy-ring", {"topology.kind=ring", "topology.dims[0]=8", "topology.link.count=2"},
        ),
        ({"system": "Tenstorrent Wormhole n300", "topology": "2 chips", "n_chips": 2}, "wormhole-n300", set()),
        ({"system": "TPU v5e", "topology": "8x4 slice", "n_chips": 32}, "tpu-v5e-4x8", {"communication=xla-tpu"}),
        ({"system": "TPU v5p", "topology": "4x4x4 slice", "n_chips": 64}, "tpu-v5p-4x4x4", {"communication=xla-tpu"}),
        (
            {"topology": "12 nodes x 8 H100", "n_nodes": 12, "n_chips": 96}, "dgx-h100-4-nodes",
            {"topology.count=12", "topology.network.chips=96"},
        ),
        (
            {"system": "B300", "topology": "2 nodes x 8 B300", "n_nodes": 2, "n_chips": 16}, "a4-highgpu-8g-4-nodes",
            {"topology.node=hgx-b300"},
        ),
        (
            {"algorithm_or_note": "XLA collective_perf_table: whole-executable median of 20"}, "dgx-h100",
            {"communication.protocols.NVLS=null", "communication.mode=executable"},
        ),
        ({"algorithm_or_note": "NCCL_PROTO=Simple"}, "dgx-h100", {"communication.protocols.LL=null"}),
    ],
)  # fmt: skip
def test_texts_mean_machines(changed, system, overrides):
    """The catalogue's system, as large as the text says, with the library that was used as it was told."""
    case = case_of(row(**changed))
    assert isinstance(case, Case), case
    assert case.system == system
    assert overrides <= set(case.work.overrides)
    assert case.work.run()["time_s"] > 0


@pytest.mark.parametrize(
    "collective", ["all_gather", "reduce_scatter", "all_to_all", "broadcast", "reduce", "sendrecv"]
)
@pytest.mark.parametrize("system", ["H100", "MI300X", "MI355X", "B200", "GH200", "GB200"])
def test_every_operation_has_a_time(collective, system):
    """Also those that no row has: longer than the wire takes, shorter than a hundred times that and a millisecond."""
    size = 1 << 24
    case = case_of(row(system=system, topology="one node", n_chips=4, collective=collective, message_bytes=size))
    assert isinstance(case, Case), case
    wire_s = size / 900e9
    assert wire_s / 4 < case.work.run()["time_s"] < 100 * wire_s + 1e-3


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"system": "Gaudi 3"}, "no catalogue system"),
        ({"system": "TPU v5e", "topology": "3x5 slice"}, "no catalogue system"),
        ({"n_chips": 12}, "the ranks do not fall evenly on nodes"),
        ({"n_chips": 16, "n_nodes": 3}, "the ranks do not fall evenly on nodes"),
        ({"n_chips": 16, "n_nodes": 2, "topology": "NICs unstated"}, "the network between the nodes is not stated"),
        ({"dtype": "mixed"}, "the number format is not told"),
        ({"collective": "moe_dispatch", "algorithm_or_note": "normal"}, "a kernel of its own for experts"),
        ({"collective": "moe_dispatch", "algorithm_or_note": "low-latency"}, "the shape of the experts is not told"),
    ],
)
def test_what_is_skipped_has_a_reason(changed, reason):
    """One of few."""
    case = case_of(row(**changed))
    assert isinstance(case, Skipped)
    assert case.reason == reason


def test_tokens_to_experts_are_an_all_to_all():
    """128 tokens to 8 experts of 7168 FP8 numbers with their scales; one-sided only once to each rank."""
    shape = "128 tokens/rank, hidden 7168, top-8 experts"
    dispatch = row(
        system="H800 + CX7 400G IB", topology="2 node(s) x 8 H800", n_chips=16, n_nodes=2, collective="moe_dispatch",
        algorithm_or_note="low-latency kernel", dtype="fp8", message_bytes=None, message_convention=shape,
    )  # fmt: skip
    sent, back = case_of(dispatch).work, case_of(evolve(dispatch, collective="moe_combine")).work
    assert sent.op == "all_to_all"
    assert sent.size_bytes == 128 * 8 * (7168 + 7168 // 128 * 4)
    assert back.size_bytes == 128 * 8 * 7168 * 2
    assert sent.run()["time_s"] > sent.size_bytes / 2 / 50e9
    beside = DecodeRow(
        "a", "gb200", "GB200", 4, "(MoE all-to-all, hidden 7168, top-8 of 256)", "nvfp4", "", None, None, 4, None, 512,
        None, None, "alltoall_us", 20.0, "TensorRT-LLM NVLinkOneSided", notes="alltoall_combine; 128 tokens per GPU",
    )  # fmt: skip
    once = case_of(beside)
    assert once.kind == "collective"
    assert once.work.size_bytes == round(128 * 4 * (1 - 0.75**8) * 7168 * 2)
