"""A prediction is the sum that its makeup says, and a fit finds the constants that made its rows."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from cluster.validation.decode_fit import Measured, Rows, fitted
from cluster.validation.decode_held_out import Known, held_out
from cluster.validation.decode_makeup import Kernel, Makeup, Rest, makeups
from cluster.validation.decode_work import DecodeWork, software_named
from configs.loader import load_kernels
from configs.spec.dtype import DtypeSpec
from tests.cluster.validation.test_decode_cases import ROW
from workloads.layout import Layout

BFP8 = DtypeSpec("bfp8", "bfp8", "bf16", feed_forward="bfp4", head="bfp8")
WORKS = [
    (DecodeWork("hgx-b200", "serving-nvswitch4", "trtllm", "llama-3.2-1b", Layout(2),
                DtypeSpec("nvfp4", "fp8_e4m3", "nvfp4", head="bf16"), 16, 256, 256, "serving"), "tpot_s"),
    (DecodeWork("dgx-a100", "nccl-nvswitch2", "fastertransformer", "gpt-20b", Layout(2, pp=2),
                DtypeSpec("fp16", "fp16", "fp16"), 2, 20, 8, "batch"), "e2e_s"),
    (DecodeWork("wormhole-t3000", "tt-ccl-wormhole", "tt-metal-2024", "falcon-7b", Layout(1, dp=8), BFP8,
                64, 128, 0, "step"), "tpot_s"),
    (DecodeWork("mi300x-node", "rccl-mi300x", "vllm-2024-rocm", "mixtral-8x7b", Layout(2), DtypeSpec(),
                4, 128, 16, "batch"), "e2e_s"),
]  # fmt: skip


def constant(profile: str, name: str) -> float:
    """Return a constant of the catalogue."""
    kind, _, what = name.rpartition(".")
    if not kind and name != "rounding":
        software = software_named(profile)
        return software.stall if name == "stall" else getattr(software, f"{name}_ps") * 1e-12
    kernels = load_kernels(profile)
    if name == "rounding":
        return kernels.rounding_ps * 1e-12
    spec = kernels.kinds[kind]
    return spec.start_ps * 1e-12 if what == "start" else getattr(spec, what)


@pytest.mark.parametrize(("work", "quantity"), WORKS, ids=lambda value: getattr(value, "software", ""))
def test_a_makeup_adds_up(work, quantity):
    """Under the catalogue's constants it gives what the simulation does: with stages, replicas, one host, no graphs."""
    rows = Rows([Measured(*makeups(work, quantity), 1.0)])
    logs = np.log([constant(*name) for name in rows.constants])
    assert np.exp(rows.errors(logs)[0]) == pytest.approx(work.run()[quantity], rel=2e-3)


def known(n: int) -> list[Known]:
    """Return rows whose times are 5 us a product and 0.7 of the bandwidth, of two sources."""
    draw = np.random.default_rng(0)
    found = []
    for i in range(n):
        streamed_s = float(draw.uniform(1e-6, 1e-3))
        kernels = ((Kernel("matmul", streamed_s / 10, streamed_s, 0, rounds=False), 100.0),)
        time_s = 100 * (5e-6 + streamed_s / 0.7)
        measured = Measured("nvidia-hopper", "ideal", (Makeup(kernels, Rest()),), time_s)
        found.append(Known(evolve(ROW, id=str(i), source=f"site{i % 2} page"), measured))
    return found


def test_a_fit_finds_what_made_the_rows():
    """Within the pull to what is usual."""
    rows = Rows([one.measured for one in known(40)])
    found = dict(zip((name for _, name in rows.constants), np.exp(fitted(rows)), strict=True))
    assert found["matmul.start"] == pytest.approx(5e-6, rel=0.02)
    assert found["matmul.memory"] == pytest.approx(0.7, rel=0.01)


def test_what_is_left_out_is_told():
    """Both sources are left out in turn; one model cannot be."""
    family = held_out(known(40))["families"]["NVIDIA Hopper and Blackwell"]
    assert (family["source"]["values"], family["source"]["held_out"]["n"]) == (2, 40)
    assert family["source"]["held_out"]["p90"] < 0.02
    assert family["model"]["values"] == 0
