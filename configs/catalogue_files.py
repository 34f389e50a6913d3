"""Find and read the files of the catalogue: YAML of each chip, system, model and experiment, and measured figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.document_kinds import DOCUMENT_KINDS
from configs.errors import ConfigError
from configs.problems import unknown
from configs.yaml_source import parse_yaml, read_file

_FOLDER = Path(__file__).with_name("catalogue")


def catalogue_names(kind: str) -> tuple[str, ...]:
    """Return the names of all entries of a kind, sorted.

    >>> "wormhole-n150" in catalogue_names("chips")
    True
    """
    if kind not in DOCUMENT_KINDS:
        raise ConfigError((unknown(kind, "a kind of catalogue entry", DOCUMENT_KINDS),))
    return tuple(sorted(path.stem for path in (_FOLDER / kind).glob("*.yaml")))


def catalogue_path(kind: str, name: str) -> Path:
    """Return the file of an entry; raises a ConfigError that lists the names there are."""
    names = catalogue_names(kind)
    if name not in names:
        names = (*DOCUMENT_KINDS[kind].words, *names)
        raise ConfigError((unknown(name, f"in the catalogue of {kind}", names) + _hint(name),))
    return _FOLDER / kind / f"{name}.yaml"


def catalogue_entry(kind: str, name: str) -> dict[str, Any]:
    """Return an entry as it is written in its file.

    >>> catalogue_entry("chips", "h100-sxm")["vendor"]
    'NVIDIA'
    """
    path = catalogue_path(kind, name)
    entry = parse_yaml(read_file(path), label(path))
    assert isinstance(entry, dict)
    return entry


def measured_paths() -> tuple[Path, ...]:
    """Return the files of measured figures, sorted.

    >>> [path.name for path in measured_paths()]
    ['collectives.csv', 'decode.csv']
    """
    return tuple(sorted((_FOLDER / "measured").glob("*.csv")))


def errors_path() -> Path:
    """Return the file of the errors that were found over the measured figures."""
    return _FOLDER / "measured" / "errors.yaml"


def held_out_decode_path() -> Path:
    """Return the file of the errors on what was left out of fits."""
    return errors_path().with_name("held_out_decode.yaml")


def held_out_collectives_path() -> Path:
    """Return the file of the errors on rows that constants were not derived from."""
    return errors_path().with_name("held_out_collectives.yaml")


def label(path: Path) -> str:
    """Return how messages name a file: short inside the catalogue, as given elsewhere."""
    return f"catalogue/{path.relative_to(_FOLDER)}" if path.is_relative_to(_FOLDER) else str(path)


def _hint(name: str) -> str:
    is_file = 0 < len(name) < 255 and "\0" not in name and Path(name).exists()
    return f" (for the file of that name write './{name}')" if is_file else ""
