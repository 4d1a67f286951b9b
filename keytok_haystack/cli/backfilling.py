# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What the commands that change an index show of their work."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from keytok_haystack.live_index import Failure, Report, Trial
from keytok_haystack.sparse_vectors.rank_features import unescape_feature

_SHOWN_FAILURES = 10
_SHOWN_TOKENS = 16


def show_report(report: Report, index: str, done: str, had: str, *, as_json: bool) -> None:
    """
    Show what has become of the documents of an index.

    :param done: What has been done to those that were changed.
    :param had: What is said of those that were as they should be.
    """
    if as_json:
        _print_json(asdict(report))
        return
    console = Console(highlight=False)
    rate = report.documents / report.seconds if report.seconds else 0.0
    parts = [f"[bold]{escape(index)}[/bold]: {escape(done)}", had]
    if report.without_embedding:
        parts.append(f"{report.without_embedding:,} without an embedding")
    parts.append(f"{report.seconds:.1f} s, {rate:,.0f} documents/s")
    console.print(", ".join(parts), soft_wrap=True)
    _failures(console, report.failures, report.failed)


def show_trial(trial: Trial, index: str, field: str, *, as_json: bool) -> None:
    """Show what a backfill would do."""
    if as_json:
        examples = [
            {"text": text, "key_tokens": {unescape_feature(key): weight for key, weight in tokens.items()}}
            for text, tokens in trial.examples
        ]
        _print_json({**asdict(trial), "examples": examples})
        return
    console = Console(highlight=False)
    would = trial.tried - trial.already - trial.without_embedding - len(trial.failures)
    console.print(
        f"[bold]{escape(index)}[/bold]: {trial.documents:,} documents. Of the first {trial.tried:,}, {would:,} would "
        f"get key tokens in '{escape(field)}', {trial.already:,} have them, {trial.without_embedding:,} are "
        "without an embedding. Nothing was changed.",
        soft_wrap=True,
    )
    _failures(console, trial.failures, len(trial.failures))
    if trial.examples:
        table = Table("text", "the key tokens that it would get, strongest first", show_lines=True)
        for text, tokens in trial.examples:
            shown = " ".join(unescape_feature(key) for key in list(tokens)[:_SHOWN_TOKENS])
            table.add_row(Text(text[:110]), Text(shown))
        console.print(table)


def _failures(console: Console, failures: Sequence[Failure], count: int) -> None:
    if not count:
        return
    console.print(f"[red]{count:,} documents could not be changed[/red], the others are not affected:", soft_wrap=True)
    table = Table("document", "reason", box=None, header_style="dim")
    for failure in failures[:_SHOWN_FAILURES]:
        table.add_row(Text(failure.id), Text(failure.reason))
    console.print(table)
    if count > _SHOWN_FAILURES:
        console.print("--json lists up to 1,000 of them.")


def _print_json(result: dict[str, Any]) -> None:
    typer.echo(json.dumps(result, ensure_ascii=False, indent=2))
