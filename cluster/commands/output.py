"""What commands write: on the terminal, as JSON, into files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ConfigError, RunError

if TYPE_CHECKING:
    from rich.console import Console

    from cluster.checkpoints import Restart
    from cluster.experiment import ExperimentResult


PIPE_WIDTH = 200
"""Columns of what does not go to a terminal; COLUMNS says another number."""


def write(path: Path, text: str, option: str) -> None:
    """Write the file of an option; raises ConfigError where that cannot be done."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError((f"{option}: {path}: {error.strerror}; accepted: a file that can be written",)) from None


def console_of(*, stderr: bool = False) -> Console:
    """Return a console on standard output or error, wide where that is no terminal."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console


def say(line: str) -> None:
    """Write a line to people, on standard error."""
    print(f"chipmesh: {line}", file=sys.stderr)  # noqa: T201


def print_json(document: object) -> None:
    """Print the one document of `--json`."""
    print(json.dumps(document, indent=1))  # noqa: T201  the one document on stdout


def show_tokens(console: Console, prompt: str) -> Callable[[int, int, str], None]:
    """Return a callback that writes the first row's text as it comes, after the prompt."""

    def show(row: int, step: int, text: str) -> None:
        if row == 0 and step == 0:
            console.out(prompt, end="", style="dim")
        if row == 0:
            console.out(text, end="", style=None)
            console.file.flush()

    return show


def show_status() -> Callable[[str], None]:
    """Return a callback that says on a terminal what is going on."""

    def show(text: str) -> None:
        if sys.stderr.isatty():
            say(f"{text} …")

    return show


def show_restart(restart: Restart) -> None:
    """Say what was lost and from where the run goes on."""
    where = f"step {restart.from_step}" if restart.from_step else "its start"
    say(f"{restart.lost}; the run goes on from {where}")


def check_writable(out: Path | None, files: Mapping[str, Path | None]) -> None:
    """Refuse places that cannot be written before anything is computed."""
    problems = []
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problems.append(f"--out: {out}: {error.strerror}; accepted: a folder that can be written")
    for option, path in files.items():
        if path is not None and (path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK)):
            why = "is a folder" if path.is_dir() else f"{'it' if path.exists() else 'its folder'} cannot be written"
            problems.append(f"{option}: {path}: {why}; accepted: a file in a folder that can be written")
    if problems:
        raise ConfigError(tuple(problems))


def save(
    result: ExperimentResult, out: Path | None, logits: Path | None, trace: Path | None, chakra: Path | None
) -> None:
    """Write what the options of `run` ask for; raises RunError where that cannot be done."""
    import numpy as np

    from cluster.run_store import save_run
    from cluster.timeline import write_trace

    try:
        if out is not None:
            save_run(result, out)
        if logits is not None and result.logits is not None:
            with logits.open("wb") as file:
                np.savez_compressed(file, logits=result.logits)
        if trace is not None:
            write_trace(result.timeline, trace, result.about())
        if chakra is not None:
            from cluster.chakra import write_chakra

            write_chakra(result.timeline, chakra, result.about())
    except OSError as error:
        raise RunError(f"the result cannot be written: {error}") from None
