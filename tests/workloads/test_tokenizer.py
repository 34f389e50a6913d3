"""Tokenisation with the vocabulary of SmolLM2, and of files without a usable one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError
from tests.workloads.tiny import write_tiny
from workloads.tokenizer import Tokenizer, gguf_tokenizer

ORACLE = json.loads((Path(__file__).parents[1] / "data" / "smollm2-135m.json").read_text())


# the vocabulary lacks some control characters and the first bytes of the planes from U+40000 on
COVERED = st.characters(min_codepoint=32, max_codepoint=0x3FFFF, exclude_categories=["Cs"]) | st.sampled_from("\n\t\r")


SMALL = (
    ("tokenizer.ggml.model", "gpt2"),
    ("tokenizer.ggml.tokens", ["<|end|>", "a", "b", "Ġ", "ab", "<u>", "Ġab", "1"]),
    ("tokenizer.ggml.token_type", [3, 1, 1, 1, 1, 4, 1, 1]),
)
MERGES = ("tokenizer.ggml.merges", ["a b", "Ġ ab"])


@pytest.fixture(scope="module")
def tokenizer(smollm2_path):
    """The tokenizer of SmolLM2."""
    return gguf_tokenizer(smollm2_path)


@pytest.mark.model
@pytest.mark.parametrize("entry", ORACLE, ids=lambda entry: entry["prompt"])
def test_the_oracles_ids_and_text(tokenizer, entry):
    """Prompts, one as a chat, and generated text."""
    assert tokenizer.encode(entry["prompt"], chat=entry["chat"]) == tuple(entry["prompt_ids"])
    assert tokenizer.decode(entry["greedy_ids"]) == entry["text"]


@pytest.mark.model
@settings(max_examples=200, deadline=None)
@given(st.text(COVERED))
def test_text_survives(tokenizer, text):
    """Decoding undoes encoding, at once and streamed."""
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    stream = tokenizer.stream()
    assert "".join([stream.feed(token) for token in ids]) + stream.end() == text


@pytest.mark.model
def test_a_stream_holds_back_incomplete_characters(tokenizer):
    """An emoji of several tokens comes out whole; cut short it becomes U+FFFD at the end."""
    ids = tokenizer.encode("🤖")
    assert len(ids) > 1
    stream = tokenizer.stream()
    assert [stream.feed(token) for token in ids] == [""] * (len(ids) - 1) + ["🤖"]
    assert tokenizer.decode(ids[:-1]) == "\ufffd"


@pytest.mark.model
def test_digits_stand_alone(tokenizer):
    """The smollm pre-tokeniser cuts numbers into digits."""
    assert len(tokenizer.encode("2024")) == 4


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ((), "tokenizer None, 'gpt-2' is not supported"),
        ((("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "odd")), "accepted: 'gpt2' with smollm"),
        ((("tokenizer.ggml.model", "gpt2"),), "tokenizer.ggml.tokens is missing or not a list of str"),
        (
            (("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.tokens", [1, 2])),
            "tokenizer.ggml.tokens is missing or not a list of str",
        ),
        ((*SMALL, ("tokenizer.ggml.merges", ["x y"])), "the vocabulary and the merges do not fit"),
    ],
)
def test_files_without_a_usable_tokenizer(tmp_path, metadata, words):
    """The refusal names the file and what is accepted."""
    path = write_tiny(tmp_path / "m.gguf", metadata=metadata)
    with pytest.raises(ConfigError) as caught:
        gguf_tokenizer(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.model
def test_text_that_is_not_utf8_is_refused(tokenizer):
    """Undecodable bytes of a command line arrive as lone surrogates."""
    with pytest.raises(ConfigError, match="not valid UTF-8"):
        tokenizer.encode("\udcff")


def test_a_broken_chat_template_is_refused():
    """A template that fails names its error; one that is missing says so."""
    broken = Tokenizer(None, (), frozenset(), chat_template="{% for %}")
    with pytest.raises(ConfigError, match="chat template fails"):
        broken.encode("x", chat=True)
    with pytest.raises(ConfigError, match="no chat template"):
        Tokenizer(None, (), frozenset()).encode("x", chat=True)


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "llama-bpe"])
def test_a_small_vocabulary(tmp_path, pre):
    """Merges, special tokens in the text, digits, and a chat template with the model's own tokens."""
    template = ("tokenizer.chat_template", "{% for m in messages %}<u>{{ m.content }}{% endfor %}")
    metadata = (*SMALL, MERGES, template, ("tokenizer.ggml.pre", pre))
    small = gguf_tokenizer(write_tiny(tmp_path / "m.gguf", metadata=metadata))
    ids = small.encode("ab ab<|end|>11")
    assert ids == (4, 6, 0, 7, 7)
    assert small.decode(ids) == "ab ab<|end|>11"
    assert small.encode("ab", chat=True) == (5, 4)
