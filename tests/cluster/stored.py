"""Folders of a run and of a sweep for tests of reports, with names that are markup and mathematics."""

from __future__ import annotations

import copy
from pathlib import Path

import yaml

from cluster import sweep
from cluster.cli import main
from tests.cluster.test_cli import EXPERIMENT

SCRIPT = "<script>document.title='taken'</script>"
IMAGE = '"><img src=x onerror="document.title=\'taken\'">'
MATHS = "$$\\alpha$$"


def hostile() -> dict:
    """Return an experiment whose names are none of a page's business."""
    experiment = copy.deepcopy(EXPERIMENT)
    experiment["system"]["name"] = SCRIPT
    experiment["system"]["chip"]["name"] = f"chip {MATHS}"
    experiment["system"]["chip"]["memory"][0]["name"] = IMAGE
    experiment["model"]["name"] = f"tiny </script>{MATHS}"
    return experiment


def store_run(folder: Path, *options: str) -> Path:
    """Run the hostile experiment, keep it in a folder, and return that."""
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(hostile()))
    assert main(["run", str(path), "--out", str(folder / "run"), *options]) == 0
    return folder / "run"


def store_sweep(folder: Path) -> Path:
    """Run a sweep of it over systems, degrees and batches, of which one fails, and return its folder."""
    points = {
        "base": hostile(),
        "grid": {"parallel.tp": [1, 2, 3], "workload.batch": [1, 2], "system.name": [SCRIPT, "other"]},
        "list": [{"parallel.pp": 1}, {"parallel.pp": 4}],
    }
    sweep(points, out=folder / "sweep", n_workers=1).table()
    return folder / "sweep"
