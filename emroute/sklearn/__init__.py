"""Estimators for scikit-learn pipelines and searches, with scikit-learn's parameters and attributes.

They take arrays of any library and return arrays of the same kind. Data frames, lists and sparse rows go through
scikit-learn's own validation. The mathematics is that of `emroute.gmm`, `emroute.kmeans` and the count families.
"""

from emroute.errors import MissingDependencyError

try:
    import sklearn  # noqa: F401
except ImportError:
    raise MissingDependencyError("emroute.sklearn needs scikit-learn; `pip install 'emroute[sklearn]'`") from None

from emroute.sklearn.counts import BinomialMixture, MultinomialMixture, PoissonMixture
from emroute.sklearn.gaussian import GaussianMixture
from emroute.sklearn.kmeans import KMeans

__all__ = ["BinomialMixture", "GaussianMixture", "KMeans", "MultinomialMixture", "PoissonMixture"]
