"""Fit the constants of kernels and serving software to the catalogue's measured rows of decoding.

python docs/calibrate_decode.py --write       writes them into configs/catalogue (minutes)
python docs/calibrate_decode.py --hold-out    keeps the errors on what is left out, for docs/fidelity.md (minutes)
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict

import numpy as np
import yaml

from cluster.validation import read_rows
from cluster.validation.decode_fit import USUAL, Rows, fitted
from cluster.validation.decode_held_out import Known, held_out, taken_apart
from cluster.validation.rows import DecodeRow
from configs.catalogue_files import catalogue_path, held_out_decode_path

HEAD = "# Written by docs/calibrate_decode.py --hold-out: errors as fractions.\n"


def main(*options: str) -> None:
    """Do what the options say."""
    rows = [row for row in read_rows() if isinstance(row, DecodeRow)]
    known = taken_apart(rows, lambda done, of: sys.stderr.write(f"\r{done} of {of}"))
    if "--write" in options:
        write(known)
    if "--hold-out" in options:
        text = "# Written by docs/calibrate_decode.py --hold-out: errors as fractions.\n" + yaml.safe_dump(
            held_out(known)
        )
        held_out_decode_path().write_text(text, encoding="utf-8")


def write(known: list[Known]) -> None:
    """Write the constants into the profiles of kernels and software."""
    rows = Rows([one.measured for one in known])
    logs = fitted(rows)
    errors = np.abs(np.expm1(rows.errors(logs)))
    sys.stderr.write(f"\n{len(known)} rows: median {np.median(errors):.1%}, p90 {np.quantile(errors, 0.9):.1%}\n")
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for (profile, name), value in zip(rows.constants, np.exp(logs), strict=True):
        most = {"memory": 0.95, "compute": 0.95, "stream": 1.0, "stall": 1.0}.get(name.rpartition(".")[2], np.inf)
        found[profile][name] = min(float(value), most)
    for profile, constants in found.items():
        kind = "kernels" if any("." in name for name in constants) else "software"
        path = catalogue_path(kind, profile)
        path.write_text(_changed(path.read_text(encoding="utf-8"), constants), encoding="utf-8")


def _changed(text: str, constants: dict[str, float]) -> str:
    for name, value in constants.items():
        kind, _, what = name.rpartition(".")
        shown = f"{value * 1e6:.3g}us" if USUAL[name] < 1e-2 else f"{value:.3g}"
        if kind:
            text = re.sub(rf"(?m)^(  {kind}: .*?\b{what}: )[^,}}]+", rf"\g<1>{shown}", text)
        else:
            text = re.sub(rf"(?m)^({what}: {{value: )[^,}}]+", rf"\g<1>{shown}", text)
    return text


if __name__ == "__main__":
    main(*sys.argv[1:])
