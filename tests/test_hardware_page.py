"""docs/hardware.md is what docs/hardware.py makes of the catalogue."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.catalogue_files import catalogue_names
from docs.hardware import page


@pytest.fixture(scope="module")
def text() -> str:
    """Return the page as it would be written now."""
    return page()


def test_the_page_is_up_to_date(text) -> None:
    """After a change of the catalogue: python docs/hardware.py docs/hardware.md."""
    written = Path(__file__).parents[1].joinpath("docs/hardware.md").read_text(encoding="utf-8")
    assert written == text, "run: python docs/hardware.py docs/hardware.md"


def test_the_page_has_everything(text) -> None:
    """Every chip and system has a section with a source for each figure."""
    for name in catalogue_names("chips") + catalogue_names("systems"):
        assert f"\n### {name}\n" in text
    assert "| `peak.bf16` | 989TFLOPS | vendor | spec |" in text
    assert "| `memory[hbm3].bandwidth` | 3350GB/s | vendor | hbm |" in text
