"""Text to token ids and back, by the tokenizer.json of a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import ConfigError
from workloads.huggingface import read_json
from workloads.tokenizer import Tokenizer, gguf_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine

FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"


class FolderTokenizer(Tokenizer):
    """A tokenizer of any kind that the library knows; text other than a chat gets the model's own frame (BOS)."""

    def __init__(self, engine: Engine, bos: str = "", chat_template: str | None = None) -> None:
        super().__init__(engine, (), frozenset(), bos, chat_template)

    def encode(self, text: str, *, chat: bool = False) -> tuple[int, ...]:
        """Return the ids of a text; with `chat`, of the text as a user's message, the answer to begin."""
        return self._ids(self.chat(text) if chat else text, frame=not chat)

    def stream(self) -> FolderStream:
        """Return a decoder for ids that come one at a time."""
        return FolderStream(self._engine)


class FolderStream:
    """Decode ids one at a time, holding back the bytes of an incomplete character.

    A piece's text may depend on the piece before it, so two neighbouring pieces are always decoded together.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ids: list[int] = []
        self._told = 0

    def feed(self, token: int) -> str:
        """Return the characters that `token` completes."""
        self._ids.append(token)
        new = self._new()
        if not new or new.endswith("\ufffd"):
            return ""
        self._ids, self._told = self._ids[self._told :], len(self._ids) - self._told
        return new

    def end(self) -> str:
        """Return what is left at the end: U+FFFD for an incomplete character."""
        return self._new()

    def _new(self) -> str:
        text, told = (self._decode(ids) for ids in (self._ids, self._ids[: self._told]))
        return text[len(told) :]

    def _decode(self, ids: Iterable[int]) -> str:
        text: str = self._engine.decode(list(ids), skip_special_tokens=False)
        return text


def open_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer of a model's file or folder; ConfigError names the file and what is wrong."""
    return huggingface_tokenizer(path) if path.is_dir() else gguf_tokenizer(path)


def huggingface_tokenizer(folder: Path) -> FolderTokenizer:
    """Return the tokenizer of a folder; ConfigError names the file and what is wrong."""
    from tokenizers import Tokenizer as Engine  # noqa: PLC0415 (only where text is)

    path = folder / FILE
    if not path.exists():
        raise ConfigError((f"{folder}: has no {FILE}; accepted: prompt_ids or prompt_tokens in place of a prompt",))
    try:
        engine = Engine.from_file(str(path))
    except Exception as error:  # noqa: BLE001 (the library raises bare Exception)
        raise ConfigError((f"{path}: is not a tokenizer: {error}",)) from None
    config = read_json(folder / CONFIG) if (folder / CONFIG).exists() else {}
    return FolderTokenizer(engine, _text_of(config.get("bos_token")), _template(folder, config))


def _text_of(token: Any) -> str:
    """Return a special token's text, which files write plainly or as a mapping."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    """Return the chat template: in a file of its own, or in the config, where there may be several by name."""
    if (folder / TEMPLATE).exists():
        try:
            return (folder / TEMPLATE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError((f"{folder / TEMPLATE}: cannot be read: {error}",)) from None
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None
