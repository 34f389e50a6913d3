"""The command `chipmesh`: which commands there are, and how each ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from types import FrameType

from cyclopts import App, CycloptsError

from cluster.commands.bench import bench
from cluster.commands.catalogue import list_
from cluster.commands.output import say
from cluster.commands.plan import plan
from cluster.commands.replay import replay
from cluster.commands.report import report
from cluster.commands.run import run
from cluster.commands.sweep import sweep
from cluster.commands.topologies import import_, topo
from cluster.commands.validate import validate
from configs.errors import ChipmeshError, ConfigError

COMMANDS: Mapping[str, Callable[..., None]] = {
    "run": run,
    "bench": bench,
    "topo": topo,
    "import": import_,
    "sweep": sweep,
    "validate": validate,
    "report": report,
    "replay": replay,
    "plan": plan,
    "list": list_,
}

app = App(
    name="chipmesh",
    help="Simulate multi-chip AI accelerators: real tokens and simulated time from one run.",
    version=lambda: version("chipmesh"),
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)
for name, command in COMMANDS.items():
    app.command(command, name=name)


def main(tokens: Sequence[str] | None = None) -> int:
    """Run the command; return 0 when done, 1 when the run failed, 2 for bad input."""
    signal.signal(signal.SIGTERM, _interrupt)  # so that what was started is stopped
    try:
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        return _fail(2, f"{error}\nchipmesh --help lists the commands and their options")
    except ConfigError as error:
        return _fail(2, str(error))
    except ChipmeshError as error:
        return _fail(1, str(error))
    except KeyboardInterrupt:
        return _fail(1, "interrupted")
    except BrokenPipeError:  # the reader has seen enough, as in `chipmesh list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(code: int, message: str) -> int:
    for line in message.encode(errors="backslashreplace").decode().splitlines():  # file names can be any bytes
        say(line)
    return code


if __name__ == "__main__":
    sys.exit(main())
