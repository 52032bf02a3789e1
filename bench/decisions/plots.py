"""The pictures for the README: small SVGs that read on light and on dark pages.

The background is transparent, and text and lines are of a grey that stands out from both. Blue and
orange are told apart by everybody, and their markers differ as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.decisions.drift_tables import EVERY_MINUTE, SHIPPED, skewed
from bench.decisions.numbers import Runs, clopper_pearson, quantile
from bench.decisions.rows import Results
from bench.decisions.runner import AnyRule, AnyScene, Case
from bench.decisions.shipped import STABLE_DEFAULT, trace
from bench.decisions.tables import DEFAULT, STRICTEST, aligned, only_limit, thresholds

GREY: Final = "#7b8087"
OURS: Final = "#2f8fd8"
OTHERS: Final = "#dd7f28"

LEAST_SHARE: Final = 0.01
"""Percent at which a share is drawn that is less, or of which nothing was seen."""

DRIFT_LABELS: Final = (
    (False, 5),
    (False, 18),
    (True, -13),
    (True, 5),
    (False, 5),
    (False, -13),
    (False, -13),
    (True, -13),
)
"""Where the labels of ``EVERY_MINUTE`` are: to the right, and how high, so that none meet."""

PATHS: Final = (0, 1, 2, 3)
"""The runs that the paths are of: the first ones, as they come."""


@dataclass(frozen=True, slots=True)
class Point:
    """One rule in a picture of false alarms against delays."""

    label: str
    rule: AnyRule
    right: bool = True
    """On which side the label is."""
    lift: float = 5
    """How much above the marker's middle the label is, in points."""


@dataclass(frozen=True, slots=True)
class Scatter:
    """A picture of false alarms against delays."""

    file: str
    null: AnyScene
    worse: AnyScene
    points: tuple[Point, ...]
    across: str
    up: str

    def cases(self) -> Iterator[Case]:
        """Yield what must be played for it."""
        for point in self.points:
            yield Case(self.null, point.rule)
            yield Case(self.worse, point.rule)


def scatters() -> tuple[Scatter, ...]:
    """Return the pictures of false alarms against delays."""
    flagger_1, flagger_5, argo_0, argo_3, fast, docs, kayenta = thresholds(0.02)
    errors = Scatter(
        "false-rollbacks.svg",
        aligned(0.01, 0.01, 0.1),
        aligned(0.01, 0.05, 0.1),
        (
            Point("Crossfade", DEFAULT),
            Point("Crossfade, strict", STRICTEST, lift=-13),
            Point("Crossfade, limit 2 %", only_limit(0.02)),
            Point("Flagger, 1 failed check (default)", flagger_1, right=False),
            Point("Flagger, 5 failed (documentation)", flagger_5, right=False),
            Point("Argo Rollouts, failureLimit 0 (default)", argo_0, right=False),
            Point("Argo Rollouts, failureLimit 3", argo_3, right=False),
            Point("checks each 10 s, 2 failed", fast, right=False),
            Point("Argo Rollouts, documentation", docs),
            Point("Kayenta, each 5 min", kayenta, lift=-13),
        ),
        "healthy canaries rolled back within 30 min",
        "median time until 1 % → 5 % errors are found",
    )
    drift = Scatter(
        "false-drift.svg",
        skewed(0.0),
        skewed(0.25),
        (
            Point("Crossfade", SHIPPED[0]),
            Point("Crossfade, minEffect 0.2", SHIPPED[1], lift=17),
            *(
                Point(rule.name, rule, right=right, lift=lift)
                for rule, (right, lift) in zip(EVERY_MINUTE, DRIFT_LABELS, strict=True)
            ),
        ),
        "the same model called drifted within 30 min",
        "median time until a PSI of 0.25 is found",
    )
    return errors, drift


def cases() -> Iterator[Case]:
    """Yield what must be played for all pictures."""
    for picture in scatters():
        yield from picture.cases()


def draw(results: Results, folder: Path) -> None:
    """Write all pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    style = mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "crossfade",
            "font.family": "sans-serif",
            "font.size": 10,
            "text.color": GREY,
            "axes.edgecolor": GREY,
            "axes.labelcolor": GREY,
            "xtick.color": GREY,
            "ytick.color": GREY,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    with style:
        for picture in scatters():
            _save(_scatter(picture, results), folder / picture.file)
        _save(_paths(), folder / "evidence.svg")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, transparent=True, metadata={"Date": None})


def _scatter(picture: Scatter, results: Results) -> Figure:
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(LEAST_SHARE * 0.7, 130)
    axes.axvspan(LEAST_SHARE * 0.7, 1, color=OURS, alpha=0.08, linewidth=0)
    axes.annotate(
        "goal: at most 1 %",
        (1, 0.02),
        xytext=(-4, 0),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=8.5,
    )
    for point in picture.points:
        null = results[picture.null.name, point.rule.name]
        worse = results[picture.worse.name, point.rule.name]
        _draw_point(axes, point, null, worse)
    axes.set_xlabel(f"{picture.across} (log scale; bars: exact 95 % interval)")
    axes.set_ylabel(f"{picture.up}")
    axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    axes.yaxis.set_major_formatter(FuncFormatter(_seconds))
    axes.set_yticks([10, 30, 60, 120, 300, 600, 1800])
    axes.minorticks_off()
    axes.set_ylim(bottom=9, top=2400)
    return figure


def _draw_point(axes: Axes, point: Point, null: Runs, worse: Runs) -> None:
    colour, marker = (OURS, "o") if point.rule.slow else (OTHERS, "s")
    share = 100 * null.harmful / null.n
    low, high = (100 * end for end in clopper_pearson(null.harmful, null.n))
    x = max(share, LEAST_SHARE)
    delay = quantile(worse.delays_s, 0.5)
    found = math.isfinite(delay)
    y = delay if found else worse.onset_s + 1800
    axes.plot([max(low, LEAST_SHARE), max(high, LEAST_SHARE)], [y, y], color=colour, linewidth=1)
    axes.plot(
        x,
        y,
        marker if found else "^",
        color=colour,
        markersize=9 if point.rule.slow else 7,
        markerfacecolor=colour if share else "none",
    )
    said = point.label if found else f"{point.label} (most are never found)"
    axes.annotate(
        said,
        (x, y),
        xytext=(9 if point.right else -9, point.lift),
        textcoords="offset points",
        ha="left" if point.right else "right",
        fontsize=8.5,
        color=colour if point.rule.slow else GREY,
    )


def _paths() -> Figure:
    """Draw the evidence of healthy and of broken canaries over time."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set_yscale("log")
    for rate, colour, style, label in (
        (0.05, OTHERS, "-", "broken: 1 % → 5 % errors"),
        (0.01, OURS, "-", "healthy: 1 % errors"),
    ):
        for run in PATHS:
            looks = trace(aligned(0.01, rate, 0.1), STABLE_DEFAULT, run)
            shown = []
            for look in looks:
                shown.append(look)
                if look.evidence.log_e >= look.evidence.log_needed:
                    break
            needed = math.exp(shown[0].evidence.log_needed)
            top = 10 * needed
            axes.plot(
                [0, *(look.at_s / 60 for look in shown)],
                [1, *(min(math.exp(look.evidence.log_e), top) for look in shown)],
                style,
                color=colour,
                linewidth=2 if run == 0 else 0.8,
                alpha=1 if run == 0 else 0.6,
                label=label if run == 0 else None,
            )
            if math.exp(shown[-1].evidence.log_e) >= needed:
                axes.plot(
                    shown[-1].at_s / 60, math.exp(shown[-1].evidence.log_e), "x", color=colour
                )
    axes.axhline(needed, color=GREY, linestyle="--", linewidth=1.2)
    axes.annotate(
        f"taken back at {needed:.0f} : 1, by a healthy canary ever with at most 1 % probability",
        (29.8, needed),
        xytext=(0, 5),
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
    )
    axes.set_xlim(0, 30)
    axes.set_ylim(0.01, top)
    axes.set_xlabel("minutes since the canary's first request (20 requests/s, 10 % of them)")
    axes.set_ylabel("evidence against the canary")
    axes.yaxis.set_major_formatter(FuncFormatter(_odds))
    axes.minorticks_off()
    axes.legend(frameon=False, loc="center right", fontsize=8.5)
    return figure


def _percent(value: float, _: int | None = None) -> str:
    return f"≤ {value:g} %" if value == LEAST_SHARE else f"{value:g} %"


def _seconds(value: float, _: int | None = None) -> str:
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min"  # noqa: PLR2004


def _odds(value: float, _: int | None = None) -> str:
    return f"{value:g} : 1" if value >= 1 else f"1 : {1 / value:g}"
