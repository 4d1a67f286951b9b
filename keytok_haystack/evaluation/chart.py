# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""An evaluation as a chart: the quality of each system, and quality against size and latency."""

from operator import itemgetter
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from keytok_haystack.evaluation.report import EvaluationReport
from keytok_haystack.evaluation.tables import LABELS, marks, report_title

OURS, OTHERS, INK = "#d9822b", "#8a9ba8", "#30404d"
_WIDTH = 6  # inches: on a phone, text of 9 or 10 points can still be read


def draw_chart(path: Path, report: EvaluationReport) -> None:
    """
    Draw a report: the quality of each system, and quality against size and latency if there is a sweep.

    :param path: Path of the PNG file; its parents are created.
    :param report: The report.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    chart_of(report).savefig(path, dpi=150)


def chart_of(report: EvaluationReport) -> Any:
    """Return a report as a figure of matplotlib."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # takes a second to import

    heights = [0.42 * len(report.systems) + 0.9, *([3.0] if report.sweep else [])]
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    mosaic: Any = [["systems", "systems"], *([["size", "latency"]] if report.sweep else [])]
    axes = figure.subplot_mosaic(mosaic, height_ratios=heights)
    _draw_systems(axes["systems"], report)
    if report.sweep:
        size, latency, k, m = axes["size"], axes["latency"], report.k_document, report.m_query
        latency.sharey(size)
        curves = [
            _draw_curve(size, report, "k_document", ("m_query", m), "bytes_per_document"),
            _draw_curve(latency, report, "m_query", ("k_document", k), "ms_per_query"),
        ]
        size.set_title(f"key tokens, K as marked, M={m}", loc="left", fontsize=9)
        size.set(xlabel="index in memory, bytes/doc", ylabel="nDCG@10")
        latency.set_title(f"M as marked, K={k}", loc="left", fontsize=9)
        latency.set(xlabel="ms/query")
        handles = size.get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        figure.draw_without_rendering()  # then it is known where everything is
        for panel, points in zip((size, latency), curves, strict=True):
            _mark(panel, points)
    for panel in axes.values():
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_systems(axes: Any, report: EvaluationReport) -> None:
    """Draw a bar for each system, and above it its name and its numbers."""
    quality = {name: values["nDCG@10"] for name, values in report.systems.items()}
    most = max(quality.values()) or 1
    rows = np.arange(len(quality))
    colors = [OURS if "key tokens" in LABELS[name] else OTHERS for name in quality]
    axes.barh(rows, list(quality.values()), color=colors, height=0.4)
    axes.vlines([quality["dense"]] * len(rows), rows - 0.2, rows + 0.2, color=INK, linewidth=1, linestyle=":")
    for row, (name, values) in enumerate(report.systems.items()):
        note = f"{values['nDCG@10']:.3f}{marks(values['p_values'])}   {values['bytes_per_document']:,.0f} B/doc"
        for x, text, side in ((0, LABELS[name], "left"), (most, note, "right")):
            axes.text(x, row - 0.28, text, fontsize=9, horizontalalignment=side, verticalalignment="bottom")
    axes.set(xlim=(0, most), ylim=(len(rows) - 0.6, -0.9), yticks=[])
    axes.set_xlabel(f"nDCG@10 (dotted: dense, {quality['dense']:.3f})")
    axes.set_title(fill(report_title(report), 75), loc="left", fontsize=10)
    axes.spines["left"].set_visible(False)


def _draw_curve(
    axes: Any, report: EvaluationReport, varied: str, fixed: tuple[str, int], cost: str
) -> list[tuple[str, float, float]]:
    """
    Draw the quality of key tokens against a cost, with one setting fixed and one varied, next to dense and BM25.

    :returns: What the points of the curve are to be marked with, and where they are.
    """
    points = sorted((p for p in report.sweep if p[fixed[0]] == fixed[1]), key=itemgetter(varied))
    costs, quality = [point[cost] for point in points], [point["nDCG@10"] for point in points]
    axes.plot(costs, quality, color=OURS, marker="o", markersize=4, linewidth=1.5)
    for name, label, marker in (("dense", "dense vectors", "D"), ("bm25", "BM25 (stemmed)", "s")):
        values = report.systems[name]
        axes.plot(values[cost], values["nDCG@10"], marker, markersize=5, color=INK, label=label)
    axes.margins(0.2)
    axes.set_xlim(left=-0.04 * axes.get_xlim()[1])
    axes.grid(alpha=0.25, linewidth=0.5)
    return list(zip([str(point[varied]) for point in points], costs, quality, strict=True))


def _mark(axes: Any, points: list[tuple[str, float, float]]) -> None:
    """Write the texts of a curve's points beside them, where there is room: nothing is struck through or covered."""
    from matplotlib.path import Path as Curve  # noqa: PLC0415

    curve = Curve(axes.transData.transform([place for _, *place in points]))
    taken = [line.get_window_extent() for line in axes.lines[1:]]
    for text, *place in points:
        style = {"fontsize": 8, "color": OURS, "ha": "center", "va": "center"}
        label = axes.annotate(text, place, (0, 0), textcoords="offset points", **style)
        for angle in np.linspace(0.5, 2.5, 16, endpoint=False) * np.pi:  # above, and on to the left
            label.set_position((12 * np.cos(angle), 12 * np.sin(angle)))
            box = label.get_window_extent()
            is_inside = axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max)
            if is_inside and not curve.intersects_bbox(box.padded(1), filled=False) and not box.count_overlaps(taken):
                taken.append(box)
                break
        else:
            label.remove()
