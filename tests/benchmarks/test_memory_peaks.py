"""Peaks of memory against what is at least held by whoever writes it plainly; see docs/benchmarks.md."""

from math import prod

import numpy as np
import pytest

from tests.benchmarks import memory, plain
from tests.benchmarks.inputs import blobs, size, title
from tests.benchmarks.page import Row
from tests.benchmarks.sections import MEMORY


@pytest.mark.parametrize(("what", "bound"), [("votes", 0.3), ("poses", 0.25), ("backward", 2.0)])
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_em_routing(bench, name, what, bound):
    if what == "backward" and name == "numpy":
        pytest.skip("NumPy does not differentiate")
    votes = 4 * prod(memory.SIZE)
    peak = memory.measured("routing", name, what)
    way = {"votes": "from votes", "poses": "from poses", "backward": "from votes, forward and backward"}[what]
    bench.add(Row(MEMORY, (f"EM routing on {title(name)} {way}",), peak, "the size of the votes", votes))
    assert peak < bound * votes


def test_a_training_step(bench):
    ours, theirs = plain.peak("ours"), plain.peak("plain")
    bench.add(Row(MEMORY, ("a training step of MatrixCapsNet, 8 images",), ours, "plain Torch", theirs))
    assert theirs > 3 * ours


@pytest.mark.parametrize(("n", "d", "k"), [(4000, 1000, 1), (5000, 600, 2)])
def test_a_step_on_wide_rows(bench, n, d, k):
    ours, theirs = (memory.measured("step", name, n, d, k) for name in ("emroute", "scikit-learn"))
    bench.add(Row(MEMORY, (f"a step of a Gaussian mixture, {size(n, d, k)}",), ours, "scikit-learn", theirs))


def test_a_file_of_four_gigabytes(bench, tmp_path):
    """Full covariances, k = 16, two iterations from given starts over a float32 memory map."""
    n, d, k = 62_500_000, 16, 16
    file = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (n, d))
    block = blobs(500_000, d, k, dtype=np.float32)
    for start in range(0, n, len(block)):
        file[start : start + len(block)] = block
    file.flush()
    peak = memory.measured("file", tmp_path / "x.npy", k)
    bench.add(Row(MEMORY, (f"a Gaussian mixture of a file, {size(n, d, k)}",), peak, "the size of the file", 4 * n * d))
    assert peak < 600e6
