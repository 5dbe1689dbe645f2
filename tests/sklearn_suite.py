"""scikit-learn's own tests, with our estimators in place of its: ``python -m tests.sklearn_suite``.

The tests are those of mixtures and k-means of the scikit-learn that is installed. Before they are loaded, its
`GaussianMixture` and `KMeans` are exchanged for ours. A test that never makes one of ours says nothing about us and is
not counted; neither is one which reaches into scikit-learn's private members (`PRIVATE`), or asserts that it refuses
what works here (`LIMITS`). The rest are the tests that exercise public behaviour; those that fail are in `DIFFERENT`,
each with the reason.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":  # before SciPy is loaded, so that the tests of array libraries run
    os.environ.setdefault("SCIPY_ARRAY_API", "1")
    os.environ.setdefault("SKLEARN_RUN_FLOAT32_TESTS", "1")

import pytest
import sklearn
import sklearn.cluster
import sklearn.mixture

import emroute.sklearn

MODULES = ("sklearn.mixture.tests.test_gaussian_mixture", "sklearn.cluster.tests.test_k_means")

PRIVATE = {
    "test_gaussian_mixture_n_parameters": "calls `_n_parameters`",
    "test_gaussian_mixture_aic_bic": "calls `_n_parameters`",
    "test_gaussian_mixture_precisions_init": "calls `_initialize` and `_set_parameters`",
    "test_gaussian_mixture_all_init_does_not_estimate_gaussian_parameters": "counts calls of a private function",
    "test_kmeans_init_auto_with_initial_centroids": "reads `_n_init`",
    "test_n_init_auto": "reads `_n_init`",
    "test_sample_weight_init": "calls `_init_centroids`",
    "test_sample_weight_zero": "calls `_init_centroids`",
}
LIMITS = {
    "test_gaussian_mixture_raises_where_array_api_not_implemented": "these starts work here on every library",
}
DIFFERENT = {
    "test_check_weights": "scikit-learn's message swaps the least and the largest weight; ours does not",
    "test_gaussian_mixture_setting_best_params": "two components have shrunk to a single row without `reg_covar`: "
    "scikit-learn goes on with the rounding error of their variance, here that is the error which tells so",
    "test_kmeans_relocated_clusters": "the same clusters after one iteration more: an empty cluster moves to the "
    "farthest row, which its old cluster gives up in the next step",
    "test_warning_elkan_1_cluster": "`algorithm` changes nothing here, so there is nothing to warn of",
}


@dataclass(eq=False)
class Watch:
    """A pytest plug-in that notes the outcome of each test, and whether it made one of our estimators."""

    outcomes: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    ours: set[str] = field(default_factory=set)
    running: str = ""

    def exchange(self, module: object, name: str) -> None:
        """Put our class in the place of theirs."""
        kind = getattr(emroute.sklearn, name)

        def made(cls, *args, **kwargs):
            self.ours.add(self.running)
            return object.__new__(cls)

        kind.__new__ = made
        setattr(module, name, kind)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.running = nodeid

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome
        if report.failed:
            self.errors[report.nodeid] = str(report.longrepr).strip().splitlines()[-1]


def run(*options: str) -> Watch:
    """Run the tests; `options` are pytest's."""
    watch = Watch()
    watch.exchange(sklearn.mixture, "GaussianMixture")
    watch.exchange(sklearn.cluster, "KMeans")
    root = str(Path(sklearn.__file__).parent)
    quiet = ["-q", "-c", os.devnull, "--rootdir", root, "-p", "no:cacheprovider", "-p", "no:xdist", "--pyargs"]
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main([*quiet, *MODULES, *options], plugins=[watch])
    return watch


def main(*options: str) -> int:
    """Print what passes, and a table of the rest; return 1 if a test fails without a reason."""
    watch = run(*options)
    groups: dict[str, list[str]] = {name: [] for name in ("elsewhere", "private", "limits", "passed", "failed")}
    for test, outcome in watch.outcomes.items():
        name = test.rpartition("::")[2].partition("[")[0]
        if outcome == "skipped":
            continue
        if test not in watch.ours:
            group = "elsewhere"
        else:
            group = "private" if name in PRIVATE else "limits" if name in LIMITS else outcome
        groups[group].append(name)
    public = len(groups["passed"]) + len(groups["failed"])
    print(f"scikit-learn {sklearn.__version__}")
    print(f"{len(groups['elsewhere'])} tests make no estimator of ours (private functions, MiniBatchKMeans, k_means)")
    print(f"{len(groups['passed'])} of {public} tests of public behaviour pass: {len(groups['passed']) / public:.1%}")
    print("\n| not passed, or not counted | tests | why |\n| --- | --- | --- |")
    for table, group in ((DIFFERENT, "failed"), (LIMITS, "limits"), (PRIVATE, "private")):
        for name, count in Counter(groups[group]).items():
            kind = {"failed": "", "limits": "asserts a limit of scikit-learn: ", "private": "private: "}[group]
            print(f"| `{name}` | {count} | {kind}{table.get(name, '**no reason known**')} |")
    return int(not set(groups["failed"]) <= set(DIFFERENT))


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
