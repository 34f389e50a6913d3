"""Read files that others wrote: regular ones, and none that is too large."""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def read_bytes(path: Path, accepted: str, most_bytes: int) -> bytes:
    """Return what a file holds; raise a ConfigError that says only what is wrong with the file."""
    try:
        if path.is_dir():
            raise ConfigError((f"is a directory; accepted: {accepted}",))
        if path.exists() and not path.is_file():
            raise ConfigError((f"is not a regular file; accepted: {accepted}",))
        if path.stat().st_size > most_bytes:
            raise ConfigError((f"is too large ({path.stat().st_size} bytes); accepted: at most {most_bytes}",))
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(("no such file",)) from None
    except (OSError, ValueError) as error:
        raise ConfigError((f"cannot be read: {getattr(error, 'strerror', None) or error}",)) from None


def decode_utf8(data: bytes) -> str:
    """Return bytes as text, with a byte order mark or without; raise ConfigError if they are not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError((f"is not UTF-8 text (byte {error.start})",)) from None
