# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Annotated

import typer

from keytok_haystack.cli.options import MaxTokensOption, TextFieldOption
from keytok_haystack.cli.terminal import terminal
from keytok_haystack.utils.extras import check_plots, needs
from keytok_haystack.utils.files import write_json


def align_command(
    model: Annotated[str, typer.Option(help="Embedder to look into, as for --embedder of the other commands.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Texts: a folder in BEIR's layout, or a file: .jsonl, .csv, .tsv or .txt, also .gz, or .parquet."
        ),
    ],
    text_field: TextFieldOption = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the judgements for retrieval. Default: test, if the folder has it.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="Head that decodes the embeddings: a checkpoint or key-token model. Default: its own, or a fitted one."
        ),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Embedder that it was trained from, to show what training has changed.")
    ] = None,
    instruction: Annotated[
        list[str] | None, typer.Option(help="Compare texts without and with this instruction. Can be repeated.")
    ] = None,
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Explain the similarity of these two texts. Default: similar texts of the data."),
    ] = None,
    max_texts: Annotated[
        int, typer.Option(help="Sample this many texts if there are more; retrieval is then not measured.", min=2)
    ] = 2000,
    max_tokens: MaxTokensOption = None,
    html_path: Annotated[Path | None, typer.Option("--html", help="Path of an HTML page with the report.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Path of a JSON file with the report.")] = None,
) -> None:
    """
    Show what embeddings say: their alignment with tokens, the principal components, and the effect of removing them.
    """
    with needs("eval", "The report needs an extra"):
        from keytok_haystack.evaluation import TextFields, align  # noqa: PLC0415
        from keytok_haystack.evaluation.alignment.page import adjustment_table, write_page  # noqa: PLC0415
    if html_path is not None:
        check_plots()

    report = align(
        model,
        data,
        fields=TextFields(text_field or ()),
        split=split,
        head=head,
        backbone=backbone,
        instructions=instruction or [],
        pair=pair,
        max_texts=max_texts,
        max_tokens=max_tokens,
        progress_bar=True,
    )
    if html_path is not None:
        write_page(html_path, report)
    if json_path is not None:
        write_json(json_path, report.to_dict())
    terminal().print(adjustment_table(report))
