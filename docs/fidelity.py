"""Write the page of errors from the kept figures.

python docs/fidelity.py docs/fidelity.md                            from the kept figures
python docs/fidelity.py docs/fidelity.md --measure [collective|decode]   which are found first (minutes)
python docs/fidelity.py docs/fidelity.md --check [collective|decode]     fails if they have grown by a point
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from cluster.progress import Lines
from cluster.uncertainty import stored_figures, stored_held_out
from cluster.validation import read_rows, validate_rows
from cluster.validation.decode_held_out import BY
from cluster.validation.figures import figures_of, grown, kind_of
from configs.catalogue_files import catalogue_names, errors_path, held_out_collectives_path
from configs.loader import load_communication
from configs.units import format_size
from configs.yaml_source import parse_yaml, read_file

BEGIN, END = "<!-- Written by docs/fidelity.py: from here -->", "<!-- to here -->"


def main(target: str, *options: str) -> None:
    """Write the page."""
    if options[:1] == ("--check",):
        problems = grown(found(options[1:]), stored_figures())
        sys.exit("\n".join(problems) or 0)
    if options[:1] == ("--measure",):
        measure(options[1:])
    path = Path(target)
    path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")


def found(kinds: Sequence[str]) -> dict[str, Any]:
    """Return the errors over the catalogue's measured figures (of some kinds)."""
    rows = [row for row in read_rows() if not kinds or kind_of(row) in kinds]
    return figures_of(validate_rows(rows, on_progress=Lines("simulations")))


def measure(kinds: Sequence[str]) -> None:
    """Keep the errors of today."""
    figures = {**stored_figures(), **found(kinds)}
    text = "# Written by docs/fidelity.py --measure: errors as fractions.\n" + yaml.safe_dump(figures, sort_keys=True)
    errors_path().write_text(text, encoding="utf-8")
    stored_figures.cache_clear()


def page(text: str) -> str:
    """Return the page with its tables written anew."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n\n" + "\n".join(_tables(stored_figures())) + "\n" + END + rest.split(END)[1]


def _tables(figures: Mapping[str, Any]) -> Iterator[str]:
    for kind, section in sorted(figures.items()):
        yield f"### {kind.capitalize()}\n"
        yield f"{section['all']['n']} rows are predicted, {section['skipped']} skipped.\n"
        yield from _table("rows", {"all": section["all"], **section["sizes"]})
        yield from _table("system", section["systems"])
    yield from _left_out(stored_held_out())
    yield from _profiles(figures["collective"]["profiles"])
    path = held_out_collectives_path()
    yield from _collectives_held_out(parse_yaml(read_file(path), path.name))


def _profiles(figures: Mapping[str, Any]) -> Iterator[str]:
    yield "### Profiles\n"
    yield "Ranks, nodes and sizes are those of the measured calls; a run outside of them says so in a note.\n"
    yield "| profile | what | rows | sources | ranks | nodes | sizes | median | p90 |"
    yield "| --- | --- | ---: | ---: | --- | --- | --- | ---: | ---: |"
    for name in catalogue_names("communication"):
        f, what = figures.get(name), load_communication(name).description
        if f is None:
            yield f"| {name} | {what} | 0 | | | | | | |"
            continue
        ranks, nodes = (" to ".join(str(n) for n in dict.fromkeys(f[key])) for key in ("ranks", "nodes"))
        sizes = " to ".join(dict.fromkeys(map(format_size, f["sizes_bytes"])))
        errors = f"{f['median']:.1%} | {f['p90']:.1%}"
        yield f"| {name} | {what} | {f['n']} | {f['sources']} | {ranks} | {nodes} | {sizes} | {errors} |"
    yield ""


def _left_out(found: Mapping[str, Any]) -> Iterator[str]:
    yield "### Decode, held out\n"
    yield "| chips | fitted on all | median, p90 | left out in turn | rows | median, p90 there | worst: rows, median |"
    yield "| --- | ---: | ---: | --- | ---: | ---: | --- |"
    for family, columns in found["families"].items():
        for by in (by for by in BY if columns[by]["values"]):
            one, fit = columns[by], columns["fitted"]
            worst = f"{one['worst']}: {one['worst_figures']['n']}, {one['worst_figures']['median']:.1%}"
            yield (
                f"| {family} | {fit['n']} | {_pair(fit)} | {by}: {one['values']} | {one['held_out']['n']} "
                f"| {_pair(one['held_out'])} | {worst} |"
            )
    yield f"\nAll sources left out: {found['all']['n']} rows, {_pair(found['all'])}.\n"
    yield "| profile | rows | sources |\n| --- | ---: | ---: |"
    for name, one in found["profiles"].items():
        yield f"| {name} | {one['rows']} | {one['sources']} |"
    yield ""


def _pair(figures: Mapping[str, float]) -> str:
    return f"{figures['median']:.1%}, {figures['p90']:.1%}"


def _collectives_held_out(parts: Any) -> Iterator[str]:
    yield "### Collectives, held out\n"
    yield "Of the parts left out in one way: how many, their rows, the median of their medians and of those fitted.\n"
    yield "| left out | parts | rows | median there | median fitted |\n| --- | ---: | ---: | ---: | ---: |"
    every = [part for of_profile in parts.values() for part in of_profile]
    for by in dict.fromkeys(part["by"] for part in every):
        alike = [part for part in every if part["by"] == by]
        there = median(part["held"][0] for part in alike)
        fitted = [part["fitted"][0] for part in alike if "fitted" in part]
        shown = f"{median(fitted):.1%}" if fitted else ""
        yield f"| {by} | {len(alike)} | {sum(part['n_held'] for part in alike)} | {there:.1%} | {shown} |"
    yield ""
    yield "| profile | left out | rows | median, p90 there | rows fitted on | median, p90 there |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    for name, of_profile in sorted(parts.items()):
        for part in of_profile:
            left_out = f"{part['by']}: {_short(part['left_out'])}"
            if part["by"] == "everything":
                left_out = f"everything; constants of {part['left_out']}"
            fitted = " | ".join([str(part["n_fitted"]), _two(part["fitted"])] if "fitted" in part else ["0", ""])
            yield f"| {name} | {left_out} | {part['n_held']} | {_two(part['held'])} | {fitted} |"
    yield ""


def _two(figures: Sequence[float]) -> str:
    return f"{figures[0]:.1%}, {figures[1]:.1%}"


def _short(text: str) -> str:
    """Return a source's owner, repository and last name, or its words.

    >>> _short("https://github.com/NVIDIA/nccl/issues/309@4f5")
    'NVIDIA/nccl … issues/309'
    """
    if text.startswith("stored public text"):
        return "no address"
    address = text.partition("@")[0].partition(" (")[0].removeprefix("https://").removeprefix("github.com/")
    owner, _, rest = address.partition("/")
    repository, _, path = rest.replace(" ", "/").partition("/")
    return f"{owner}/{repository} … {'/'.join(path.split('/')[-5:])}" if path else address


def _table(name: str, groups: Mapping[str, Any]) -> Iterator[str]:
    yield f"| {name} | n | median | p90 | worst | its error |\n| --- | ---: | ---: | ---: | --- | ---: |"
    for group, f in groups.items():
        yield f"| {group} | {f['n']} | {f['median']:.1%} | {f['p90']:.1%} | {f['worst']} | {f['error']:.0%} |"
    yield ""


if __name__ == "__main__":
    main(*sys.argv[1:])
