"""What is said on a standard error that is no terminal, where a command takes long."""

from __future__ import annotations

from numba import njit

from cluster.cli import main
from cluster.progress import Lines
from cluster.timeline import compiling
from tests.cluster.validation.test_rows import HEADER, ROW, write


def test_lines(capsys):
    """The first line comes at once, the others when they are due."""
    for every_s, n_lines in ((1e9, 1), (0, 3)):
        lines = Lines("points", every_s)
        for done in range(3):
            lines(1000 * done, 2000)
        told = capsys.readouterr().err.splitlines()
        assert told == [f"chipmesh: {n:,} of 2,000 points" for n in (0, 1000, 2000)[:n_lines]]


def test_a_validation_says_that_it_begins(tmp_path, capsys):
    """Before the first simulation."""
    assert main(["validate", str(write(tmp_path, HEADER + ROW)), "--json"]) == 0
    assert capsys.readouterr().err.startswith("chipmesh: 0 of 1 simulations")


def test_compilation_is_said_once(capsys):
    """For functions of the timeline alone, and the first of them."""

    def double(x):
        return x + x

    for module, n_lines in (("elsewhere", 0), (f"{compiling.PACKAGE}.some", 1)):
        compiling.say.cache_clear()
        double.__module__ = module
        compiled = njit(double)
        assert (compiled(2), compiled(0.5)) == (4, 1.0)
        assert capsys.readouterr().err.count("compiling the timeline engine, once") == n_lines
