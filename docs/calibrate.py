"""Find constants of communication profiles anew from the measured figures, and the errors on rows left out.

python docs/calibrate.py PROFILE...              writes the constants into the profiles' files (those from measurements)
python docs/calibrate.py --hold-out [PROFILE]... keeps the errors on what was left out (minutes for all)
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cluster.validation import Case, read_rows
from cluster.validation.calibration import calibrated, errors_at
from cluster.validation.cases import case_of
from cluster.validation.collective_cases import CollectiveWork, profile_of
from cluster.validation.held_out import constants_at, held_out, points_of
from cluster.validation.planes import Constant
from configs.catalogue_files import catalogue_path, held_out_collectives_path
from configs.yaml_source import parse_yaml, read_file

HEAD = "# Written by docs/calibrate.py --hold-out: median and p90 of errors as fractions.\n"
CHANGED = 0.01
"""Constants that move by less stay as they are."""


def main(*arguments: str) -> None:
    """Carry out a command."""
    cases = by_profile()
    if arguments[:1] == ("--hold-out",):
        keep(arguments[1:] or tuple(cases), cases)
        return
    for name in arguments:
        calibrate(name, cases[name])


def by_profile() -> dict[str, list[Case]]:
    """Return the cases of collectives in the catalogue's figures, by communication profile."""
    found: dict[str, list[Case]] = {}
    for row in read_rows():
        case = case_of(row)
        if isinstance(case, Case) and isinstance(case.work, CollectiveWork):
            found.setdefault(profile_of(case.work.system, case.work.overrides), []).append(case)
    return dict(sorted(found.items()))


def calibrate(name: str, cases: Sequence[Case]) -> None:
    """Find a profile's constants, beginning at those that it has, and write them into its file."""
    at = constants_at(name)
    _, points = points_of(cases, tuple(at))
    if not points or not at:
        sys.exit(f"{name}: no row tells of its constants")
    found = calibrated(points, at, at)
    for values in (at, found):
        errors = sorted(errors_at(points, values, at).tolist())
        print(f"{name}: median {errors[len(errors) // 2]:.1%}, p90 {errors[len(errors) * 9 // 10]:.1%}")  # noqa: T201
    path = catalogue_path("communication", name)
    path.write_text(written(path.read_text(encoding="utf-8"), at, found), encoding="utf-8")


def written(text: str, at: Mapping[Constant, float], found: Mapping[Constant, float]) -> str:
    """Return a profile's text with the constants that have moved."""
    for (protocol, field), value in found.items():
        if abs(value / at[protocol, field] - 1) < CHANGED:
            continue
        key, shown = field.removesuffix("_ps"), f"{value / 1e6:.3g}us" if field.endswith("_ps") else f"{value:.3g}"
        begin = text.index(f"\n  {protocol}:\n") + 1
        after = re.compile(r"\n {0,2}\S|\Z").search(text, begin)
        end = after.start() if after else len(text)
        block = re.sub(rf"(\n    {key}: {{value: )[^,]+,", rf"\g<1>{shown},", text[begin:end])
        text = text[:begin] + block + text[end:]
    return text


def keep(names: Sequence[str], cases: Mapping[str, Sequence[Case]]) -> None:
    """Keep the errors on what was left out, profile by profile."""
    path = held_out_collectives_path()
    kept: Any = parse_yaml(read_file(path), str(path)) if path.exists() else {}
    for name in names:
        kept[name] = [part.to_json() for part in held_out(name, cases[name])]
        path.write_text(HEAD + "".join(_lines(kept)), encoding="utf-8")


def _lines(kept: Mapping[str, Any]) -> Iterator[str]:
    for name, parts in sorted(kept.items()):
        yield f"{name}:\n" if parts else f"{name}: []\n"
        yield from (f"- {json.dumps(part)}\n" for part in parts)


if __name__ == "__main__":
    main(*sys.argv[1:])
