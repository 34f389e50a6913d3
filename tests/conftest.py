"""Options and fixtures that all tests share."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings

# The same examples each time, and no time limit on any: a busy machine is no failure.
settings.register_profile("chipmesh", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("chipmesh")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--regenerate-golden`: the only thing that writes files under tests/golden."""
    parser.addoption("--regenerate-golden", action="store_true", help="rewrite the files under tests/golden")


FEW = 4
ONE_OF = 8


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Measure coverage on the first few cases of a test and on one of eight that follow.

    Tracing lines doubles the time of a test, and the many cases of one walk the same lines. What is found is no more
    than what is covered, so the bar holds. The sample is the same in every process and each time.
    """
    n_before: Counter[str] = Counter()
    for item in items:
        function = item.nodeid.split("[")[0]
        n_before[function] += 1
        if n_before[function] > FEW and crc32(item.nodeid.encode()) % ONE_OF:
            item.add_marker("no_cover")


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
