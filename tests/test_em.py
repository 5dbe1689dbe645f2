"""The loop itself, with models of its own: it knows nothing of mixtures."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from emroute import em
from emroute.backend import namespace
from emroute.em import Status
from emroute.errors import InputError, MissingDependencyError
from tests.helpers import compiling


class Params(NamedTuple):
    mean: Any


class Sums(NamedTuple):
    weight: Any
    first: Any
    second: Any


@dataclass(frozen=True)
class Mean:
    """The mean of a sample, reached by `pace` of the way in each step; the objective is minus the squares."""

    pace: float = 1.0

    def expect(self, params, x, weight):
        xp = namespace(x)
        gap = x[..., 0] - params.mean[..., None]
        return Sums(xp.sum(weight, axis=-1), xp.sum(weight * gap, axis=-1), xp.sum(weight * gap**2, axis=-1))

    def maximize(self, sums, params):
        return Params(params.mean + self.pace * sums.first / sums.weight)

    def objective(self, sums, params):
        return -sums.second


@dataclass(frozen=True)
class Exploding(Mean):
    """Runs into infinity after a few steps."""

    def maximize(self, sums, params):
        return Params(params.mean * 1e200)


def sample(lib, *shape):
    return lib.asarray(np.random.default_rng(0).normal(3, 1, shape))


def test_a_users_model_runs_on_every_library(lib):
    x = sample(lib, 40, 1)
    fit = em.fit(Mean(0.5), x, Params(lib.asarray(0.0)), tol=0)
    assert lib.to_numpy(fit.params.mean) == pytest.approx(lib.to_numpy(x).mean(), abs=1e-12)
    assert int(fit.status) == Status.CONVERGED
    assert bool(fit.converged)
    trace = lib.to_numpy(fit.trace)
    assert trace.shape == (int(fit.n_iter) + 1,)
    assert trace[0] == pytest.approx(-((lib.to_numpy(x) - 0) ** 2).sum())
    assert trace[-1] == float(fit.objective)
    assert (np.diff(trace) >= -1e-12 * abs(trace[:-1])).all()


def test_max_iter_counts_m_steps(lib):
    fit = em.fit(Mean(0.5), sample(lib, 40, 1), Params(lib.asarray(0.0)), tol=0, max_iter=3)
    assert (int(fit.n_iter), int(fit.status), fit.trace.shape[0]) == (3, Status.MAX_ITER, 4)


def test_no_iteration_at_all_returns_the_start(lib):
    fit = em.fit(Mean(), sample(lib, 4, 1), Params(lib.asarray(7.0)), max_iter=0)
    assert (float(fit.params.mean), int(fit.n_iter), int(fit.status)) == (7.0, 0, Status.MAX_ITER)
    assert fit.trace.shape[0] == 1


def test_tol_is_a_change_per_unit_of_weight(lib):
    x = sample(lib, 40, 1)
    plain = em.fit(Mean(0.5), x, Params(lib.asarray(0.0)), tol=1e-3)
    heavy = em.fit(Mean(0.5), x, Params(lib.asarray(0.0)), tol=1e-3, sample_weight=lib.asarray(np.full(40, 1e6)))
    assert int(plain.n_iter) == int(heavy.n_iter)
    *_, before, last = np.diff(lib.to_numpy(plain.trace))
    assert last <= 1e-3 * 40 < before


def test_a_non_finite_step_is_undone_and_said(lib):
    with np.errstate(over="ignore"):
        fit = em.fit(Exploding(), sample(lib, 4, 1), Params(lib.asarray(1.0)), tol=0)
    assert int(fit.status) == Status.NON_FINITE
    assert not bool(fit.converged)
    assert np.isfinite(lib.to_numpy(fit.params.mean))
    assert np.isfinite(lib.to_numpy(fit.trace)).all()


def test_a_non_finite_start_is_never_converged(lib):
    fit = em.fit(Mean(), sample(lib, 4, 1), Params(lib.asarray(np.nan)))
    assert (int(fit.status), int(fit.n_iter)) == (Status.NON_FINITE, 0)


def test_each_problem_of_a_batch_stops_for_itself(lib):
    """Starts at the mean and far from it, over data of two shapes of batch: shared and one's own."""
    shared = sample(lib, 40, 1)
    starts = np.asarray([[0.0, 3.0, 1e5], [lib.to_numpy(shared).mean(), 1.0, -9.0]])
    fit = em.fit(Mean(0.5), shared, Params(lib.asarray(starts)), tol=1e-9)
    for at in np.ndindex(2, 3):
        alone = em.fit(Mean(0.5), shared, Params(lib.asarray(starts[at])), tol=1e-9)
        assert int(fit.n_iter[at]) == int(alone.n_iter)
        steps = int(alone.n_iter) + 1
        np.testing.assert_allclose(lib.to_numpy(fit.trace)[at][:steps], lib.to_numpy(alone.trace), rtol=1e-12)
        assert np.isnan(lib.to_numpy(fit.trace)[at][steps:]).all()
    own = sample(lib, 2, 1, 40, 1)
    restarted = em.fit(Mean(0.5), own, Params(lib.asarray(starts)), tol=1e-9)
    assert restarted.trace.shape[:2] == (2, 3)
    for at in np.ndindex(2, 3):
        alone = em.fit(Mean(0.5), own[at[0], 0, ...], Params(lib.asarray(starts[at])), tol=1e-9)
        assert int(restarted.n_iter[at]) == int(alone.n_iter)
        assert lib.to_numpy(restarted.params.mean)[at] == pytest.approx(float(alone.params.mean), rel=1e-12)


@pytest.mark.parametrize(
    ("rows", "starts"), [((40,), ()), ((40,), (1,)), ((1, 40), (1,)), ((40,), (3,)), ((2, 1, 40), (2, 3))]
)
@pytest.mark.parametrize(("model", "max_iter"), [(Mean(0.5), 100), (Mean(0.5), 3), (Mean(0.5), 0), (Exploding(), 9)])
def test_the_loop_that_is_compiled_whole_is_the_one_from_python(rows, starts, model, max_iter):
    rng = np.random.default_rng(0)
    x, start = rng.normal(3, 1, (*rows, 1)), Params(np.asarray(rng.normal(0, 9, starts)))
    weight = rng.uniform(size=rows)

    def fit():
        with np.errstate(over="ignore"):
            return em.fit(model, x, start, sample_weight=weight, max_iter=max_iter, tol=1e-9)

    expected = fit()
    with compiling():
        got = fit()
    np.testing.assert_allclose(got.params.mean, expected.params.mean, rtol=1e-12)
    for a, b in zip(got[1:], expected[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("chunk_size", [1, 7, 39])
def test_chunks_change_nothing(lib, chunk_size):
    x, start = sample(lib, 40, 1), Params(lib.asarray(0.0))
    whole, chunked = (em.fit(Mean(0.5), x, start, max_iter=4, tol=0, chunk_size=c) for c in (None, chunk_size))
    np.testing.assert_allclose(lib.to_numpy(chunked.trace), lib.to_numpy(whole.trace), rtol=1e-13)


@dataclass(frozen=True)
class Largest:
    """Statistics that do not add: the largest row."""

    def expect(self, params, x, weight):
        return Params(namespace(x).max(x, axis=(-2, -1)))

    def merge(self, a, b):
        return Params(namespace(a.mean).maximum(a.mean, b.mean))

    def maximize(self, statistics, params):
        return statistics

    def objective(self, statistics, params):
        return params.mean


def test_a_model_may_merge_in_its_own_way(lib):
    x = lib.asarray(np.arange(10.0)[:, None])
    for data in (x, [x[:3, ...], x[3:, ...]]):
        fit = em.fit(Largest(), data, Params(lib.asarray(-1.0)), chunk_size=3)
        assert float(fit.params.mean) == 9.0


def test_a_stream_equals_the_array(lib):
    x, start = sample(lib, 40, 1), Params(lib.asarray(0.0))
    weight = lib.asarray(np.random.default_rng(1).uniform(size=40))
    whole = em.fit(Mean(0.5), x, start, sample_weight=weight)
    streamed = em.fit(Mean(0.5), [x[:25, ...], x[25:, ...]], start, sample_weight=weight)
    np.testing.assert_allclose(lib.to_numpy(streamed.trace), lib.to_numpy(whole.trace), rtol=1e-13)


def test_the_callback_sees_every_iteration(lib):
    x, start = sample(lib, 40, 1), Params(lib.asarray([0.0, 3.0]))
    seen = []
    fit = em.fit(Mean(0.5), x, start, max_iter=5, tol=0, callback=lambda i, fit: seen.append((i, fit)))
    assert [i for i, _ in seen] == [1, 2, 3, 4, 5]
    for i, so_far in seen:
        assert so_far.trace.shape == (2, i + 1)
        np.testing.assert_array_equal(lib.to_numpy(so_far.trace), lib.to_numpy(fit.trace)[:, : i + 1])
        np.testing.assert_array_equal(lib.to_numpy(so_far.objective), lib.to_numpy(so_far.trace)[:, -1])


def test_progress_needs_tqdm_and_says_so(monkeypatch, capsys):
    x, start = np.ones((4, 1)), Params(np.asarray(0.0))
    em.fit(Mean(0.5), x, start, progress=True)
    assert "EM" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "tqdm.auto", None)
    with pytest.raises(MissingDependencyError, match="pip install tqdm"):
        em.fit(Mean(0.5), x, start, progress=True)


def test_params_must_begin_with_the_batch():
    with pytest.raises(InputError, match="begin with"):
        em.fit(Mean(), np.ones((5, 2, 4, 1)), Params(np.zeros(2)))


def test_the_objective_must_have_the_batch_of_the_data():
    class Pooled(Mean):
        def objective(self, sums, params):
            return -namespace(sums.second).sum(sums.second)

    with pytest.raises(InputError, match="begin with the batch dimensions of the data"):
        em.fit(Pooled(), np.ones((2, 4, 1)), Params(np.zeros(2)))


def test_ranks_of_rows_are_declared_or_told_from_shapes(lib):
    class Line:
        """Least squares through the origin over ``(x (n, d), y (n,))``."""

        def expect(self, params, data, weight):
            x, y = data
            assert (x.ndim, y.ndim) == (2, 1)
            xp = namespace(x)
            gap = y - xp.matmul(x, params.mean)
            return Sums(xp.matmul(x.T * weight, x), xp.matmul(x.T, weight * gap), xp.sum(weight * gap**2))

        def maximize(self, sums, params):
            return Params(params.mean + namespace(sums.weight).linalg.solve(sums.weight, sums.first[:, None])[:, 0])

        def objective(self, sums, params):
            return -sums.second

    x = np.random.default_rng(0).normal(size=(30, 2))
    fit = em.fit(Line(), (lib.asarray(x), lib.asarray(x @ [2.0, -1.0])), Params(lib.asarray([0.0, 0.0])), chunk_size=8)
    np.testing.assert_allclose(lib.to_numpy(fit.params.mean), [2, -1], atol=1e-12)


def test_jax_compiles_a_fit_once():
    import jax.numpy as jnp

    model, x, other = Mean(0.25), jnp.ones((50, 1)), jnp.zeros((50, 1))
    start = Params(jnp.asarray(1.0))
    em.fit(model, x, Params(jnp.asarray(0.0)))
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
    em.fit(model, other, start, tol=1e-3)
    assert not [name for name in compiled if "backend_compile" in name]


def test_jax_fits_inside_jit_vmap_and_grad():
    import jax.numpy as jnp

    x = jnp.asarray(np.random.default_rng(0).normal(3, 1, (4, 20, 1)))

    def run(x):
        return em.fit(Mean(0.5), x, Params(jnp.asarray(0.0)), max_iter=9)

    alone = [run(row) for row in x]
    inside = jax.jit(jax.vmap(run))(x)
    assert inside.trace.shape == (4, 10)
    for at, fit in enumerate(alone):
        assert int(inside.n_iter[at]) == int(fit.n_iter)
        np.testing.assert_allclose(inside.params.mean[at], fit.params.mean, rtol=1e-12)
    assert jax.grad(lambda x: run(x).params.mean)(x[0]).tolist() == np.zeros((20, 1)).tolist()


def test_torch_fits_record_no_gradient():
    import torch

    x = torch.ones(5, 1, dtype=torch.float64, requires_grad=True)
    fit = em.fit(Mean(0.5), x, Params(torch.zeros((), dtype=torch.float64, requires_grad=True)))
    assert not fit.params.mean.requires_grad
    assert not fit.trace.requires_grad
