"""What is asked of a model."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen

from configs.fields import above, at_least, between

MOST_ROWS = 100_000  # sequences in a batch


MOST_CHARACTERS = 1_000_000  # in a prompt


@frozen
class SamplingSpec:
    """How the next token is chosen: the best, or drawn from softmax(logits / temperature).

    top_k: among the k best.  top_p: among the fewest that add up to the probability p; with a k, of the k best.
    """

    kind: Literal["greedy", "temperature", "top_k", "top_p"] = "greedy"
    temperature: float = field(default=1.0, metadata=above(0))
    k: int | None = field(default=None, metadata=at_least(1))
    p: float | None = field(default=None, metadata=above(0, 1))
    seed: int = field(default=0, metadata=between(0, 2**63))


@frozen
class WorkloadSpec:
    """What is asked of the model: one of prompt, prompt_ids and prompt_tokens (a seeded random prompt).

    A loaded `prompt_ids` has one row per sequence of the batch. stop_ids: tokens at which a row's ids and text are cut;
    the run goes on to `new_tokens`, since simulated time may not depend on values.
    """

    kind: Literal["decode"] = "decode"
    batch: int = field(default=1, metadata=between(1, MOST_ROWS))
    new_tokens: int = field(default=32, metadata=at_least(1))
    prompt: str | None = None
    prompt_ids: tuple[tuple[int, ...], ...] | None = field(default=None, metadata=at_least(0))
    prompt_tokens: int | None = field(default=None, metadata=at_least(1))
    chat: bool = False
    sampling: SamplingSpec = SamplingSpec()
    stop_ids: tuple[int, ...] = field(default=(), metadata=at_least(0))
