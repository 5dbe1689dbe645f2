"""Triton forms give what the text gives, on a GPU or, without one, by Triton's interpreter; and they compile."""

import importlib
import os
import subprocess
import sys
import warnings
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import emroute
from emroute.arrays.kernels import fused
from emroute.capsule.dynamic import Directions, Products
from emroute.capsule.routing import Options
from emroute.testing.cases import ALGORITHMS
from emroute.testing.check import run
from emroute.testing.place import Place

torch = pytest.importorskip("torch")
pytest.importorskip("triton", reason="Triton is not installed; Torch's builds for CUDA bring it")

from emroute_backends.kernels import tensors, triton  # noqa: E402 - only where there is Triton

from tests import test_kernels as host  # noqa: E402

HOMES = host.HOMES | {
    "share_rows": "emroute.mixtures.posterior",
}
"""The module of each text."""
CASES = {
    "diagonal_moments": ("gmm.fit", "diag"),
    "diagonal_squares": ("gmm.GaussianMixture", "diag"),
    "assign_rows": ("kmeans.fit", "one problem"),
    "full_moments": ("gmm.fit", "tied"),
    "full_squares": ("gmm.GaussianMixture", "full"),
    "label_rows": ("kmeans.KMeans.predict", ""),
    "route_poses": ("capsule.em_routing_from_poses", ""),
    "route_products": ("capsule.dynamic_routing", ""),
    "route_votes": ("capsule.em_routing", ""),
    "route_windows": ("capsule.conv_em_routing", ""),
    "share_rows": ("gmm.fit", "spherical"),
}
"""A case of the equivalence kit that runs each form: the name and the variant."""
NAMES = sorted(form.name for form in triton.every())
BACK = sorted(form.name for form in triton.every() if form.back)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

few = settings(max_examples=3)


@pytest.fixture(scope="module", autouse=True)
def forms():
    """Forms of tensors here; where there is no GPU, kernels that are run by the interpreter."""
    patch = pytest.MonkeyPatch()
    if DEVICE == "cpu":
        patch.setenv("TRITON_INTERPRET", "1")
        for form in triton.every():
            importlib.import_module(form.module)  # a kernel is for the interpreter if this is so when it is defined
    patch.setattr("emroute_backends.torch.kernels", tensors.on_tensors())
    yield {form.name: form for form in triton.every()}
    patch.undo()


def text(name):
    return getattr(importlib.import_module(HOMES[name]), name).text


def there(args):
    return [torch.as_tensor(x, device=DEVICE) if isinstance(x, np.ndarray) else x for x in args]


def assert_as_text(name, args):
    form, args = next(form for form in triton.every() if form.name == name), there(args)
    assert form.takes(*args)
    found, expected = ([x.cpu().numpy() for x in some] for some in (form(*args), text(name)(*args)))
    host.assert_same(found, expected, expected[0].dtype if name != "label_rows" else expected[1].dtype)


def test_every_form_has_a_text_of_its_name_and_cases():
    assert set(NAMES) == set(CASES)
    assert set(NAMES) <= set(HOMES)
    assert all(_touched(name) for name in NAMES)


@few
@given(
    host.batches, st.integers(1, 140), st.integers(1, 20), st.sampled_from([1, 5, 33]), host.floating, st.booleans(),
    st.randoms(),
)  # fmt: skip
def test_rows_are_assigned_as_by_the_text(batch, n, k, d, dtype, close, random):
    rng = np.random.default_rng(random.randrange(1000))
    of_rows, of_centroids, of_weight = batch
    z = rng.normal(size=(*of_rows, n, d)).astype(dtype)
    centroids = rng.normal(size=(*of_centroids, k, d)).astype(dtype)
    weight = rng.integers(0, 3, size=(*of_weight, n)).astype(dtype)
    assert_as_text("assign_rows", (z, centroids, np.full(of_centroids, close, dtype), weight))
    assert_as_text("label_rows", (z, centroids))


def test_a_cluster_of_many_rows_is_summed_in_pieces():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(5000, 2)) + 9 * (rng.uniform(size=(5000, 1)) < 0.1)
    args = z, np.asarray([[0.0, 0.0], [9.0, 9.0], [99.0, 99.0]]), np.zeros(()), rng.uniform(size=5000)
    assert_as_text("assign_rows", args)


def test_of_rows_equally_far_away_the_first_is_farthest(forms):
    z = there([np.asarray([[1.0], [-2.0], [5.0], [2.0], [-2.0]])])[0]
    *_, farthest, distance = forms["assign_rows"](
        z, *there([np.zeros((1, 1)), np.zeros(()), np.asarray([1.0, 1, 0, 1, 1])])
    )
    assert (farthest.tolist(), distance.tolist()) == ([-2.0], 4.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_centroids_that_products_cannot_tell_apart_are_told_apart(forms, dtype):
    centroids = np.full((3, 3), 1e3, dtype)
    centroids[:, 0] += np.asarray([0, 1, 2], dtype) * dtype(1e4 * np.finfo(dtype).eps)
    labels, square = forms["label_rows"](*there([centroids[[2, 0, 1, 1]], centroids]))
    assert labels.tolist() == [2, 0, 1, 1]
    assert square.tolist() == [0.0] * 4


def test_two_runs_give_the_same_bits(forms):
    rng = np.random.default_rng(0)
    args = there([rng.normal(size=(3000, 4)), rng.normal(size=(3, 4)), np.zeros(()), rng.uniform(size=3000)])
    for a, b in zip(forms["assign_rows"](*args), forms["assign_rows"](*args), strict=True):
        assert torch.equal(a, b)


@few
@given(host.batches, st.integers(1, 100), st.integers(1, 4), st.sampled_from([1, 5, 33]), host.floating, st.randoms())
def test_lengths_moments_and_responsibilities_are_those_of_the_text(batch, n, k, d, dtype, random):
    rng = np.random.default_rng(random.randrange(1000))
    of_rows, of_means, of_weight = batch
    joint = np.broadcast_shapes(of_rows, of_means)
    z = rng.normal(size=(*of_rows, n, d)).astype(dtype).swapaxes(-1, -2)
    means = rng.normal(size=(*of_means, k, d)).astype(dtype)
    factors = rng.normal(size=(*of_means, int(rng.choice([1, k])), d, d)).astype(dtype)
    assert_as_text("full_squares", (z, means, factors))
    assert_as_text("full_moments", (z, means, rng.uniform(size=(*joint, k, n)).astype(dtype)))
    assert_as_text("diagonal_squares", (z, means, rng.normal(size=means.shape).astype(dtype)))
    assert_as_text("diagonal_moments", (z, means, rng.uniform(size=(*joint, k, n)).astype(dtype)))
    scores = rng.normal(size=(*joint, k, n)) * 100
    assert_as_text("share_rows", (scores.astype(dtype), rng.uniform(size=(*of_weight, n)).astype(dtype)))


def test_responsibilities_are_right_where_no_component_can_give_a_row(forms):
    joint = np.asarray([[-np.inf, 0.0, -np.inf, 1e5], [-np.inf, -np.inf, -300.0, 1e5]])
    shares, log_norm = forms["share_rows"](*there([joint, np.ones(4)]))
    np.testing.assert_allclose(shares.cpu(), [[0, 1, 0, 0.5], [0, 0, 1, 0.5]])
    np.testing.assert_allclose(log_norm.cpu(), [-np.inf, 0, -300, 1e5 + np.log(2)])


def test_moments_of_a_narrow_component_far_away_keep_their_digits(forms):
    gaps = np.random.default_rng(0).integers(-8, 9, size=(300, 5)) / np.float32(2**10)  # exact beside 1000
    z, means, shares = (1000 + gaps).astype(np.float32).T, np.full((1, 5), 1000, np.float32), np.ones((1, 300), "f4")
    exact = np.einsum("ni,nj->ij", gaps, gaps, dtype=np.float64)
    for name, expected in ("full_moments", exact), ("diagonal_moments", np.diag(exact)):
        first, second = forms[name](*there([z, means, shares]))
        np.testing.assert_allclose(first[0].cpu(), gaps.sum(axis=0), atol=1e-5)
        np.testing.assert_allclose(second[0].cpu(), expected, rtol=1e-5, atol=1e-8)


@few
@given(host.sizes, st.sampled_from(["hinton", "normalized"]), st.integers(1, 3), host.floating, st.randoms())
def test_votes_are_routed_as_by_the_text(sizes, cost, n_iter, dtype, random):
    rng = np.random.default_rng(random.randrange(1000))
    assert_as_text("route_votes", (*host._samples(rng, sizes, dtype), host._options(cost, n_iter)))


@few
@given(host.sizes, st.integers(1, 4), st.booleans(), host.floating, st.randoms())
def test_poses_and_windows_are_routed_as_by_the_text(sizes, p, flag, dtype, random):
    rng = np.random.default_rng(random.randrange(1000))
    assert_as_text("route_poses", host._poses(rng, sizes, p, flag, dtype))
    assert_as_text("route_windows", host._windows(rng, sizes, p, flag, dtype))


@few
@given(host.sizes, st.booleans(), st.integers(1, 3), host.floating, st.sampled_from([1e-3, 1.0, 1e3]), st.randoms())
def test_dynamic_and_kmeans_routing_are_those_of_the_text(sizes, directions, n_iter, dtype, scale, random):
    rng, (b, _, j, h) = np.random.default_rng(random.randrange(1000)), sizes
    votes, bias = scale * rng.normal(size=sizes), rng.normal(size=(b, j, h))
    rule = Directions(0.5) if directions else Products()
    options = Options(rule, (1.0,) * n_iter, True, False)
    assert_as_text("route_products", (votes.astype(dtype), bias.astype(dtype), options))


@pytest.mark.parametrize("faint", [0.0, 1e-30])
def test_parents_that_get_next_to_nothing_have_the_mean_of_the_text(faint):
    # all children agree on one parent: for the other, logarithms of shares are about -1e5
    rng = np.random.default_rng(0)
    votes = np.stack([1e-3 * rng.normal(size=(2, 5, 16)), 3 + rng.normal(size=(2, 5, 16))], axis=2).astype("f4")
    activations = np.asarray([[0.2, 0.0, 1.0, 0.5, faint], [faint] * 5], "f4")
    assert_as_text("route_votes", (votes, activations, *np.zeros((2, 2, 2), "f4"), host._options()))


@pytest.mark.parametrize("offset", [0, 1e3])
def test_votes_that_agree_lose_no_digits(forms, offset):
    votes = np.random.default_rng(0).normal(size=(1, 8, 2, 4)).astype(np.float32) + np.float32(offset)
    votes[:, :4, 0] = votes[:, 4:, 1] = np.float32(offset) + np.float32(0.123)
    args = votes, np.ones((1, 8), np.float32), *np.zeros((2, 1, 2), np.float32)
    wide = text("route_votes")(*(x.astype(np.float64) for x in args), host._options())
    found = forms["route_votes"](*there(args), host._options())
    host.assert_same([x.cpu().numpy() for x in found], [x.astype(np.float32) for x in wide], np.float32)


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("name", BACK)
def test_gradients_are_those_of_the_text(name, flag):
    args = there(host._routed(np.random.default_rng(0), name, flag))
    sources = [x.requires_grad_() for x in args if isinstance(x, torch.Tensor) and x.is_floating_point()]
    if name == "route_poses":
        sources = sources[:5]  # the shift is no argument of a user's
    form, written = emroute.backend.named("torch").kernels[name], text(name)
    weights = [torch.randn(x.shape, dtype=x.dtype, device=DEVICE) for x in written(*args)]
    mine, theirs = (
        torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, results, strict=True)), sources)
        for results in (form.run(written, *args), written(*args))
    )
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10 * max(1, float(b.abs().max())))


def test_votes_of_poses_are_cast_a_block_at_a_time(monkeypatch):
    args = there(host._poses(np.random.default_rng(0), (5, 3, 4, 4), 2, True, np.float64))
    module = importlib.import_module("emroute_backends.kernels.cuda.tracing_back")
    results = tuple(torch.ones_like(x) for x in text("route_poses")(*args))
    whole = module.poses_back(tuple(args), results)
    monkeypatch.setattr(module, "_BLOCK", 2 * args[4].numel())
    for a, b in zip(module.poses_back(tuple(args), results)[:5], whole[:5], strict=True):
        torch.testing.assert_close(a, b)


def test_second_derivatives_are_left_to_the_text():
    votes, *rest = there(host._samples(np.random.default_rng(0), (1, 3, 2, 2), np.float64))
    rest = [rest[0][0] + 0.1, *(x[0] for x in rest[1:])]

    def curvature(wanted):
        with fused(wanted):
            one = emroute.capsule.em_routing
            return torch.autograd.functional.hessian(lambda x: one(x, *rest, n_iter=2).poses.sum(), votes[0])

    torch.testing.assert_close(curvature(True), curvature(False))


# Where the text runs


def test_a_form_that_fails_is_warned_of_once_and_the_text_runs(monkeypatch):
    def refuse(*args):
        raise RuntimeError("no such instruction on this card\nand much more")

    x = torch.asarray(np.random.default_rng(0).normal(size=(50, 4)), device=DEVICE)
    monkeypatch.setattr("emroute_backends.kernels.cuda.kmeans.assign_rows", refuse)
    monkeypatch.setattr(triton, "_broken", set())
    with fused(), pytest.warns(RuntimeWarning, match="assign_rows does not run here.*on this card$") as caught:
        found = emroute.kmeans.fit(x, 2, rng=0)
    assert len(caught) == 1
    with fused(False):
        assert torch.equal(found.labels, emroute.kmeans.fit(x, 2, rng=0).labels)
    with fused(), warnings.catch_warnings(action="error"):
        emroute.kmeans.fit(x, 2, rng=0)


def test_a_way_back_that_fails_is_warned_of_once_and_is_the_text_s(monkeypatch):
    def refuse(*args):
        raise RuntimeError("no such instruction")

    monkeypatch.setattr("emroute_backends.kernels.cuda.tracing_back.votes_back", refuse)
    monkeypatch.setattr(triton, "_broken", set())
    args = there(host._samples(np.random.default_rng(0), (2, 3, 2, 2), np.float64))

    def gradient():
        own = args[0].clone().requires_grad_()
        (found,) = torch.autograd.grad(emroute.capsule.em_routing(own, *args[1:]).poses.sin().sum(), own)
        return found

    with fused(), pytest.warns(RuntimeWarning, match="route_votes does not run here"):
        found = gradient()
    with fused(False):
        torch.testing.assert_close(found, gradient())


def test_what_registers_do_not_hold_is_left_to_the_text(forms):
    wide = torch.zeros((2, 3, 2000), device=DEVICE)
    assert not forms["assign_rows"].takes(wide[0], wide[1])
    assert not forms["route_votes"].takes(torch.zeros((2, 3, 200, 16), device=DEVICE))
    assert not forms["label_rows"].takes(
        torch.zeros((3, 2), device=DEVICE).half(), torch.zeros((3, 2), device=DEVICE).half()
    )


# Faults are found


@pytest.mark.parametrize("name", NAMES)
def test_check_finds_a_fault_in_a_form(monkeypatch, name):
    original = triton.DeviceForm.__call__

    def wrong(self, *args):
        found = original(self, *args)
        return tuple(x * 1.5 + 1 for x in found) if self.name == name else found

    monkeypatch.setattr(triton.DeviceForm, "__call__", wrong)
    monkeypatch.setattr("emroute.testing.check.OPERATIONS", ())
    monkeypatch.setattr("emroute.testing.check.ALGORITHMS", _touched(name))
    here = Place("torch", "cuda:0" if DEVICE == "cuda" else "cpu")
    bad = {o.place for _, outcomes in run([here]) for o in outcomes if not o.passed}
    assert bad == {Place(here.library, here.device, fused=True)}


@cache
def _touched(name):
    """The case of the equivalence kit that runs a form in the least time."""
    begins, variant = CASES[name]
    return tuple(case for case in ALGORITHMS if (case.name, case.variant) == (begins, variant))


# Cards that are not here


def _compiled(*asked):
    clean = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.compile_triton", *asked]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=True)
    return [line.split(", ") for line in done.stdout.splitlines()[1:]]


def test_every_kernel_compiles_for_hopper():
    assert {form for _, form, *_ in _compiled("90", "small")} == set(NAMES)


@pytest.mark.thorough
def test_large_tiles_fit_registers_and_shared_memory():
    from tests.compile_triton import SHARED

    found = _compiled("80", "90")
    assert {form for _, form, *_ in found} == set(NAMES)
    for card, _, kernel, _, _, spilled, shared in found:
        assert int(spilled) <= 512, (card, kernel)
        assert int(shared) <= SHARED[int(card.removeprefix("sm_"))], (card, kernel)
