"""A data-parallel training step and a hypergradient split by features, on eight devices and in two processes.

Lanes and devices need different numbers of steps. What waits for a device that has left its loop waits for ever, so
everything runs in child processes under a time-out; ``tests/two_processes.py`` is what they run.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.two_processes import DEVICES, LANES, PARTS

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 240  # seconds; a child needs about 15
MOST = {"float32": 1e-5, "float64": 1e-12}
MODES = ("jit", "shard_map")


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def run(processes):
    """The lines of each process: {(part, dtype): (mode -> difference, numbers of one device)}."""
    command = [sys.executable, "-m", "tests.two_processes"]
    flags = f"--xla_force_host_platform_device_count={DEVICES // processes}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    port = str(free_port())
    children = [
        subprocess.Popen(
            [*command, str(i), str(processes), port],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]
    try:
        outputs = [child.communicate(timeout=TIMEOUT) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    for child, (_, errors) in zip(children, outputs, strict=True):
        assert child.returncode == 0, errors[-3000:]
    lines = [[json.loads(line) for line in out.splitlines() if line.startswith('["')] for out, _ in outputs]
    return [{(part, dtype): (found, one["lanes"]) for part, dtype, found, one in process} for process in lines]


@pytest.fixture(scope="module")
def eight_devices():
    return run(1)[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", MOST)
@pytest.mark.parametrize("part", PARTS)
def test_eight_devices_give_what_one_gives(eight_devices, part, dtype, mode):
    assert eight_devices[part, dtype][0][mode] <= MOST[dtype]


@pytest.mark.parametrize("dtype", MOST)
def test_the_lanes_differ_and_none_fails(eight_devices, dtype):
    """What is compared is worth comparing: devices stop at different steps, and every backward solve is there."""
    lanes = {name: np.array(x) for name, x in eight_devices["train", dtype][1].items()}
    slowest = lanes["steps"].reshape(-1, DEVICES, LANES // DEVICES).max((0, 2))
    assert slowest.max() >= 5 * slowest.min()
    assert np.all(lanes["solves"] == 1) and not lanes["failures"].any()
    assert eight_devices["lasso", dtype][1]["converged"]
    assert 0 < np.count_nonzero(eight_devices["lasso", dtype][1]["x"]) < 20


@pytest.mark.slow
def test_two_processes_give_what_one_device_gives():
    for process in run(2):
        assert len(process) == len(MOST)
        for (_, dtype), (found, _) in process.items():
            assert len(found) == len(MODES)
            assert max(found.values()) <= MOST[dtype]
