"""Bad input: a message that names the file, the key path, the value and what is accepted; no other error."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.loader import load_experiment

BASE = {
    "system": {
        "name": "s",
        "chip": {"name": "c", "peak": {"bf16": "1TFLOPS"}, "memory": [{"name": "dram", "capacity": "1GiB"}]},
        "topology": {"kind": "mesh", "dims": [2, 2], "link": {"bandwidth": "1GB/s", "latency": "1us"}},
    },
    "model": "smollm2-135m",
    "parallel": {"tp": 2},
    "workload": {"kind": "decode", "batch": 2, "prompt": "hello"},
}
DELETE = object()


def changed(path, value):
    """Return BASE with the value at a path replaced, or deleted."""
    base = copy.deepcopy(BASE)
    node = base
    for key in path[:-1]:
        node = node.setdefault(key, {}) if isinstance(node, dict) else node[key]
    if value is DELETE:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return base


TOPOLOGY, CHIP = ("system", "topology"), ("system", "chip")

BAD_VALUES = [
    (("parallel", "tp"), "four", "parallel.tp: 'four' is not a whole number; accepted: an integer ≥ 1"),
    (("parallel", "tp"), 0, "parallel.tp: 0 is out of range; accepted: an integer ≥ 1"),
    (("parallel", "tp"), 2.0, "parallel.tp: 2.0 is not a whole number"),
    (("parallel", "tp"), True, "parallel.tp: true is not a whole number"),
    (("parallel", "tp"), 10**300, "parallel.tp: 1000"),
    (
        ("parallel", "tpp"),
        2,
        "parallel.tpp: unknown key; accepted: tp, pp, dp, ep, cp, sequence, tp_grid, tp_attention; did you mean 'tp'?",
    ),
    (("parallel", "cp"), 0, "parallel.cp: 0 is out of range"),
    (("paralel",), {}, "paralel: unknown key; accepted: name, system, model"),
    (("paralel",), {}, "did you mean 'parallel'?"),
    (("parallel",), [4], "parallel: [4] is not a mapping; accepted: a mapping with the keys tp, pp"),
    (("workload",), DELETE, "workload: missing; accepted: a mapping with the keys kind"),
    (("system",), DELETE, "system: missing"),
    (("system",), 7, "system: 7 is not a reference; accepted: a name in the catalogue of systems, a path"),
    (("system",), "wormhole-galxy", "did you mean 'wormhole-galaxy'?"),
    (("system",), "./none.yaml", "system: none.yaml: no such file"),
    (("model",), "smollm", "model: 'smollm' is not in the catalogue of models; accepted: "),
    (("model",), {"name": "m", "family": "lama", "shape": {}}, "model.family: 'lama' is not a model family"),
    (
        ("model",),
        {"name": "m", "family": "llama", "shape": {}},
        "model.shape.n_layers: missing; accepted: an integer ≥ 1",
    ),
    (("model",), {"name": "m", "shape": {}}, "model.family: missing; accepted: text"),
    (
        (*TOPOLOGY, "kind"),
        "meshh",
        "kind: 'meshh' is not a topology kind; accepted: mesh, torus, line, ring, switch; did",
    ),
    ((*TOPOLOGY, "kind"), DELETE, "system.topology.kind: missing; accepted: mesh, torus"),
    ((*TOPOLOGY, "kind"), ["mesh"], "kind: ['mesh'] is not a topology kind"),
    ((*TOPOLOGY, "dims"), 4, "system.topology.dims: 4 is not a list; accepted: a list of an integer ≥ 1"),
    ((*TOPOLOGY, "dims"), [2, -2], "system.topology.dims[1]: -2 is out of range; accepted: an integer ≥ 1"),
    ((*TOPOLOGY, "axes"), ["x"], "system.topology: 1 axes for 2 dims; accepted: a name for each"),
    (
        (*TOPOLOGY, "axes"),
        [1, 2],
        "axes[0]: 1 is not text; accepted: text (in quotes if it looks like a number)",
    ),
    (
        (*TOPOLOGY, "wrap"),
        "yes",
        "system.topology.wrap: 'yes' is not one of these; accepted: true or false or a list of",
    ),
    (
        (*TOPOLOGY, "link", "bandwidth"),
        25,
        "link.bandwidth: 25 has no unit; accepted: a bandwidth such as 12.5GB/s",
    ),
    ((*TOPOLOGY, "link", "bandwidth"), "25Gbps", "bandwidth: '25Gbps' has the unit 'Gbps'; accepted"),
    (
        (*TOPOLOGY, "link", "bandwidth"),
        DELETE,
        "link.bandwidth: missing; accepted: a bandwidth such as 12.5GB/s",
    ),
    (
        (*TOPOLOGY, "link", "bandwith"),
        "1GB/s",
        "unknown key; accepted: bandwidth, latency, count; did you mean 'bandwidth'?",
    ),
    ((*TOPOLOGY, "link", "latency"), "-1us", "link.latency: '-1us' is negative"),
    ((*TOPOLOGY, "link", "count"), 0, "link.count: 0 is out of range; accepted: an integer ≥ 1"),
    ((*CHIP, "peak"), "fast", "system.chip.peak: 'fast' is not a mapping"),
    (
        (*CHIP, "links"),
        [{"name": "L", "count": 2, "bandwidth": "1GB/s", "total": "3GB/s"}],
        "system.chip.links[0].total: is count times bandwidth",
    ),
    ((*CHIP, "peak", "bf61"), "1TFLOPS", "peak.bf61: 'bf61' is not a key here; accepted: fp64, fp32"),
    (
        (*CHIP, "peak", "bf16"),
        "1GB",
        "peak.bf16: '1GB' has the unit 'GB'; accepted: a compute rate such as 74TFLOPS",
    ),
    ((*CHIP, "memory"), [], "system.chip.memory: is empty; accepted: at least one memory tier"),
    (
        (*CHIP, "memory", 0, "capacity"),
        "0B",
        "memory[0].capacity: '0B' is out of range; accepted: a size > 0",
    ),
    (
        (*CHIP, "memory", 0, "efficiency"),
        1.5,
        "efficiency: 1.5 is out of range; accepted: a number > 0 and ≤ 1",
    ),
    ((*CHIP, "memory", 0, "efficiency"), float("nan"), "efficiency: nan is not a number"),
    (
        (*CHIP, "matrix_tile"),
        [32, 32],
        "matrix_tile: [32, 32] is not a list of 3; accepted: a list of 3 times an integer ≥ 1",
    ),
    (
        (*CHIP, "power"),
        {"value": "1W", "source": "x", "confidence": "vendor"},
        "power.source: 'x' is not a key of 'sources'",
    ),
    (
        (*CHIP, "power"),
        {"value": "1W", "confidence": "sure"},
        "power.confidence: 'sure' is not a confidence; accepted: vendor",
    ),
    (
        ("system", "communication"),
        "idael",
        "communication: 'idael' is not in the catalogue of communication; accepted: ideal, ",
    ),
    (
        ("system", "communication"),
        {"link_efficiency": 0},
        "link_efficiency: 0 is out of range; accepted: a number > 0",
    ),
    (
        ("system", "routing"),
        {"ties": "up"},
        "system.routing.ties: 'up' is not a choice; accepted: positive, alternate",
    ),
    (("system", "faults"), {"chip": [1]}, "faults.chip: unknown key; accepted: links, chips, switches; did you mean '"),
    (("system", "faults"), {"chips": [-1]}, "system.faults.chips[0]: -1 is out of range; accepted: an integer ≥ 0"),
    (("system", "faults"), {"links": "x"}, "system.faults.links: 'x' is not a list; accepted: a list of text"),
    (("system", "faults"), {"links": [[1, 2, 3]]}, "system.faults.links[0]: [1, 2, 3] is not a list of 2; accepted"),
    (("workload", "batch"), 0, "workload.batch: 0 is out of range"),
    (("workload", "new_tokens"), 0, "workload.new_tokens: 0 is out of range"),
    (("workload", "kind"), "train", "workload.kind: 'train' is not a choice; accepted: decode"),
    (("workload", "prompt"), "", "workload.prompt: is empty"),
    (
        ("workload", "prompt"),
        DELETE,
        "workload: none given; accepted: exactly one of prompt, prompt_ids, prompt_tokens",
    ),
    (("workload", "prompt_tokens"), 3, "workload: prompt and prompt_tokens given; accepted: exactly one"),
    (("workload",), {"prompt_ids": []}, "workload.prompt_ids: is empty"),
    (("workload",), {"prompt_ids": [[]]}, "workload.prompt_ids[0]: is empty"),
    (
        ("workload",),
        {"prompt_ids": [[1, -1]]},
        "workload.prompt_ids[0][1]: -1 is out of range; accepted: an integer ≥ 0",
    ),
    (("workload",), {"prompt_ids": [1]}, "workload.prompt_ids[0]: 1 is not a list"),
    (
        ("workload",),
        {"prompt_ids": [[1], [2]], "batch": 3},
        "workload.batch: 3 does not match the 2 rows of prompt_ids",
    ),
    (
        ("workload", "sampling"),
        {"kind": "best"},
        "sampling.kind: 'best' is not a choice; accepted: greedy, temperature,",
    ),
    (("workload", "sampling"), {"kind": "top_k"}, "workload.sampling.k: missing; kind top_k needs it"),
    (("workload", "sampling"), {"kind": "greedy", "p": 0.5}, "workload.sampling.p: is not for kind greedy"),
    (("workload", "sampling"), {"kind": "top_p", "p": 1.5}, "workload.sampling.p: 1.5 is out of range"),
    (("workload", "sampling"), {"kind": "temperature", "temperature": 0}, "temperature: 0 is out of range"),
    (("micro_batches",), 0, "micro_batches: 0 is out of range; accepted: an integer ≥ 1"),
    (("on_failure",), "retry", "on_failure: 'retry' is not a choice; accepted: fail, restart"),
    (("checkpoint_every",), 0, "checkpoint_every: 0 is out of range; accepted: an integer ≥ 1"),
    (("checkpoint_every",), 8, "checkpoint_every: is for on_failure: restart; accepted: nothing"),
    (("tiers",), {"cache": "hbm"}, "tiers.cache: unknown key; accepted: weights, kv"),
    (("parallel", "sequence"), 3, "parallel.sequence: 3 is not true or false"),
    (("placement",), "near", "placement: 'near' is not a mapping; accepted: identity, or auto, or a mapping"),
    (("placement",), {"axes": {"xp": ["x"]}}, "placement.axes.xp:"),
    (("workload", "stop_ids"), [-1], "workload.stop_ids[0]: -1 is out of range; accepted: an integer ≥ 0"),
    (("numerics",), "fake", "numerics: 'fake' is not a choice; accepted: real, shapes"),
    (("contention",), "some", "contention: 'some' is not a choice; accepted: fluid, none"),
    (
        ("dtype",),
        {"weights": "bf61"},
        "dtype.weights: 'bf61' is not a choice; accepted: fp32, bf16, fp16, fp8_e4m3,",
    ),
    (("dtype",), {"activations": "int4"}, "dtype.activations: 'int4' is not a choice; accepted: fp32, bf16"),
    (
        ("collectives",),
        {"allreduce": "ring"},
        "collectives.allreduce: 'allreduce' is not a collective; accepted: all_reduce",
    ),
    (
        ("collectives",),
        {"all_reduce": "rng"},
        "'rng' is not an algorithm of all_reduce; accepted: auto, ring, tree",
    ),
    (("collectives",), {"all_reduce": ["ring"]}, "collectives.all_reduce: ['ring'] is not text"),
    (("name",), "x" * 1000, None),
    (("seed",), "x" * 1000, "seed: 'xxxxxxxx"),
]


@pytest.mark.parametrize(("path", "value", "message"), [case for case in BAD_VALUES if case[2]])
def test_bad_value(path, value, message, vocabulary) -> None:
    """One wrong value gives one message about it, in one short line."""
    with pytest.raises(ConfigError) as caught:
        load_experiment(changed(path, value), [], vocabulary)
    matching = [problem for problem in caught.value.problems if message in problem]
    assert matching
    assert len(matching[0]) < 480
    assert "\n" not in matching[0]
    assert matching[0].startswith("experiment: ")


BAD_OVERRIDES = [
    ("parallel.tp", "is not key=value"),
    ("=4", "is not key=value"),
    ("parallel..tp=4", "is not key=value"),
    ("parallel.tp=four", "parallel.tp: 'four' is not a whole number"),
    ("parallel.tpp=4", "parallel.tpp: unknown key; accepted: tp, pp"),
    ("paralel.tp=4", "paralel: unknown key"),
    ("parallel.tp=[", "YAML syntax"),
    ("parallel.tp.x=4", "parallel.tp: 2 has no keys to set"),
    ("parallel[0]=4", "parallel: is a mapping"),
    ("system.topology.dims[5]=4", "system.topology.dims: is a list; accepted: an index from [0] to [1]"),
    ("system.topology.link.bandwidth=25", "system.topology.link.bandwidth: 25 has no unit"),
    ("system=dgx", "system: 'dgx' is not in the catalogue of systems"),
    ("system.chip=none", "system.chip: 'none' is not in the catalogue of chips"),
    ("workload.prompt_ids=[[1], [2], [3]]", "workload.batch"),
]


@pytest.mark.parametrize(("text", "message"), BAD_OVERRIDES)
def test_bad_override(text, message, vocabulary) -> None:
    """A wrong override is named as it was given."""
    with pytest.raises(ConfigError) as caught:
        load_experiment(BASE, [text], vocabulary)
    assert len(caught.value.problems) == 1
    assert message in str(caught.value)
    assert str(caught.value).startswith("experiment" if message == "workload.batch" else f"--set {text}:")


def test_all_problems_at_once(vocabulary, tmp_path) -> None:
    """All problems of all files come in one error, which survives pickling."""
    chip = tmp_path / "c.yaml"
    chip.write_text("{peak: {bf16: 3}, memory: []}")
    bad = changed(("parallel", "tp"), 0) | {
        "numerics": "x",
        "workload": {"prompt": ""},
        "collectives": {"x": "y"},
    }
    bad["system"]["chip"] = str(chip)
    with pytest.raises(ConfigError) as caught:
        load_experiment(bad, ["seed=-1"], vocabulary)
    text = str(caught.value)
    for part in (
        "parallel.tp",
        "numerics",
        "workload.prompt",
        "collectives.x",
        f"{chip}: peak.bf16",
        "--set seed=-1: seed",
    ):
        assert part in text
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["1GB/s", "1us", "bf16"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["value", "name", "kind", "tp"]), inner)
    ),
    max_leaves=6,
)
PATHS = [
    ("system",), ("model",), ("workload",), ("parallel",), CHIP, TOPOLOGY, (*CHIP, "memory"), (*CHIP, "peak"),
    ("name",), (*CHIP, "sources"), (*TOPOLOGY, "dims"), (*TOPOLOGY, "link"), ("dtype",),
    ("workload", "prompt_ids"), ("collectives",), ("system", "communication"), (*CHIP, "matrix_tile"),
]  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), value=VALUES)
def test_never_another_error(path, value, vocabulary) -> None:
    """Whatever stands in a file, the loader returns a spec or raises a ConfigError."""
    try:
        load_experiment(changed(path, value), [], vocabulary)
    except ConfigError as error:
        problems = error.problems
    else:
        problems = ("none",)
    assert problems
