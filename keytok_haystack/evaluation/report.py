# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What an evaluation has measured, for people: on a terminal, as Markdown, as a drawing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich.table import Table

from keytok_haystack.evaluation.experiment import Measured, Report

LABELS = {
    "dense": "dense vectors",
    "bm25": "BM25",
    "dense_bm25": "dense + BM25",
    "dense_bm25_rrf": "dense + BM25, RRF",
    "key_tokens": "key tokens",
    "key_tokens_bm25": "key tokens + BM25, one query",
    "key_tokens_bm25_rrf": "key tokens + BM25, RRF",
    "dense_bm25_key_tokens": "dense + BM25 + key tokens",
    "dense_bm25_key_tokens_rrf": "dense + BM25 + key tokens, RRF",
    "without_query_literals": "queries without literal tokens",
    "documents_without_literals": "documents without their own tokens",
    "query_literals_only": "queries of literal tokens alone",
    "own_tokens": "documents by their own tokens",
    "own_tokens_query_literals_only": "documents by their own tokens, queries of literal tokens alone",
    "raw_head_without_literals": "the embedder's own head, no literal tokens",
}
_NOT_FITTED = {
    **dict.fromkeys(("dense", "bm25", "dense_bm25", "dense_bm25_rrf"), ""),
    "raw_head_without_literals": "nothing",
}
SIGNIFICANT = 0.05
LEGEND = "† differs from dense, ‡ from dense + BM25, by more than chance: p < .05 in a paired permutation test"
_COLUMNS = ("fitted on", "nDCG@10", "of dense", "R@100", "bytes/doc", "ms")
OURS, OTHERS, INK = "#d9822b", "#8a9ba8", "#30404d"


def marks(p_values: Mapping[str, float]) -> str:
    """Return the marks of significance (`LEGEND`) for what a system has been compared with."""
    certain = {baseline for baseline, p in p_values.items() if p < SIGNIFICANT}
    return ("†" if "dense" in certain else "") + ("‡" if certain - {"dense"} else "")


def tables(report: Report) -> Table:
    """Return a report as a table for the terminal, but for the sweep over sizes."""
    # 80 columns are narrow for so much: no padding, and only the systems' names are broken into lines
    result = Table(
        title=_title(report), title_justify="left", caption=_caption(report), caption_justify="left", padding=0
    )
    result.add_column("system")
    for column in _COLUMNS:
        result.add_column(column, justify="left" if column == "fitted on" else "right", no_wrap=True)
    for title, rows in _sections(report):
        if title != _SIZES:
            for row in rows:
                ours = row[0] == LABELS["key_tokens"]
                result.add_row(*row, style="bold" if ours else ("dim" if title == _CONTROLS else None))
            result.add_section()
    return result


def markdown(report: Report) -> str:
    """Return a report as a Markdown page."""
    lines = [f"# {_title(report)}", "", _caption(report)]
    for title, rows in _sections(report):
        lines += ["", f"## {title}", "", *markdown_table(("system", *_COLUMNS), rows, text_columns=2)]
    return "\n".join(lines) + "\n"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> list[str]:
    """Return the lines of a Markdown table; columns after the first `text_columns` are aligned as numbers."""
    ruler = ["---"] * text_columns + ["---:"] * (len(header) - text_columns)
    return [f"| {' | '.join(row)} |" for row in (header, ruler, *rows)]


def draw(report: Report, path: str | Path) -> None:
    """
    Draw a report as a PNG: the quality of each system, and quality against size and latency if there is a sweep.

    :param path: Where to write it.
    """
    import matplotlib as mpl  # noqa: PLC0415  # a second to import, and only here

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    mosaic: Any = [["systems", "systems"], ["size", "latency"]] if report.sweep else [["systems"]]
    size = (9, 7.6) if report.sweep else (8, 4)
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
        axes["latency"].sharey(axes["size"])
    for panel in axes.values():
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw_systems(axes: Any, report: Report) -> None:
    quality = {name: values["nDCG@10"] for name, values in report.systems.items()}
    dense = quality["dense"]
    colors = [OURS if "key_tokens" in name else OTHERS for name in quality]
    bars = axes.barh([LABELS[name] for name in quality], list(quality.values()), color=colors, height=0.7)
    notes = [
        f"{values['nDCG@10']:.3f}{marks(values['p_values'])}   {values['bytes_per_document']:,.0f} B/doc"
        for values in report.systems.values()
    ]
    axes.bar_label(bars, notes, padding=4, fontsize=9, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    axes.axvline(dense, color=INK, linewidth=1, linestyle="--")
    axes.invert_yaxis()
    axes.set_xlim(0, (max(quality.values()) or 1) * 1.32)
    axes.set_xlabel(f"nDCG@10 (dashed: dense, {dense:.3f})")
    axes.set_title(_title(report), loc="left", fontsize=11)


def _draw_curve(axes: Any, report: Report, fixed: tuple[str, int], varied: str, cost: str) -> None:
    """Draw the quality of key tokens against a cost, one setting fixed and one varied, next to dense and BM25."""
    points = sorted((p for p in report.sweep if p[fixed[0]] == fixed[1]), key=itemgetter(varied))
    costs, quality = [point[cost] for point in points], [point["nDCG@10"] for point in points]
    axes.plot(costs, quality, color=OURS, marker="o", markersize=4, linewidth=1.5)
    # times lie close together, so that there is room for the first and the last
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


_SYSTEMS, _REFINED, _DECODERS, _CONTROLS, _OUT_OF_SAMPLE, _SIZES = (
    "Systems",
    "Refined",
    "Decoders",
    "Controls: key tokens with one part changed",
    "Out of sample",
    "Sizes",
)


def _sections(report: Report) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Go through the tables of a report that are not empty: a title, and rows of cells below `_COLUMNS`."""
    dense = report.systems["dense"]["nDCG@10"]

    def row(label: str, fitted_on: str, values: Measured) -> tuple[str, ...]:
        ratio = f"{values['nDCG@10'] / dense:.1%}" if dense else ""
        return (
            label,
            fitted_on,
            f"{values['nDCG@10']:.3f}",
            ratio + marks(values["p_values"]),
            f"{values['R@100']:.3f}",
            f"{values['bytes_per_document']:,.0f}",
            f"{values['ms_per_query']:.2f}",
        )

    def fitted(name: str) -> str:
        return _NOT_FITTED.get(name, report.fitted_on)

    sections = {
        _SYSTEMS: [row(LABELS[name], fitted(name), values) for name, values in report.systems.items()],
        _REFINED: [row(f"{LABELS[name]}, refined", fitted(name), values) for name, values in report.refined.items()],
        _DECODERS: [row(f"{r['decoder']}, K={r['k_document']}", r["fitted_on"], r) for r in report.decoders],
        _CONTROLS: [row(LABELS[name], fitted(name), values) for name, values in report.controls.items()],
        _OUT_OF_SAMPLE: [row(LABELS[r["system"]], r["fitted_on"], r) for r in report.out_of_sample],
        _SIZES: [row(f"K={r['k_document']}, M={r['m_query']}", report.fitted_on, r) for r in report.sweep],
    }
    yield from ((title, rows) for title, rows in sections.items() if rows)


def _title(report: Report) -> str:
    return (
        f"{report.data}, {report.split}: {report.documents:,} documents, {report.queries:,} queries, "
        f"K={report.k_document}, M={report.m_query}, {report.decoder}"
    )


def _caption(report: Report) -> str:
    names = {"embed": "embedding", "fit": "fitting", "refine": "refining", "project": "projecting"}
    times = [f"{names[name]} {value:.1f} s" for name, value in report.seconds.items() if value is not None]
    cached = " (embedded in an earlier run)" if report.embeddings_cached else ""
    return f"{LEGEND}.\n{', '.join(times)}{cached}."
