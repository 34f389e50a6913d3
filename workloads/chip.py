"""What a program sees of its chip: the border between what runs (here) and what happens (cluster/)."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol, TypeVar

from attrs import frozen

from configs.spec.kernels import KernelKind
from workloads.array import Array

T = TypeVar("T")


@frozen(eq=False)
class Tensor:
    """A tensor that lives in a chip's memory: weights and KV cache.

    `values` is a float32 array whose values are already rounded to `dtype` (so that the host multiplies
    fast), or None in shapes mode. `size_bytes` is its size on the modelled machine. KV tensors' values may be
    written in place.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    tier: int
    size_bytes: int
    values: Any


@frozen
class Work:
    """What a kernel asks of a chip, from shapes alone.

    matmuls: (count, m, k, n) each, multiplied on the matrix unit (padded to its tile).
    vector_flops: everything else.
    tensor_bytes: (tier, bytes) moved to and from stored tensors.
    activation_bytes: bytes of activations read and written.
    kind: which sort of kernel it is, for what a chip's kernels reach (`configs.spec.kernels.KernelsSpec`).
    rounded_bytes: activations that are rounded to a narrower format before they are multiplied, as they come in.
    streams: into how many independent parts the traffic to stored tensors falls; 0 for any number.
    """

    dtype: str
    matmuls: tuple[tuple[int, int, int, int], ...] = ()
    vector_flops: int = 0
    tensor_bytes: tuple[tuple[int, int], ...] = ()
    activation_bytes: int = 0
    kind: KernelKind = "elementwise"
    rounded_bytes: int = 0
    streams: int = 0


class Kernel(Protocol):
    """One operation of a chip: the shape of its result, its values, and its work. All three are pure.

    Operands are arrays (`Array`) and stored tensors (`Tensor`); params are hashable.
    """

    @property
    def name(self) -> str:
        """What the trace calls it; equal names and arguments mean equal shape and work."""

    def infer(self, *operands: Any, **params: Any) -> tuple[tuple[int, ...], Any]:
        """Return (shape, numpy dtype) of the result, from the operands' shapes alone."""

    def evaluate(self, *operands: Any, **params: Any) -> Any:
        """Return the values; the chip rounds them to the inferred dtype."""

    def work(self, *operands: Any, **params: Any) -> Work:
        """Return what the operation costs, from the operands' shapes alone."""


@frozen
class Group:
    """Ranks that communicate, in the order of their index in the group."""

    name: str
    ranks: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ranks)


class Chip(Protocol):
    """A chip as its program sees it. There is no clock here.

    Collectives, sends and receives block when they are awaited; `start` lets them go on beside the program. The members
    are a group, or the chips along an axis of the topology, or along several (`x,y`); all chips without either.
    """

    rank: int
    n_chips: int
    real: bool
    layer: int | None
    """The model's layer that the program is in: set by the program, for the accounts."""

    def place(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        values: Any = None,
        *,
        tier: str | None = None,
        role: str = "weights",
    ) -> Tensor:
        """Put a tensor into memory; `tier` defaults to the farthest; `role`: weights, kv (for the accounts).

        `values` (float32, shape `shape`) are rounded to `dtype`; None in shapes mode.
        Raises CapacityError if the tier is full.
        """

    def apply(self, kernel: Kernel, *operands: Any, **params: Any) -> Array:
        """Run a kernel: record what it costs, return its values (or their shape)."""

    def pause(self, name: str, duration_ps: int) -> None:
        """Do nothing for so long in simulated time: the chip is stopped from outside."""

    def group(self, name: str, ranks: tuple[int, ...]) -> Group:
        """Return the group of these ranks; every member must name it alike."""

    def all_reduce(
        self, x: Array, group: Group | None = None, axis: str | None = None, reduction: str = "sum"
    ) -> Awaitable[Array]:
        """Return the sum (`reduction`: sum, max or min) of all members' `x` (same shape everywhere)."""

    def all_gather(self, x: Array, group: Group | None = None, axis: str | None = None) -> Awaitable[Array]:
        """Return all members' `x` concatenated along axis 0, in group order (same shape everywhere)."""

    def reduce_scatter(
        self, x: Array, group: Group | None = None, axis: str | None = None, reduction: str = "sum"
    ) -> Awaitable[Array]:
        """Return this member's part (along axis 0, as even as possible) of the sum (max, min) of all members' `x`."""

    def all_to_all(self, x: Array, group: Group | None = None, axis: str | None = None) -> Awaitable[Array]:
        """Send part j of `x` (axis 0, equal parts) to member j; return the received parts in group order."""

    def all_to_all_v(
        self, x: Array, rows: Sequence[Sequence[int]], group: Group | None = None, axis: str | None = None
    ) -> Awaitable[Array]:
        """Send `rows[i][j]` rows of member i's `x`, in the order of j, to member j; return the rows in group order.

        All members give the same table `rows`.
        """

    def broadcast(
        self, x: Array, root: int = 0, group: Group | None = None, axis: str | None = None
    ) -> Awaitable[Array]:
        """Return the `x` of the member with index `root` (same shape everywhere)."""

    def reduce(
        self, x: Array, root: int = 0, group: Group | None = None, axis: str | None = None, reduction: str = "sum"
    ) -> Awaitable[Array | None]:
        """Return the sum (max, min) of all members' `x` at the member with index `root`, None elsewhere."""

    def gather(
        self, x: Array, root: int = 0, group: Group | None = None, axis: str | None = None
    ) -> Awaitable[Array | None]:
        """Return all members' `x` concatenated along axis 0 at the member with index `root`, None elsewhere."""

    def scatter(self, x: Array, root: int = 0, group: Group | None = None, axis: str | None = None) -> Awaitable[Array]:
        """Return this member's part (along axis 0, as even as possible) of the root's `x` (same shape everywhere)."""

    def permute(
        self, x: Array, pairs: Sequence[tuple[int, int]], group: Group | None = None, axis: str | None = None
    ) -> Awaitable[Array]:
        """Return the `x` of this member's source among the (source, destination) `pairs`; zeros if it has none.

        Pairs are of indices in the group; each is at most once a source and once a destination.
        """

    def barrier(self, group: Group | None = None, axis: str | None = None) -> Awaitable[None]:
        """Wait until all members are here."""

    def send(self, x: Array, dst: int, tag: str = "") -> Awaitable[None]:
        """Send an array to the chip of rank `dst`."""

    def recv(self, src: int, tag: str = "") -> Awaitable[Array]:
        """Return the next array that the chip of rank `src` sent under this tag."""

    def start(self, operation: Awaitable[T]) -> Awaitable[T]:
        """Let a collective, send or receive of this chip go on beside the program; return its handle.

        `handle = chip.start(chip.all_reduce(x))`, later `y = await handle`, once. What is sent is `x` as it is at the
        start. All members must start the operations of a group in the same order.
        """

    def emit(self, name: str, value: Any = None, index: int = 0) -> None:
        """Hand a value to the driver; costs no simulated time, but marks the moment."""

    def resume(self, step: int, state: Any) -> tuple[int, Any]:
        """Return (step, state) of the checkpoint from which the run goes on; in a run from its start, what is given.

        A program that keeps checkpoints calls it once, before its first step::

            first, x = chip.resume(0, x)
            for step in range(first, n):
                chip.checkpoint(step, x)
                x = await ...
        """

    def checkpoint(self, step: int, state: Any, sent: Sequence[tuple[Array, int, str]] = ()) -> None:
        """Keep what the program needs to go on with this step, if one is due; costs no simulated time.

        state: arrays, numbers, strings, bytes, None, and lists and dicts (of string keys) of these. All chips call it
        between the same two steps: no operation is under way, and what was sent has been received, but for `sent`:
        (what, destination, tag) of messages of this chip that others receive later; a run that goes on has them.
        """
