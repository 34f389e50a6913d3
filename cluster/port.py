"""The connection of a chip to the other members of a group, for one collective."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from attrs import define
from numpy.typing import NDArray

from cluster.host import ABSENT, Host, Key, Mailbox


@define(eq=False)
class GroupPort:
    """Carries the messages of one collective; a `collectives.executor.Port`.

    ranks: the chips of the group, in its order; helpers of the schedule live with the first of them.
    """

    host: Host
    mailbox: Mailbox
    ranks: tuple[int, ...]
    tag: str

    def post(self, src: int, dst: int, chunks: list[NDArray[Any]]) -> None:
        """Send chunks from a node that lives here to a node without waiting."""
        if src < len(self.ranks) > dst:
            self.host.post(self.ranks[dst], self.mailbox.rank, self.tag, chunks)
        else:
            self.host.post(self._home(dst), self.mailbox.rank, self._tag(src, dst), chunks)

    def ready(self, src: int, dst: int, *, last: bool) -> list[NDArray[Any]] | None:
        """Return the next message from a node to one that lives here, or None if only `take` can wait for it."""
        key = (self.ranks[src], self.tag) if src < len(self.ranks) > dst else self._helper_key(src, dst)
        message = self.mailbox.ready(key, last)
        return None if message is ABSENT else message

    def take(self, src: int, dst: int, *, last: bool) -> Awaitable[list[NDArray[Any]]]:
        """Return the same, waiting for it."""
        key = (self.ranks[src], self.tag) if src < len(self.ranks) > dst else self._helper_key(src, dst)
        return self.mailbox.take(key, last)

    def _helper_key(self, src: int, dst: int) -> Key:
        return self._home(src), self._tag(src, dst)

    def _home(self, node: int) -> int:
        return self.ranks[node] if node < len(self.ranks) else self.ranks[0]

    def _tag(self, src: int, dst: int) -> str:
        """Return the tag of messages from or to a helper."""
        return f"{self.tag} {src}>{dst}"
