# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Output of the commands that change the documents of an index."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from keytok_haystack.cli.terminal import print_json, terminal
from keytok_haystack.sparse_vectors.rank_features import unescape_feature

if TYPE_CHECKING:
    from keytok_haystack.live_index import DryRun, Failure, RewriteReport  # needs an extra

_SHOWN_FAILURES = 10
_SHOWN_TOKENS = 16


def show_report(report: "RewriteReport", index: str, done: str, had: str, *, as_json: bool) -> None:
    """
    Show the result of rewriting the documents of an index.

    :param report: Result of the rewrite.
    :param index: Name of the index.
    :param done: Clause about the documents that were written.
    :param had: Clause about the documents that were up to date.
    :param as_json: Whether to print JSON instead of text for people.
    """
    if as_json:
        print_json(asdict(report))
        return
    console = terminal()
    rate = report.documents / report.seconds if report.seconds else 0.0
    parts = [f"[bold]{escape(index)}[/bold]: {escape(done)}", had]
    if report.without_embedding:
        parts.append(f"{report.without_embedding:,} without an embedding")
    parts.append(f"{report.seconds:.1f} s, {rate:,.0f} documents/s")
    console.print(", ".join(parts), soft_wrap=True)
    for warning in report.warnings:
        console.print(Text(warning, style="yellow"), soft_wrap=True)
    _failures(console, report.failures, report.failed)


def show_dry_run(result: "DryRun", field: str, *, as_json: bool) -> None:
    """
    Show the result of a dry run.

    :param result: Result of the dry run.
    :param field: Field of the key tokens.
    :param as_json: Whether to print JSON instead of text for people.
    """
    if as_json:
        examples = [
            {"text": text, "key_tokens": {unescape_feature(key): weight for key, weight in tokens.items()}}
            for text, tokens in result.examples
        ]
        parts = asdict(result)
        about = parts.pop("inspection")
        about["indices"] = list(about.pop("mappings"))
        print_json({**about, **parts, "examples": examples})
        return
    console, inspection = terminal(), result.inspection
    would = result.tried - result.already - result.without_embedding - len(result.failures)
    console.print(
        f"[bold]{escape(inspection.name)}[/bold]: {inspection.documents:,} documents in "
        f"{escape(inspection.described)}. Of the first {result.tried:,}, {would:,} would "
        f"get key tokens in '{escape(field)}', {result.already:,} have them, {result.without_embedding:,} are "
        "without an embedding. Nothing was changed.",
        soft_wrap=True,
    )
    for note in inspection.notes:
        console.print(Text(f"- {note}"), soft_wrap=True)
    for warning in inspection.warnings:
        console.print(Text(f"- {warning}", style="yellow"), soft_wrap=True)
    _failures(console, result.failures, len(result.failures))
    if result.examples:
        table = Table("text", "the key tokens that it would get, strongest first", show_lines=True)
        for text, tokens in result.examples:
            shown = " ".join(unescape_feature(key) for key in list(tokens)[:_SHOWN_TOKENS])
            table.add_row(Text(text[:110]), Text(shown))
        console.print(table)


def _failures(console: Console, failures: Sequence["Failure"], count: int) -> None:
    if not count:
        return
    console.print(f"[red]{count:,} documents could not be changed[/red], the others are not affected:", soft_wrap=True)
    table = Table("document", "reason", box=None, header_style="dim")
    for failure in failures[:_SHOWN_FAILURES]:
        table.add_row(Text(failure.id), Text(failure.reason))
    console.print(table)
    if count > _SHOWN_FAILURES:
        console.print("--json lists up to 1,000 of them.")
