"""Sources whose passes differ, chunks without rows, and lists that may be chunks or a batch."""

import itertools
import time
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from emroute import binomial, em, gmm, kmeans, poisson
from emroute._engine.moments import extent_of
from emroute.data import Chunks, open_source
from emroute.errors import EmrouteError, FitWarning, InputError, InputTypeError
from tests.helpers import clusters, rejected

pytestmark = pytest.mark.usefixtures("quick_compilation")

X = clusters(48, 2, 3, seed=2)
COUNTS = np.random.default_rng(0).poisson([2.0, 9.0], (48, 2))
FITS = {
    "gmm": lambda source: gmm.fit(source, 2, rng=0, max_iter=4),
    "kmeans": lambda source: kmeans.fit(source, 2, rng=0),
    "poisson": lambda source: poisson.fit(source, 2, rng=0, max_iter=4),
}
DATA = {"gmm": X, "kmeans": X, "poisson": COUNTS}


class Passes:
    """A source whose pass number `i` is what a function of the rows and of `i` gives."""

    def __init__(self, lib, rows, change, size=16):
        self.lib, self.rows, self.change, self.size, self.made = lib, rows, change, size, 0

    def __iter__(self):
        rows = self.change(self.rows.copy(), self.made)
        self.made += 1
        for start in range(0, len(rows), self.size):
            yield self.lib.asarray(rows[start : start + self.size])


def swap_two(rows, made):
    if made > 3:
        rows[[20, 21]] = rows[[21, 20]]
    return rows


CHANGES = {
    "shuffled": lambda rows, made: np.random.default_rng(made).permutation(rows),
    "turned round in the fifth pass": lambda rows, made: rows[::-1].copy() if made == 4 else rows,
    "two rows exchanged": swap_two,
    "one entry changed": lambda rows, made: rows + (made > 2) * (np.arange(rows.size) == 7).reshape(rows.shape),
    "rows of another seed": lambda rows, made: rows + np.random.default_rng(made).integers(0, 2, rows.shape),
    "fewer rows": lambda rows, made: rows[: 48 - made],
    "more rows": lambda rows, made: np.concatenate([rows, rows[:made]]),
}


@pytest.mark.on_jax("shuffled-kmeans", "kmeans-shuffled")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("family", FITS)
def test_passes_that_differ_are_told(lib, family, change):
    source = Passes(lib, DATA[family], CHANGES[change])
    words = ["a pass over the source yielded other rows than the first", "shuffle=True"]
    rejected(lambda: FITS[family](source), InputError, *words, *(["in the first)"] if "fewer" in change else []))


@pytest.mark.parametrize("family", FITS)
def test_one_shuffled_chunk_is_told(eager_lib, family):
    source = Passes(eager_lib, DATA[family], CHANGES["shuffled"], size=48)
    rejected(lambda: FITS[family](source), InputError, "other rows than the first")


@pytest.mark.parametrize("size", [16, 200])
def test_a_shuffling_loader_is_told(size):
    loader = DataLoader(torch.asarray(X), batch_size=size, shuffle=True)
    rejected(lambda: kmeans.fit(loader, 2, rng=0), InputError, "shuffle=True")
    quiet = kmeans.fit(DataLoader(torch.asarray(X), batch_size=size), 2, rng=0)
    np.testing.assert_array_equal(quiet.labels, kmeans.fit(torch.asarray(X), 2, rng=0).labels)


def test_pairs_that_differ_are_told(eager_lib):
    class Coins:
        made = 0

        def __iter__(self):
            self.made += 1
            heads = np.arange(8.0) if self.made < 3 else np.arange(8.0)[::-1].copy()
            yield eager_lib.asarray(heads), eager_lib.asarray(np.full(8, 10.0))

    rejected(lambda: binomial.fit(Coins(), None, 2, rng=0), InputError, "other rows than the first")


def test_large_chunks_are_told_too():
    rows = np.random.default_rng(0).normal(size=(100_000, 2)).astype(np.float32)
    for size in (100_000, 30_000):
        loader = DataLoader(torch.asarray(rows), batch_size=size, shuffle=True)
        rejected(lambda loader=loader: kmeans.fit(loader, 2, rng=0), InputError, "shuffle=True")


def test_the_same_rows_in_other_chunks_are_the_same_rows(eager_lib):
    class Ragged:
        made = 0

        def __iter__(self):
            self.made += 1
            bounds = [0, *sorted({self.made % 48, 20}), 48]
            return (eager_lib.asarray(X[a:b]) for a, b in itertools.pairwise(bounds))

    got, expected = kmeans.fit(Ragged(), 2, rng=0), kmeans.fit(eager_lib.asarray(X), 2, rng=0)
    np.testing.assert_array_equal(eager_lib.to_numpy(got.labels), eager_lib.to_numpy(expected.labels))


def test_the_same_pairs_in_other_chunks_are_the_same_pairs(eager_lib):
    heads = np.arange(48.0) % 9

    class Ragged:
        made = 0

        def __iter__(self):
            self.made += 1
            parts = [np.array_split(x, 1 + self.made % 4) for x in (heads, np.full(48, 10.0))]
            return ((eager_lib.asarray(a), eager_lib.asarray(b)) for a, b in zip(*parts, strict=True))

    found = binomial.fit(Ragged(), None, 2, rng=0)
    whole = binomial.fit(eager_lib.asarray(heads), eager_lib.asarray(np.full(48, 10.0)), 2, rng=0)
    np.testing.assert_allclose(found.probs, whole.probs)


def test_rows_with_nan_are_told_as_such_and_not_as_another_pass():
    x = X.copy()
    x[5, 1] = np.nan
    rejected(lambda: gmm.fit(Chunks([x[:20], x[20:]]), 2), InputError, "NaN or infinity", "row 5")


def test_comparing_passes_costs_next_to_nothing():
    chunks = Chunks(np.random.default_rng(0).normal(size=(8, 40_000, 8)))
    source = open_source(chunks)
    extent_of(source)
    start = time.process_time()
    for _ in range(5):
        for _ in source:
            pass
    compared = time.process_time() - start
    start = time.process_time()
    gmm.fit(chunks, 3, rng=0, max_iter=5, tol=0)
    assert compared < 0.05 * (time.process_time() - start)


# chunks without rows

EMPTY = {
    "first": lambda x: [x[:0], x[:20], x[20:]],
    "first two": lambda x: [x[:0], x[:0], x],
    "everywhere": lambda x: [x[:0], x[:20], x[20:20], x[20:], x[:0]],
}


@pytest.mark.on_jax("first-kmeans")
@pytest.mark.parametrize("family", FITS)
@pytest.mark.parametrize("name", EMPTY)
def test_empty_chunks_hold_no_rows(lib, name, family):
    got = FITS[family](list(map(lib.asarray, EMPTY[name](DATA[family]))))
    expected = FITS[family](lib.asarray(DATA[family]))
    np.testing.assert_allclose(lib.to_numpy(got.trace), lib.to_numpy(expected.trace), rtol=1e-9)


def test_an_empty_first_pair_of_coins(eager_lib):
    heads, trials = eager_lib.asarray(np.arange(8.0)), eager_lib.asarray(np.full(8, 10.0))
    source = [(heads[:0], trials[:0]), (heads, trials)]
    got, expected = binomial.fit(source, None, 2, rng=0), binomial.fit(heads, trials, 2, rng=0)
    np.testing.assert_allclose(eager_lib.to_numpy(got.probs), eager_lib.to_numpy(expected.probs), rtol=1e-9)


@pytest.mark.parametrize("family", FITS)
def test_nothing_but_empty_chunks_is_refused(lib, family):
    chunks = [lib.asarray(DATA[family][:0])] * 2
    rejected(lambda: FITS[family](chunks), InputError, "all 2 chunks of the source are empty", "at least one chunk")
    rejected(lambda: FITS[family]([]), InputError, "the source of chunks is empty")


# a list of arrays


@pytest.mark.parametrize("family", FITS)
def test_a_list_of_equal_arrays_asks_what_is_meant(eager_lib, family):
    lib = eager_lib
    halves = [lib.asarray(DATA[family][:24]), lib.asarray(DATA[family][24:])]
    with pytest.warns(FitWarning) as caught:
        asked = FITS[family](halves)
    caught = [one for one in caught if "arrays of shape" in str(one.message)]  # the fit may have its own remarks
    assert len(caught) == 1
    message = str(caught[0].message)
    for words in ("2 arrays of shape (24, 2)", "one data set of 48 rows", "emroute.data.Chunks(arrays)", "stack"):
        assert words in message
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*arrays of shape")
        told = FITS[family](Chunks(halves))
        FITS[family]([halves[0], halves[1][:20, ...]])  # of two lengths they are no batch
        FITS[family]([halves[0]])
    np.testing.assert_array_equal(lib.to_numpy(asked.trace), lib.to_numpy(told.trace))


def test_chunks_are_read_again_and_again():
    chunks = Chunks(x for x in (X[:20], X[20:]))
    assert len(chunks) == 2
    np.testing.assert_array_equal(kmeans.fit(chunks, 2, rng=0).labels, kmeans.fit(X, 2, rng=0).labels)
    rejected(lambda: gmm.fit((x for x in (X[:20], X[20:])), 2), InputError, "read only once", "emroute.data.Chunks")


def test_lists_of_a_loader_are_told_as_such(eager_lib):
    x = eager_lib.asarray(X)
    rejected(lambda: gmm.fit([[x], [x]], 2), InputTypeError, "a chunk is a list of 1 array", "`chunk[0]`")
    rejected(lambda: gmm.fit([[x, x], [x, x]], 2), InputTypeError, "a chunk is a list of 2 arrays", "`tuple(chunk)`")
    with pytest.raises(EmrouteError) as caught:
        em.fit(object(), [[x]], x)
    assert "numpy" not in str(caught.value).lower()


def test_a_loader_of_a_data_set_is_told():
    loader = DataLoader(TensorDataset(torch.asarray(X)), batch_size=16)
    rejected(lambda: gmm.fit(loader, 2), InputTypeError, "list of 1 array", "data loaders", "`chunk[0]`")
