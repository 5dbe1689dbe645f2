"""``emroute demo``: small classics, with the published figures beside ours, on every array library there is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from emroute import binomial, datasets, gmm, kmeans, plot
from emroute.backend import Array
from emroute.cli.libraries import Library, anchor, host, put
from emroute.cli.results import check_free, drafts
from emroute.cli.show import show
from emroute.errors import EmrouteError

__all__ = ["demo"]

# the best log-likelihoods known of three components on iris and of two on Old Faithful, and the best inertias on iris,
# in the digits in which they are known
_IRIS = {"full": "-180.1855", "tied": "-256.35404", "diag": "-306.86046", "spherical": "-384.31410"}
_INERTIA = {2: "152.3479518", 3: "78.8514414", 4: "57.2284732"}
_FAITHFUL = "-1130.263960"
# as printed by Do and Batzoglou (2008), figure 1b: heads of either coin after one step and after ten
_PUBLISHED = {1: ("0.71", "0.58"), 10: ("0.80", "0.52")}
_RESTARTS = 16
_PICTURES = ("iris-kmeans.png", "iris-gmm.png", "faithful-gmm.png", "traces.png")
_HEADERS = ("covariances", "log-likelihood", "best known", "BIC", "iterations")


def demo(
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures.", show_default="emroute-demo")] = None,
    backend: Annotated[
        list[Library] | None, typer.Option(help="Only these libraries.", show_default="all that are installed")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace pictures in --out.")] = False,
) -> None:
    """Fit coins, irises and a geyser, and draw pictures.

    Published figures are shown beside ours, and every array library that is installed makes the same fits.
    """
    start = time.perf_counter()
    console = Console()
    if out is not None:  # its own folder is the demo's to renew
        check_free(out, _PICTURES, force)
    tossed = _coins(console)
    clusters, flowers = _iris(console)
    geyser = _faithful(console)
    _libraries(console, backend)
    if find_spec("matplotlib") is None:
        console.print("No pictures: they need matplotlib; pip install 'emroute[plot]'", markup=False)
    else:
        _pictures(console, out or Path("emroute-demo"), (tossed, clusters, flowers, geyser))
    console.print(f"Done in {time.perf_counter() - start:.1f} s.")


def _coins(console: Console) -> binomial.BinomialMixture:
    """EM of two coins, an iteration a row, then what it converges to."""
    data = datasets.coins()
    heads, trials = data.x.T
    path = [np.asarray([0.6, 0.5])]
    fair = [0.5, 0.5]
    fixed = binomial.fit(
        heads, trials, 2, init=path[0], weights=fair, tol=0, callback=lambda _, fit: path.append(fit.params.probs)
    )
    rows: list[tuple[Any, ...]] = []
    for iteration in range(1, 11):
        before = binomial.BinomialMixture.from_parameters(np.asarray(fair), path[iteration - 1])
        q = [f"{binomial.expected_log_likelihood(before, heads, trials, constant=full):.4f}" for full in (True, False)]
        theta = [f"{value:.6f}" for value in path[iteration]]
        published = " ".join(_PUBLISHED.get(iteration, ("",)))
        rows.append((str(iteration), *theta, published, f"{fixed.trace[iteration - 1]:.6f}", *q))
    rows.append(("limit", *(f"{value:.8f}" for value in fixed.probs), "", f"{fixed.log_likelihood:.9f}", "", ""))
    headers = ["step", "θ_A", "θ_B", "published", "log-likelihood before", "Q", "Q without coefficient"]
    show(console, "Coins (Do & Batzoglou 2008): 5, 9, 8, 4, 7 heads of 10, from θ = .6, .5", headers, rows)
    free = binomial.fit(heads, trials, 2, init=path[0], tol=0)
    known = binomial.fit_complete(heads, trials, data.labels, 2)
    rows = [
        (name, *(f"{value:.6f}" for value in (*mixture.probs, *mixture.weights, mixture.log_likelihood)), published)
        for name, mixture, published in (
            ("equal weights", fixed, " ".join(_PUBLISHED[10])),
            ("free weights", free, ""),
            ("known coins", known, "0.80 0.45"),
        )
    ]
    headers = ["", "θ_A", "θ_B", "π_A", "π_B", "log-likelihood", "published"]
    show(console, "Where EM ends", headers, rows)
    return fixed


def _iris(console: Console) -> tuple[np.ndarray, dict[str, gmm.GaussianMixture]]:
    """Return the clusters of the rows, and mixtures by their covariance types."""
    data = datasets.iris()
    clusterings = {k: kmeans.fit(data.x, k, n_init=_RESTARTS, rng=0) for k in _INERTIA}
    rows: list[tuple[Any, ...]] = [
        (f"{k} clusters", f"{float(c.inertia):.7f}", _INERTIA[k], int(c.n_iter)) for k, c in clusterings.items()
    ]
    show(console, "Iris, k-means", ["", "inertia", "best known", "iterations"], rows)
    mixtures = {kind: gmm.fit(data.x, 3, covariance_type=kind, n_init=_RESTARTS, tol=1e-10, rng=0) for kind in _IRIS}
    # from the shortest petals to the longest, so that a group has one number and one colour everywhere
    mixtures = {kind: mixture.sorted(by=mixture.means[:, 2]) for kind, mixture in mixtures.items()}
    clusters = clusterings[3]
    labels = np.argsort(np.argsort(clusters.centroids[:, 2]))[clusters.labels]
    rows = [_figures(kind, mixtures[kind], data.x, best) for kind, best in _IRIS.items()]
    show(console, f"Iris, 3 Gaussians, the best of {_RESTARTS} starts", _HEADERS, rows)
    _cross(console, "Species by k-means", data, labels)
    _cross(console, "Species by Gaussians (full)", data, mixtures["full"].predict(data.x))
    return labels, mixtures


def _figures(name: str, mixture: gmm.GaussianMixture, x: np.ndarray, best: str) -> tuple[Any, ...]:
    bic = f"{float(mixture.bic(x)):.2f}"
    return name, f"{float(mixture.log_likelihood):.{len(best.partition('.')[2])}f}", best, bic, int(mixture.n_iter)


def _cross(console: Console, title: str, data: datasets.Dataset, labels: np.ndarray) -> None:
    """Count the rows of each species in each cluster."""
    counts = np.zeros((len(data.label_names), int(labels.max()) + 1), dtype=int)
    species: Any = data.labels
    np.add.at(counts, (species, labels), 1)
    headers = ["species", *(f"cluster {i}" for i in range(counts.shape[1]))]
    rows = [(name, *row) for name, row in zip(data.label_names, counts.tolist(), strict=True)]
    show(console, title, headers, rows)


def _faithful(console: Console) -> gmm.GaussianMixture:
    data = datasets.faithful()
    mixture = gmm.fit(data.x, 2, n_init=_RESTARTS, tol=1e-10, rng=0).sorted(by="means")
    rows = [
        (i, f"{weight:.6f}", *(f"{value:.6f}" for value in mean))
        for i, (weight, mean) in enumerate(zip(mixture.weights, mixture.means, strict=True))
    ]
    fit = _figures("full", mixture, data.x, _FAITHFUL)
    show(console, f"Old Faithful, 2 Gaussians, the best of {_RESTARTS} starts", _HEADERS, [fit])
    show(console, "Short and long eruptions, in minutes", ["component", "weight", *data.names], rows)
    return mixture


def _kmeans(x: Array) -> tuple[Array, ...]:
    result = kmeans.fit(x, 3, n_init=_RESTARTS, rng=0)
    return result.centroids, result.inertia


def _gaussians(x: Array) -> tuple[Array, ...]:
    result = gmm.fit(x, 3, n_init=_RESTARTS, rng=0)
    return result.weights, result.means, result.covariances, result.log_likelihood


def _places(chosen: list[Library] | None) -> Iterator[tuple[str, Array]]:
    """Name every library and device to fit on, with an anchor there; of torch the CPU and, if there is one, CUDA."""
    for library in chosen or list(Library):
        for device in ("cpu", "cuda") if library is Library.torch else (None,):
            try:
                like = anchor(library, device)
            except EmrouteError:
                if chosen and device != "cuda":
                    raise
                continue
            yield f"{library} {device}" if device else str(library), like


def _libraries(console: Console, chosen: list[Library] | None) -> None:
    """Make the same fits on every library, twice, and compare them with NumPy's."""
    data, rows = datasets.iris().x, []
    for name, fit in {"k-means": _kmeans, "Gaussians": _gaussians}.items():
        reference = fit(data)
        for place, like in _places(chosen):
            x, found, seconds = put(data, like), [], []
            for _ in range(2):
                start = time.perf_counter()
                found = [host(value) for value in fit(x)]
                seconds.append(f"{time.perf_counter() - start:.3f}")
            gap = max(float(np.max(np.abs(a - b))) for a, b in zip(found, reference, strict=True))
            rows.append((name, place, *seconds, f"{gap:.1e}"))
    headers = ["fit", "library", "first call, s", "second call, s", "largest difference to NumPy"]
    show(console, f"Iris on every library: k = 3, {_RESTARTS} starts in one batch, float64", headers, rows)
    if absent := [library for library in Library if chosen is None and find_spec(library) is None]:
        words = f"Not installed here: {', '.join(absent)}. `pip install 'emroute[torch,jax]'` adds Torch and JAX; "
        console.print(f"{words}cupy needs CUDA.\n", markup=False, highlight=False)
    if any(place == Library.jax for _, place, *_ in rows):
        console.print("JAX's first call compiles the whole fit, its loop included, for this shape.\n")


def _pictures(console: Console, out: Path, found: tuple[Any, ...]) -> None:
    tossed, clusters, flowers, geyser = found
    out.mkdir(parents=True, exist_ok=True)
    iris, faithful = datasets.iris(), datasets.faithful()
    fits = {"coins": tossed, "Old Faithful": geyser, **{f"iris, {kind}": fit for kind, fit in flowers.items()}}
    figures = [
        plot.pairs(iris.x, clusters, iris.names),
        plot.classification(flowers["full"], iris.x, iris.names),
        plot.density(geyser, faithful.x, faithful.names),
        plot.trace(*fits.values(), labels=list(fits), relative=True),
    ]
    with drafts(out, _PICTURES) as paths:
        for figure, path in zip(figures, paths, strict=True):
            figure.savefig(path)
    console.print(f"Pictures in {out}:\n{', '.join(_PICTURES)}", markup=False, soft_wrap=True)
