"""Draw the picture of the README: `python docs/images/old_faithful.py`."""

from pathlib import Path

from emroute import datasets, gmm, plot

data = datasets.faithful()
mixture = gmm.fit(data.x, 2, n_init=8, rng=0)
figure = plot.density(mixture, data.x, ["duration of the eruption (minutes)", "wait for the next one (minutes)"])
figure.savefig(Path(__file__).with_name("old-faithful.png"), dpi=110)
