"""Rotary positions: how far each pair of a head's elements turns from one token to the next.

Su et al., "RoFormer" (arXiv 2104.09864): pair j turns by theta^(-2j/dim) per token. Scaled variants divide these
frequencies so that a model reaches further than it was first trained.
"""

from __future__ import annotations

import math
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
    yarn: those that turn fewer than beta_slow times in the original context by `factor`, those that turn more than
    beta_fast times by one; in between the share falls linearly from pair to pair. (Peng et al., arXiv 2309.00071,
    equations 17 to 24; like the authors' code and Hugging Face transformers, src/transformers/modeling_rope_utils.py,
    the ramp is over pairs, with ends rounded outwards where `truncate` says so.) Rotated elements are multiplied by
    `amplitude`, DeepSeek's scores by `score_factor`.
    """

    kind: Literal["linear", "llama3", "factors", "yarn"]
    factor: float = field(default=1.0, metadata=above(0))
    low_freq_factor: float = field(default=1.0, metadata=above(0))
    high_freq_factor: float = field(default=4.0, metadata=above(0))
    original_context: int = field(default=8192, metadata=at_least(1))
    factors: tuple[float, ...] = field(default=(), metadata=above(0))
    beta_fast: float = field(default=32.0, metadata=above(0))
    beta_slow: float = field(default=1.0, metadata=above(0))
    truncate: bool = True
    attention_factor: float | None = field(default=None, metadata=above(0))
    mscale: float | None = field(default=None, metadata=above(0))
    mscale_all_dim: float | None = field(default=None, metadata=above(0))

    def __attrs_post_init__(self) -> None:
        """Refuse bands that do not follow each other."""
        if self.kind == "yarn" and self.beta_fast < self.beta_slow:
            raise ConfigError((f"beta_fast: {self.beta_fast} must be at least beta_slow {self.beta_slow}",))
        if self.kind == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ConfigError(
                (f"high_freq_factor: {self.high_freq_factor} must be above low_freq_factor {self.low_freq_factor}",)
            )

    @property
    def amplitude(self) -> float:
        """What the rotated elements of queries and keys are multiplied by: √(1/t) = 0.1 ln(factor) + 1 for yarn.

        >>> RopeScaling(kind="linear", factor=4.0).amplitude, round(RopeScaling(kind="yarn", factor=4.0).amplitude, 4)
        (1.0, 1.1386)
        """
        if self.kind != "yarn":
            return 1.0
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale is not None and self.mscale_all_dim is not None:
            return self._temperature(self.mscale) / self._temperature(self.mscale_all_dim)
        return self._temperature(1.0)

    @property
    def score_factor(self) -> float:
        """What DeepSeek multiplies all scores by."""
        return self._temperature(self.mscale_all_dim) ** 2 if self.mscale_all_dim is not None else 1.0

    def _temperature(self, scale: float) -> float:
        return 0.1 * scale * math.log(max(self.factor, 1.0)) + 1.0

    def _kept(self, n_pairs: int, theta: float) -> npt.NDArray[np.float64]:
        """Return the share of every pair's frequency that yarn keeps."""

        def pair(turns: float) -> float:
            return n_pairs * math.log(self.original_context / (turns * 2 * math.pi)) / math.log(theta)

        low, high = pair(self.beta_fast), pair(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * n_pairs - 1)
        kept: npt.NDArray[np.float64] = 1 - np.clip((np.arange(n_pairs) - low) / max(high - low, 0.001), 0, 1)
        return kept

    def divide(self, frequency: npt.NDArray[np.float64], theta: float) -> npt.NDArray[np.float64]:
        """Return the frequencies, in radians per token, of all pairs; theta is the base that they are made of."""
        if self.kind == "linear":
            return frequency / self.factor
        if self.kind == "factors":
            return frequency / np.asarray(self.factors, np.float64)
        if self.kind == "yarn":
            share = self._kept(len(frequency), theta)
            return frequency * (share + (1 - share) / self.factor)
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
        return plain if self.scaling is None else self.scaling.divide(plain, self.theta)

    @property
    def amplitude(self) -> float:
        """What rotated elements are multiplied by."""
        return 1.0 if self.scaling is None else self.scaling.amplitude


@lru_cache(maxsize=8)
def rope_table(rope: Rope, n_positions: int) -> npt.NDArray[np.complex64]:
    """Return amplitude · e^(i·position·frequency), [n_positions, dim/2]."""
    turns = rope.amplitude * np.exp(1j * np.outer(np.arange(n_positions), rope.frequencies()))
    return np.asarray(turns, np.complex64)
