"""Mixtures of Student-t distributions: clusters with heavy tails, which outliers do not pull along."""

from emroute.student_t.mixture import StudentTMixture, fit

__all__ = ["StudentTMixture", "fit"]
