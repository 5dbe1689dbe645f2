"""Peak memory of a process, and, run as a script, in bytes that of one call in a process of its own.

What an earlier call freed stays with the process, so that only a fresh one tells what a call takes. The system counts:
what fused forms hold on the host is not among the bytes that Torch counts.
"""

import resource
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.mixture import GaussianMixture

from emroute import capsule, gmm
from tests.benchmarks.inputs import start_of

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


def measured(*case: object) -> int:
    """Peak bytes of a case in a process of its own: its name in `CASES` and its arguments."""
    command = [sys.executable, "-m", "tests.benchmarks.memory", *map(str, case)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def of_a_step(library: str, n: str, d: str, k: str) -> int:
    """A start at random rows and one step of a Gaussian mixture; a few rows first, so that all is loaded."""
    x = np.random.default_rng(0).normal(size=(int(n), int(d)))
    peer = GaussianMixture(int(k), init_params="random_from_data", random_state=0, max_iter=1)
    ours = partial(gmm.fit, n_components=int(k), init="random", rng=0, max_iter=1)
    fit = peer.fit if library == "scikit-learn" else ours
    fit(x[: int(d) + 1])
    with PeakMemory() as memory:
        fit(x)
    return memory.above


def of_a_file(path: str, k: str) -> int:
    """Two iterations of a Gaussian mixture over a memory map."""
    x = np.load(path, mmap_mode="r")
    with PeakMemory() as memory:
        gmm.fit(x, int(k), init=start_of(x[:100_000], int(k), "full"), tol=0, max_iter=2)
    return memory.above


def of_routing(library: str, what: str) -> int:
    """Route votes, or poses, or votes with a way back; a few samples first, so that nothing is loaded meanwhile."""
    rng = np.random.default_rng(0)
    b, i, j, _ = SIZE

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
    with PeakMemory() as memory:
        run(b)
    return memory.above


CASES = {"routing": of_routing, "step": of_a_step, "file": of_a_file}

if __name__ == "__main__":
    print(CASES[sys.argv[1]](*sys.argv[2:]))
