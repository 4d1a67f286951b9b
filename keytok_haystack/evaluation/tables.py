# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""An evaluation as tables: for the terminal and as a Markdown page."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rich.table import Table
from rich.text import Text

from keytok_haystack.evaluation.report import EvaluationReport, SystemMeasures
from keytok_haystack.utils.visible import visible

LABELS = {
    "dense": "dense vectors",
    "bm25": "BM25 (stemmed)",
    "bm25_default": "BM25 (engines' default)",
    "splade": "SPLADE",
    "dense_bm25": "dense + BM25 (stemmed)",
    "dense_bm25_rrf": "dense + BM25 (stemmed), RRF",
    "key_tokens": "key tokens",
    "key_tokens_bm25": "key tokens + BM25, one request",
    "hybrid": "key tokens + dense + BM25, one request",
    "key_tokens_bm25_rrf": "key tokens + BM25 (stemmed), RRF",
    "dense_bm25_key_tokens": "dense + BM25 (stemmed) + key tokens",
    "dense_bm25_key_tokens_rrf": "dense + BM25 (stemmed) + key tokens, RRF",
    "without_query_literals": "queries without literal tokens",
    "documents_without_literals": "documents without their literal tokens",
    "query_literals_only": "queries of literal tokens alone",
    "literal_tokens": "documents by their literal tokens",
    "literal_tokens_query_literals_only": "documents by their literal tokens, queries of literal tokens alone",
    "raw_head_without_literals": "the embedder's own head, no literal tokens",
}
SUMMARY = (
    "bm25_default",
    "bm25",
    "dense",
    "key_tokens",
    "hybrid",
    "dense_bm25_rrf",
    "dense_bm25_key_tokens_rrf",
)
"""Systems of the shortest tables."""
_NOT_FITTED = {
    **dict.fromkeys(("dense", "bm25", "bm25_default", "splade", "dense_bm25", "dense_bm25_rrf"), ""),
    "raw_head_without_literals": "nothing",
}
SIGNIFICANT = 0.05
ABSENT = "—"
LEGEND = "† differs from dense, ‡ from dense + BM25, by more than chance: p < .05 in a paired permutation test"


def marks(p_values: Mapping[str, float]) -> str:
    """Return the marks of significance (`LEGEND`) for the p-values of a system's differences from its baselines."""
    significant = {baseline for baseline, p in p_values.items() if p < SIGNIFICANT}
    return ("†" if "dense" in significant else "") + ("‡" if significant - {"dense"} else "")


@dataclass(frozen=True)
class Column:
    """
    Column of the tables.

    :param heading: Its heading.
    :param cell: Function from the measures of a system and those of the dense vectors to the text of a cell.
    """

    heading: str
    cell: Callable[[SystemMeasures, SystemMeasures], str]


def _relative_to_dense(system: SystemMeasures, dense: SystemMeasures) -> str:
    ratio = f"{system['nDCG@10'] / dense['nDCG@10']:.1%}" if dense["nDCG@10"] else ""
    return ratio + marks(system["p_values"])


def _of_tokens(name: str, digits: int) -> Callable[[SystemMeasures, SystemMeasures], str]:
    """Return the function of a `Column` for a measure that only systems which search for tokens have."""
    return lambda system, _: ABSENT if system[name] is None else f"{system[name]:.{digits}f}"


COLUMNS = (
    Column("nDCG@10", lambda system, _: f"{system['nDCG@10']:.3f}"),
    Column("of dense", _relative_to_dense),
    Column("R@100", lambda system, _: f"{system['R@100']:.3f}"),
    Column("tokens/doc", _of_tokens("tokens_per_document", 0)),
    Column("postings/doc", _of_tokens("postings_per_document", 1)),
    Column("bytes/doc", lambda system, _: f"{system['bytes_per_document']:,.0f}"),
    Column("ms", lambda system, _: f"{system['ms_per_query']:.2f}"),
)
"""Columns of all tables, after a system's name and the texts that its decoder was fitted to."""
_TEXT_HEADINGS = ("system", "fitted on")
_SUMMARY_HEADINGS = ("nDCG@10", "of dense", "R@100", "ms")


def summary_table(report: EvaluationReport) -> Table:
    """Return the quality of the main systems as a short table for the terminal."""
    result = Table(caption=Text(f"{LEGEND}.", style="dim"), caption_justify="left", box=None, padding=(0, 1))
    result.add_column("")
    columns = [column for column in COLUMNS if column.heading in _SUMMARY_HEADINGS]
    for column in columns:
        result.add_column(column.heading, justify="right", no_wrap=True)
    for name in SUMMARY:
        system = report.systems[name]
        cells = [column.cell(system, report.systems["dense"]) for column in columns]
        result.add_row(LABELS[name], *cells, style="bold" if name in ("key_tokens", "hybrid") else None)
    return result


def terminal_table(report: EvaluationReport) -> Table:
    """Return a report as a table for the terminal, without the sweep over sizes."""
    # 80 columns are narrow for so many cells: there is no padding, and only texts and headings are wrapped
    result = Table(
        title=Text(report_title(report), style="italic"),
        title_justify="left",
        caption=Text(_caption(report), style="dim"),
        caption_justify="left",
        padding=0,
    )
    result.add_column("system")
    result.add_column("fitted on")
    for column in COLUMNS:
        result.add_column(column.heading.replace("/", "\n/"), justify="right", no_wrap=True)
    for title, rows in _sections(report):
        if title != _SIZES:
            for row in rows:
                ours = row[0] == LABELS["key_tokens"]
                result.add_row(*map(Text, row), style="bold" if ours else ("dim" if title == _CONTROLS else None))
            result.add_section()
    return result


def markdown_page(report: EvaluationReport) -> str:
    """Return a report as a Markdown page."""
    lines = [f"# {report_title(report)}", "", _caption(report)]
    header = (*_TEXT_HEADINGS, *(column.heading for column in COLUMNS))
    for title, rows in _sections(report):
        lines += ["", f"## {title}", "", *markdown_table(header, rows, text_columns=len(_TEXT_HEADINGS))]
    return escape(visible("\n".join(lines)), quote=False) + "\n"  # names of files are foreign texts


def write_markdown(path: Path, report: EvaluationReport) -> None:
    """Write a report as a Markdown page; the parents of the path are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(markdown_page(report), encoding="utf-8")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> list[str]:
    """Return the lines of a Markdown table; columns after the first `text_columns` are aligned as numbers."""
    ruler = ["---"] * text_columns + ["---:"] * (len(header) - text_columns)
    return [f"| {' | '.join(row)} |" for row in (header, ruler, *rows)]


def report_title(report: EvaluationReport) -> str:
    """Return a line that names the collection, the sizes and the decoder of an evaluation."""
    return (
        f"{report.data}, {report.split}: {report.documents:,} documents, {report.queries:,} queries, "
        f"K={report.k_document}, M={report.m_query}, {report.decoder}"
    )


_SYSTEMS, _REFINED, _DECODERS, _CONTROLS, _OUT_OF_SAMPLE, _SIZES = (
    "Systems",
    "Refined",
    "Decoders",
    "Controls: key tokens with one part changed",
    "Out of sample",
    "Sizes",
)


def _sections(report: EvaluationReport) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Yield the tables of a report that are not empty: a title, and rows of cells."""
    dense = report.systems["dense"]

    def row(label: str, fitted_on: str, system: SystemMeasures) -> tuple[str, ...]:
        return (label, fitted_on, *(column.cell(system, dense) for column in COLUMNS))

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


def _caption(report: EvaluationReport) -> str:
    names = {
        "embed": "embedding",
        "fit": "fitting",
        "refine": "refining",
        "project": "projecting",
        "splade": "encoding by the SPLADE",
    }
    times = [f"{names[name]} {value:.1f} s" for name, value in report.seconds.items() if value is not None]
    cached = " (embedded in an earlier run)" if report.embeddings_cached else ""
    return f"{LEGEND}.\n{', '.join(times)}{cached}."
