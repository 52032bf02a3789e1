"""The evidence over time as a picture. Needs matplotlib, which only this module knows of."""

from __future__ import annotations

import math
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from crossfade.cli.outcome import Backtest
from crossfade.cli.report import clock, summary
from crossfade.errors import CommandError
from crossfade.evidence.rules import odds
from crossfade.evidence.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS: Final = (".svg", ".png")

COLOURS: Final = {
    Verdict.HARM: "#d1495b",
    Verdict.HEALTHY: "#66a182",
    Verdict.NOT_ENOUGH_DATA: "#c9c9c9",
    Verdict.UNAVAILABLE: "#edae49",
}
LINE: Final = "#1b4965"

BELOW: Final = 2.0
"""Decades below 1 : 1 that are shown: what is lower is as clear."""

ABOVE: Final = 3.0
"""Decades above the threshold; evidence that is higher is drawn at the edge."""


def expect_drawable(path: str) -> None:
    """Refuse what cannot be drawn, before anything is asked of Prometheus.

    Raises:
        CommandError: there is no matplotlib, or no such format.
    """
    if Path(path).suffix not in FORMATS:
        raise CommandError(f"--plot {path}: write a name that ends in .svg or .png")
    try:
        import matplotlib as mpl  # noqa: F401, PLC0415 - an extra
    except ImportError as e:
        raise CommandError("--plot needs matplotlib: pip install 'crossfade[plot]'") from e


def draw(past: Backtest, path: str) -> None:
    """Draw one panel a metric, all over the same time.

    Raises:
        CommandError: the file cannot be written.
    """
    import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow to import
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    names = past.names
    with mpl.rc_context({"svg.hashsalt": "crossfade", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8, 1.2 + 1.9 * len(names)), layout="constrained")
        panels: Any = figure.subplots(len(names), sharex=True, squeeze=False)
        for name, (panel,) in zip(names, panels, strict=True):
            _panel(panel, past, name)
        bottom = panels[-1][0]
        locator = AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call]
        bottom.xaxis.set_major_locator(locator)
        bottom.xaxis.set_major_formatter(
            ConciseDateFormatter(locator, tz=UTC)  # type: ignore[no-untyped-call]
        )
        bottom.set_xlim(past.subject.since, past.end)
        bottom.set_xlabel("UTC", loc="left")
        said = {answer.verdict for look in past.looks for answer in look.answers}
        figure.legend(
            handles=[Patch(color=c, label=v.value) for v, c in COLOURS.items() if v in said],
            loc="outside lower center", ncols=len(COLOURS), frameon=False,
        )  # fmt: skip
        figure.suptitle(summary(past), x=0.01, ha="left", fontsize=9, wrap=True)
        try:
            figure.savefig(path, dpi=144, metadata={"Date": None} if path[-3:] == "svg" else None)
        except OSError as e:
            raise CommandError(f"{path} cannot be written: {e.strerror}") from e


def _panel(panel: Axes, past: Backtest, name: str) -> None:
    """Draw evidence and threshold, the verdicts as a strip below, and the moment of harm."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    seen = [(at, a.evidence) for at, a in past.of(name) if a.evidence is not None]
    times = [at for at, _ in seen]
    low, high = -1.0, 1.0
    if seen:
        evidence = [e.log_e / math.log(10) for _, e in seen]
        needed = [e.log_needed / math.log(10) for _, e in seen]
        low = max(min(low, *evidence), -BELOW)
        top = max(needed) + ABOVE
        evidence = [min(max(e, low), top) for e in evidence]
        high = max(*needed, *evidence) + 0.3
        panel.plot(times, evidence, color=LINE, linewidth=1.4)  # type: ignore[arg-type]
        panel.plot(times, needed, color=LINE, linewidth=0.9, linestyle="--")  # type: ignore[arg-type]
        panel.annotate(
            f"needs {odds(seen[-1][1].log_needed)}", (times[0], needed[0]),
            xytext=(3, 2), textcoords="offset points", fontsize=8, color=LINE,
        )  # fmt: skip
    strip = 0.08 * (high - low)
    low -= 1.5 * strip
    panel.set_ylim(low, high)
    query = past.subject.analysis.metrics[past.names.index(name)].query is not None
    _verdicts(panel, past, name, low, strip)
    fired_at = past.fired_at(name)
    if fired_at is not None:
        panel.axvline(fired_at, color=COLOURS[Verdict.HARM], linewidth=1)  # type: ignore[arg-type]
        title = f"{name}: harm at {clock(past, fired_at)}"
    else:
        title = name
    panel.set_title(title, loc="left", fontsize=9, fontweight="bold")
    panel.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    panel.yaxis.set_major_formatter(lambda decade, _: odds(decade * math.log(10)))
    panel.spines[["top", "right"]].set_visible(False)
    if not seen:
        panel.yaxis.set_visible(False)
        panel.text(
            0.5, 0.5, "no evidence is counted for a query" if query else "nothing was counted",
            transform=panel.transAxes, ha="center", color="grey",
        )  # fmt: skip


def _verdicts(panel: Axes, past: Backtest, name: str, bottom: float, height: float) -> None:
    """Draw what was said at every look as a strip of colours."""
    said = [(at, answer.verdict) for at, answer in past.of(name)]
    begun_at, verdict = said[0]
    for at, now in [*said[1:], (past.end, None)]:
        if now is not verdict:
            panel.fill_between(
                [begun_at, at], bottom, bottom + height,  # type: ignore[arg-type]
                color=COLOURS[verdict], linewidth=0,
            )  # fmt: skip
            begun_at, verdict = at, now or verdict
