"""Mixtures of Gaussians."""

from emroute.gmm.mixture import GaussianMixture, fit

__all__ = ["GaussianMixture", "fit"]
