"""Peak memory of a process, and, run as a script, of one routing in a process of its own.

What an earlier call freed stays with the process, so that only a fresh one tells what a call takes. Torch counts its
bytes itself; what the C library keeps in between, which differs from run to run by as much again, is not among them.
"""

import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from emroute import capsule

SIZE = (144, 288, 32, 16)


class PeakMemory:
    """The most anonymous memory a process held while this was open, in bytes above what it held before."""

    def __enter__(self) -> "PeakMemory":
        self.start = self.peak = self._anonymous()
        self._open = True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._thread.join()

    @property
    def above(self) -> int:
        return self.peak - self.start

    def _watch(self) -> None:
        while self._open:
            self.peak = max(self.peak, self._anonymous())
            time.sleep(0.002)

    @staticmethod
    def _anonymous() -> int:
        status = Path("/proc/self/status")
        if status.exists():
            line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
            return int(line.split()[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def of_routing(library: str, what: str) -> float:
    """Peak above the start of EM routing, as a share of the votes, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.memory", library, what]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(library: str, what: str) -> float:
    """Route votes, or poses, or votes with a way back; a few samples first, so that nothing is loaded meanwhile."""
    rng = np.random.default_rng(0)
    b, i, j, h = SIZE

    def draw(*shape: int) -> np.ndarray:
        return rng.random(shape, dtype=np.float32)

    first = [draw(b, i, 4, 4), draw(i, j, 4, 4)] if what == "poses" else [draw(*SIZE)]
    arrays = [*first, draw(b, i), np.zeros(j, np.float32), np.zeros(j, np.float32)]
    if library == "torch":
        import torch

        torch.set_num_threads(2)
        arrays = [torch.from_numpy(x).requires_grad_(what == "backward") for x in arrays]
    route = capsule.em_routing_from_poses if what == "poses" else capsule.em_routing

    def run(samples: int) -> None:
        found = route(*(x[:samples] if samples < b == x.shape[0] else x for x in arrays))
        if what == "backward":
            (found.poses.sum() + found.activations.sum()).backward()
            for x in arrays:
                x.grad = None

    run(8)
    if library == "torch":
        peak = torch_peak(lambda: run(b))
    else:
        with PeakMemory() as memory:
            run(b)
        peak = memory.above
    return peak / (4 * b * i * j * h)


def torch_peak(run: Callable[[], None]) -> int:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    events = [x for x in record.profiler.kineto_results.events() if x.name() == "[memory]"]
    changes = [x.nbytes() for x in sorted(events, key=lambda x: x.start_ns())]
    return int(np.cumsum(changes).max())


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
