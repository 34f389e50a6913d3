"""The catalogue: every file loads, is named like its file, and says where every number comes from."""

from __future__ import annotations

import json

import pytest

from cluster.vocabulary import VOCABULARY
from configs.catalogue_files import catalogue_entry, catalogue_names
from configs.document_kinds import DOCUMENT_KINDS
from configs.errors import ConfigError
from configs.loader import (
    load_chip,
    load_communication,
    load_experiment,
    load_kernels,
    load_model,
    load_software,
    load_system,
)
from configs.plain import fingerprint, to_plain
from configs.rules import check_experiment

ENTRIES = [(kind, name) for kind in DOCUMENT_KINDS for name in catalogue_names(kind)]
FIGURES = [entry for entry in ENTRIES if entry[0] != "experiments"]


@pytest.fixture
def vocabulary():
    """Return the real vocabulary: the catalogue uses all of it."""
    return VOCABULARY


def numbers_without_source(value, covered, path=""):
    """Yield the paths of numbers, and of texts with a digit and a unit, that no figure covers."""
    if isinstance(value, dict):
        covered = covered or {"value", "source", "confidence"} <= set(value)
        for key, item in value.items():
            if key not in (
                "source",
                "confidence",
                "name",
                "chip",
                "description",
                "notes",
                "sources",
                "weights",
                "axes",
            ):
                yield from numbers_without_source(item, covered, f"{path}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from numbers_without_source(item, covered, f"{path}[{i}]")
    elif covered or isinstance(value, bool):
        return
    elif isinstance(value, int | float) or (isinstance(value, str) and value[:1].isdigit()):
        yield path


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_loads_under_its_name(kind, name, vocabulary) -> None:
    """Every entry is complete and named like its file; its spec is data that JSON can hold."""
    alone = {
        "chips": load_chip, "kernels": load_kernels, "software": load_software, "communication": load_communication,
    }  # fmt: skip
    load = {"systems": load_system, "models": load_model, "experiments": load_experiment}
    spec = alone[kind](name) if kind in alone else load[kind](name, [], vocabulary)
    assert spec.name == name
    assert json.loads(json.dumps(to_plain(spec), allow_nan=False)) == to_plain(spec)
    assert fingerprint(spec) == fingerprint(spec)


@pytest.mark.parametrize(("kind", "name"), FIGURES)
def test_every_number_has_a_source(kind, name) -> None:
    """No number of a chip, a system or a model stands alone, and no source stands unused."""
    entry = catalogue_entry(kind, name)
    assert list(numbers_without_source(entry, covered=False)) == []
    text = json.dumps({key: value for key, value in entry.items() if key != "sources"})
    assert [key for key in entry["sources"] if f'"source": "{key}"' not in text] == []


def test_provenance_reaches_the_spec(vocabulary) -> None:
    """A figure's source is kept by the figure's path."""
    chip = load_chip("wormhole-n150")
    assert chip.provenance["memory[1].bandwidth"].confidence == "vendor"
    assert "0.6" not in chip.provenance
    system = load_system("wormhole-galaxy", [], vocabulary)
    assert "CCL_bandwidth" in system.provenance["topology.link.latency"].source
    assert not any(path.startswith("chip") for path in system.provenance)


@pytest.mark.parametrize(
    ("name", "n_chips"),
    [("galaxy-smollm2", 32), ("dgx-h100-smollm2", 8), ("tpu-v4-smollm2", 64), ("t3000-llama-3.1-70b", 8)],
)
def test_experiments_use_all_chips(name, n_chips, vocabulary) -> None:
    """The catalogue's experiments fill their systems exactly."""
    spec = load_experiment(name, [], vocabulary)
    check_experiment(spec, n_chips)
    with pytest.raises(ConfigError, match=rf"= {n_chips} chips; accepted: at most {n_chips - 1}"):
        check_experiment(spec, n_chips - 1)


def test_replicas_need_sequences(vocabulary) -> None:
    """There are at most as many replicas as sequences."""
    spec = load_experiment("tpu-v4-smollm2", ["workload.batch=2"], vocabulary)
    with pytest.raises(ConfigError, match="4 replicas for a batch of 2"):
        check_experiment(spec, 64)


def test_unknown_names() -> None:
    """A wrong name is answered with the nearest one."""
    with pytest.raises(ConfigError, match="did you mean 'wormhole-n150'"):
        catalogue_entry("chips", "wormhole-n15")
    with pytest.raises(ConfigError, match="did you mean 'chips'"):
        catalogue_names("chip")
