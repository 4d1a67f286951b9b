# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

from rich.table import Table

from keytok_haystack.evaluation.experiment import Report

_LABELS = {
    "bm25": "BM25",
    "dense": "dense",
    "key_tokens": "key tokens",
    "key_tokens_bm25": "key tokens + BM25, one query",
    "dense_bm25": "dense + BM25",
    "dense_bm25_key_tokens": "dense + BM25 + key tokens",
    "key_tokens_without_literals": "queries without literal tokens",
    "literals_only": "queries of literal tokens alone",
    "own_tokens_literals_only": "documents by their own tokens, literal queries",
    "own_tokens": "documents by their own tokens",
    "word_embeddings": "decoder: raw word embeddings",
    "word_embeddings_without_literals": "decoder: raw word embeddings, no literal tokens",
}


def table(report: Report) -> Table:
    """Return a report as a table for the terminal."""
    dense = report.systems["dense"]["nDCG@10"]
    result = Table(
        title=f"{report.data}, {report.split}: {report.documents:,} documents, {report.queries:,} queries, "
        f"K={report.k_document}, M={report.m_query}",
        title_justify="left",
    )
    result.add_column("system")
    for column in ("nDCG@10", "of dense", "R@100", "index bytes/doc", "ms/query"):
        result.add_column(column, justify="right")
    for section in (report.systems, report.controls):
        for name, values in section.items():
            is_ours = name == "key_tokens"
            result.add_row(
                _LABELS[name],
                f"{values['nDCG@10']:.3f}",
                f"{values['nDCG@10'] / dense:.0%}" if dense else "",
                f"{values['R@100']:.3f}",
                f"{values['bytes_per_document']:,.0f}",
                f"{values['ms_per_query']:.2f}",
                style="bold" if is_ours else ("dim" if section is report.controls else None),
            )
        result.add_section()
    return result


def draw(report: Report, path: str | Path) -> None:
    """
    Draw the quality of each system, labelled with the size of its index, as a PNG.

    :param path: Where to write it.
    """
    import matplotlib as mpl  # noqa: PLC0415  # a second to import, and only here

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    names = list(report.systems)
    quality = [report.systems[name]["nDCG@10"] for name in names]
    dense = report.systems["dense"]["nDCG@10"]
    ours = [("key_tokens" in name) for name in names]
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    bars = axes.barh(
        [_LABELS[name] for name in names], quality, color=["#d9822b" if own else "#8a9ba8" for own in ours], height=0.7
    )
    axes.bar_label(
        bars,
        [
            f"{value:.3f}   {report.systems[name]['bytes_per_document']:,.0f} B/doc"
            for value, name in zip(quality, names, strict=True)
        ],
        padding=4,
        fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )
    axes.axvline(dense, color="#30404d", linewidth=1, linestyle="--")
    axes.invert_yaxis()
    axes.set_xlim(0, max(quality) * 1.32)
    axes.set_xlabel(f"nDCG@10 (dashed: dense, {dense:.3f})")
    axes.set_title(
        f"{report.data}: {report.documents:,} documents, {report.queries:,} queries", loc="left", fontsize=11
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
