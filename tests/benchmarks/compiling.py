"""Processor seconds on JAX and on NumPy in a process that has compiled nothing yet.

    python -m tests.benchmarks.compiling fit|select|search

prints one list a comparison: what ran, JAX's seconds, the peer, its seconds.
"""

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
from sklearn.datasets import load_iris, load_wine
from sklearn.model_selection import GridSearchCV

from emroute import gmm, select
from emroute.sklearn import GaussianMixture
from tests.benchmarks.inputs import blobs

NUMPY = "emroute on NumPy"
Comparison = tuple[str, float, str, float]


def seconds(function: Callable[..., object], *arguments: Any) -> float:
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


def on_both(what: str, function: Callable[[Any], object], x: np.ndarray) -> Comparison:
    return what, seconds(function, jax.numpy.asarray(x)), NUMPY, seconds(function, x)


def fits() -> Iterator[Comparison]:
    """Both numbers of rows are filled up to 1,024."""
    fit, x = partial(gmm.fit, n_components=3, rng=0), blobs(1010, 4, 3)
    few, many = jax.numpy.asarray(x[:1000]), jax.numpy.asarray(x)
    first, second = seconds(fit, few), seconds(fit, many)
    fit(x[:1000])
    yield "a fit of 1,010 rows", second, "the fit of 1,000 rows before", first
    yield "a fit of 1,010 rows", second, NUMPY, seconds(fit, x)


def choice() -> Iterator[Comparison]:
    yield on_both("select.mixtures of iris", partial(select.mixtures, rng=0), load_iris().data)


def search() -> Iterator[Comparison]:
    """Five numbers of components in three folds, and the best of them."""
    grid = GridSearchCV(GaussianMixture(random_state=0), {"n_components": [1, 2, 3, 4, 5]}, cv=3)
    yield on_both("GridSearchCV of wine", grid.fit, load_wine().data)


CASES = {"fit": fits, "select": choice, "search": search}


def measured(case: str) -> list[Comparison]:
    """Run a case in a process of its own, with an empty cache, on one core."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.compiling", case]
    with TemporaryDirectory() as empty:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": empty, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return [tuple(line) for line in json.loads(done.stdout)]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    jax.config.update("jax_enable_x64", True)
    jax.block_until_ready(jax.numpy.zeros(1))  # starting JAX is not compiling a fit
    print(json.dumps([*CASES[sys.argv[1]]()]))
