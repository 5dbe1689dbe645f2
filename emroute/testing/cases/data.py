"""Data of the cases: clusters, coins, documents, counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute.testing.cases.case import Draw

__all__ = [
    "draw_answers",
    "draw_clusters",
    "draw_coins",
    "draw_counts",
    "draw_directions",
    "draw_documents",
    "draw_gaussians",
    "draw_halves",
    "draw_heavy_tails",
    "draw_parameters",
    "draw_problems",
    "draw_tosses",
]


def draw_clusters(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of three overlapping clusters away from 0, weights of the rows, and means to start from."""
    centres = np.asarray([[-1.5, 0, 1], [1.5, 1, 0], [0, 2, -1]])
    rows = centres[np.arange(42) % 3] + rng.standard_normal((42, 3)) * (1, 1.5, 0.5)
    return rows + 5, rng.uniform(0.5, 2, 42), centres + 5.3


def draw_problems(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two problems: clusters that overlap, and clusters far apart, whose fits end early."""
    rows, weight, means = draw_clusters(rng)
    labels = np.arange(42) % 3
    apart = means[labels] * 10 + rng.standard_normal((42, 3))
    return np.stack([rows, apart]), np.stack([weight, weight]), np.stack([means, apart[:3]])


def draw_gaussians(covariance_type: str) -> Draw:
    """Rows, their weights, and the parameters of three Gaussians."""

    def draw(rng: np.random.Generator) -> tuple[Any, ...]:
        rows, weight, means = draw_clusters(rng)
        root = rng.standard_normal((3, 3, 3))
        full = root @ root.swapaxes(1, 2) + np.eye(3)
        covariances = {
            "full": full,
            "tied": full[0],
            "diag": np.diagonal(full, axis1=1, axis2=2),
            "spherical": full[:, 0, 0],
        }
        return rows[:15], weight[:15], np.asarray([0.2, 0.3, 0.5]), means, covariances[covariance_type]

    return draw


def draw_parameters(rng: np.random.Generator) -> tuple[Any, ...]:
    """Weights, means and variances of three Gaussians."""
    return draw_gaussians("diag")(rng)[2:]


def draw_coins(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Heads, trials, weights of the rows, coins, and probabilities to start from."""
    trials, labels = rng.integers(5, 30, 24), np.arange(24) % 2
    heads = rng.binomial(trials, np.asarray([0.3, 0.8])[labels])
    return heads.astype(float), trials.astype(float), rng.uniform(0.5, 2, 24), labels, np.asarray([0.4, 0.6])


def draw_tosses(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Heads and trials in whole numbers, and probabilities."""
    heads, trials, _, _, probs = draw_coins(rng)
    return heads.astype(int), trials.astype(int), probs


def draw_halves(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Equal weights, and probabilities."""
    return np.asarray([0.5, 0.5]), rng.uniform(0.1, 0.9, 2)


def draw_documents(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Counts of four words, weights of the rows, mixing weights, and shares to start from."""
    shares = np.asarray([[0.4, 0.2, 0.2, 0.2], [0.2, 0.2, 0.2, 0.4]])
    x = rng.multinomial(20, shares[np.arange(24) % 2]).astype(float)
    return x, rng.uniform(0.5, 2, 24), np.asarray([0.4, 0.6]), 0.5 * shares + 0.125


def draw_counts(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Counts, weights of the rows, mixing weights, and rates to start from."""
    rates = np.asarray([[3.0, 7.0], [6.0, 4.0]])
    return (
        rng.poisson(rates[np.arange(24) % 2]).astype(float),
        rng.uniform(0.5, 2, 24),
        np.asarray([0.4, 0.6]),
        rates + 1,
    )


def draw_answers(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Answers to three items with a gap, weights of the rows, mixing weights, and probabilities of each item."""
    x = np.stack([rng.integers(0, c, 24) for c in (2, 3, 2)], axis=-1).astype(float)
    x[3, 1] = -1
    probs = (np.asarray([[0.7, 0.3], [0.4, 0.6]]), np.asarray([[0.5, 0.2, 0.3], [0.2, 0.2, 0.6]]))
    return x, rng.uniform(0.5, 2, 24), np.asarray([0.4, 0.6]), *probs, probs[0][::-1].copy()


def draw_directions(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Unit vectors, weights of the rows, mixing weights, mean directions, and concentrations."""
    means = np.asarray([[0.6, 0.8, 0.0], [0.0, 0.6, -0.8]])
    x = means[np.arange(24) % 2] + 0.7 * rng.standard_normal((24, 3))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return x, rng.uniform(0.5, 2, 24), np.asarray([0.4, 0.6]), means, np.asarray([2.0, 9.0])


def draw_heavy_tails(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Rows, their weights, and the parameters of three Student-t distributions of variances without correlation."""
    return *draw_gaussians("diag")(rng), np.asarray([3.0, 9.0, 30.0])
