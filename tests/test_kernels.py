"""Fused forms give what the text gives, where they say that they can; elsewhere the text runs."""

import importlib
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import emroute
from emroute.arrays.kernels import fused
from emroute.backend import named
from emroute.capsule import em_routing
from emroute.capsule.dynamic import Directions, Products
from emroute.capsule.gaussians import FromPoses, em_options
from emroute.capsule.routing import Options
from emroute.testing.cases import ALGORITHMS
from emroute.testing.check import run
from emroute.testing.place import NUMPY, Place
from tests.helpers import library

pytest.importorskip("numba")

KERNELS = named("numpy").kernels
HOMES = {
    "assign_again": "emroute.kmeans.assignment",
    "assign_rows": "emroute.kmeans.assignment",
    "label_rows": "emroute.kmeans.assignment",
    "diagonal_squares": "emroute.gmm.differences",
    "diagonal_moments": "emroute.gmm.differences",
    "full_squares": "emroute.gmm.differences",
    "full_moments": "emroute.gmm.differences",
    "route_poses": "emroute.capsule.gaussians",
    "route_products": "emroute.capsule.dynamic",
    "route_votes": "emroute.capsule.gaussians",
    "route_windows": "emroute.capsule.grids",
}
"""The module of each text."""
CASES = {
    "emroute.kmeans.assignment": ("kmeans",),
    "emroute.gmm.differences": ("gmm", "mixture"),
    "emroute.capsule.dynamic": ("capsule.dynamic_routing", "capsule.kmeans_routing"),
    "emroute.capsule.gaussians": ("capsule.em_routing",),
    "emroute.capsule.grids": ("capsule.conv_em_routing",),
}
"""How names of cases of the equivalence kit begin that run the forms of a module."""


def text(name):
    return getattr(importlib.import_module(HOMES[name]), name).text


def assert_same(found, expected, dtype):
    tolerance = 1e-11 if dtype == np.float64 else 1e-4
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.max(np.abs(b), initial=0)))


def test_every_form_has_a_text_of_its_name_and_cases():
    assert set(HOMES) == set(KERNELS) <= set(named("torch").kernels)


floating = st.sampled_from([np.float32, np.float64])
batches = st.sampled_from([((), (), ()), ((), (3,), ()), ((2, 1), (2, 3), (2, 1)), ((2,), (2,), ())])


@given(batches, st.integers(1, 150), st.integers(1, 9), st.sampled_from([1, 2, 5, 16, 200]), floating, st.randoms())
def test_rows_are_assigned_as_by_the_text(batch, n, k, d, dtype, random):
    rng = np.random.default_rng(random.randrange(1000))
    of_rows, of_centroids, of_weight = batch
    z = rng.normal(size=(*of_rows, n, d)).astype(dtype)
    centroids = rng.normal(size=(*of_centroids, k, d)).astype(dtype)
    weight = rng.integers(0, 3, size=(*of_weight, n)).astype(dtype)
    args = z, centroids, np.zeros(of_centroids, dtype), weight
    assert_same(KERNELS["assign_rows"](*args), text("assign_rows")(*args), dtype)
    assert_same(KERNELS["label_rows"](z, centroids), text("label_rows")(z, centroids), dtype)


@given(st.integers(1, 200), st.integers(1, 9), st.sampled_from([1, 2, 5, 16, 200]), floating, st.randoms())
def test_rows_that_are_assigned_again_are_assigned_as_at_first(n, k, d, dtype, random):
    rng = np.random.default_rng(random.randrange(1000))
    centres = rng.normal(size=(k, d)) * 3
    z = (centres[rng.integers(k, size=n)] + rng.normal(size=(n, d))).astype(dtype)
    weight, centroids = rng.integers(0, 3, size=n).astype(dtype), z[rng.integers(n, size=k)]
    labels, bounds, way = np.zeros(n, np.int64), np.zeros(n, dtype), dtype(0)
    for step in (1.0, 0.1, 0.01, 1e-3, 0.0):
        found = KERNELS["assign_again"](z, centroids, way, weight, labels, bounds)
        assert_same(found, KERNELS["assign_rows"](z, centroids, way, weight), dtype)
        np.testing.assert_array_equal(labels, KERNELS["label_rows"](z, centroids)[0])
        moved = centroids + (rng.normal(size=(k, d)) * step).astype(dtype)
        way += np.sqrt(np.max(np.sum((moved - centroids) ** 2, axis=-1)))
        centroids = moved


def test_few_rows_are_compared_again_once_centroids_come_to_rest():
    x = np.random.default_rng(0).normal(size=(20_000, 8)) + 6 * np.arange(20_000)[:, None] % 5
    labels, bounds, far = np.zeros(len(x), np.int64), np.zeros(len(x)), np.float64(1.0)
    centroids, weight = np.stack([x[i::5].mean(axis=0) for i in range(5)]), np.ones(len(x))
    KERNELS["assign_again"](x, centroids, 0 * far, weight, labels, bounds)
    before = bounds.copy()
    KERNELS["assign_again"](x, centroids + 1e-3, 1e-3 * np.sqrt(8) * far, weight, labels, bounds)
    assert np.mean(bounds != before) < 0.01


@pytest.mark.parametrize("kind", ["diagonal", "full"])
@given(batches, st.integers(1, 150), st.integers(1, 5), st.integers(1, 9), floating, st.randoms())
def test_lengths_and_moments_are_those_of_the_text(kind, batch, n, k, d, dtype, random):
    rng = np.random.default_rng(random.randrange(1000))
    of_rows, of_means, _ = batch
    joint = np.broadcast_shapes(of_rows, of_means)
    z = rng.normal(size=(*of_rows, n, d)).astype(dtype).swapaxes(-1, -2)
    means = rng.normal(size=(*of_means, k, d)).astype(dtype)
    of_factors = (*of_means, int(rng.choice([1, k])), d, d) if kind == "full" else (*of_means, k, d)
    factors = rng.normal(size=of_factors).astype(dtype)
    name = f"{kind}_squares"
    assert_same(KERNELS[name](z, means, factors), text(name)(z, means, factors), dtype)
    shares = rng.uniform(size=(*joint, k, n)).astype(dtype)
    shares[shares < 0.5] = 0  # most shares of a fit are
    name = f"{kind}_moments"
    assert_same(KERNELS[name](z, means, shares), text(name)(z, means, shares), dtype)


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_moments_of_a_narrow_component_far_away_keep_their_digits(kind):
    rng = np.random.default_rng(0)
    gaps = rng.integers(-8, 9, size=(300, 5)) / np.float32(2**10)  # exact in float32 beside 1000
    z, means, shares = (1000 + gaps).astype(np.float32).T, np.full((1, 5), 1000, np.float32), np.ones((1, 300), "f4")
    first, second = KERNELS[f"{kind}_moments"](z, means, shares)
    exact = np.einsum("ni,nj->ij", gaps, gaps, dtype=np.float64)
    np.testing.assert_allclose(first[0], gaps.sum(axis=0), atol=1e-5)
    np.testing.assert_allclose(second[0], exact if kind == "full" else np.diag(exact), rtol=1e-5, atol=1e-8)


def _samples(rng, sizes, dtype):
    """Votes, activations of which some are 0, and costs."""
    b, i, j, _ = sizes
    activations = rng.uniform(size=(b, i)) * (rng.uniform(size=(b, i)) > 0.3)
    arrays = rng.normal(size=sizes), activations, *rng.normal(size=(2, b, j))
    return tuple(x.astype(dtype) for x in arrays)


def _options(cost="hinton", n_iter=3):
    return em_options(cost, 1e-2, [0.5] * n_iter, n_iter, recompute=True, return_path=False)._replace(size=2)


sizes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.sampled_from([1, 3, 16, 17]), st.sampled_from([1, 4, 6, 16]))


@given(sizes, st.sampled_from(["hinton", "normalized"]), st.integers(1, 3), floating, st.randoms())
def test_votes_are_routed_as_by_the_text(sizes, cost, n_iter, dtype, random):
    args = *_samples(np.random.default_rng(random.randrange(1000)), sizes, dtype), _options(cost, n_iter)
    assert_same(KERNELS["route_votes"](*args), text("route_votes")(*args), dtype)


products = st.sampled_from([Products(), Products(2.0), Directions(0.5)])


@given(sizes, products, st.integers(1, 4), st.sampled_from([1e-3, 1]), floating, st.randoms())
def test_votes_are_routed_by_products_as_by_the_text(sizes, rule, n_iter, length, dtype, random):
    rng = np.random.default_rng(random.randrange(1000))
    votes, bias = length * rng.normal(size=sizes), rng.normal(size=(sizes[0], *sizes[2:])) * (rule == Products())
    args = votes.astype(dtype), bias.astype(dtype), Options(rule, (1.0,) * n_iter, True, False, 2)
    assert_same(KERNELS["route_products"](*args), text("route_products")(*args), dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parents_that_get_next_to_nothing_have_a_direction(dtype):
    # long votes are decided: most parents get shares that underflow
    votes = 1e4 * np.random.default_rng(0).normal(size=(2, 5, 16, 4))
    args = votes.astype(dtype), np.zeros((2, 16, 4), dtype), Options(Directions(), (1.0,) * 4, True, False)
    assert_same(KERNELS["route_products"](*args), text("route_products")(*args), dtype)


@pytest.mark.parametrize("rule", [Products(), Directions()])
def test_votes_of_length_0_have_poses_of_length_0(rule):
    args = np.zeros((1, 3, 2, 4)), np.zeros((1, 2, 4)), Options(rule, (1.0,) * 3, True, False)
    assert_same(KERNELS["route_products"](*args), text("route_products")(*args), np.float64)


def _poses(rng, sizes, p, moved, dtype):
    """Poses and the rest of what they are routed with."""
    b, i, j, _ = sizes
    _, *rest = _samples(rng, sizes, dtype)
    poses, transforms = rng.normal(size=(b, i, p, p)).astype(dtype), rng.normal(size=(i, j, p, p)).astype(dtype)
    shift = rng.normal(size=(p * p, i)).astype(dtype) if moved else None
    return poses, *rest, transforms, shift, _options()._replace(rule=FromPoses(epsilon=1e-2))


def _windows(rng, sizes, p, last, dtype):
    """Three windows of two places each, of one of which the second is padding."""
    b, i, j, _ = sizes
    c = 2 * i
    poses, activations = rng.normal(size=(b + 1, i, p, p)), rng.uniform(size=(b + 1, i))
    poses[-1] = activations[-1] = 0
    index = rng.permuted(np.tile(np.arange(b), (3, 3)), axis=1)[:, :2]
    index[:, 1], index[1, 1] = (index[:, 0] + 1) % (b + 1), b
    logits, norm = rng.normal(size=(3, j, c)), rng.uniform(3, 4, size=(3, 1, c))
    norm[index.repeat(i, axis=1)[:, None] == b] = np.inf
    transforms, betas = rng.normal(size=(c, j, p, p)), rng.normal(size=(2, 3, j))
    poses, activations, logits, norm, transforms, *betas = (
        x.astype(dtype) for x in (poses, activations, logits, norm, transforms, *betas)
    )
    return poses, activations, index, logits, norm, *betas, transforms, _options(n_iter=1), last


@given(sizes, st.integers(1, 5), st.booleans(), floating, st.randoms())
def test_poses_and_windows_are_routed_as_by_the_text(sizes, p, flag, dtype, random):
    rng = np.random.default_rng(random.randrange(1000))
    for name, args in (
        ("route_poses", _poses(rng, sizes, p, flag, dtype)),
        ("route_windows", _windows(rng, sizes, p, flag, dtype)),
    ):
        assert_same(KERNELS[name](*args), text(name)(*args), dtype)


def _routed(rng, name, flag):
    """Arguments for each form that has a way back."""
    sizes = (3, 5, 17 if flag else 3, 6)
    if name == "route_votes":
        return *_samples(rng, sizes, np.float64), _options("normalized" if flag else "hinton")
    draw = _poses if name == "route_poses" else _windows
    return draw(rng, sizes, 3, flag, np.float64)


BACK = sorted(name for name, form in KERNELS.items() if form.back)


@pytest.mark.parametrize("cached", [1, 2**17])
@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("name", BACK)
def test_gradients_are_those_of_the_text(monkeypatch, name, flag, cached):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr("emroute_backends.kernels.routing._CACHED", cached)  # of 1, each sample is a block
    rng = np.random.default_rng(0)
    args = [torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in _routed(rng, name, flag)]
    sources = [x for x in args if isinstance(x, torch.Tensor) and x.is_floating_point()]
    if name == "route_poses":
        sources = sources[:5]  # the shift is no argument of a user's
    for x in sources:
        x.requires_grad_()
    form, written = named("torch").kernels[name], text(name)
    assert form.takes(*args)
    found, expected = form.run(written, *args), written(*args)
    weights = [torch.from_numpy(rng.normal(size=x.shape)) for x in expected]
    mine, theirs = (
        torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, results, strict=True)), sources)
        for results in (found, expected)
    )
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10 * max(1, float(b.abs().max())))


def test_second_derivatives_and_transforms_are_left_to_the_text(calls):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    votes, activations, u, a = (torch.from_numpy(x)[0] for x in _samples(rng, (1, 4, 2, 3), np.float64))
    rest = activations + 0.1, u, a

    def poses(x):
        return em_routing(x, *rest, n_iter=2).poses

    with fused():
        hessian = torch.autograd.functional.hessian(lambda x: poses(x).sum(), votes)
        assert calls["route_votes"]
        calls.update(route_votes=0)
        by_func = torch.func.jacrev(torch.func.jacrev(lambda x: poses(x).sum()))(votes)
        assert not calls["route_votes"]
    torch.testing.assert_close(hessian, by_func)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("faint", [0.0, 1e-30])
def test_parents_that_get_next_to_nothing_have_the_mean_of_the_text(dtype, faint):
    # all children agree on one parent: for the other, logarithms of shares are about -1e5
    rng = np.random.default_rng(0)
    votes = np.stack([1e-3 * rng.normal(size=(2, 5, 16)), 3 + rng.normal(size=(2, 5, 16))], axis=2).astype(dtype)
    activations = np.asarray([[0.2, 0.0, 1.0, 0.5, faint], [faint] * 5], dtype)
    args = votes, activations, np.zeros((2, 2), dtype), np.zeros((2, 2), dtype), _options()
    assert_same(KERNELS["route_votes"](*args), text("route_votes")(*args), dtype)


@pytest.mark.parametrize("offset", [0, 1e3])
def test_votes_that_agree_lose_no_digits(offset):
    # each half of the children agrees to the last digits about one parent; its variance is epsilon alone
    votes = np.random.default_rng(0).normal(size=(1, 8, 2, 4)).astype(np.float32) + np.float32(offset)
    votes[:, :4, 0] = votes[:, 4:, 1] = np.float32(offset) + np.float32(0.123)
    args = votes, np.ones((1, 8), np.float32), *np.zeros((2, 1, 2), np.float32)
    wide = text("route_votes")(*(x.astype(np.float64) for x in args), _options())
    assert_same(KERNELS["route_votes"](*args, _options()), [x.astype(np.float32) for x in wide], np.float32)


@pytest.mark.parametrize("d", [3, 200])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_centroids_that_products_cannot_tell_apart_are_told_apart(dtype, d):
    # the centroids differ by a thousandth of the rounding of their squares
    step = 1e4 * np.finfo(dtype).eps
    centroids = np.full((3, d), 1e3, dtype)
    centroids[:, 0] += np.asarray([0, 1, 2], dtype) * dtype(step)
    labels, square = KERNELS["label_rows"](centroids[[2, 0, 1, 1]], centroids)
    assert labels.tolist() == [2, 0, 1, 1]
    assert square.tolist() == [0.0] * 4


def test_equal_centroids_give_their_rows_to_the_first():
    labels, _ = KERNELS["label_rows"](np.ones((70, 4)), np.ones((5, 4)))
    assert not labels.any()


def test_rows_that_cannot_be_written_to_and_rows_with_gaps_in_memory_are_taken():
    x = np.random.default_rng(0).normal(size=(40, 6))
    read_only = x[:, ::2].copy()
    read_only.flags.writeable = False
    for rows in (x[:, ::2], read_only, np.asfortranarray(x[:, ::2])):
        assert_same(KERNELS["label_rows"](rows, x[:3, ::2]), text("label_rows")(x[:, ::2], x[:3, ::2]), np.float64)


# Where the text runs


@pytest.fixture
def calls(monkeypatch):
    """How often each form of NumPy's arrays has run."""
    form = type(KERNELS["assign_rows"])
    count = dict.fromkeys(KERNELS, 0)

    def counted(self, *args):
        count[self.name] += 1
        return original(self, *args)

    original = form.__call__
    monkeypatch.setattr(form, "__call__", counted)
    return count


SMALL, LARGE = (np.random.default_rng(0).normal(size=(n, 4)) for n in (50, 20_000))


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_large_fits_are_fused_small_ones_only_if_asked(calls, name):
    asarray = library(name).asarray
    emroute.kmeans.fit(asarray(SMALL), 2, rng=0)
    assert not any(calls.values())
    with fused():
        emroute.kmeans.fit(asarray(SMALL), 2, rng=0)
    assert calls["assign_again"]
    calls.update(assign_again=0)
    emroute.kmeans.fit(asarray(LARGE), 2, rng=0, max_iter=2)
    assert calls["assign_again"]
    calls.update(assign_again=0)
    with fused(False):
        emroute.kmeans.fit(asarray(LARGE), 2, rng=0, max_iter=2)
    assert not any(calls.values())


def test_other_dtypes_are_left_to_the_text():
    form, x = KERNELS["label_rows"], np.ones((5, 2))
    assert form.takes(x, x)
    assert not form.takes(x.astype(np.float16), x.astype(np.float16))
    assert not form.takes(x, x.astype(np.float32))


def test_tensors_with_gradients_and_those_of_transforms_are_left_to_the_text():
    torch = pytest.importorskip("torch")
    form, x = named("torch").kernels["label_rows"], torch.ones((5, 2))
    assert form.takes(x, x)
    assert not form.takes(x, x.clone().requires_grad_())
    with torch.no_grad():
        assert form.takes(x, x.clone().requires_grad_())
    assert not form.takes(x, x.to("meta"))
    taken = []
    torch.func.vmap(lambda row: (taken.append(form.takes(row, row)), row)[1])(torch.ones((3, 5, 2)))
    assert taken == [False]


@pytest.mark.parametrize(("setting", "expected"), [("0", False), ("1", True), ("", False)])
def test_the_environment_turns_forms_off_and_on(setting, expected):
    code = (
        "import sys, numpy, emroute; emroute.kmeans.fit(numpy.random.default_rng(0).normal(size=(50, 2)), 2, rng=0); "
        "print('numba' in sys.modules)"
    )
    environment = {**os.environ, "EMROUTE_FUSED": setting}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(expected)


def test_a_machine_without_numba_has_no_forms(monkeypatch):
    from emroute_backends.kernels import numba

    monkeypatch.setattr(numba, "find_spec", lambda name: None)
    assert numba.forms() == {}


def test_a_folder_that_cannot_be_written_to_is_no_error(monkeypatch):
    from emroute_backends.kernels import compiling

    def refuse(*args, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return compiled(*args, **options)

    compiled = compiling.njit
    monkeypatch.setattr(compiling, "njit", refuse)
    assert compiling.loops("f2", "i2")(_first)(*compiling.flat((), (np.ones(3), 1))) == 1.0


def _first(x, places):
    return x[places[0, 0], 0]


# Faults are found


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_check_finds_a_fault_in_a_form(monkeypatch, name):
    form = type(KERNELS[name])
    original = form.__call__

    def wrong(self, *args):
        found = original(self, *args)
        return tuple(x * 1.5 + 1 for x in found) if self.name == name else found

    monkeypatch.setattr(form, "__call__", wrong)
    monkeypatch.setattr("emroute.testing.check.OPERATIONS", ())
    monkeypatch.setattr("emroute.testing.check.ALGORITHMS", tuple(_touched(name)))
    bad = {o.place for _, outcomes in run([NUMPY]) for o in outcomes if not o.passed}
    assert bad == {Place("numpy", "cpu", fused=True)}


@cache
def _touched(name):
    """Cases of the equivalence kit that run a form."""
    return tuple(case for case in ALGORITHMS if case.name.startswith(CASES[HOMES[name]]))


# Beside threads and forks of the user's


_PARALLEL = """
import multiprocessing, sys, numpy
from concurrent.futures import ThreadPoolExecutor
import emroute

x = numpy.random.default_rng(0).normal(size=(20_000, 4))

def inertia(seed):
    return float(emroute.kmeans.fit(x, 3, rng=seed, max_iter=3).inertia)

if __name__ == "__main__":
    alone = [inertia(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(inertia, range(4))) == alone
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(inertia, range(4)) == alone
    assert "numba" in sys.modules
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forms_run_in_threads_and_in_forked_processes_as_alone(tmp_path):
    (tmp_path / "parallel.py").write_text(_PARALLEL)  # a process without JAX, which does not like forks
    subprocess.run([sys.executable, tmp_path / "parallel.py"], check=True)


@pytest.mark.parametrize("threads", [2, 3])
def test_rows_shared_out_among_threads_give_what_one_thread_gives(threads):
    torch = pytest.importorskip("torch")
    rng, before = np.random.default_rng(0), torch.get_num_threads()
    z, weight = rng.normal(size=(30_001, 8)), rng.uniform(size=30_001)
    centroids, shares = z[:7].copy(), rng.uniform(size=(7, 30_001))
    calls = {
        "assign_rows": (z, centroids, np.zeros(()), weight),
        "label_rows": (z, centroids),
        "full_squares": (z.T, centroids, rng.normal(size=(7, 8, 8))),
        "diagonal_squares": (z.T, centroids, rng.uniform(size=(7, 8))),
        "full_moments": (z.T, centroids, shares),
        "diagonal_moments": (z.T, centroids, shares),
    }
    try:
        torch.set_num_threads(threads)
        for name, args in calls.items():
            found = named("torch").kernels[name].run(text(name), *map(torch.asarray, args))
            assert_same([x.numpy() for x in found], text(name)(*args), np.float64)
    finally:
        torch.set_num_threads(before)
