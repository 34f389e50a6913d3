"""Machines of their own on this one: network namespaces with an address each, joined by a bridge, and Ray on them."""

from __future__ import annotations

import contextlib
import os
import shutil
import site
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from attrs import define, field

from configs.errors import RunError

PORT = 6399
PROJECT = ("configs", "topology", "collectives", "workloads", "cluster")


def ip(*args: str) -> None:
    """Run `ip`; raise CalledProcessError with what it says."""
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True, timeout=20)


def unavailable() -> str:
    """Return why there are no namespaces here, or nothing."""
    if shutil.which("ip") is None:
        return "there is no ip command"
    name = f"cm{uuid.uuid4().hex[:6]}"
    try:
        ip("netns", "add", name)
        ip("netns", "exec", name, "ip", "link", "add", f"{name}v", "type", "veth", "peer", "name", f"{name}w")
    except (OSError, subprocess.SubprocessError) as error:
        return f"network namespaces are not allowed: {getattr(error, 'stderr', None) or error}".strip()
    finally:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            ip("netns", "del", name)
    return ""


@define(eq=False)
class Machines:
    """Namespaces `NAME0`, `NAME1`, … with the addresses 10.77.0.1, 10.77.0.2, …, on a bridge in `NAMEb`."""

    name: str
    n: int
    _stack: contextlib.ExitStack = field(factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for suffix in ("b", *map(str, range(self.n))):
                ip("netns", "add", self.name + suffix)
                stack.callback(ip, "netns", "del", self.name + suffix)
            self._in("b", "link", "add", "bridge", "type", "bridge")
            self._in("b", "link", "set", "bridge", "up")
            for i in range(self.n):
                self._in(str(i), "link", "set", "lo", "up")
                self._in(
                    "b", "link", "add", f"port{i}", "type", "veth", "peer", "name", "eth0", "netns", f"{self.name}{i}"
                )
                self._in("b", "link", "set", f"port{i}", "master", "bridge", "up")
                self._in(str(i), "addr", "add", f"{self.address(i)}/24", "dev", "eth0")
                self._in(str(i), "link", "set", "eth0", "up")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _in(self, suffix: str, *args: str) -> None:
        ip("-n", self.name + suffix, *args)

    def address(self, i: int) -> str:
        """Return the address of a machine."""
        return f"10.77.0.{i + 1}"

    def cut_off(self, i: int) -> None:
        """Take the link of a machine down: what is sent to it and by it is lost, and nobody is told."""
        self._in("b", "link", "set", f"port{i}", "down")

    def part(self, i: int, j: int) -> None:
        """Let two machines no longer reach each other, only the others."""
        for k in (i, j):
            command = ["bridge", "link", "set", "dev", f"port{k}", "isolated", "on"]
            ip("netns", "exec", f"{self.name}b", *command)

    def join(self, i: int) -> None:
        """Bring the link of a machine up."""
        self._in("b", "link", "set", f"port{i}", "up")

    def start(self, i: int, command: list[str], folder: Path, **options: object) -> subprocess.Popen[str]:
        """Start a command on a machine, with temporary files in a folder of its own."""
        folder.mkdir(exist_ok=True, parents=True)
        environment = os.environ | {"TMPDIR": str(folder), "RAY_AUTH_MODE": "disabled", "PYTHONPATH": ""}
        line = ["ip", "netns", "exec", f"{self.name}{i}", *command]
        return subprocess.Popen(line, env=environment, text=True, cwd="/", **options)  # type: ignore[call-overload]

    @contextlib.contextmanager
    def ray(self, i: int, python: str, folder: Path, n_cpus: int = 1) -> Iterator[subprocess.Popen[str]]:
        """Run a node of Ray on a machine, the head on the first; yields its process."""
        head = f"{self.address(0)}:{PORT}"
        where = ["--head", f"--port={PORT}", "--include-dashboard=false"] if i == 0 else [f"--address={head}"]
        command = [
            python, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *where,
            f"--num-cpus={n_cpus}", f"--node-ip-address={self.address(i)}", f"--object-store-memory={80 << 20}",
            f"--temp-dir={folder}/ray",
        ]  # fmt: skip
        process = self.start(i, command, folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                break
        else:
            raise RunError("".join(said))
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:  # it looks for a head that is gone
                process.kill()
                process.communicate()


def without_project(folder: Path) -> str:
    """Return a Python that has the packages of this one, but for this project's own."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    own = next(folder.glob("lib/python*/site-packages"))
    paths = [entry for place in site.getsitepackages() for entry in Path(place).iterdir()]
    for entry in paths:
        if entry.name not in PROJECT and "chipmesh" not in entry.name and not (own / entry.name).exists():
            (own / entry.name).symlink_to(entry)
    return str(folder / "bin" / "python")
