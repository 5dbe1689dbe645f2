"""Mixtures of von Mises-Fisher distributions: clusters of directions."""

from emroute.von_mises_fisher.mixture import VonMisesFisherMixture, fit

__all__ = ["VonMisesFisherMixture", "fit"]
