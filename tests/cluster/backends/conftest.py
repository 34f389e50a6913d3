"""Fixtures of the tests that start processes."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from pathlib import Path

import pytest

from cluster.vocabulary import VOCABULARY
from configs.loader import load_experiment
from tests.cluster.backends.common import MARK, SYSTEM, check_nothing_is_left
from tests.workloads.tiny import write_tiny


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """A mark in the environment and a folder for temporary files; nothing may be left at the end of the module."""
    tmp_path_factory.getbasetemp()  # made now, where temporary files are made otherwise
    mark, folder = uuid.uuid4().hex, Path(tempfile.mkdtemp(prefix="cm"))  # short: the paths of Unix sockets are
    patch = pytest.MonkeyPatch()
    patch.setenv(MARK, mark)
    patch.setenv("TMPDIR", str(folder))
    patch.setattr(tempfile, "tempdir", str(folder))
    yield mark, folder
    try:
        check_nothing_is_left((mark, folder))
    finally:
        patch.undo()
        shutil.rmtree(folder)


@pytest.fixture
def clean(trace):
    """Check that nothing is left once the test has closed its cluster."""
    yield trace
    check_nothing_is_left(trace)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A tiny model with random weights on four chips."""
    path = write_tiny(tmp_path_factory.mktemp("model") / "tiny.gguf")
    source = {
        "name": "tiny", "system": SYSTEM, "model": str(path), "parallel": {"tp": 2, "pp": 2},
        "workload": {"prompt_ids": [[5, 17, 100, 3], [7]], "new_tokens": 6},
    }  # fmt: skip
    return load_experiment(source, (), VOCABULARY)
