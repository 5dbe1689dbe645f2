"""Products in full precision, whatever the library's or the user's defaults; sums over many rows keep their digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.extend.core import ClosedJaxpr, Jaxpr

import emroute
from emroute import backend as backends
from emroute.testing.cases import OPERATIONS
from emroute.testing.place import Place
from tests.helpers import COVARIANCE_TYPES

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
COUNTS = np.random.default_rng(1).poisson(4.0, size=(40, 3)).astype(np.float32)
VOTES = np.random.default_rng(2).normal(size=(5, 3, 4)).astype(np.float32)
POSES = np.random.default_rng(3).normal(size=(5, 2, 2)).astype(np.float32)
TRANSFORMS = np.random.default_rng(4).normal(size=(5, 3, 2, 2)).astype(np.float32)
GRID = np.random.default_rng(5).normal(size=(1, 3, 3, 2, 2, 2)).astype(np.float32)
KERNEL = np.random.default_rng(6).normal(size=(2, 2, 2, 3, 2, 2)).astype(np.float32)
ON, U, A = np.full(5, 0.5, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)
CONV = (np.full((1, 3, 3, 2), 0.5, np.float32), KERNEL, U, A)

FITS = {
    **{
        f"gmm {kind}": lambda x, kind=kind: emroute.gmm.fit(x, 2, covariance_type=kind, rng=0)
        for kind in COVARIANCE_TYPES
    },
    "kmeans": lambda x: emroute.kmeans.fit(x, 2, rng=0),
    "poisson": lambda x: emroute.poisson.fit(x, 2, rng=0),
    "multinomial": lambda x: emroute.multinomial.fit(x, 2, rng=0),
    "binomial": lambda x: emroute.binomial.fit(x[:, 0], x[:, 0] + x[:, 1], 2, rng=0),
}
C = emroute.capsule
ROUTINGS = {
    "em": lambda v: C.em_routing(v, *as_jax(ON, U, A)).poses,
    "normalized": lambda v: C.em_routing(v, *as_jax(ON, U, A), cost="normalized").poses,
    "dynamic": lambda v: C.dynamic_routing(v).poses,
    "kmeans": lambda v: C.kmeans_routing(v).poses,
    "from poses": lambda v: C.em_routing_from_poses(*as_jax(POSES, TRANSFORMS * v[0, 0, 0], ON, U, A)).poses,
    "convolutional": lambda v: C.conv_em_routing(*as_jax(GRID * v[0, 0, 0], *CONV)).poses,
}


def as_jax(*arrays):
    return [jnp.asarray(x) for x in arrays]


def products(jaxpr):
    """Every `dot_general` of floating numbers in a jaxpr and in all that are inside it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general" and equation.invars[0].aval.dtype == jnp.float32:
            yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda leaf: isinstance(leaf, ClosedJaxpr | Jaxpr)):
            if isinstance(value, ClosedJaxpr | Jaxpr):
                yield from products(getattr(value, "jaxpr", value))


def assert_full_precision(function, *args, some=True):
    found = list(products(jax.make_jaxpr(function)(*(jnp.asarray(x) for x in args)).jaxpr))
    assert found or not some, "no product: the walk has lost its way"
    for equation in found:
        precision = equation.params["precision"]
        assert precision is not None, equation
        assert all(each == jax.lax.Precision.HIGHEST for each in precision), equation


@pytest.mark.parametrize("name", FITS)
def test_fits_on_jax_multiply_in_full_precision(name):
    data = X if name.startswith(("gmm", "kmeans")) else COUNTS
    assert_full_precision(lambda x: FITS[name](x).trace, data)


@pytest.mark.parametrize("name", ["full", "diag"])
def test_scores_on_jax_multiply_in_full_precision(name):
    covariances = np.broadcast_to(np.eye(3) if name == "full" else np.ones(3), (2, *(3,) * (1 + (name == "full"))))
    parts = (np.ones(2) / 2, X[:2], covariances.astype(np.float32))

    def scores(x):
        made = emroute.gmm.GaussianMixture.from_parameters(
            *as_jax(parts[0] + 0 * x[0, :2], *parts[1:]), covariance_type=name
        )
        return made.log_prob(x), made.bic(x)

    assert_full_precision(scores, X, some=name == "full")


@pytest.mark.parametrize("name", ROUTINGS)
def test_routings_on_jax_multiply_in_full_precision_and_so_do_their_gradients(name):
    some = name in ("from poses", "convolutional", "dynamic", "kmeans")
    assert_full_precision(ROUTINGS[name], VOTES, some=some)
    assert_full_precision(jax.grad(lambda v: jnp.sum(ROUTINGS[name](v) ** 2)), VOTES, some=some)


def test_the_walk_sees_a_product_of_the_default_precision():
    with pytest.raises(AssertionError):
        assert_full_precision(lambda x: jax.lax.map(lambda row: row @ row, x), X)


@pytest.mark.parametrize("namespace", ["matmul", "tensordot", "vecdot"])
def test_products_of_the_namespace_are_the_librarys(lib, namespace):
    x = lib.asarray(X[:4])
    xp = backends.namespace(x)
    pair = (x, xp.matrix_transpose(x)) if namespace == "matmul" else (x, x)
    options = {"axes": 2} if namespace == "tensordot" else {}
    want = getattr(np, namespace)(X[:4], X[:4].T if namespace == "matmul" else X[:4], **options)
    np.testing.assert_allclose(lib.to_numpy(getattr(xp, namespace)(*pair, **options)), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        lib.to_numpy(getattr(xp.linalg, namespace)(*pair, **options)), want, rtol=1e-5, atol=1e-6
    )


@pytest.fixture
def settings():
    """The precisions of Torch's products, put back afterwards."""
    kept = [(place, place.fp32_precision) for place in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)]
    yield
    for place, before in kept:
        place.fp32_precision = before


def precisions():
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision


@pytest.mark.parametrize("legacy", [True, False], ids=["set_float32_matmul_precision", "fp32_precision"])
def test_torch_multiplies_in_full_precision_and_keeps_the_users_setting(monkeypatch, settings, legacy):
    seen = []
    sound = torch.matmul
    monkeypatch.setattr(torch, "matmul", lambda *args, **options: seen.append(precisions()) or sound(*args, **options))
    x = torch.asarray(X)
    want = emroute.gmm.fit(x, 2, rng=0)
    if legacy:
        torch.set_float32_matmul_precision("medium")
    else:
        torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "tf32"
    mine = precisions()
    assert mine != ("none", "none")
    assert torch.equal(emroute.gmm.fit(x, 2, rng=0).means, want.means)
    assert precisions() == mine
    assert seen
    assert all(each in ("none", "ieee") for pair in seen for each in pair)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FITS)
def test_autocast_changes_no_fit(name, kind):
    x = torch.asarray(X if name.startswith(("gmm", "kmeans")) else COUNTS)
    want = FITS[name](x)
    data = (x[:, 0], x[:, 0] + x[:, 1]) if name == "binomial" else (x,)
    with torch.autocast("cpu", dtype=kind):
        got = FITS[name](x)
        assert torch.equal(got.trace, want.trace)
        assert torch.equal(got.predict(*data), want.predict(*data))
        if name != "kmeans":
            assert torch.equal(got.log_prob(*data), want.log_prob(*data))
            assert torch.equal(got.bic(*data), want.bic(*data))
        else:
            assert torch.equal(got.transform(x), want.transform(x))


@pytest.mark.parametrize("name", ["em", "normalized", "dynamic", "kmeans"])
def test_autocast_changes_no_routing_of_votes(name):
    votes = torch.asarray(VOTES)
    routed = {
        "em": lambda v: emroute.capsule.em_routing(v, torch.asarray(ON), torch.asarray(U), torch.asarray(A)),
        "normalized": lambda v: emroute.capsule.em_routing(
            v, torch.asarray(ON), torch.asarray(U), torch.asarray(A), cost="normalized"
        ),
        "dynamic": emroute.capsule.dynamic_routing,
        "kmeans": emroute.capsule.kmeans_routing,
    }[name]
    want = routed(votes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = routed(votes)
    assert torch.equal(got.poses, want.poses)


TALL = 200_000


@pytest.mark.parametrize("value", [777.7, 3.3e6])
def test_a_sum_of_equal_rows_is_their_number_times_one(lib, value):
    rows = np.full((TALL, 1), value, np.float32)
    x, labels = lib.asarray(rows), lib.asarray(np.zeros(TALL, int))
    found = lib.to_numpy(backends.get(x).segment_sum(x, labels, 2)).astype(np.float64)
    np.testing.assert_allclose(found[:, 0], [TALL * np.float64(rows[0, 0]), 0], rtol=5e-6)


def test_sums_of_each_problem_and_of_each_segment_are_apart(lib):
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(2, 3, 700, 2)).astype(np.float32), rng.integers(0, 4, (2, 3, 700))
    want = np.einsum("...ns,...nd->...sd", (labels[..., None] == np.arange(4)) * 1.0, rows.astype(np.float64))
    got = backends.get(lib.asarray(rows)).segment_sum(lib.asarray(rows), lib.asarray(labels), 4)
    np.testing.assert_allclose(lib.to_numpy(got), want, rtol=1e-4, atol=1e-4)
    shared = backends.get(lib.asarray(rows)).segment_sum(lib.asarray(rows), lib.asarray(labels[0, 0]), 4)
    want = np.einsum("ns,...nd->...sd", (labels[0, 0, :, None] == np.arange(4)) * 1.0, rows.astype(np.float64))
    np.testing.assert_allclose(lib.to_numpy(shared), want, rtol=1e-4, atol=1e-4)


def test_counts_pass_two_to_the_24th(lib):
    n = 2**24 + 2**22
    ones = lib.asarray(np.ones((n, 1), np.float32))
    found = backends.get(ones).segment_sum(ones, lib.asarray(np.zeros(n, np.int32)), 1)
    assert float(found[0, 0]) == n


def test_kmeans_finds_the_mean_of_many_rows(lib):
    rng = np.random.default_rng(0)
    x = np.r_[np.full(TALL // 2, 777.7), rng.uniform(-170, 170, TALL // 2)].astype(np.float32)[:, None]
    found = emroute.kmeans.fit(lib.asarray(x), 2, init=lib.asarray([[777.7], [0.0]], np.float32))
    want = [x[: TALL // 2].mean(dtype=np.float64), x[TALL // 2 :].mean(dtype=np.float64)]
    np.testing.assert_allclose(lib.to_numpy(found.centroids)[:, 0], want, atol=2e-3)
    trace = lib.to_numpy(found.trace).astype(np.float64)
    scatter = np.sum(x.astype(np.float64) ** 2)
    assert np.all(np.diff(trace) >= -32 * np.finfo(np.float32).eps * scatter)


@pytest.mark.on_jax("diag")
@pytest.mark.parametrize("kind", ["diag", "full"])
def test_a_log_likelihood_of_many_rows_keeps_its_digits(lib, kind):
    x = np.tile(np.random.default_rng(0).normal(5, 1, (4096, 1)), (TALL // 1000, 1)).astype(np.float32)
    start = (np.ones(1), np.full((1, 1), 5.0), np.ones((1, 1) if kind == "diag" else (1, 1, 1)))
    start32 = tuple(lib.asarray(part, np.float32) for part in start)
    found = emroute.gmm.fit(lib.asarray(x), 1, covariance_type=kind, init=start32, max_iter=0)
    want = emroute.gmm.fit(x[:4096].astype(np.float64), 1, covariance_type=kind, init=start, max_iter=0)
    total = float(want.log_likelihood) * (TALL // 1000)
    assert abs(float(found.log_likelihood) / total - 1) < 2e-6
    assert abs(float(found.score(lib.asarray(x))) * len(x) / total - 1) < 2e-6


@pytest.fixture
def debug_nans():
    jax.config.update("jax_debug_nans", True)
    yield
    jax.config.update("jax_debug_nans", False)


@pytest.mark.parametrize("name", ["gmm diag", "kmeans", "poisson"])
def test_a_debugger_of_nan_stops_no_fit_on_jax(debug_nans, name):
    data = X if name.startswith(("gmm", "kmeans")) else COUNTS
    found = FITS[name](jnp.asarray(data))
    assert int(found.n_iter) + 1 == found.trace.shape[-1]


def test_a_debugger_of_nan_stops_no_mixture_made_of_parameters_and_no_restarts(debug_nans):
    x = jnp.asarray(X)
    one = jnp.ones((1, 3), dtype=jnp.float32)
    emroute.gmm.GaussianMixture.from_parameters(one[:, 0], one, one, covariance_type="diag")
    found = emroute.gmm.fit(jnp.stack([x, 3 * x * x]), 2, n_init=2, covariance_type="diag", rng=0)
    trace, n_iter = np.asarray(found.trace), np.asarray(found.n_iter)
    for one, last in zip(trace, n_iter, strict=True):
        assert np.isfinite(one[: last + 1]).all()
        assert np.isnan(one[last + 1 :]).all()


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
def test_eigenvalues_of_a_matrix_that_is_not_finite_are_nan(lib, spoilt):
    x = np.stack([np.eye(3), np.eye(3), 2 * np.eye(3)])
    x[1, 0, 2] = x[1, 2, 0] = spoilt
    for dtype in (np.float32, np.float64):
        values, vectors = (lib.to_numpy(part) for part in backends.get(lib.asarray(x)).eigh(lib.asarray(x, dtype)))
        assert np.isnan(values[1]).all()
        assert np.isnan(vectors[1]).all()
        np.testing.assert_array_equal(values[[0, 2]], [[1, 1, 1], [2, 2, 2]])


def test_the_table_of_the_check_says_why_algorithms_were_not_run():
    from emroute.cli.check import _left_out
    from emroute.testing.compare import Difference
    from emroute.testing.equivalence import Outcome

    torch_gpu, jax_cpu = Place("torch", "cuda:0"), Place("jax", "cpu")
    by_name = {case.name: case for case in OPERATIONS}

    def outcome(place, problem=None):
        return Outcome(place, "float32", "values", Difference(0.0), 0.0, problem)

    results = [
        (by_name["Backend.eigh"], [outcome(torch_gpu, "wrong"), outcome(jax_cpu)]),
        (by_name["Backend.gammaln"], [outcome(torch_gpu), outcome(jax_cpu)]),
    ]
    assert _left_out(results) == {torch_gpu: "not run: eigh is wrong"}
