# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from keytok_haystack.cli.inputs import is_interactive
from keytok_haystack.cli.options import MaxTokensOption


def align_command(
    model: Annotated[str, typer.Option(help="The embedder to look into, as for --embedder of the other commands.")],
    data: Annotated[Path, typer.Option(help="Texts: a folder in BEIR's layout, or a JSONL file.")],
    split: Annotated[
        str | None, typer.Option(help="The judgements to measure retrieval with. Default: test, if the folder has it.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="What decodes the embeddings: a checkpoint or key-token model. Default: its own.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="The embedder that it was trained from, to see what training has changed.")
    ] = None,
    instruction: Annotated[
        list[str] | None, typer.Option(help="Compare texts without and with this instruction. Can be repeated.")
    ] = None,
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Explain the similarity of these two texts. Default: texts of the data that are near."),
    ] = None,
    max_texts: Annotated[
        int, typer.Option(help="Of more texts draw as many, and do not measure retrieval.", min=2)
    ] = 2000,
    max_tokens: MaxTokensOption = None,
    html_path: Annotated[Path | None, typer.Option("--html", help="Write the report here as a page.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the report here as JSON.")] = None,
) -> None:
    """
    Show what is inside embeddings: their alignment with tokens, the principal components, and what removing them does.
    """
    from keytok_haystack.cli.aligning import align, write  # noqa: PLC0415  # needs the extras eval and plots
    from keytok_haystack.evaluation.alignment.page import adjustment_table  # noqa: PLC0415

    report = align(
        model,
        data,
        split=split,
        head=head,
        backbone=backbone,
        instructions=instruction or [],
        pair=pair,
        max_texts=max_texts,
        max_tokens=max_tokens,
        progress_bar=is_interactive(),
    )
    Console(highlight=False).print(adjustment_table(report))
    write(report, html_path, json_path)
