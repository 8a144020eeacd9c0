from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vertex_ray_emulator.project.catalog import ACCELERATORS, GIB, MACHINES, accelerator_problem
from vertex_ray_emulator.wire.protos import _accelerators

machines = st.sampled_from(sorted(MACHINES))
accelerators = st.sampled_from(sorted(ACCELERATORS))
counts = st.integers(min_value=1, max_value=16)


def test_every_accelerator_exists_in_the_api() -> None:
    assert set(ACCELERATORS) <= {value.name for value in _accelerators.values}


@pytest.mark.parametrize(
    ("name", "cpus", "gib"),
    [
        ("n1-standard-16", 16, 60),
        ("n1-highmem-8", 8, 52),
        ("n2-standard-32", 32, 128),
        ("e2-highmem-16", 16, 128),
        ("c2-standard-60", 60, 240),
        ("g2-standard-48", 48, 192),
        ("a2-highgpu-1g", 12, 85),
        ("a3-highgpu-8g", 208, 1872),
    ],
)
def test_machine_sizes(name: str, cpus: int, gib: int) -> None:
    machine = MACHINES[name]
    assert machine.cpus == cpus
    assert machine.memory_bytes == gib * GIB


@given(machines)
def test_machine_with_built_in_gpu_accepts_no_other(name: str) -> None:
    machine = MACHINES[name]
    without = accelerator_problem(machine, None, 0)
    if machine.built_in is None:
        assert without is None
    else:
        assert without is not None
        assert machine.built_in[0] in without
        assert accelerator_problem(machine, *machine.built_in) is None
        kind, count = machine.built_in
        assert accelerator_problem(machine, kind, count + 1) is not None


@given(machines, accelerators, counts)
def test_accelerators_attach_to_n1_only(name: str, accelerator: str, count: int) -> None:
    machine = MACHINES[name]
    if accelerator_problem(machine, accelerator, count) is None:
        assert machine.built_in == (accelerator, count) or name.startswith("n1-")


@pytest.mark.parametrize("name", [name for name in MACHINES if name.startswith("n1-")])
@pytest.mark.parametrize("accelerator", ["NVIDIA_TESLA_T4", "NVIDIA_TESLA_V100", "NVIDIA_TESLA_P100"])
def test_every_n1_accepts_maximum_count_of_each_accelerator(name: str, accelerator: str) -> None:
    assert accelerator_problem(MACHINES[name], accelerator, max(ACCELERATORS[accelerator].counts)) is None


@pytest.mark.parametrize(
    ("machine", "accelerator", "count", "what"),
    [
        ("e2-standard-4", "NVIDIA_TESLA_T4", 1, "cannot be used with machine type e2-standard-4"),
        ("n1-standard-16", "NVIDIA_L4", 1, "cannot be used with machine type n1-standard-16"),
        ("n1-standard-16", "NVIDIA_TESLA_T4", 3, "must be one of [1, 2, 4]"),
        ("n1-standard-64", "NVIDIA_TESLA_T4", 1, "must be one of [4]"),
        ("n1-standard-32", "NVIDIA_TESLA_V100", 2, "must be one of [4, 8]"),
        ("g2-standard-24", "NVIDIA_L4", 1, "requires accelerator_type NVIDIA_L4 with accelerator_count 2"),
        ("a2-highgpu-1g", "NVIDIA_TESLA_T4", 1, "requires accelerator_type NVIDIA_TESLA_A100"),
        ("n1-standard-16", "NVIDIA_TESLA_T4", 0, "accelerator_count is 0"),
        ("n1-standard-16", None, 2, "accelerator_type is not set"),
        ("n1-standard-16", "TPU_V3", 8, "TPU_V3 is not supported"),
    ],
)
def test_impossible_pairs_are_refused(machine: str, accelerator: str | None, count: int, what: str) -> None:
    problem = accelerator_problem(MACHINES[machine], accelerator, count)
    assert problem is not None
    assert what in problem
