"""Put a report together: figures and data of what is stored, on the page of its kind."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from bokeh.embed import json_item
from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined

from cluster.report.run_page import Page, run_page
from cluster.report.stored import StoredRun, read_stored
from cluster.report.sweep_page import sweep_page
from configs.errors import ConfigError, RunError

SCRIPTS = ("frame.js", "tables.js")
OWN_SCRIPTS = {"run": ("timeline.js", "links.js", "run.js"), "sweep": ("sweep.js",)}


@frozen
class Report:
    """A report that was written."""

    kind: str
    path: Path
    size_bytes: int


def write_report(folder: Path, out: Path | None = None) -> Report:
    """Write the report of a run's or a sweep's folder, by default as report.html in it.

    The page needs nothing beside itself and asks nothing of a network. Raises ConfigError for a wrong folder or file.
    """
    stored = read_stored(folder)
    path = folder / "report.html" if out is None else out
    if path.is_dir() or not path.parent.is_dir():
        why = "is a folder" if path.is_dir() else "its folder does not exist"
        raise ConfigError((f"--out: {path}: {why}; accepted: a file in a folder that can be written",))
    kind = "run" if isinstance(stored, StoredRun) else "sweep"
    page = run_page(stored) if isinstance(stored, StoredRun) else sweep_page(stored)
    text = _render(kind, page).encode(errors="backslashreplace")
    try:
        path.write_bytes(text)
    except OSError as error:
        raise RunError(f"--out: {path}: cannot be written: {error.strerror}") from None
    return Report(kind, path, len(text))


def _render(kind: str, page: Page) -> str:
    environment = Environment(
        loader=PackageLoader("cluster.report", "page"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    items = {name: json_item(model, f"figure-{name}") for name, model in page.figures.items()}
    bokeh = Resources(mode="inline", components=["bokeh"], minified=True).js_raw
    own = [environment.get_template(name).render() for name in (*SCRIPTS, *OWN_SCRIPTS[kind])]
    return environment.get_template(f"{kind}.html").render(
        bokeh=bokeh,
        own=own,
        packed=pack({"figures": items, **page.data}),
        later=pack(page.later),
        heights=_heights(page.figures),
        **page.words,
    )


def pack(data: Mapping[str, Any]) -> str:
    """Return data as text for a page: JSON, deflated, in base64; so nothing in it can be taken for markup."""
    text = json.dumps(data, separators=(",", ":"), default=_listed)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _listed(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy's
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not for JSON")


def _heights(figures: Mapping[str, Any]) -> dict[str, int]:
    """Return the room that figures take, so that the page does not jump as they appear."""
    return {name: sum(part.height for part in getattr(model, "children", [model])) for name, model in figures.items()}
