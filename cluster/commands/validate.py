"""The command `validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cluster.commands.options import AsJson, whole_number
from cluster.commands.output import check_writable, console_of, print_json, write


def validate(
    *files: Path,
    svg: Annotated[Path | None, Parameter(help="Draw predicted against measured.")] = None,
    csv: Annotated[Path | None, Parameter(help="Write every row with its prediction, or why it has none.")] = None,
    workers: Annotated[
        int | None, Parameter(help="Processes; by default one per core.", converter=whole_number)
    ] = None,
    json_: AsJson = False,
) -> None:
    """Predict measured figures and print the errors: of CSV files, or of the catalogue's (docs/fidelity.md)."""
    from cluster.validation import validate as predict
    from cluster.validation.shown import as_csv, picture, print_validation, shown_progress

    check_writable(None, {"--svg": svg, "--csv": csv})
    with shown_progress(console_of(stderr=True)) as on_progress:
        validation = predict(files, n_workers=workers, on_progress=on_progress)
    if svg is not None:
        write(svg, picture(validation), "--svg")
    if csv is not None:
        write(csv, as_csv(validation), "--csv")
    if json_:
        print_json(validation.to_json())
    else:
        print_validation(console_of(), validation)
