"""The loader: names, paths, inline mappings, overrides, fingerprints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import yaml

from configs.catalogue_files import catalogue_entry
from configs.errors import ConfigError
from configs.loader import load_chip, load_experiment, load_model, load_system
from configs.plain import fingerprint
from configs.spec.communication import CommunicationSpec
from configs.spec.model import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

CHIP = {"name": "c", "peak": {"bf16": "1TFLOPS"}, "memory": [{"name": "dram", "capacity": "1GiB"}]}
LINK = {"bandwidth": "1GB/s", "latency": "1us"}
SYSTEM = {"name": "s", "chip": CHIP, "topology": {"kind": "mesh", "dims": [2, 2], "link": LINK}}
EXPERIMENT = {"system": SYSTEM, "model": "smollm2-135m", "workload": {"prompt": "hello"}}


def write(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else yaml.safe_dump(value))
    return path


def test_inline(vocabulary) -> None:
    """An experiment may be written in one piece; what is left out has its default."""
    spec = load_experiment(EXPERIMENT, [], vocabulary)
    assert spec.name == "inline"
    assert spec.system.topology.link.latency_ps == 1_000_000
    assert spec.system.communication == CommunicationSpec()
    assert (spec.workload.batch, spec.numerics, spec.parallel.n_ranks) == (1, "real", 1)


def test_files_refer_relative_to_themselves(tmp_path, vocabulary) -> None:
    """A relative path is relative to the file that it stands in."""
    write(tmp_path / "chips/mine.yaml", CHIP | {"name": "mine"})
    write(tmp_path / "systems/s.yaml", SYSTEM | {"chip": "../chips/mine.yaml"})
    path = write(tmp_path / "e.yaml", EXPERIMENT | {"system": "./systems/s.yaml"})
    spec = load_experiment(path, [], vocabulary)
    assert (spec.name, spec.system.chip.name) == ("e", "mine")
    assert load_experiment(str(path), [], vocabulary) == spec


def test_weights_path_is_absolute(tmp_path, vocabulary) -> None:
    """The path of weights is relative to the model's file."""
    entry = catalogue_entry("models", "smollm2-135m") | {"weights": {"path": "w.gguf"}}
    model = load_model(write(tmp_path / "m.yaml", entry), [], vocabulary)
    assert model.weights.path == str(tmp_path / "w.gguf")


def test_model_readers(tmp_path, vocabulary) -> None:
    """A model in another format is read by the reader of its suffix."""
    read = []

    def reader(path: Path) -> ModelSpec:
        read.append(path)
        return ModelSpec("from-gguf", "llama", shape=None)

    vocabulary = attrs.evolve(vocabulary, model_readers={".gguf": reader, "/": reader})
    path = write(tmp_path / "m.gguf", "")
    spec = load_experiment(EXPERIMENT, [f"model={path}"], vocabulary)
    assert (spec.model.name, read) == ("from-gguf", [path])
    assert load_model(tmp_path, [], vocabulary).name == "from-gguf"
    with pytest.raises(ConfigError, match=r"model: .*none.gguf: no such file"):
        load_experiment(EXPERIMENT | {"model": "none.gguf"}, [], vocabulary)
    with pytest.raises(ConfigError, match="read from a file of another format"):
        load_experiment(EXPERIMENT | {"model": str(path)}, ["model.shape.ffn=1"], vocabulary)


def test_figures_carry_their_source() -> None:
    """In any file a figure may name its source."""
    peak = {"bf16": {"value": "2TFLOPS", "source": "lab", "confidence": "measured"}}
    chip = load_chip(CHIP | {"sources": {"lab": "our own bench"}, "peak": peak})
    assert chip.peak_flops == {"bf16": 2e12}
    assert chip.provenance["peak.bf16"].source == "our own bench"


def test_batch_follows_prompt_ids(vocabulary) -> None:
    """The batch is the number of prompts; one prompt is repeated for a larger batch."""
    both = load_experiment(EXPERIMENT, ["workload.prompt_ids=[[1, 2], [3]]"], vocabulary).workload
    assert (both.batch, both.prompt_ids) == (2, ((1, 2), (3,)))
    one = load_experiment(EXPERIMENT, ["workload.prompt_ids=[[1]]", "workload.batch=3"], vocabulary).workload
    assert one.prompt_ids == ((1,),) * 3


@pytest.mark.parametrize(
    ("override", "get", "expected"),
    [
        ("system.topology.dims[0]=4", lambda e: e.system.topology.dims, (4, 4)),
        ("system.chip.kernel_launch=1us", lambda e: e.system.chip.kernel_launch_ps, 10**6),
        (
            "system.chip.memory[1].bandwidth=1TB/s",
            lambda e: e.system.chip.memory[1].bandwidth_bytes_per_s,
            1e12,
        ),
        (
            "system.topology.link.bandwidth=25GB/s",
            lambda e: e.system.topology.link.bandwidth_bytes_per_s,
            25e9,
        ),
        ("system=dgx-h100", lambda e: e.system.name, "dgx-h100"),
        ("system.chip=h100-sxm", lambda e: e.system.chip.name, "h100-sxm"),
        ("system.communication.launch=5us", lambda e: e.system.communication.launch_ps, 5 * 10**6),
        ("system.communication=ideal", lambda e: e.system.communication, CommunicationSpec()),
        ("workload.prompt=a b", lambda e: e.workload.prompt, "a b"),
        ('workload.prompt="a: b"', lambda e: e.workload.prompt, "a: b"),
        ("workload.prompt_tokens=7", lambda e: (e.workload.prompt, e.workload.prompt_tokens), (None, 7)),
        ("parallel={tp: 2}", lambda e: e.parallel.n_ranks, 2),
        ("collectives.all_gather=ring", lambda e: e.collectives.get("all_gather"), "ring"),
        ("model.shape.rms_eps=1e-6", lambda e: e.model.shape.rms_eps, 1e-6),
        ("seed=3", lambda e: e.seed, 3),
    ],
)
def test_override(override, get, expected, vocabulary) -> None:
    """An override reaches all that a name stands for, and changes the fingerprint if it changes a value."""
    base = load_experiment("galaxy-smollm2", [], vocabulary)
    spec = load_experiment("galaxy-smollm2", [override], vocabulary)
    assert get(spec) == expected
    assert (fingerprint(spec) == fingerprint(base)) == (get(base) == expected)


def test_overrides_in_order(vocabulary) -> None:
    """Overrides apply in order: into what the one before put there."""
    texts = ["system=dgx-h100", "system.chip.power=1kW", "system.topology.chips=4"]
    system = load_experiment("galaxy-smollm2", texts, vocabulary).system
    assert (system.name, system.chip.power_w, system.topology.chips) == ("dgx-h100", 1000.0, 4)
    assert "topology.chips" not in system.provenance
    assert "power" not in system.chip.provenance


def test_override_may_mend_a_broken_file(vocabulary) -> None:
    """What is replaced need not be right."""
    broken = EXPERIMENT | {"system": "no-such-system"}
    assert load_experiment(broken, ["system=dgx-h100"], vocabulary).system.name == "dgx-h100"


def test_overrides_of_a_system(vocabulary) -> None:
    """Systems and chips take overrides as well."""
    assert load_system("dgx-h100", ["topology.planes=[9, 9]"], vocabulary).topology.planes == (9, 9)
    assert load_chip("h100-sxm", ["power=600W"]).power_w == 600.0


def test_sources_are_left_alone(vocabulary) -> None:
    """A mapping given as source is not changed by its overrides."""
    before = yaml.safe_dump(EXPERIMENT)
    load_experiment(EXPERIMENT, ["system.topology.dims[0]=3"], vocabulary)
    assert yaml.safe_dump(EXPERIMENT) == before


def test_fingerprint_ignores_provenance_and_description(vocabulary) -> None:
    """Where a figure comes from does not decide a run; what kind of topology it is does."""
    base = load_experiment(EXPERIMENT, [], vocabulary)
    assert fingerprint(load_experiment(EXPERIMENT, ["description=other"], vocabulary)) == fingerprint(base)
    chip = attrs.evolve(base.system.chip, provenance={})
    assert fingerprint(chip) == fingerprint(base.system.chip)
    assert len(fingerprint(base)) == 64
