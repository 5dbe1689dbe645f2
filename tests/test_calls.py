"""What a fit of few rows costs is calls: those that Python makes are counted, for they do not hang on the machine."""

import sys
import warnings
from collections.abc import Callable

import numpy as np
import pytest

from emroute import gmm, kmeans, poisson
from emroute.errors import FitWarning

ROWS = np.random.default_rng(0).normal(size=(178, 13)) + np.arange(178)[:, None] % 3
COUNTS = np.random.default_rng(0).poisson(4.0, size=(200, 1))


def calls(function: Callable[[], object]) -> int:
    """How many functions of Python's a call of a function calls, once what is cached is cached."""
    n_calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal n_calls
        n_calls += event == "call"

    function()
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return n_calls


@pytest.mark.parametrize(
    ("fit", "start", "step"),
    [
        (lambda max_iter: gmm.fit(ROWS, 3, rng=0, tol=0, max_iter=max_iter), 1900, 320),
        (lambda max_iter: gmm.fit(ROWS, 3, covariance_type="diag", rng=0, tol=0, max_iter=max_iter), 1800, 240),
        (lambda max_iter: kmeans.fit(ROWS, 9, rng=0, max_iter=max_iter), 1800, 200),
        (lambda max_iter: poisson.fit(COUNTS, 2, rng=0, tol=0, max_iter=max_iter), 1500, 240),
    ],
    ids=["gmm full", "gmm diag", "kmeans", "poisson"],
)
def test_a_small_fit_makes_few_calls(fit, start, step):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # they do not converge
        few, many = calls(lambda: fit(1)), calls(lambda: fit(6))
    assert (many - few) / 5 <= step
    assert few <= start + step
