"""k-means."""

from emroute.kmeans.clustering import fit
from emroute.kmeans.clusters import KMeans
from emroute.kmeans.model import KMeansModel, Params, Statistics

__all__ = ["KMeans", "KMeansModel", "Params", "Statistics", "fit"]
