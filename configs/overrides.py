"""Apply `--set key=value`: dotted keys with list indices, values in YAML."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from attrs import frozen

from configs.document_kinds import DOCUMENT_KINDS
from configs.errors import ConfigError
from configs.problems import Keys, Place, dotted, shortened, shown
from configs.resolve import FAILED, Document, Resolver, is_system
from configs.yaml_source import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEY = re.compile(r"[A-Za-z_][\w-]*(\[\d{1,9}\])*(\.[A-Za-z_][\w-]*(\[\d{1,9}\])*)*")
_LONGEST_KEY = 1000
_PART = re.compile(r"\[(\d+)\]|([^.\[]+)")
_PROMPTS = ("prompt", "prompt_ids", "prompt_tokens")
_IDEAL = "ideal"  # the word for a communication section without entries


@frozen
class Override:
    """One `--set`: its text, the keys it names, the value it gives."""

    text: str
    keys: Keys
    value: Any


def parse_override(text: str) -> Override:
    """Return what a `--set` says.

    >>> parse_override("system.topology.dims[0]=4").keys
    ('system', 'topology', 'dims', 0)
    """
    key, equals, value = text.partition("=")
    if not equals or len(key) > _LONGEST_KEY or not _KEY.fullmatch(key.strip()):
        raise ConfigError(
            (f"--set {shortened(text)}: is not key=value; accepted: dotted keys such as system.topology.dims[0]=4",)
        )
    parts = _PART.findall(key.strip())
    return Override(
        text, tuple(int(i) if i else name for i, name in parts), parse_yaml(value, f"--set {shortened(text)}")
    )


def apply_overrides(root: Document, texts: Sequence[str], place: Place, resolver: Resolver) -> None:
    """Set values inside a document; problems go to the resolver's list."""
    overrides = []
    for text in texts:
        try:
            overrides.append(parse_override(text))
        except ConfigError as error:
            resolver.problems.found.extend(error.problems)
    for override in overrides:
        _apply(root, override, place, resolver)
    _drop_other_prompts(root, [override.keys for override in overrides])


def _apply(root: Document, override: Override, place: Place, resolver: Resolver) -> None:
    node: Any = root
    document, inside, start = root, root.enter(place), 0
    for depth, key in enumerate(override.keys[:-1]):
        if not _has(node, key, override, depth, resolver):
            return
        if isinstance(node, dict) and key not in node:
            resolver.problems.override(override.keys[: depth + 1], override.text)
        slot = DOCUMENT_KINDS[document.kind].slots.get(str(key)) if node is document else None
        if document.kind == "systems" and key == "node" and isinstance(node, dict) and is_system(node.get(key)):
            slot = "systems"  # of a composed topology
        if slot is not None:
            reference = _child(node, key)
            node[key] = resolver.resolve(slot, reference, inside.child(key), document.origin)
        node = _child(node, key)
        inside = inside.child(key)
        if isinstance(node, Document):
            document, inside, start = node, node.enter(inside), depth + 1
    last = override.keys[-1]
    if _has(node, last, override, len(override.keys) - 1, resolver):
        document.forget(override.keys[start:])
        node[last] = override.value
        resolver.problems.override(override.keys, override.text)


def _child(node: Any, key: str | int) -> Any:
    if isinstance(key, int):
        return node[key]
    if key not in node or node[key] is None or node[key] == _IDEAL:
        node[key] = {}
    return node[key]


def _has(node: Any, key: str | int, override: Override, depth: int, resolver: Resolver) -> bool:
    """Tell whether a value can be set under a key; note why not."""
    if isinstance(key, int) and isinstance(node, list) and key < len(node):
        return True
    if (isinstance(key, str) and isinstance(node, dict)) or node is FAILED:
        return node is not FAILED
    where = dotted(override.keys[:depth])
    resolver.problems.found.append(f"--set {shortened(override.text)}: {where}: {_why_not(node, key)}")
    return False


def _why_not(node: Any, key: str | int) -> str:
    if isinstance(node, list):
        return f"is a list; accepted: an index from [0] to [{len(node) - 1}] after it, not {key!r}"
    if isinstance(node, dict):
        return f"is a mapping; accepted: .key after it, not [{key}]"
    if isinstance(node, str | int | float):
        return f"{shown(node)} has no keys to set"
    return "was read from a file of another format and cannot be changed; accepted: a new value for the whole"


def _drop_other_prompts(root: Document, overridden: Sequence[Keys]) -> None:
    """Let an overriding prompt replace the base file's, in whatever form that is."""
    given = {keys[1] for keys in overridden if len(keys) == 2 and keys[0] == "workload" and keys[1] in _PROMPTS}
    workload = root.get("workload")
    if given and root.kind == "experiments" and isinstance(workload, dict):
        for other in set(_PROMPTS) - given:
            workload.pop(other, None)
