# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""An alignment report for people: a self-contained HTML page, and a table for the terminal."""

import re
from collections.abc import Callable, Sequence
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
        components=_drawing(_draw_components, report),
        strengths=_drawing(_draw_strengths, report),
        change=None if report.change is None else _drawing(_draw_change, report),
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


def _drawing(draw: Callable[[Any, AlignmentReport], str], report: AlignmentReport) -> Markup:
    """Return a drawing as SVG for light and dark pages."""
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
        figure = Figure(layout="constrained")
        label = draw(figure, report)
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(file, format="svg", transparent=True)
        svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    opening = Markup('<svg role="img" aria-label="{}"').format(label)
    return Markup(svg.replace("<svg", opening, 1).replace(_INK, "currentColor"))  # noqa: S704  # made by matplotlib


def _draw_components(figure: Any, report: AlignmentReport) -> str:
    figure.set_size_inches(9, 3.2)
    energy, shares = figure.subplots(1, 2, width_ratios=(2, 3))
    names = [f"PC{component.number}" for component in report.components]
    energies = [component.explained_energy for component in report.components]
    bars = energy.bar(names, energies, color=[OURS, *[OTHERS] * (len(names) - 1)])
    energy.bar_label(bars, [f"{100 * value:.3g}" for value in energies], fontsize=8, padding=2)
    energy.set_yscale("log")
    energy.set_ylim(top=3)
    energy.tick_params(axis="y", which="both", left=False, labelleft=False)
    energy.set_title("explained energy, % (log scale)", loc="left", fontsize=10)
    energy.tick_params(axis="x", labelsize=8)
    left = [0.0] * len(names)
    for name in CLASSES:
        values = [component.classes[name] for component in report.components]
        shares.barh(names, values, left=left, color=_COLORS[name], label=name, height=0.75)
        left = [start + value for start, value in zip(left, values, strict=True)]
    shares.invert_yaxis()
    shares.set_xlim(0, 1)
    shares.set_title("their contributions by class of tokens", loc="left", fontsize=10, pad=22)
    shares.legend(ncols=len(CLASSES), loc="lower left", bbox_to_anchor=(0, 0.98), frameon=False, fontsize=9)
    return "Explained energy of the components, and their contributions by class of tokens"


def _draw_strengths(figure: Any, report: AlignmentReport) -> str:
    figure.set_size_inches(9, 3.2)
    panels = figure.subplots(1, 2 if report.queries else 1, squeeze=False)[0]

    def line(axes: Any, name: str, values: Sequence[float | None], **style: Any) -> None:
        axes.plot(STRENGTHS, values, marker="o", markersize=4, linewidth=1.5, label=name, **style)

    measures = report.strengths
    contents = [each.content_alignment for each in measures]
    line(panels[0], f"content Hit@{HIT_AT}", [each.hit_at_k for each in contents], color="#b58db6")
    line(panels[0], "content GAR", [each.global_alignment_rate for each in contents], color=OURS)
    line(panels[0], "content LAR", [each.local_alignment_rate for each in contents], color="#5f9e8f")
    function_words = [each.classes["stop words"] + each.classes["punctuation"] for each in measures]
    line(panels[0], "stop words, punctuation", function_words, color=OTHERS, linestyle="--")
    panels[0].set_title("alignment, and classes of the strongest tokens", loc="left", fontsize=10)
    if report.queries:
        line(panels[1], "dense vectors", [each.dense for each in measures], color=OTHERS)
        line(panels[1], "key tokens alone", [each.key_tokens for each in measures], color=OURS)
        panels[1].set_title("nDCG@10", loc="left", fontsize=10)
    for axes in panels:
        axes.set_ylim(bottom=0)
        axes.set_xlabel("share of PC1 that is removed")
        axes.axvline(1, color=_INK, linewidth=0.8, linestyle=":")
        axes.grid(alpha=0.25, linewidth=0.5)
        axes.legend(frameon=False, fontsize=9, loc="center left")
    return "Alignment and retrieval by the share of the first component that is removed"


def _draw_change(figure: Any, report: AlignmentReport) -> str:
    figure.set_size_inches(9, 2.8)
    energy, variation = figure.subplots(1, 2)
    change = report.change
    assert change is not None  # noqa: S101  # the page draws it only if there is one
    numbers = range(1, len(change.energy) + 1)
    energy.bar(numbers, change.energy, color=OURS, label="of the change")
    energy.plot(numbers, change.explained_energy, ".", markersize=3, color=_INK, label="of the backbone")
    energy.set_yscale("log")
    energy.set_title("share of energy", loc="left", fontsize=10)
    energy.legend(frameon=False, fontsize=9)
    variation.bar(numbers, change.variation, color=OURS)
    variation.axhline(0, color=_INK, linewidth=0.8)
    variation.set_title("mean difference (variation)", loc="left", fontsize=10)
    for axes in (energy, variation):
        axes.set_xlabel("component of the backbone")
    return "The difference from the backbone on each of its components"
