"""Parts of the benchmarks whose peers are files that this project and others write."""

import argparse
import time

import pytest

from benchmarks import interleaved


@pytest.mark.slow
@pytest.mark.parametrize("name", ["capsule_routing", "latency_1"])
def test_each_peer_runs_and_computes_the_same(name):
    pytest.importorskip("torch", reason="scripts/install bench")
    from benchmarks.__main__ import parts_on_a_cpu

    part = parts_on_a_cpu(argparse.Namespace(quick=True, manual_dir=None))[name]()
    found = interleaved.run(part, 1, time.perf_counter)
    assert found["notes"] == []
    assert set(found["seconds"]) == set(part.candidates)
