"""Draw the picture of the README: the terminal of `chipmesh run galaxy-smollm2`.

python docs/picture.py docs/run.svg
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console

from cluster.experiment import run_experiment
from cluster.terminal import print_run
from cluster.vocabulary import VOCABULARY
from configs.loader import load_experiment


def main(target: str) -> None:
    """Run the experiment and save what it prints as SVG."""
    console = Console(record=True, width=110, file=io.StringIO(), highlight=False)
    spec = load_experiment("galaxy-smollm2", (), VOCABULARY)
    result = run_experiment(spec)
    assert result.text is not None
    console.print("[bold]$ chipmesh run galaxy-smollm2[/]")
    console.print(f"[dim]{spec.workload.prompt}[/]{result.text[0]}")
    print_run(console, result)
    Path(target).write_text(console.export_svg(title="chipmesh"), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
