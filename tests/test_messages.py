"""What is refused is refused with the call that helps: each message says what was got and what to pass."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
import scipy.sparse
import torch

from emroute import gmm, kmeans, multinomial, poisson
from emroute.errors import InputError, InputTypeError
from tests.helpers import clusters, rejected

pytestmark = pytest.mark.usefixtures("quick_compilation")

X = clusters(24, 2, 2, seed=3)
COUNTS = np.random.default_rng(0).poisson([2.0, 9.0], (24, 2)).astype(float)
FITS = {
    "gmm": lambda x, **options: gmm.fit(x, 2, rng=0, **options),
    "kmeans": lambda x, **options: kmeans.fit(x, 2, rng=0, **options),
    "poisson": lambda x, **options: poisson.fit(x, 2, rng=0, **options),
    "multinomial": lambda x, **options: multinomial.fit(x, 2, rng=0, **options),
}
every_fit = pytest.mark.parametrize("family", FITS)


class DaskArray:
    """What a dask array shows of itself."""

    __module__ = "dask.array.core"
    shape, dtype, chunks, dask = (24, 2), np.dtype(float), ((12, 12), (2,)), {}

    def compute(self):
        return X

    def __iter__(self):
        return iter(X)


@pytest.fixture
def stored(tmp_path):
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        yield file.create_dataset("rows", data=COUNTS)


@every_fit
def test_stored_arrays(family, stored):
    words = ["h5py", "on disk", "`x[:]`", "__iter__", "`x[start:stop]`"]
    rejected(lambda: FITS[family](stored), InputTypeError, *words)
    rejected(lambda: FITS[family](stored[:], sample_weight=stored), InputTypeError, *words)
    FITS[family](stored[:])


@every_fit
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x, x], lambda x: (x,)], ids=["alone", "chunks", "tuple"])
def test_arrays_yet_to_be_computed(family, wrap):
    rejected(lambda: FITS[family](wrap(DaskArray())), InputTypeError, "dask.array.core.DaskArray", "`.compute()`")


@every_fit
@pytest.mark.parametrize(
    ("sparse", "call"),
    [
        (lambda: scipy.sparse.csr_matrix(COUNTS), "`.toarray()`"),
        (lambda: scipy.sparse.coo_array(COUNTS), "`.toarray()`"),
        (lambda: torch.asarray(COUNTS).to_sparse(), "`.to_dense()`"),
        (lambda: torch.asarray(COUNTS).to_sparse_csc(), "`.to_dense()`"),
    ],
    ids=["matrix", "array", "torch", "torch, by columns"],
)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_arrays(family, sparse, call):
    rejected(lambda: FITS[family](sparse()), InputTypeError, "a sparse array, expected a dense one", call)


def test_sparse_arrays_of_jax():
    sparse = pytest.importorskip("jax.experimental.sparse")
    rejected(lambda: gmm.fit(sparse.BCOO.fromdense(X), 2), InputTypeError, "BCOO", "`.todense()`")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
def test_nested_arrays():
    nested = torch.nested.nested_tensor([torch.ones(5, 2), torch.ones(3, 2)])
    rejected(lambda: kmeans.fit(nested, 2), InputTypeError, "nested", "`emroute.data.Chunks(x.unbind())`")


def test_parameters_of_networks():
    nnx = pytest.importorskip("flax.nnx")
    rejected(lambda: gmm.fit(nnx.Param(np.asarray(X)), 2), InputTypeError, "Param", "`param[...]`")
    gmm.fit(torch.nn.Parameter(torch.asarray(X)), 2, rng=0)  # which is an array itself


def test_queries():
    frames = pytest.importorskip("polars")
    rejected(lambda: kmeans.fit(frames.LazyFrame(X), 2), InputTypeError, "LazyFrame", "`.collect().to_numpy()`")


SHARDED = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from emroute import gmm, kmeans, poisson
from emroute.errors import InputTypeError
mesh = Mesh(np.asarray(jax.devices()), ("rows",))
sharded = jax.device_put(np.ones((16, 2), np.float32), NamedSharding(mesh, PartitionSpec("rows")))
whole = jax.numpy.ones((16, 2), "float32")
for fit in gmm.fit, kmeans.fit, poisson.fit:
    calls = lambda: fit(sharded, 2), lambda: fit([sharded, whole], 2), lambda: fit(whole, 2, sample_weight=sharded[:,0])
    for call in calls:
        try:
            call()
        except InputTypeError as error:
            print(error)
"""


def test_sharded_arrays():
    options = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, "-c", SHARDED], capture_output=True, text=True, env={**os.environ, **options}
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 9
    for line in lines:
        assert "an array that is sharded over 8 devices, expected one on a single device" in line
        assert "`device_put(x, device)`" in line


@pytest.mark.parametrize("family", ["gmm", "kmeans"])
@pytest.mark.parametrize("order", [">f8", ">f4"])
def test_another_byte_order(family, order):
    words = [order, "byte order", "`x.astype(x.dtype.newbyteorder('='))`"]
    rejected(lambda: FITS[family](X.astype(order)), InputTypeError, *words)
    weight = np.ones(24, order)
    rejected(lambda: FITS[family](X, sample_weight=weight), InputTypeError, "byte order", "`sample_weight.astype(")


CALLS = {
    "numpy": ("x.astype('float64')", "x.astype('float32')"),
    "jax": ("x.astype('float64')", "x.astype('float32')"),
    "cupy": ("x.astype('float64')", "x.astype('float32')"),
    "torch": ("x.to(torch.float64)", "x.to(torch.float32)"),
    "array_api_strict": (
        "array_api_strict.astype(x, array_api_strict.float64)",
        "array_api_strict.astype(x, array_api_strict.float32)",
    ),
}


@pytest.mark.parametrize("family", ["gmm", "kmeans"])
def test_other_dtypes_are_told_the_call(lib, family):
    call = CALLS[lib.name.partition("-")[0]]
    rejected(lambda: FITS[family](lib.asarray(X, "int64")), InputTypeError, "int64", f"convert it first, `{call[0]}`")
    if lib.name != "array_api_strict":
        half = lib.asarray(X, "float16")
        rejected(lambda: FITS[family](half), InputTypeError, "float16", f"`{call[1]}`")


@pytest.mark.parametrize("family", ["gmm", "kmeans"])
def test_rows_of_another_precision_are_told_from_the_fit(eager_lib, family):
    lib = eager_lib
    call, fitted = CALLS[lib.name.partition("-")[0]][0], FITS[family](lib.asarray(X))
    words = ["x has dtype", "float32, the fitted parameters have", "float64", f"`{call}`"]
    rejected(lambda: fitted.predict(lib.asarray(X, "float32")), InputTypeError, *words)


def test_arrays_of_other_libraries_are_told_the_call():
    rejected(lambda: gmm.fit(torch.asarray(X), 2, sample_weight=np.ones(24)), InputTypeError, "`torch.asarray`")
    rejected(lambda: gmm.fit(X, 2, sample_weight=[1.0] * 24), InputTypeError, "list", "`numpy.asarray(...)`")
    rejected(lambda: poisson.fit(torch.asarray(X), 2, sample_weight=[1]), InputTypeError, "`torch.asarray(...)`")


@pytest.mark.on_jax("gmm-int64")
@pytest.mark.parametrize("dtype", ["int64", "bool"])
@every_fit
def test_whole_weights_count_rows(lib, family, dtype):
    weight = (np.arange(24) % 3).astype(dtype)
    data = COUNTS if family in ("poisson", "multinomial") else X
    got = FITS[family](lib.asarray(data), sample_weight=lib.asarray(weight), max_iter=3)
    expected = FITS[family](lib.asarray(data), sample_weight=lib.asarray(weight.astype(float)), max_iter=3)
    # on CUDA rows are added in no fixed order
    np.testing.assert_allclose(lib.to_numpy(got.trace), lib.to_numpy(expected.trace), rtol=1e-12)
    if family != "kmeans":
        bic = [fit.bic(lib.asarray(data), sample_weight=lib.asarray(w)) for fit, w in
               ((got, weight), (expected, weight.astype(float)))]  # fmt: skip
        assert float(bic[0]) == pytest.approx(float(bic[1]), rel=1e-12)


def test_whole_weights_of_whole_counts_of_chunks(eager_lib):
    x, weight = eager_lib.asarray(COUNTS, "int64"), eager_lib.asarray(np.arange(24) % 3)
    got = FITS["poisson"]([x[:10, ...], x[10:, ...]], sample_weight=weight)
    expected = FITS["poisson"](x, sample_weight=eager_lib.asarray((np.arange(24) % 3).astype(float), "float64"))
    np.testing.assert_allclose(eager_lib.to_numpy(got.rates), eager_lib.to_numpy(expected.rates), rtol=1e-9)


def test_weights_that_count_backwards_are_refused(lib):
    weight = lib.asarray(np.where(np.arange(24) == 5, -1, 1))
    rejected(lambda: FITS["gmm"](lib.asarray(X), sample_weight=weight), InputError, "negative", "(5,)")
    rejected(lambda: FITS["gmm"](lib.asarray(X), sample_weight=lib.asarray(np.zeros(24, "int64"))), InputError, "zero")
