"""k-means."""

from emroute.kmeans.clustering import KMeans, fit
from emroute.kmeans.model import KMeansModel, Params, Statistics

__all__ = ["KMeans", "KMeansModel", "Params", "Statistics", "fit"]
