# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""An alignment report for people: a self-contained HTML page, and a table for the terminal."""

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from keytok_haystack.evaluation.alignment.adjustments import HIT_AT, STRENGTHS
from keytok_haystack.evaluation.alignment.report import AdjustmentMeasures, AlignmentReport, Token
from keytok_haystack.evaluation.alignment.token_classes import CLASSES
from keytok_haystack.evaluation.chart import OTHERS, OURS
from keytok_haystack.utils.visible import visible

_COLORS = dict(zip(CLASSES, (OTHERS, "#b58db6", OURS, "#5f9e8f"), strict=True))
_INK = "#010203"  # replaced by the color of the surrounding text, light or dark


def write_page(path: Path, report: AlignmentReport) -> None:
    """Write a report as an HTML page; the parents of the path are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html_page(report), encoding="utf-8")


def html_page(report: AlignmentReport) -> str:
    """Return a report as an HTML page with its drawings embedded."""
    template = files(__package__).joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_shown)
    environment.filters["strength"] = _strength
    return environment.from_string(template).render(
        report=report,
        classes=CLASSES,
        colors=_COLORS,
        hit_at=HIT_AT,
        drawn=lambda name: _drawing(_DRAWINGS[name], report),
    )


def adjustment_table(report: AlignmentReport) -> Table:
    """Return the measures of each way to adjust embeddings as a table for the terminal."""
    first = report.components[0]
    result = Table(
        title=Text(
            f"{report.embedder} on {report.data}: {report.texts:,} texts\ndecoder: {report.head}", style="italic"
        ),
        title_justify="left",
        caption=Text(f"PC1 holds {first.explained_energy:.1%} of the energy. It reads: {_joined(first.tokens)}"),
        caption_justify="left",
        padding=0,
    )
    result.add_column("adjustment", no_wrap=True)
    for heading in (f"Hit@{HIT_AT}", "LAR", "GAR", "AUC", *(["dense", "key"] if report.queries else [])):
        result.add_column(heading, justify="right", no_wrap=True)
    for measures in report.methods:
        result.add_row(Text(measures.name), *(f"{value:.3f}" for value in _numbers(measures)))
    return result


def _shown(value: Any) -> Any:
    return visible(value) if isinstance(value, str) else value


def _numbers(measures: AdjustmentMeasures) -> list[float]:
    found = measures.alignment
    retrieval = [value for value in (measures.dense, measures.key_tokens) if value is not None]
    return [found.hit_at_k, found.local_alignment_rate, found.global_alignment_rate, found.literal_auc, *retrieval]


def _joined(tokens: Sequence[Token]) -> str:
    return ", ".join(token.token for token in tokens[:8]) or "nothing"


def _strength(token: Token, tokens: Sequence[Token]) -> str:
    """Return the weight of a token relative to the strongest of its list, between 0 and 1."""
    return f"{token.weight / tokens[0].weight:.2f}"


def _drawing(draw: Callable[[Any, Any, AlignmentReport], str], report: AlignmentReport) -> Markup:
    """Return a drawing with its caption, as SVG for light and dark pages, as wide as a phone."""
    import matplotlib as mpl  # noqa: PLC0415  # takes a second to import
    from matplotlib.figure import Figure  # noqa: PLC0415

    parts = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": draw.__name__,
        "font.size": 10,
        **dict.fromkeys(parts, _INK),
    }
    with mpl.rc_context(settings), StringIO() as file:
        figure = Figure(figsize=(5, 3), layout="constrained")
        axes = figure.subplots()
        caption = draw(figure, axes, report)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(file, format="svg", transparent=True)
        svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    opening = Markup('<svg role="img" aria-label="{}"').format(caption)
    drawing = Markup(svg.replace("<svg", opening, 1).replace(_INK, "currentColor"))  # noqa: S704  # made by matplotlib
    return Markup("<figure><figcaption>{}</figcaption>{}</figure>").format(caption, drawing)


def _legend(figure: Any) -> None:
    figure.legend(ncols=2, loc="outside upper left", frameon=False, fontsize=9)


def _draw_energies(figure: Any, axes: Any, report: AlignmentReport) -> str:  # noqa: ARG001
    energies = [component.explained_energy for component in report.components]
    names = [f"PC{component.number}" for component in report.components]
    bars = axes.bar(names, energies, color=[OURS, *[OTHERS] * (len(names) - 1)])
    axes.bar_label(bars, [f"{100 * value:.3g}" for value in energies], fontsize=9, padding=2)
    axes.set_yscale("log")
    axes.set_ylim(top=3)
    axes.tick_params(axis="y", which="both", left=False, labelleft=False)
    return "Explained energy of the components, % (log scale)"


def _draw_classes(figure: Any, axes: Any, report: AlignmentReport) -> str:
    names = [f"PC{component.number}" for component in report.components]
    left = [0.0] * len(names)
    for name in CLASSES:
        values = [component.classes[name] for component in report.components]
        axes.barh(names, values, left=left, color=_COLORS[name], label=name, height=0.75)
        left = [start + value for start, value in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    _legend(figure)
    return "Contributions of the components by class of tokens"


def _draw_alignment(figure: Any, axes: Any, report: AlignmentReport) -> str:
    contents = [each.content_alignment for each in report.strengths]
    function_words = [each.classes["stop words"] + each.classes["punctuation"] for each in report.strengths]
    lines = {
        f"content Hit@{HIT_AT}": ([each.hit_at_k for each in contents], "#b58db6"),
        "content GAR": ([each.global_alignment_rate for each in contents], OURS),
        "content LAR": ([each.local_alignment_rate for each in contents], "#5f9e8f"),
        "stop words, punctuation": (function_words, OTHERS),
    }
    _draw_strengths(figure, axes, lines)
    return "Alignment, and classes of the strongest tokens"


def _draw_retrieval(figure: Any, axes: Any, report: AlignmentReport) -> str:
    lines = {
        "dense vectors": ([each.dense for each in report.strengths], OTHERS),
        "key tokens alone": ([each.key_tokens for each in report.strengths], OURS),
    }
    _draw_strengths(figure, axes, lines)
    return "nDCG@10"


def _draw_strengths(figure: Any, axes: Any, lines: Mapping[str, tuple[Sequence[float | None], str]]) -> None:
    """Draw measures by the share of the first component that is removed: by name, the values and the color."""
    for name, (values, color) in lines.items():
        axes.plot(STRENGTHS, values, marker="o", markersize=4, linewidth=1.5, label=name, color=color)
    axes.margins(y=0.2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("share of PC1 that is removed")
    axes.axvline(1, color=_INK, linewidth=0.8, linestyle=":")
    axes.grid(alpha=0.25, linewidth=0.5)
    _legend(figure)


def _draw_change(figure: Any, axes: Any, report: AlignmentReport) -> str:
    change = report.change
    assert change is not None  # noqa: S101  # the page draws it only if there is one
    numbers = range(1, len(change.energy) + 1)
    axes.bar(numbers, change.energy, color=OURS, label="of the change")
    axes.plot(numbers, change.explained_energy, ".", markersize=3, color=_INK, label="of the backbone")
    axes.set_yscale("log")
    axes.set_xlabel("component of the backbone")
    _legend(figure)
    return "Share of energy"


def _draw_variation(figure: Any, axes: Any, report: AlignmentReport) -> str:  # noqa: ARG001
    change = report.change
    assert change is not None  # noqa: S101  # the page draws it only if there is one
    axes.bar(range(1, len(change.variation) + 1), change.variation, color=OURS)
    axes.axhline(0, color=_INK, linewidth=0.8)
    axes.set_xlabel("component of the backbone")
    return "Mean difference (variation)"


_DRAWINGS = {
    "energies": _draw_energies,
    "classes": _draw_classes,
    "alignment": _draw_alignment,
    "retrieval": _draw_retrieval,
    "change": _draw_change,
    "variation": _draw_variation,
}
