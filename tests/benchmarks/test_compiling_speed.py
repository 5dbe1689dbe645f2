"""What JAX compiles, in processor seconds of new processes; see docs/benchmarks.md."""

from statistics import median

import pytest

from tests.benchmarks.compiling import CASES, measured
from tests.benchmarks.page import Row
from tests.benchmarks.sections import COMPILING
from tests.benchmarks.timing import pinned


@pytest.mark.parametrize("case", CASES)
def test_first_calls(bench, case):
    with pinned(1):
        runs = [measured(case) for _ in range(bench.rounds)]
    for comparisons in zip(*runs, strict=True):
        what, peer = comparisons[0][0], comparisons[0][2]
        mine, theirs = (median(each[place] for each in comparisons) for place in (1, 3))
        bench.add(Row(COMPILING, (what,), mine, peer, theirs))
