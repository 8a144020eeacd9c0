"""Plot the ratios of a run's figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Figure

COLOURS = {True: "#c44e52", False: "#4c72b0"}


def draw_ratios(figures: Sequence[Figure], file: Path) -> None:
    """Plot each figure's ratio to what it is beside, on a logarithmic scale; red where we are behind.

    :param figures: the figures; those beside an absolute goal or beside 0 are left out.
    :param file: the SVG file.
    """
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 8})
    from matplotlib import pyplot as plt

    shown = [each for each in figures if each.beside != "goal" and 0 < each.ratio < float("inf")]
    if not shown:
        return
    drawn, axes = plt.subplots(figsize=(9, 0.8 + 0.24 * len(shown)))
    axes.barh(
        range(len(shown)),
        [each.ratio - 1 for each in shown],
        left=1,
        color=[COLOURS[each.behind] for each in shown],
        height=0.6,
    )
    axes.set_yticks(range(len(shown)), [f"{each.what} / {each.beside}" for each in shown])
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("our figure divided by the other (red: the other is better)")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    drawn.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(file, metadata={"Date": None})
    plt.close(drawn)
