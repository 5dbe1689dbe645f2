"""Mixtures of Gaussians."""

from emroute.gmm.fitting import fit
from emroute.gmm.mixture import GaussianMixture

__all__ = ["GaussianMixture", "fit"]
