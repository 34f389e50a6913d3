"""Rotary positions: how far each pair of a head's elements turns from one token to the next.

Su et al., "RoFormer" (arXiv 2104.09864): pair j turns by theta^(-2j/dim) per token. Scaled variants divide these
frequencies so that a model reaches further than it was first trained.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from configs.errors import ConfigError
from configs.fields import above, at_least


@frozen(kw_only=True)
class RopeScaling:
    """How rotary frequencies are divided.

    linear: all by `factor` (positions are interpolated, arXiv 2306.15595).
    llama3: those whose wavelength is above original_context / low_freq_factor by `factor`, those below
    original_context / high_freq_factor by one, the others smoothly between (config.json of Llama 3.1,
    huggingface/transformers: src/transformers/modeling_rope_utils.py).
    factors: pair j by factors[j], as some files list them.
    """

    kind: Literal["linear", "llama3", "factors"]
    factor: float = field(default=1.0, metadata=above(0))
    low_freq_factor: float = field(default=1.0, metadata=above(0))
    high_freq_factor: float = field(default=4.0, metadata=above(0))
    original_context: int = field(default=8192, metadata=at_least(1))
    factors: tuple[float, ...] = field(default=(), metadata=above(0))

    def __attrs_post_init__(self) -> None:
        """Refuse bands that do not follow each other."""
        if self.kind == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ConfigError(
                (f"high_freq_factor: {self.high_freq_factor} must be above low_freq_factor {self.low_freq_factor}",)
            )

    def divide(self, frequency: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the frequencies, in radians per token, of all pairs."""
        if self.kind == "linear":
            return frequency / self.factor
        if self.kind == "factors":
            return frequency / np.asarray(self.factors, np.float64)
        waves = self.original_context * frequency / (2 * np.pi)  # in the original context
        span = self.high_freq_factor - self.low_freq_factor
        kept = np.clip((waves - self.low_freq_factor) / span, 0, 1)
        divided: npt.NDArray[np.float64] = frequency * (kept + (1 - kept) / self.factor)
        return divided


@frozen
class Rope:
    """The rotation of the first `dim` elements of a head; elements 2j and 2j+1 are one pair."""

    theta: float
    dim: int
    scaling: RopeScaling | None = None

    def frequencies(self) -> npt.NDArray[np.float64]:
        """Return the turn per token of every pair, in radians, [dim/2].

        >>> Rope(10000.0, 4).frequencies().tolist()
        [1.0, 0.01]
        """
        plain = self.theta ** (-np.arange(0, self.dim, 2) / self.dim)
        return plain if self.scaling is None else self.scaling.divide(plain)


@lru_cache(maxsize=8)
def rope_table(rope: Rope, n_positions: int) -> npt.NDArray[np.complex64]:
    """Return e^(i·position·frequency), [n_positions, dim/2]."""
    turns = np.exp(1j * np.outer(np.arange(n_positions), rope.frequencies()))
    return np.asarray(turns, np.complex64)
