"""Load experiments, systems, chips and models: the one door from files to frozen specs.

    source ─► resolve (names and paths become mappings) ─► --set ─► structure ─► rules ─► spec

Every step notes its problems; all of them are raised together, as one `ConfigError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from configs.algorithm_names import Offered, is_algorithm_file
from configs.document_kinds import DOCUMENT_KINDS
from configs.overrides import apply_overrides
from configs.problems import Place, Problems, unknown
from configs.resolve import FAILED, Document, Origin, Resolver, expand
from configs.rules import RULES, collectives_rule
from configs.spec.chip import ChipSpec
from configs.spec.communication import CommunicationSpec
from configs.spec.experiment import ExperimentSpec
from configs.spec.kernels import KernelsSpec
from configs.spec.model import ModelSpec
from configs.spec.parallel import AUTO, IDENTITY, PlacementSpec
from configs.spec.software import SoftwareSpec
from configs.spec.system import SystemSpec
from configs.spec.topology import TopologySpec
from configs.spec.workload import WorkloadSpec
from configs.structure import Structurer

Source = str | Path | Mapping[str, Any]
_HERE = Path()


@frozen
class Vocabulary:
    """What the upper layers offer, by the names that files use.

    topology_kinds, model_families: frozen attrs classes of the parameters of each kind.
    model_readers: readers of models in other formats, by suffix (".gguf"); "/" reads a folder.
    algorithms: for each collective operation, its algorithms and their parameters ("auto" goes without saying).
    """

    topology_kinds: Mapping[str, type] = field(factory=dict)
    model_families: Mapping[str, type] = field(factory=dict)
    model_readers: Mapping[str, Callable[[Path], ModelSpec]] = field(factory=dict)
    algorithms: Mapping[str, Offered] = field(factory=dict)


def load_experiment(
    source: Source, overrides: Sequence[str], vocabulary: Vocabulary, folder: Path = _HERE
) -> ExperimentSpec:
    """Return the experiment of a catalogue name, a path or a mapping, with its overrides applied.

    folder: where relative paths begin that are given here, not in a file: the source, and those in overrides.
    """
    experiment: ExperimentSpec = _load("experiments", source, overrides, vocabulary, folder)
    return attrs.evolve(experiment, workload=_with_row_per_sequence(experiment.workload))


def load_system(source: Source, overrides: Sequence[str], vocabulary: Vocabulary) -> SystemSpec:
    """Return the system of a catalogue name, a path or a mapping, with its overrides applied."""
    system: SystemSpec = _load("systems", source, overrides, vocabulary)
    return system


def load_chip(source: Source, overrides: Sequence[str] = ()) -> ChipSpec:
    """Return the chip of a catalogue name, a path or a mapping, with its overrides applied.

    >>> load_chip("wormhole-n150").peak_flops["bf16"]
    74000000000000.0
    """
    chip: ChipSpec = _load("chips", source, overrides, Vocabulary())
    return chip


def load_kernels(source: Source, overrides: Sequence[str] = ()) -> KernelsSpec:
    """Return what kernels reach, of a catalogue name, a path or a mapping, with its overrides applied."""
    kernels: KernelsSpec = _load("kernels", source, overrides, Vocabulary())
    return kernels


def load_communication(source: Source, overrides: Sequence[str] = ()) -> CommunicationSpec:
    """Return what a library adds, of a catalogue name, a path or a mapping, with its overrides applied."""
    communication: CommunicationSpec = _load("communication", source, overrides, Vocabulary())
    return communication


def load_software(source: Source, overrides: Sequence[str] = ()) -> SoftwareSpec:
    """Return the serving software of a catalogue name, a path or a mapping, with its overrides applied."""
    software: SoftwareSpec = _load("software", source, overrides, Vocabulary())
    return software


def load_model(source: Source, overrides: Sequence[str], vocabulary: Vocabulary) -> ModelSpec:
    """Return the model of a catalogue name, a path or a mapping, with its overrides applied."""
    model: ModelSpec = _load("models", source, overrides, vocabulary)
    return model


def _load(kind: str, source: Source, overrides: Sequence[str], vocabulary: Vocabulary, folder: Path = _HERE) -> Any:
    problems = Problems()
    resolver = Resolver(problems, vocabulary.model_readers, folder)
    place = Place(_label(kind, source, folder))
    value = resolver.resolve(kind, source, place, Origin(None, folder))
    if isinstance(value, Document):
        apply_overrides(value, overrides, place, resolver)
        resolver.resolve_slots(value, place)
        _default_batch(value)
        _note_collectives(value, value.enter(place), vocabulary, resolver)
    elif overrides and value is not FAILED:
        problems.found += [f"--set {text}: {place.file} is not a YAML file, it cannot be changed" for text in overrides]
    structurer = Structurer(problems, _hooks(vocabulary, folder), WORDS, RULES)
    result = structurer.structure(DOCUMENT_KINDS[kind].spec, value, place)
    problems.raise_if_any()
    return result


WORDS: Mapping[type, Mapping[str, Any]] = {
    **{kind.spec: kind.words for kind in DOCUMENT_KINDS.values()},
    PlacementSpec: {"identity": IDENTITY, "auto": AUTO},
}
"""Words that stand for a whole mapping."""


def _label(kind: str, source: object, folder: Path) -> str:
    is_path = isinstance(source, Path) or (
        isinstance(source, str) and ("/" in source or source.endswith((".yaml", ".yml")))
    )
    return str(folder / expand(str(source))) if is_path else kind.removesuffix("s")


def _hooks(vocabulary: Vocabulary, folder: Path) -> dict[Any, Any]:
    def topology(structurer: Structurer, value: Any, place: Place) -> Any:
        return _topology(structurer, value, place, vocabulary.topology_kinds)

    def model(structurer: Structurer, value: Any, place: Place) -> Any:
        return _model(structurer, value, place, vocabulary.model_families, folder)

    return {TopologySpec: topology, ModelSpec: model}


def _topology(structurer: Structurer, value: Any, place: Place, kinds: Mapping[str, type]) -> Any:
    accepted = "a mapping with the key kind, one of " + ", ".join(kinds)
    if attrs.has(type(value)):
        return value
    if isinstance(value, Document):  # a node of a composed topology
        return structurer.structure(SystemSpec, value, place)
    if not isinstance(value, Mapping):
        return structurer.refuse(place, value, "a topology", accepted)
    if "kind" not in value:
        structurer.problems.add(place.child("kind"), f"missing; accepted: {', '.join(kinds)}")
        return FAILED
    kind = value["kind"]
    if not isinstance(kind, str) or kind not in kinds:
        structurer.problems.add(place.child("kind"), unknown(kind, "a topology kind", tuple(kinds)))
        return FAILED
    return structurer.structure_class(kinds[kind], {k: v for k, v in value.items() if k != "kind"}, place)


def _model(structurer: Structurer, value: Any, place: Place, families: Mapping[str, type], folder: Path) -> Any:
    if isinstance(value, ModelSpec):
        return value
    family = value.get("family") if isinstance(value, Document) else None
    known = isinstance(family, str) and family in families
    if isinstance(value, Document) and family is not None and not known:
        inside = value.enter(place)
        structurer.problems.add(inside.child("family"), unknown(family, "a model family", tuple(families)))
        value["family"] = FAILED
    if isinstance(value, Document) and isinstance(weights := value.get("weights"), dict):
        path_place = value.enter(place).child("weights").child("path")
        overridden = structurer.problems.override_at(path_place) is not None
        value["weights"] = _with_absolute_path(weights, folder if overridden else value.origin.folder)
    return structurer.structure_class(ModelSpec, value, place, {"shape": families[str(family)]} if known else {})


def _with_absolute_path(weights: dict[str, Any], folder: Path) -> dict[str, Any]:
    path = weights.get("path")
    return weights | {"path": str((folder / path).absolute())} if isinstance(path, str) and path else weights


def _default_batch(document: Document) -> None:
    """Let the rows of `prompt_ids` be the batch where none is given."""
    workload = document.get("workload")
    if isinstance(workload, dict) and "batch" not in workload and isinstance(workload.get("prompt_ids"), list):
        workload["batch"] = max(1, len(workload["prompt_ids"]))


def _with_row_per_sequence(workload: WorkloadSpec) -> WorkloadSpec:
    rows = workload.prompt_ids
    return attrs.evolve(workload, prompt_ids=rows * workload.batch) if rows and len(rows) == 1 else workload


def _note_collectives(document: Document, inside: Place, vocabulary: Vocabulary, resolver: Resolver) -> None:
    collectives = document.get("collectives")
    if isinstance(collectives, dict):
        for keys, message in collectives_rule(collectives, vocabulary.algorithms):
            resolver.problems.add(inside.child("collectives").child(keys[0]), message)
        document["collectives"] = {
            op: _from_folder(name, document, inside.child("collectives").child(op), resolver)
            for op, name in collectives.items()
        }


def _from_folder(name: Any, document: Document, place: Place, resolver: Resolver) -> Any:
    """Return an algorithm's name; if it is a path, from the folder of the file that it stands in."""
    if not isinstance(name, str) or not is_algorithm_file(name):
        return name
    overridden = resolver.problems.override_at(place) is not None
    folder = resolver.folder if overridden else document.origin.folder
    return str((folder / Path(name).expanduser()).absolute())
