"""Bad files: not YAML, not a mapping, not there; and arbitrary text."""

from __future__ import annotations

import attrs
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.loader import load_chip, load_experiment, load_model

BAD_FILES = [
    ("", "e.yaml: is empty; accepted: a mapping"),
    ("# nothing\n", "e.yaml: is empty"),
    ("- 1\n", "e.yaml: holds [1] at the top; accepted: a mapping"),
    ("just words\n", "e.yaml: holds 'just words' at the top"),
    ("system: {\n", "e.yaml:2: YAML syntax"),
    ("a: b: c\n", "e.yaml:1: YAML syntax: mapping values are not allowed"),
    ("\tsystem: x\n", "e.yaml:1: YAML syntax"),
    ("system: a\nsystem: b\n", "e.yaml:2: the key 'system' is given twice (first on line 1)"),
    ("a: &x [1, *x]\n", "e.yaml:1: the alias *x stands for no value before it"),
    ("a: *x\n", "e.yaml:1: "),
    ("1: x\n", "e.yaml:1: the key 1 is not a word"),
    ("? [a, b]\n: x\n", "e.yaml:1: the key ['a', 'b'] is not a word"),
    ("a: !!python/object/apply:os.system [ls]\n", "e.yaml:1: the tag"),
    ("a: 1\n---\nb: 2\n", "e.yaml:2: a second document"),
    ("a: " + "[" * 100_000, "e.yaml:1: nested more than 64 deep"),
    ("a: \x00\n", "e.yaml: YAML syntax"),
    (b"a: \xff\xfe\xfa\n", "e.yaml: is not UTF-8 text"),
    (b"a: " + b"x" * 10_000_001, "e.yaml: is too large"),
    ("system: e.yaml\nmodel: smollm2-135m\nworkload: {prompt: a}\n", "e.yaml: system: a cycle: "),
    ("on: 1\n", "e.yaml: on: unknown key"),
    ("parallel: {tp: 1_000}\n", "e.yaml: parallel.tp: '1_000' is not a whole number"),
    ("parallel: {tp: 12:30}\n", "e.yaml: parallel.tp: '12:30' is not a whole number"),
    ("parallel: {tp: 1e1}\n", "e.yaml: parallel.tp: 10.0 is not a whole number"),
    ("system:\n", "e.yaml: system: nothing is not a reference"),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES)
def test_bad_file(content, message, vocabulary, tmp_path, monkeypatch) -> None:
    """A file that is no experiment is refused by name, and by line where there is one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "e.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        load_experiment("e.yaml", [], vocabulary)
    assert any(problem.startswith(message) for problem in caught.value.problems)


def test_alias_bomb(vocabulary, tmp_path) -> None:
    """Aliases of aliases are counted as what they expand to."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="more than 2000000 values"):
        load_experiment(path, [], vocabulary)


def test_no_file(vocabulary, tmp_path) -> None:
    """A file that is not there, and a folder, are named."""
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        load_experiment(tmp_path / "none.yaml", [], vocabulary)
    with pytest.raises(ConfigError, match="is a directory"):
        load_experiment(str(tmp_path), [], vocabulary)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_experiment("./a\0b.yaml", [], vocabulary)


@pytest.mark.parametrize(
    "source",
    [
        "./" + "a" * 5000 + ".yaml",
        "~nobody-of-this-name/x.yaml",
        "~nobody-of-this-name/",
        "x/m.gguf",
        "",
        ".",
    ],
)
def test_strange_paths(source, vocabulary) -> None:
    """A path that no file can have is no file."""
    readers = {".gguf": load_chip, "/": load_chip}
    for load in (load_experiment, load_model):
        with pytest.raises(ConfigError):
            load(source, [], attrs.evolve(vocabulary, model_readers=readers))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["value", "name", "peak"]), inner),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40) | st.builds(yaml.safe_dump, VALUES))
def test_any_text(text, tmp_path) -> None:
    """Whatever text is in a file, the loader returns a spec or raises a ConfigError."""
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError):
        load_chip(path)
