"""How the estimators read data: arrays stay as they are, everything else goes through scikit-learn's validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from numbers import Integral
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import _check_sample_weight, validate_data

from emroute import backend as backends
from emroute._foreign import obstacle
from emroute.backend import Array
from emroute.errors import EmrouteError, InputError, InputTypeError

__all__ = [
    "Blocks",
    "Estimator",
    "as_array",
    "as_bits",
    "as_number",
    "as_weight",
    "generator",
    "over_rows",
    "refuse_masks",
]

_BLOCK = 2**23  # how many bytes of sparse rows are made dense at once


class Blocks:
    """Sparse rows as a source of dense blocks, made again in every pass."""

    def __init__(self, x: Any) -> None:
        self.x, self.shape = x, x.shape
        self.size = max(1, _BLOCK // (x.shape[1] * x.dtype.itemsize))

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.x[start : start + self.size].toarray() for start in range(0, self.x.shape[0], self.size))


class Estimator(BaseEstimator):
    """What all estimators share."""

    _sparse = False
    _fitted = "weights_"
    """An attribute that a fit sets, of the fitted dtype."""

    def _read(self, X: Any, reset: bool) -> Any:
        """Return rows ``(n, d)``. Arrays of other libraries than NumPy stay the same; sparse rows become `Blocks`."""
        refuse_masks(X)
        if _foreign(X):
            if reason := obstacle(X):
                raise InputTypeError(reason)
            if X.ndim != 2:
                raise InputError(f"Expected 2D array, got {X.ndim}D array instead; reshape it to (n, d)")
            if not X.shape[1]:
                raise InputError(f"Found array with 0 feature(s) (shape={tuple(X.shape)}); expected one at least")
            x = validate_data(self, X, reset=reset, skip_check_array=True)
            return backends.get(x).detach(x) if reset else x
        if issparse(X) and not self._sparse:
            size = math.prod(X.shape) * 8 / 2**30
            raise InputTypeError(
                f"Sparse data of shape {X.shape} was passed for X, but {type(self).__name__} takes dense data. Where "
                f"{size:.2g} GiB are at hand use '.toarray()'; of many features, with covariance_type='diag' where it "
                "is Gaussian; or reduce them first, as by sklearn.decomposition.TruncatedSVD"
            )
        accept = "csr" if self._sparse else False
        fitted = None if reset else as_array(getattr(self, self._fitted))
        dtypes = [fitted.dtype] if isinstance(fitted, np.ndarray) else [np.float64, np.float32]
        x = validate_data(self, X, reset=reset, accept_sparse=accept, dtype=dtypes)
        return Blocks(x) if issparse(x) else x

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self._sparse
        tags.array_api_support = True
        return tags


def refuse_masks(x: object) -> None:
    """Raise `InputTypeError` for a masked array, whose mask scikit-learn's validation takes off."""
    if isinstance(x, np.ma.MaskedArray):
        raise InputTypeError(obstacle(x))


def _foreign(x: object) -> bool:
    try:
        return backends.get(x) is not backends.get(np.empty(0))
    except EmrouteError:
        return False


def as_weight(sample_weight: Any, x: Any) -> Array | None:
    """Return weights as an array of the data's kind: numbers, lists and the like are converted for NumPy rows."""
    if sample_weight is None:
        return None
    refuse_masks(sample_weight)
    if _foreign(sample_weight):
        return backends.get(sample_weight).detach(sample_weight)
    if _foreign(x):
        return sample_weight
    rows = x.x if isinstance(x, Blocks) else x
    return _check_sample_weight(sample_weight, rows, dtype=rows.dtype)


def as_array(value: Any, like: Any = None) -> Array:
    """Return an attribute set by hand as an array of floats; a sequence becomes an array like another attribute."""
    refuse_masks(value)
    if backends.is_array(value) and not isinstance(value, np.ndarray):
        return value
    host = np.asarray(value)
    if host.dtype not in (np.float32, np.float64):  # whole numbers, or of another byte order
        host = host.astype(np.float64)
    return backends.get(like).from_numpy(host, like) if backends.is_array(like) and host is not value else host


def as_bits(value: Any) -> bytes:
    """Return the bits of an attribute, which show whether it has changed."""
    return (backends.get(value).to_numpy(value) if backends.is_array(value) else np.asarray(value)).tobytes()


def as_number(x: Array) -> float:
    """Return an array of one number as a float."""
    return float(backends.get(x).detach(x))


def over_rows(function: Callable[[Any], Array], x: Any) -> Array:
    """Apply a function of rows; to `Blocks` one by one."""
    return np.concatenate([function(block) for block in x]) if isinstance(x, Blocks) else function(x)


def generator(random_state: Any) -> np.random.Generator:
    """Return a generator, seeded by an integer as elsewhere in emroute, or by a draw from a `RandomState`."""
    try:
        if isinstance(random_state, Integral):
            return np.random.default_rng(int(random_state))
        return np.random.default_rng(check_random_state(random_state).randint(2**32, size=4, dtype=np.uint32))
    except ValueError:
        expected = "None, a seed or a numpy.random.RandomState"
        raise InputError(f"got random_state={random_state!r}, expected {expected}") from None
