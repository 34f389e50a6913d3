"""What a planner is asked, and the layouts and batches that it searches."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from attrs import asdict, field, frozen

from configs.errors import ConfigError
from configs.overrides import parse_override
from configs.problems import shown, unknown
from configs.spec.workload import MOST_ROWS
from configs.units import format_time_ps, parse_time_ps
from workloads.conditions import Condition

Objective = Literal["tpot", "throughput", "cost"]
MOST_CANDIDATES = 50_000
NAMES = ("tp", "pp", "dp", "ep", "cp", "grid", "micro_batches", "batch", "n_ranks", "n_chips")
"""What conditions may ask of a candidate."""
AXES = ("tp", "pp", "dp", "ep", "cp", "grid")
SEARCHED = re.compile(
    r"parallel(\.(tp|pp|dp|ep|cp|tp_grid))?|micro_batches|overlap|numerics|system|model|workload(\.(batch|prompt\w*|new_tokens))?"
)
"""Keys that the planner sets itself."""
_SLO = re.compile(r"\s*(\w+)\s*(<=?)\s*(.+)")
_RANGE = re.compile(r"(\d{1,9})(?::(\d{1,9}))?")


@frozen(order=True)
class Shape:
    """How one replica is spread: what decides its memory and its times; grid: parts of matrices' hidden side."""

    tp: int
    pp: int
    ep: int
    cp: int
    grid: int = 1

    @property
    def n_ranks(self) -> int:
        """Chips of one replica (of `ep` of them that share experts)."""
        return self.tp * self.pp * self.ep * self.cp

    @property
    def tp_grid(self) -> tuple[int, int] | None:
        """The grid of `parallel.tp_grid`, None without one."""
        return (self.grid, self.tp // self.grid) if self.grid > 1 else None


@frozen(order=True)
class Candidate:
    """A layout with a batch. Every replica has equally many rows, every micro-batch of it as well."""

    shape: Shape
    dp: int
    micro_batches: int
    batch: int

    @property
    def layout(self) -> tuple[Shape, int, int]:
        """All but the batch."""
        return self.shape, self.dp, self.micro_batches

    @property
    def n_ranks(self) -> int:
        """Chips in use."""
        return self.shape.n_ranks * self.dp

    @property
    def rows(self) -> int:
        """Rows of a replica."""
        return self.batch // (self.dp * self.shape.ep)

    @property
    def part_rows(self) -> int:
        """Rows of a micro-batch."""
        return self.rows // self.micro_batches

    def named(self) -> dict[str, int]:
        """Return its degrees and its batch by name."""
        more = {"dp": self.dp, "micro_batches": self.micro_batches, "batch": self.batch, "n_ranks": self.n_ranks}
        return {**asdict(self.shape), **more}

    def overrides(self) -> tuple[str, ...]:
        """Return it as `--set` texts."""
        s = self.shape
        degrees = {"tp": s.tp, "pp": s.pp, "dp": self.dp, "ep": s.ep, "cp": s.cp}
        parallel = (f"parallel.{axis}={n}" for axis, n in degrees.items())
        grid = (f"parallel.tp_grid={list(s.tp_grid)}",) if s.tp_grid else ()
        return *parallel, *grid, f"micro_batches={self.micro_batches}", f"workload.batch={self.batch}"

    def __str__(self) -> str:
        degrees = [
            f"{name} {n}" for name, n in self.named().items() if n > 1 and name in ("tp", "pp", "dp", "ep", "cp")
        ]
        parts = f", {self.micro_batches} micro-batches" if self.micro_batches > 1 else ""
        return f"{' × '.join(degrees) or 'one chip'}{parts}, batch {self.batch}"


@frozen
class Limit:
    """A service-level objective: a time of the run must be below so many seconds."""

    metric: Literal["tpot", "ttft"]
    below_s: float

    def __str__(self) -> str:
        return f"{self.metric} < {format_time_ps(self.below_s * 1e12)}"


@frozen
class Request:
    """What is asked: `base` is the experiment that candidates change, `overrides` are those of all candidates."""

    base: Mapping[str, Any]
    objective: Objective
    limits: tuple[Limit, ...] = ()
    batches: tuple[int, ...] = (1,)
    where: tuple[Condition, ...] = ()
    overrides: tuple[str, ...] = ()
    grids: bool = False
    n_workers: int = field(default=1, eq=False)


def make_request(
    system: str,
    model: str,
    objective: str,
    *,
    slo: Sequence[str] = (),
    batch: str = "1:256",
    context: int = 1024,
    new_tokens: int = 4,
    where: Sequence[str] = (),
    overrides: Sequence[str] = (),
    grids: bool = False,
    n_workers: int = 1,
) -> Request:
    """Return a request from texts; raises ConfigError with everything that is wrong with them."""
    problems: list[str] = []
    if objective not in get_args(Objective):
        problems.append(f"--objective: {unknown(objective, 'an objective', get_args(Objective))}")
    if not 1 <= context <= 10**7:
        problems.append(f"--context: {context}; accepted: 1 to 10000000 tokens")
    if not 2 <= new_tokens <= 10**4:
        problems.append(
            f"--new-tokens: {new_tokens}; accepted: 2 to 10000, for tpot is the time of the second and later ones"
        )
    if n_workers < 1:
        problems.append(f"--workers: {n_workers}; accepted: an integer ≥ 1")
    limits = [*_parsed("--slo", slo, parse_limit, problems)]
    conditions = [*_parsed("--where", where, _condition, problems)]
    batches = [*_parsed("--batch", [batch], parse_batches, problems)]
    for text in _parsed("--set", overrides, parse_override, problems):
        if SEARCHED.fullmatch(".".join(map(str, text.keys))):
            how = "what the planner leaves alone; --where, --batch, --context and --new-tokens say what it searches"
            problems.append(f"--set {text.text}: is set by the planner; accepted: {how}")
    if problems:
        raise ConfigError(tuple(problems))
    workload = {"prompt_tokens": context, "new_tokens": new_tokens}
    base = {"name": "plan", "system": system, "model": model, "numerics": "shapes", "workload": workload}
    return Request(
        base, objective, tuple(limits), batches[0], tuple(conditions), tuple(overrides), grids, n_workers  # type: ignore[arg-type]
    )  # fmt: skip


def _parsed(option: str, texts: Iterable[str], parse: Any, problems: list[str]) -> Iterator[Any]:
    for text in texts:
        try:
            yield parse(text)
        except ConfigError as error:
            problems += [
                problem if problem.startswith(option) else f"{option}: {problem}" for problem in error.problems
            ]


def _condition(text: str) -> Condition:
    condition = Condition.parse(text)
    condition.check_names(NAMES)
    return condition


def parse_limit(text: str) -> Limit:
    """Return a service-level objective.

    >>> parse_limit("tpot<50ms")
    Limit(metric='tpot', below_s=0.05)
    """
    match = _SLO.fullmatch(text)
    if match is None or match[1] not in ("tpot", "ttft"):
        raise ConfigError((f"{shown(text)} is no objective; accepted: tpot<50ms, ttft<1s",))
    return Limit(match[1], parse_time_ps(match[3].strip()) / 1e12)  # type: ignore[arg-type]


def parse_batches(text: str) -> tuple[int, ...]:
    """Return batches from a list with commas; `low:high` is a range by doubling.

    >>> parse_batches("1:16,24")
    (1, 2, 4, 8, 16, 24)
    """
    found: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= low <= high <= MOST_ROWS:
            raise ConfigError((f"{shown(part)}; accepted: 8, or 1,4,16, or 1:64 (doubling), from 1 to {MOST_ROWS}",))
        while low <= high:
            found.add(low)
            low *= 2
    return tuple(sorted(found))


def candidates(request: Request, n_chips: int, ep_possible: bool) -> list[Candidate]:
    """Return all candidates on a system of so many chips, in order.

    Degrees are divisors of the number of chips, with a product of at most it. Rows divide evenly over replicas and
    micro-batches, of which there are one or, over pipeline stages without expert parallelism, as many as stages. With
    `grids`, matrices of layouts without cp are also cut along both sides.
    """
    degrees = [n for n in range(1, n_chips + 1) if n_chips % n == 0]
    axes = (degrees, degrees, degrees if ep_possible else [1], degrees, degrees)
    found = []
    for tp, pp, ep, cp, dp in itertools.product(*axes):
        if math.prod((tp, pp, ep, cp, dp)) > n_chips:
            continue
        grids = [n for n in degrees if tp % n == 0] if request.grids and cp == 1 else [1]
        parts = sorted({1, pp} if ep == 1 else {1})
        for grid, n_parts, batch in itertools.product(grids, parts, request.batches):
            candidate = Candidate(Shape(tp, pp, ep, cp, grid), dp, n_parts, batch)
            if batch % (dp * ep * n_parts) == 0 and _wanted(candidate, request, n_chips):
                found.append(candidate)
        if len(found) > MOST_CANDIDATES:
            why = f"more than {MOST_CANDIDATES} layouts and batches on {n_chips} chips"
            raise ConfigError((f"plan: {why}; accepted: fewer, with --where 'tp <= 8' and the like, or --batch",))
    if not found:
        raise ConfigError((f"plan: no layout on {n_chips} chips fits --where and --batch; accepted: at least one",))
    return sorted(found)


def _wanted(candidate: Candidate, request: Request, n_chips: int) -> bool:
    values = {**candidate.named(), "n_chips": n_chips}
    return all(condition.holds(values) for condition in request.where)
