import numpy as np
import pytest
from sklearn.datasets import load_iris

from emroute import datasets


def test_iris_is_fishers_as_scikit_learn_has_it():
    data, theirs = datasets.iris(), load_iris()
    np.testing.assert_array_equal(data.x, theirs.data)
    np.testing.assert_array_equal(data.labels, theirs.target)
    assert data.label_names == tuple(theirs.target_names)


def test_faithful_has_rs_summary():
    x = datasets.faithful().x
    np.testing.assert_allclose(x.mean(axis=0), [3.487783, 70.897059], rtol=1e-6)
    assert x.min(axis=0).tolist() == [1.6, 43]
    assert x.max(axis=0).tolist() == [5.1, 96]


def test_coins_give_the_papers_complete_data_estimates():
    data = datasets.coins()
    heads, trials = data.x.T
    rates = [heads[data.labels == coin].sum() / trials[data.labels == coin].sum() for coin in (0, 1)]
    assert rates == [0.8, 0.45]
    assert data.label_names == ("A", "B")


@pytest.mark.parametrize("load", [datasets.coins, datasets.iris, datasets.faithful])
def test_names_fit_the_columns(load):
    data = load()
    assert data.x.dtype == np.float64
    assert len(data.names) == data.x.shape[1]
    assert data.labels is None or data.labels.shape == data.x.shape[:1]
