"""A run of one chip per role equals the run of every chip: records, traces, memory, timeline, to the last digit."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import define, evolve
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cluster import launch
from cluster.records import merge
from configs.errors import ConfigError, ProgramError
from configs.spec.chip import ChipSpec
from configs.spec.dtype import DtypeSpec
from tests.cluster.machines import CHIP, array, mesh, ring
from workloads.chip import Group
from workloads.decode import DecodeJob, check_job, decode
from workloads.huggingface import huggingface_model
from workloads.layout import Layout
from workloads.roles import DecodeRoles

ORACLES = Path(__file__).parents[1] / "data" / "oracles"
MODELS = {path.name: huggingface_model(path) for path in sorted(ORACLES.iterdir())}
EXPERTS = [name for name, model in MODELS.items() if hasattr(model.shape, "n_experts")]
WIDE: ChipSpec = evolve(CHIP, memory=(evolve(CHIP.memory[1], capacity_bytes=2**40),))


@st.composite
def jobs(draw):
    """Jobs whose heads, layers, experts and rows divide and do not divide, and replicas without rows."""
    name = draw(st.sampled_from([*MODELS, *EXPERTS]))
    sizes = {axis: draw(st.integers(1, 4)) for axis in ("tp", "pp", "dp")}
    sizes["cp"] = draw(st.sampled_from([1, 1, 2, 3]))
    if name in EXPERTS:
        sizes |= {"ep": draw(st.sampled_from([1, 2, 3, 4, 6])), "redundant_experts": draw(st.sampled_from([0, 0, 3]))}
    layout = Layout(**sizes, sequence=draw(st.booleans()))
    if draw(st.booleans()) and name not in EXPERTS:
        x, y = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        split = draw(st.sampled_from(["heads", "batch"]))
        layout = evolve(layout, tp=x * y, tp_grid=(x, y), tp_attention=split, cp=1, sequence=False)
    assume(layout.n_ranks <= 48)
    if draw(st.booleans()):
        layout = evolve(layout, chips=tuple(draw(st.permutations(range(layout.n_ranks)))))
    lengths = draw(st.sampled_from([(7,), (3, 3, 9)]))
    batch = draw(st.integers(layout.dp, 2 * layout.n_replicas + 1))
    job = DecodeJob(
        MODELS[name], layout, DtypeSpec("fp32", "fp32", "fp32"), (lengths * batch)[:batch], draw(st.integers(1, 3)),
        micro_batches=draw(st.integers(1, 3)), seed=draw(st.integers(0, 9)),
        skew=draw(st.sampled_from([None, None, 0.5])),
    )  # fmt: skip
    try:
        check_job(job)
    except ConfigError:
        assume(False)
    return job


def both(machine, n_chips, program, args, roles):
    """Return what the chips bring back by roles and one by one, and how many of them ran by roles."""
    found, ran = [], []
    for one_of_each in (roles, None):
        emitted, begun = [], set()

        async def noted(chip, *more, begun=begun):
            begun.add(chip.rank)
            return await program(chip, *more)

        def emit(rank, name, _value, index, emitted=emitted):
            emitted.append((rank, name, index))

        with launch(machine, n_chips=n_chips, numerics="shapes") as cluster:
            (outcome,) = cluster.backend.run(noted, args, emit, lambda _: None, one_of_each)
        records, traces = merge([(outcome.records, outcome.traces)])
        numbers = [(trace.rank, trace.numbers.tolist()) for trace in traces]
        found.append((outcome.values, records, numbers, outcome.memory_bytes, sorted(emitted)))
        ran.append(len(begun))
    return *found, ran[0]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(jobs())
def test_any_decode(job):
    """The chips of a role lie differently in the mesh, so that their groups may use other algorithms."""
    machine = evolve(mesh(6, 8), chip=WIDE)
    by_role, one_by_one, _ = both(machine, job.layout.n_ranks, decode, (job,), DecodeRoles(job))
    assert by_role == one_by_one


@pytest.mark.parametrize(
    ("name", "layout", "batch", "n_roles"),
    [
        ("llama", Layout(tp=2, dp=8), 16, 2),
        ("llama", Layout(tp=2, dp=8), 17, 4),
        ("llama", Layout(pp=2, dp=6), 12, 2),
        ("mixtral", Layout(ep=8), 16, 1),
        ("llama", Layout(tp=16, tp_grid=(8, 2)), 2, 16),
        ("llama", Layout(tp=8, tp_grid=(2, 4), dp=2), 2, 3),
    ],
)
def test_few_chips_run(name, layout, batch, n_roles):
    """Replicas with as many rows do the same, and so do ranks with as many experts; the first rank of tp hands over."""
    name = next(known for known in MODELS if known.startswith(name))
    job = DecodeJob(MODELS[name], layout, DtypeSpec("fp32", "fp32", "fp32"), (8,) * batch, 2)
    machine = evolve(mesh(4, 4), chip=WIDE)
    by_role, one_by_one, ran = both(machine, layout.n_ranks, decode, (job,), DecodeRoles(job))
    assert by_role == one_by_one
    assert ran == n_roles


def test_timelines_are_the_same():
    """Marks, events and links too: what the time plane is given is the same."""
    job = DecodeJob(MODELS[EXPERTS[0]], Layout(tp=2, ep=4, pp=2), DtypeSpec("fp32", "fp32", "fp32"), (8,) * 9, 3)
    timelines = []
    for roles in (DecodeRoles(job), None):
        with launch(evolve(mesh(4, 4), chip=WIDE), numerics="shapes") as cluster:
            timelines.append(cluster.run(decode, job, roles=roles).timeline)
    first, second = timelines
    assert first.sha256() == second.sha256()
    assert (first.marks, first.links, first.breakdown) == (second.marks, second.links, second.breakdown)


@define
class Pairs:
    """Chips 2i and 2i + 1 are a group; all do the same."""

    def representative(self, _rank):
        """Return the first."""
        return 0

    def group(self, _group, rank):
        """Return the pair."""
        first = rank // 2 * 2
        return Group(f"pair {first}", (first, first + 1))

    def peer(self, _peer, rank):
        """Return the other one."""
        return rank ^ 1


async def pairs(chip):
    """Reduce among two, blocking and started."""
    first = chip.rank // 2 * 2
    group = chip.group(f"pair {first}", (first, first + 1))
    await chip.all_reduce(array(chip, 100), group)
    handle = chip.start(chip.all_gather(array(chip, 8), group))
    chip.emit("half way", index=3)
    await handle
    return "done"


def test_started_operations():
    """Their starts and ends take the groups of each chip, too."""
    by_role, one_by_one, ran = both(ring(6), 6, pairs, (), Pairs())
    assert by_role == one_by_one
    assert ran == 1


def test_roles_that_do_not_fit():
    """A group that the chip is not in is refused."""

    @define
    class Wrong(Pairs):
        def group(self, _group, _rank):
            """Return the same pair for all."""
            return Group("pair 4", (4, 5))

    with pytest.raises(ProgramError, match="chip 1 is no member of 'pair 4'"):
        both(ring(6), 6, pairs, (), Wrong())
