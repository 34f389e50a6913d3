"""Ray's life in this process: a private one on this machine, or a cluster that runs."""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

import ray

import cluster
import collectives
import configs
import topology
import workloads
from cluster.backends.on_ray import guard
from cluster.backends.options import address_problem
from cluster.backends.processes import ONE_THREAD
from configs.errors import ConfigError

PACKAGES = (configs, topology, collectives, workloads, cluster)
REACH_S = 5.0
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How a client of gRPC begins, with settings of its own, of which there are none (RFC 9113, 3.4 and 6.5)."""
SETTINGS = 4
ACCEPTED = (
    "accepted: a running cluster (ray start) of the same Ray, Python and RAY_AUTH_MODE, of which this machine is a node"
)


class _SamePath(ray.job_config.JobConfig):  # type: ignore[misc]  # Ray's types are not read
    """Lets workers look for modules where this process does.

    Ray would let them look first in the folder that the driver was started in, which may hold a `cluster.py` or a
    package `configs` of its own. It does not for those that bring a folder of their own.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True


def refuse_second() -> None:
    """Raise ConfigError if this process uses Ray already: a second start would share it, and stop it at its end."""
    if ray.is_initialized():
        raise ConfigError(("this process uses Ray already; accepted: one backend of Ray at a time, and no ray.init",))


@contextlib.contextmanager
def private_ray(folder: Path, n_workers: int, n_cpus: int | None = None) -> Iterator[None]:
    """Start a private Ray on this machine, reachable from it alone, with its files in the run's folder; stop all of it.

    Its token is its own, of this start. The files and whatever process is left are gone afterwards, even if this
    process is killed.
    """
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), guard.MARK: str(folder)}
    own["SPT_NOENV"] = "1"  # else Ray's agents write their titles over their environment, in which the mark is
    # More workers than its start-up concurrency make Ray print warnings on the driver's stdout, which is not Ray's.
    with _guarded(folder), _stopping():
        with _own_signals(), _loopback_only(), _environment(own):
            _read_authentication()
            ray.init(
                address="local", job_config=_SamePath(_py_driver_sys_path=sys.path[::-1]), num_cpus=n_cpus,
                include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=100 * 2**20,
                _temp_dir=str(folder / "ray"), _node_ip_address="127.0.0.1",
                _system_config={"worker_maximum_startup_concurrency": n_workers + 1},
            )  # fmt: skip
        yield


@contextlib.contextmanager
def cluster_at(address: str) -> Iterator[None]:
    """Connect to the cluster at the address, and let go of it; its workers get this program's packages.

    Raises ConfigError if there is none, or if this machine is not one of its nodes.
    """
    problem = address_problem(address)
    if problem is not None:
        raise ConfigError((f"--ray-address: {problem}",))
    _reach(address if address != "auto" else _find_head())
    packages = [str(Path(package.__path__[0])) for package in PACKAGES]
    with _stopping():
        _read_authentication()
        try:
            with _own_signals(), _environment({}):
                ray.init(
                    address=address, log_to_driver=False, logging_level="ERROR",
                    runtime_env={"py_modules": packages, "env_vars": ONE_THREAD},
                )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            why = str(error).strip().splitlines()[0]
            raise ConfigError((f"--ray-address: {address}: {why}; {ACCEPTED}",)) from None
        yield


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    try:
        yield
    finally:
        with _undisturbed():
            ray.shutdown()


@contextlib.contextmanager
def _guarded(folder: Path) -> Iterator[None]:
    """End what is left of the private Ray of this folder afterwards, or when this process is gone.

    Where there is no /proc, only Ray's own care remains.
    """
    if sys.platform != "linux":
        yield
        return
    process = subprocess.Popen(  # noqa: S603  this interpreter
        [sys.executable, "-I", "-S", guard.__file__, str(folder), str(os.getpid())],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield
    finally:
        with _undisturbed():
            process.communicate()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold back interrupts until the block has ended.

    Whoever is impatient interrupts twice; Ray would be half stopped then, and make its folder anew at the very end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {
        n: signal.signal(n, lambda number, _frame: came.append(number)) for n in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for first in came[:1]:
            signal.raise_signal(first)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set these variables for what starts here, and whatever else is set meanwhile not for longer either."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _read_authentication() -> None:
    """Let Ray's libraries in this process take the mode and token from the environment, as they are now.

    They remember those of their first start: a process that has had a private Ray would ask the processes of a cluster
    for its token, whose head then takes the driver for dead and says of its actors that all references were removed.
    """
    raylet = ray._raylet  # noqa: SLF001  nothing public does it
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def _loopback_only() -> Iterator[None]:
    """Let a Ray that starts here have the address 127.0.0.1, and so listen there alone.

    Elsewhere than on Linux it does so by itself; on Linux it takes 127.0.0.1 for a mistake and finds another address.
    """
    constants = ray._private.ray_constants  # noqa: SLF001  nothing public says it
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def _find_head() -> str:
    """Return the head that Ray takes for "auto": that of RAY_ADDRESS, or the one that runs or last ran here."""
    try:
        found: str = ray._private.services.canonicalize_bootstrap_address("auto")  # noqa: SLF001  nothing public does it
    except (ConnectionError, ValueError) as error:
        raise ConfigError((f"--ray-address: auto: {error}; {ACCEPTED}",)) from None
    return found


def _reach(address: str) -> None:
    """Raise ConfigError if nobody listens there, or what listens is no Ray that answers; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S) as sock:
            if os.environ.get("RAY_USE_TLS", "0") in {"0", ""}:
                sock.sendall(GREETING)
                if sock.recv(4)[3:] != bytes([SETTINGS]):
                    raise ConnectionError("who listens there is no Ray")
    except (OSError, OverflowError) as error:
        raise ConfigError((f"--ray-address: {address}: {error}; accepted: HOST:PORT of a running head",)) from None


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Leave signals to the driver's handlers, and raise what they raise even where Ray has swallowed it.

    Ray would put its own handler of SIGTERM in the place of the driver's, and tries some calls again that an interrupt
    has ended. Its libraries crash at the end of a process in which their start was interrupted; such a process ends at
    once.
    """
    raised: list[BaseException] = []
    handlers = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heeded = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        heeded = {}

    def heed(number: int, frame: FrameType | None) -> None:
        try:
            heeded[number](number, frame)
        except BaseException as error:
            raised.append(error)
            raise

    utils = ray._private.utils  # noqa: SLF001  nothing public does it
    theirs, utils.set_sigterm_handler = utils.set_sigterm_handler, lambda _handler: None
    for number in heeded:
        signal.signal(number, heed)
    try:
        yield
    except BaseException as error:
        if not raised and not isinstance(error, SystemExit | KeyboardInterrupt):
            raise
        raised.append(error)
    finally:
        utils.set_sigterm_handler = theirs
        for number, handler in heeded.items():
            signal.signal(number, handler)
    if raised:
        atexit.register(os._exit, 1)
        raise KeyboardInterrupt
