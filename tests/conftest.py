"""Options and fixtures that all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples each time, and no time limit on any: a busy machine is no failure.
settings.register_profile("chipmesh", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("chipmesh")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--regenerate-golden`: the only thing that writes files under tests/golden."""
    parser.addoption("--regenerate-golden", action="store_true", help="rewrite the files under tests/golden")


@pytest.fixture
def golden(request: pytest.FixtureRequest):
    """Return `check(name, text)`: the text must be the file tests/golden/name, line by line."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--regenerate-golden"):
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"no {path}; write it with pytest --regenerate-golden, and read it before you commit"
        assert text.splitlines() == path.read_text(encoding="utf-8").splitlines()

    return check
