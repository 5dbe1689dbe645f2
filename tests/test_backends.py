"""What each plug-in owes the algorithms, and that a stranger's plug-in is found and used."""

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from scipy import special
from threadpoolctl import threadpool_info, threadpool_limits

from emroute import backend as backends
from emroute import gmm
from emroute.errors import BackendError, InputTypeError

MEMBERS = [name for name in vars(backends.Backend) if not name.startswith("_")]


def test_a_backend_is_small_and_whole(lib):
    backend = backends.get(lib.asarray(1.0))
    assert len(MEMBERS) == 12
    assert all(callable(getattr(backend, name)) for name in MEMBERS)


@pytest.mark.parametrize("name", ["gammaln", "digamma"])
def test_special_functions(lib, name):
    x = np.concatenate([np.linspace(0.01, 30, 300), np.geomspace(1e-6, 1e8, 50)])
    got = lib.to_numpy(getattr(backends.get(lib.asarray(x)), name)(lib.asarray(x)))
    np.testing.assert_allclose(
        got, getattr(special, name)(x) if name == "gammaln" else special.digamma(x), 1e-12, 1e-13
    )


def test_eigh_decomposes_and_gives_nan_for_the_one_that_fails(lib):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 4))
    x = x + x.swapaxes(-1, -2)
    x[1, 2, 2] = np.nan
    values, vectors = (lib.to_numpy(a) for a in backends.get(lib.asarray(x)).eigh(lib.asarray(x)))
    assert np.isnan(values[1]).all()
    assert np.isnan(vectors[1]).all()
    for good in (0, 2):
        np.testing.assert_allclose((vectors[good] * values[good]) @ vectors[good].T, x[good], atol=1e-12)
        assert (np.diff(values[good]) >= 0).all()


@pytest.mark.parametrize("shape", [(7, 3), (2, 7, 3), (7, 1), (2, 7, 1)])
def test_segment_sum_adds_every_row_duplicates_included(lib, shape):
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=shape), rng.integers(4, size=shape[:-1])
    expected = (np.arange(5)[:, None] == labels[..., None, :]) @ values
    like = lib.asarray(values)
    got = backends.get(like).segment_sum(like, lib.asarray(labels), 5)
    np.testing.assert_allclose(lib.to_numpy(got), expected, atol=1e-14)


@pytest.mark.parametrize("name", ["argmin", "argmax"])
def test_jax_finds_the_first_extreme_along_an_axis_or_the_first_nan(name):
    jnp = pytest.importorskip("jax.numpy")
    x = np.random.default_rng(0).integers(0, 3, size=(4, 5)).astype("f4")  # with ties
    x[1, 2:4], x[2] = np.nan, np.inf
    of_jax = getattr(backends.namespace(jnp.ones(1)), name)
    for numbers in (x, np.arange(20).reshape(4, 5) % 3):
        for axis, keepdims in ((0, False), (-1, True), (None, False), (None, True)):
            found = of_jax(jnp.asarray(numbers), axis=axis, keepdims=keepdims)
            np.testing.assert_array_equal(found, getattr(np, name)(numbers, axis=axis, keepdims=keepdims))


@pytest.mark.parametrize("size", [1, 3, 10, 11])
def test_blocks_join_to_the_whole(lib, size):
    x = lib.asarray(np.arange(20.0).reshape(10, 2))
    backend = backends.get(x)
    xp = backend.namespace(x)
    doubled, sums = backend.map_blocks(lambda a, b: (a + b, xp.sum(a, axis=0, keepdims=True)), [x, x], size)
    np.testing.assert_array_equal(lib.to_numpy(doubled), 2 * np.arange(20.0).reshape(10, 2))
    np.testing.assert_array_equal(lib.to_numpy(sums).sum(axis=0), [90, 100])


def test_blocks_within_blocks(lib):
    x = lib.asarray(np.arange(24.0))
    backend = backends.get(x)

    def outer(a):
        return backend.map_blocks(lambda b: (b * 2,), [a], 2)

    np.testing.assert_array_equal(lib.to_numpy(backend.map_blocks(outer, [x], 5)[0]), 2 * np.arange(24.0))


def test_an_error_in_a_block_reaches_the_caller():
    def fail(x):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        backends.get(np.ones(1)).map_blocks(fail, [np.ones(9)], 2)


def test_a_loop_stops_at_its_condition(lib):
    x = lib.asarray(1.0)
    assert float(backends.get(x).loop(lambda s: s[0] < 100, lambda s: (s[0] * 2,), (x,))[0]) == 128


def test_host_values_take_the_dtype_and_device_they_are_carried_to(lib):
    like = lib.asarray(1.0, np.float32)
    backend = backends.get(like)
    assert backend.from_numpy(np.ones(2), like).dtype == like.dtype
    assert backends.namespace(like).isdtype(backend.from_numpy(np.ones(2, int), like).dtype, "integral")
    assert lib.owns(backend.from_numpy(np.ones(2), like))


def test_blas_gets_its_threads_back():
    from threadpoolctl import threadpool_info

    before = [pool["num_threads"] for pool in threadpool_info()]
    backends.get(np.ones(1)).map_blocks(lambda x: (x @ x.T,), [np.ones((9, 9))], 2)
    assert [pool["num_threads"] for pool in threadpool_info()] == before


def test_what_is_no_array_is_refused():
    with pytest.raises(InputTypeError, match=r"list, expected an array of the same library as the others"):
        backends.get([1.0])


def test_an_unknown_library_is_named():
    class Strange:
        shape, dtype = (), "float"

    with pytest.raises(BackendError, match=r"Strange.*pip install -e"):
        backends.get(Strange())


def test_a_subclass_is_served_by_its_base():
    class Mine(np.ndarray):
        pass

    assert backends.get(np.ones(2).view(Mine)) is backends.get(np.ones(2))


TOY = """
    import numpy as np
    from array_api_compat import numpy as standard

    class Toy:
        '''An array of a library of its own: nothing but a wrapper, and its own namespace.'''

        def __init__(self, value):
            self.value = np.asarray(value)

        shape = property(lambda self: self.value.shape)
        dtype = property(lambda self: self.value.dtype)
        ndim = property(lambda self: self.value.ndim)
        device = "cpu"

        def __getitem__(self, key):
            return wrap(self.value[unwrap(key)])

        def __setitem__(self, key, value):
            self.value[unwrap(key)] = unwrap(value)

        def __bool__(self):
            return bool(self.value)

        def __float__(self):
            return float(self.value)

        def __int__(self):
            return int(self.value)

        def __array_namespace__(self, api_version=None):
            return namespace

    def unwrap(x):
        if isinstance(x, (tuple, list)):
            return type(x)(map(unwrap, x))
        return x.value if isinstance(x, Toy) else x

    def wrap(x):
        if isinstance(x, tuple):
            return tuple(map(wrap, x))
        return Toy(x) if isinstance(x, (np.ndarray, np.generic)) else x

    for name in "add radd sub rsub mul rmul truediv rtruediv pow neg abs lt le gt ge eq ne and or invert".split():
        def method(self, *other, name=f"__{name}__"):
            return wrap(getattr(self.value, name)(*map(unwrap, other)))
        setattr(Toy, f"__{name}__", method)

    class Namespace:
        __name__ = "toylib"

        def __init__(self, space):
            self.space = space

        def __getattr__(self, name):
            found = getattr(self.space, name)
            if name == "linalg":
                return Namespace(found)
            if not callable(found) or isinstance(found, type):
                return found
            return lambda *args, **kwargs: wrap(found(*map(unwrap, args), **{k: unwrap(v) for k, v in kwargs.items()}))

    namespace = Namespace(standard)
"""

PLUGIN = """
    import numpy as np
    import toylib
    from emroute_backends import numpy as host

    used = []

    def namespace(x, /):
        return toylib.namespace

    def loop(condition, body, state):
        while bool(condition(state)):
            state = body(state)
        return state

    def compile(function):
        return function

    def eigh(x, /):
        used.append("eigh")
        return toylib.wrap(host.eigh(x.value))

    def gammaln(x, /):
        return toylib.wrap(host.gammaln(x.value))

    def digamma(x, /):
        return toylib.wrap(host.digamma(x.value))

    def segment_sum(values, segments, n_segments):
        used.append("segment_sum")
        return toylib.wrap(host.segment_sum(values.value, segments.value, n_segments))

    def detach(x, /):
        return x

    def to_numpy(x, /):
        return x.value

    def from_numpy(value, like):
        floating = value.dtype.kind == "f" and like.dtype.kind == "f"
        return toylib.Toy(value.astype(like.dtype) if floating else value)

    def chunk_size(bytes_per_row):
        return 64

    def map_blocks(function, arrays, size, recompute=False):
        n = arrays[0].shape[0]
        parts = [function(*(x[i : i + size] for x in arrays)) for i in range(0, n, size)]
        return tuple(toylib.Toy(np.concatenate([x.value for x in field])) for field in zip(*parts))
"""

USE = """
    import sys
    import numpy as np
    import toylib, toyplugin
    import emroute

    x = np.random.default_rng(0).normal(size=(200, 2)) + 6 * np.arange(200)[:, None] % 12
    start = x[:3]
    ours = emroute.gmm.fit(toylib.Toy(x), 3, init=toylib.Toy(start), max_iter=20)
    host = emroute.gmm.fit(x, 3, init=start, max_iter=20)
    assert isinstance(ours.means, toylib.Toy), type(ours.means)
    assert np.allclose(ours.means.value, host.means, atol=1e-10)
    assert np.allclose(ours.responsibilities(toylib.Toy(x)).value, host.responsibilities(x), atol=1e-8)
    clusters = emroute.kmeans.fit(toylib.Toy(x), 3, rng=0)
    assert np.allclose(clusters.centroids.value, emroute.kmeans.fit(x, 3, rng=0).centroids, atol=1e-10)
    coins = emroute.binomial.fit(toylib.Toy(np.asarray([5, 9, 8, 4, 7])), 10, 2, init=[0.6, 0.5], tol=0)
    assert abs(float(coins.log_likelihood) + 9.795418956) < 1e-8
    assert {"eigh", "segment_sum"} <= set(toyplugin.used)
    try:
        emroute.gmm.fit(toylib.Toy(x), 3, init=start)
    except emroute.EmrouteError as error:
        assert "numpy" in str(error) and "toylib" in str(error), error
    else:
        raise AssertionError("a mix of libraries was taken")
    print("fitted")
"""


def test_a_strangers_plug_in_works_without_touching_emroute(tmp_path):
    """A distribution as pip lays it out: two modules and the metadata that announce the entry point."""
    (tmp_path / "toylib.py").write_text(textwrap.dedent(TOY))
    (tmp_path / "toyplugin.py").write_text(textwrap.dedent(PLUGIN))
    info = tmp_path / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[emroute.backends]\ntoylib = toyplugin\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:the fit did not converge", "-c", textwrap.dedent(USE)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "fitted" in done.stdout


def test_fits_side_by_side_leave_blas_its_threads():
    def blas():
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    x = np.random.default_rng(0).normal(size=(30_000, 3))
    with threadpool_limits(2, user_api="blas"):
        before = blas()
        fits = [threading.Thread(target=gmm.fit, args=(x, 3), kwargs={"max_iter": n, "rng": 0}) for n in (2, 5, 8)]
        [fit.start() for fit in fits]
        [fit.join() for fit in fits]
        assert blas() == before


# Devices that are waited for


@pytest.fixture
def reads(monkeypatch):
    """Count how often Torch hands values to the host, as if its tensors were on a device."""
    torch = pytest.importorskip("torch")
    from torch.utils._python_dispatch import TorchDispatchMode

    backend, found = backends.named("torch"), []

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten._local_scalar_dense.default:
                found.append(function)
            return function(*args, **(kwargs or {}))

    def counted(x):
        found.append(x)
        return original(x)

    original = backend.to_numpy
    monkeypatch.setattr(backend, "to_numpy", counted)
    monkeypatch.setattr(backend, "at_hand", lambda x: False)
    with Counting():
        yield found


@pytest.mark.parametrize("tol", [0.0, 1e-12])
def test_a_fit_waits_for_a_device_once_an_iteration(reads, tol):
    import torch

    x = torch.asarray(np.random.default_rng(0).normal(size=(200, 20)))
    counts = []
    for max_iter in (2, 5):
        reads.clear()
        gmm.fit(x, 2, rng=0, max_iter=max_iter, tol=tol)
        counts.append(len(reads))
    assert counts[1] - counts[0] == 3


def test_matrices_of_a_device_are_decomposed_on_the_host_as_by_the_standard():
    torch = pytest.importorskip("torch")
    from emroute_backends import portable
    from emroute_backends.torch import eigh_on_host

    x = torch.asarray(np.random.default_rng(0).normal(size=(2, 5, 6, 6)))
    x = x + x.mT
    x[1, 2, 0, 0] = float("nan")
    values, vectors = eigh_on_host(x)
    torch.testing.assert_close(values, portable.eigh(x)[0], equal_nan=True)
    whole = (vectors * values[..., None, :]) @ vectors.mT
    torch.testing.assert_close(whole.isnan(), x.isnan().any(-1, keepdim=True).any(-2, keepdim=True).expand(x.shape))
    torch.testing.assert_close(whole.nan_to_num(0), torch.where(whole.isnan(), 0, x))
