# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""An evaluation as a chart: the quality of each system, and quality against size and latency."""

from operator import itemgetter
from pathlib import Path
from typing import Any

from keytok_haystack.evaluation.report import EvaluationReport
from keytok_haystack.evaluation.tables import LABELS, marks, report_title

OURS, OTHERS, INK = "#d9822b", "#8a9ba8", "#30404d"


def draw_chart(path: Path, report: EvaluationReport) -> None:
    """
    Draw a report: the quality of each system, and quality against size and latency if there is a sweep.

    :param path: Path of the PNG file; its parents are created.
    :param report: The report.
    """
    import matplotlib as mpl  # noqa: PLC0415  # takes a second to import

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    mosaic: Any = [["systems", "systems"], ["size", "latency"]] if report.sweep else [["systems"]]
    size = (10, 7.6) if report.sweep else (10, 4)
    figure, axes = plt.subplot_mosaic(mosaic, figsize=size, layout="constrained")
    _draw_systems(axes["systems"], report)
    if report.sweep:
        k, m = report.k_document, report.m_query
        _draw_curve(axes["size"], report, ("m_query", m), "k_document", "bytes_per_document")
        axes["size"].set_title(f"key tokens, K as marked, M={m}", loc="left", fontsize=10)
        axes["size"].set(xlabel="index in memory, bytes/document", ylabel="nDCG@10")
        _draw_curve(axes["latency"], report, ("k_document", k), "m_query", "ms_per_query")
        axes["latency"].set_title(f"key tokens, M as marked, K={k}", loc="left", fontsize=10)
        axes["latency"].set(xlabel="ms/query", ylabel="nDCG@10")
        lows, highs = zip(*(axes[name].get_ylim() for name in ("size", "latency")), strict=True)
        axes["size"].set_ylim(min(lows), max(highs))
        axes["latency"].sharey(axes["size"])
    for panel in axes.values():
        panel.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw_systems(axes: Any, report: EvaluationReport) -> None:
    quality = {name: values["nDCG@10"] for name, values in report.systems.items()}
    dense = quality["dense"]
    colors = [OURS if "key tokens" in LABELS[name] else OTHERS for name in quality]
    bars = axes.barh([LABELS[name] for name in quality], list(quality.values()), color=colors, height=0.7)
    notes = [
        f"{values['nDCG@10']:.3f}{marks(values['p_values'])}   {values['bytes_per_document']:,.0f} B/doc"
        for values in report.systems.values()
    ]
    axes.bar_label(bars, notes, padding=4, fontsize=9, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    axes.axvline(dense, color=INK, linewidth=1, linestyle="--")
    axes.invert_yaxis()
    axes.set_xlim(0, (max(quality.values()) or 1) * 1.4)
    axes.set_xlabel(f"nDCG@10 (dashed: dense, {dense:.3f})")
    axes.set_title(report_title(report), loc="left", fontsize=11)


def _draw_curve(axes: Any, report: EvaluationReport, fixed: tuple[str, int], varied: str, cost: str) -> None:
    """Draw the quality of key tokens against a cost, with one setting fixed and one varied, next to dense and BM25."""
    points = sorted((p for p in report.sweep if p[fixed[0]] == fixed[1]), key=itemgetter(varied))
    costs, quality = [point[cost] for point in points], [point["nDCG@10"] for point in points]
    axes.plot(costs, quality, color=OURS, marker="o", markersize=4, linewidth=1.5)
    # times lie so close together that there is room for the first and the last label only
    marked = points if cost == "bytes_per_document" else [points[0], points[-1]]
    notes = [(str(point[varied]), point, OURS) for point in marked]
    for name, label in (("dense", "dense"), ("bm25", "BM25")):
        axes.plot(report.systems[name][cost], report.systems[name]["nDCG@10"], marker="D", color=INK)
        notes.append((label, report.systems[name], INK))
    for text, point, color in notes:
        place = {"xy": (point[cost], point["nDCG@10"]), "xytext": (0, 6), "textcoords": "offset points"}
        axes.annotate(text, **place, fontsize=8, color=color, horizontalalignment="center")
    axes.margins(0.12)
    axes.set_xlim(left=-0.04 * axes.get_xlim()[1])
    axes.grid(alpha=0.25, linewidth=0.5)
