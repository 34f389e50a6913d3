"""Tokenizers of Hugging Face folders: byte-level and sentencepiece-like, frames, chat templates, bad files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from configs.errors import ConfigError
from workloads.folder_tokenizer import CONFIG, FILE, TEMPLATE, huggingface_tokenizer

TEMPLATE_TEXT = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"


def byte_level():
    """Return a tokenizer over all bytes, without merges, that puts <s> before a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    engine = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(["<s>", *alphabet])}, merges=[]))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    engine.add_special_tokens(["<s>"])
    engine.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return engine


def sentencepiece():
    """Return a tokenizer whose pieces hold their space, as those of Llama 2 and Mistral do."""
    pieces = ["<unk>", "▁", "▁a", "b", *[f"<0x{i:02X}>" for i in range(256)]]
    engine = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[],
                                  byte_fallback=True, unk_token="<unk>"))  # fmt: skip
    engine.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    engine.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return engine


def folder_of(path, engine, config=None):
    """Write a tokenizer's files."""
    path.mkdir(exist_ok=True)
    engine.save(str(path / FILE))
    if config is not None:
        (path / CONFIG).write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module", params=[byte_level, sentencepiece])
def tokenizer(request, tmp_path_factory):
    """A tokenizer, read from its folder."""
    return huggingface_tokenizer(folder_of(tmp_path_factory.mktemp("tokenizer"), request.param()))


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=20))
def test_text_survives(tokenizer, text):
    """Encoding and decoding one id at a time gives the text back, whole characters at a time."""
    ids = tokenizer.encode(text)
    decoded = tokenizer.decode(ids).removeprefix("<s>")
    assert decoded == text
    stream = tokenizer.stream()
    assert all("\ufffd" not in stream.feed(token) or "\ufffd" in text for token in ids)


def test_an_incomplete_character_is_shown_at_the_end(tmp_path):
    """Half of a character is U+FFFD."""
    tokenizer = huggingface_tokenizer(folder_of(tmp_path / "t", byte_level()))
    ids = tokenizer.encode("é")
    assert tokenizer.decode(ids[:-1]) == "<s>\ufffd"


def test_frames_and_chats(tmp_path):
    """A text gets the model's frame; a chat has its own, from either place."""
    folder = folder_of(tmp_path / "t", byte_level(), {"bos_token": {"content": "<s>"}, "chat_template": TEMPLATE_TEXT})
    tokenizer = huggingface_tokenizer(folder)
    assert tokenizer.encode("a")[0] == 0
    assert tokenizer.decode(tokenizer.encode("hi", chat=True)) == "<s>[user] hi"
    (folder / TEMPLATE).write_text("only {{ messages[0].content }}")
    assert huggingface_tokenizer(folder).chat("this") == "only this"
    named = {"chat_template": [{"name": "tool", "template": "no"}, {"name": "default", "template": "yes"}]}
    assert huggingface_tokenizer(folder_of(tmp_path / "n", byte_level(), named)).chat("") == "yes"
    with pytest.raises(ConfigError, match="the model has no chat template"):
        huggingface_tokenizer(folder_of(tmp_path / "p", byte_level())).chat("")


def test_folders_without_a_usable_tokenizer(tmp_path):
    """Each is refused in words."""
    with pytest.raises(ConfigError, match=r"has no tokenizer\.json; accepted: prompt_ids"):
        huggingface_tokenizer(tmp_path)
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(ConfigError, match="is not a tokenizer"):
        huggingface_tokenizer(tmp_path)
    folder_of(tmp_path, byte_level())
    (tmp_path / CONFIG).write_text("[")
    with pytest.raises(ConfigError, match="is not JSON"):
        huggingface_tokenizer(tmp_path)
