"""Text to token ids and back, by a GGUF file's own vocabulary, merges, special tokens and chat template."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from configs.errors import ConfigError
from workloads.gguf_file import GgufFile, read_gguf

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine

_SPECIAL = ([3], [4])
"""Token types that are matched as they stand: control and user-defined."""
_LLAMA_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _smollm() -> Any:
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence  # noqa: PLC0415 (only where text is)

    return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])


def _gpt2() -> Any:
    from tokenizers.pre_tokenizers import ByteLevel  # noqa: PLC0415 (only where text is)

    return ByteLevel(add_prefix_space=False)


def _llama_bpe() -> Any:
    from tokenizers import Regex  # noqa: PLC0415 (only where text is)
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split  # noqa: PLC0415

    return Sequence([Split(Regex(_LLAMA_WORDS), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])


PRE_TOKENIZERS: dict[str, Callable[[], Any]] = {
    "smollm": _smollm,
    "gpt-2": _gpt2,
    "llama-bpe": _llama_bpe,
}
"""How text is cut before merging, by `tokenizer.ggml.pre`."""


class Tokenizer:
    """A byte-level BPE tokenizer with its model's chat template."""

    def __init__(
        self,
        engine: Engine,
        vocabulary: tuple[str, ...],
        special: frozenset[int],
        bos: str = "",
        chat_template: str | None = None,
    ) -> None:
        self._engine = engine
        self._vocabulary = vocabulary
        self._special = special
        self._bos = bos
        self._chat_template = chat_template

    def encode(self, text: str, *, chat: bool = False) -> tuple[int, ...]:
        """Return the ids of a text; with `chat`, of the text as a user's message, the answer to begin."""
        return self._ids(self.chat(text) if chat else text, frame=False)

    def _ids(self, text: str, *, frame: bool) -> tuple[int, ...]:
        try:
            return tuple(self._engine.encode(text, add_special_tokens=frame).ids)
        except TypeError:  # a lone surrogate: bytes of a command line or a file that are not UTF-8
            raise ConfigError(("workload.prompt: is not valid UTF-8 text",)) from None

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, special tokens included; bytes that are not UTF-8 become U+FFFD."""
        stream = self.stream()
        return "".join([stream.feed(token) for token in ids]) + stream.end()

    def stream(self) -> TextStream:
        """Return a decoder for ids that come one at a time."""
        return ByteStream(self)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of one id."""
        piece = self._vocabulary[token]
        if token in self._special:
            return piece.encode()
        return b"".join(_BYTE_OF.get(character, character.encode()) for character in piece)

    def chat(self, message: str) -> str:
        """Return the text that a user's message becomes by the model's chat template."""
        if self._chat_template is None:
            raise ConfigError(("workload.chat: the model has no chat template",))
        from jinja2 import TemplateError  # noqa: PLC0415 (only for chats)
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        messages = [{"role": "user", "content": message}]
        try:
            return environment.from_string(self._chat_template).render(
                messages=messages, add_generation_prompt=True, bos_token=self._bos
            )
        except TemplateError as error:
            raise ConfigError((f"workload.chat: the model's chat template fails: {error}",)) from None


class TextStream(Protocol):
    """Decode ids one at a time."""

    def feed(self, token: int) -> str:
        """Return the characters that `token` completes."""

    def end(self) -> str:
        """Return what is left at the end: U+FFFD for an incomplete character."""


class ByteStream:
    """Decode ids one at a time, holding back the bytes of an incomplete character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """Return the characters that `token` completes."""
        return self._utf8.decode(self._tokenizer.token_bytes(token))

    def end(self) -> str:
        """Return what is left at the end: U+FFFD for an incomplete character."""
        return self._utf8.decode(b"", final=True)


def gguf_tokenizer(path: Path | str) -> Tokenizer:
    """Return the tokenizer of a GGUF file; ConfigError names the file and what is wrong."""
    file = read_gguf(path)
    model, pre = file.get("tokenizer.ggml.model"), str(file.get("tokenizer.ggml.pre", "gpt-2"))
    if model != "gpt2" or pre not in PRE_TOKENIZERS:
        accepted = ", ".join(PRE_TOKENIZERS)
        raise ConfigError((f"{path}: tokenizer {model!r}, {pre!r} is not supported; accepted: 'gpt2' with {accepted}",))
    vocabulary, merges = (_list(file, f"tokenizer.ggml.{key}", str) for key in ("tokens", "merges"))
    types = _list(file, "tokenizer.ggml.token_type", int)
    special = {i: piece for i, piece in enumerate(vocabulary) if types[i : i + 1] in _SPECIAL}
    bos, template = file.get("tokenizer.ggml.bos_token_id"), file.get("tokenizer.chat_template")
    return Tokenizer(
        _engine(path, vocabulary, merges, list(special.values()), PRE_TOKENIZERS[pre]()),
        tuple(vocabulary),
        frozenset(special),
        vocabulary[bos] if isinstance(bos, int) and 0 <= bos < len(vocabulary) else "",
        template if isinstance(template, str) else None,
    )


def _list(file: GgufFile, key: str, kind: type) -> list[Any]:
    items = file.get(key)
    if not isinstance(items, list) or not all(isinstance(item, kind) for item in items):
        raise ConfigError((f"{file.path}: {key} is missing or not a list of {kind.__name__}",))
    return items


def _engine(path: Path | str, vocabulary: list[str], merges: list[str], special: list[str], pre: Any) -> Engine:
    from tokenizers import AddedToken, models  # noqa: PLC0415 (only where text is)
    from tokenizers import Tokenizer as Engine  # noqa: PLC0415

    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    ids = {piece: i for i, piece in enumerate(vocabulary)}
    try:
        engine = Engine(models.BPE(vocab=ids, merges=pairs))
    except Exception as error:  # noqa: BLE001 (the library raises bare Exception)
        raise ConfigError((f"{path}: the vocabulary and the merges do not fit: {error}",)) from None
    engine.pre_tokenizer = pre
    engine.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in special])
    return engine


def _byte_of() -> dict[str, bytes]:
    """Return the byte that each character of a byte-level vocabulary stands for.

    Printable bytes stand for themselves, the others for the characters from U+0100 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = [chr(byte) for byte in printable] + [chr(0x100 + i) for i in range(len(others))]
    return {character: bytes([byte]) for character, byte in zip(characters, printable + others, strict=True)}


_BYTE_OF = _byte_of()
