"""Latent class analysis: mixtures of independent categorical items."""

from emroute.categorical.mixture import CategoricalMixture, fit

__all__ = ["CategoricalMixture", "fit"]
