"""Draw ratios as bars to both sides of a line at 1, readable on light and on dark pages."""

from math import ceil, floor, log2
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from tests.benchmarks.page import Row, digits, labels

STYLE = Path(__file__).parents[2] / "docs" / "matplotlibrc"
BETTER, WORSE = "#0072b2", "#d55e00"
INK = "#767c85"  # in contrast with white and with the dark theme alike
LOOK = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "emroute",  # the same figures are the same file
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw(path: Path, rows: list[Row]) -> None:
    """Write the chart of a section as an SVG."""
    section, ratios = rows[0].section, [row.ratio for row in rows]
    powers = range(min(-1, floor(log2(min(ratios)))), max(1, ceil(log2(max(ratios)))) + 1)
    with rc_context(LOOK, fname=STYLE):
        figure = Figure(figsize=(7.2, 0.7 + 0.24 * len(ratios)))
        axes = figure.add_subplot()
        for place, ratio in enumerate(ratios):
            axes.barh(place, ratio - 1, left=1, height=0.7, color=BETTER if ratio >= 1 else WORSE)
            side = "left" if ratio >= 1 else "right"
            gap = 3 if ratio >= 1 else -3
            axes.annotate(
                digits(ratio, 2), (ratio, place), (gap, 0), textcoords="offset points", ha=side, va="center_baseline"
            )
        axes.axvline(1, color=INK, linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_xticks([2.0**p for p in powers], [f"{2.0**p:g}" for p in powers])
        axes.minorticks_off()
        room = 0.12 * (powers[-1] - powers[0])  # for the numbers at the ends of the longest bars
        axes.set_xlim(2.0 ** (powers[0] - room), 2.0 ** (powers[-1] + room))
        axes.set_yticks(range(len(rows)), labels(rows))
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"ratio; above 1, {section.ours} is {section.better}")
        figure.savefig(path, transparent=True, metadata={"Date": None})
