"""What all mixtures share: a family's interface, the E-step, posteriors, and files."""

from emroute.mixtures import family, model, posterior, storage

__all__ = ["family", "model", "posterior", "storage"]
