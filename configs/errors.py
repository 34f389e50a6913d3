"""The exceptions of chipmesh.

    ChipmeshError
    ├── ConfigError      the input is wrong: exit code 2; carries every problem found
    │   └── CapacityError        a tensor does not fit into the memory it is placed in
    └── RunError         the input was right and the run failed: exit code 1
        ├── ChipDiedError        a chip's process ended before its program did
        ├── OutOfMemoryError     the machine that computes a chip had no memory left
        └── ProgramError         a chip's program raised, or the chips disagree

All take positional arguments only, so that they survive pickling between processes.
"""

from __future__ import annotations


class ChipmeshError(Exception):
    """Root of all errors that chipmesh raises on purpose."""


class ConfigError(ChipmeshError):
    """The input is wrong; `problems` holds every problem found, in the order of the input."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class CapacityError(ConfigError):
    """A tensor does not fit into the memory tier that it is placed in."""


class RunError(ChipmeshError):
    """The input was right and the run failed."""


class ChipDiedError(RunError):
    """A chip's process ended before its program did."""


class OutOfMemoryError(RunError):
    """The machine that computes a chip had no memory left."""


class ProgramError(RunError):
    """A chip's program raised an error, or the chips' programs disagree."""
