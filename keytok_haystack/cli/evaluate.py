# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sized
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from keytok_haystack.cli.inputs import ready_made
from keytok_haystack.cli.options import EmbedderOption, LanguageOption, MaxTokensOption
from keytok_haystack.cli.terminal import terminal
from keytok_haystack.evaluation import Collection
from keytok_haystack.utils.extras import check_plots, needs
from keytok_haystack.utils.files import write_json


def evaluate_command(
    data: Annotated[Path, typer.Argument(help="Test collection: a folder in BEIR's layout.")],
    split: Annotated[str, typer.Option(help="Split of the judgements: qrels/SPLIT.tsv.")] = "test",
    model: Annotated[
        Path | None, typer.Option(help="Key-token model. Default: fit one to the collection's documents.")
    ] = None,
    embedder: EmbedderOption = None,
    max_tokens: MaxTokensOption = None,
    embeddings: Annotated[Path | None, typer.Option(help="Ready-made embeddings of the documents, .npy.")] = None,
    query_embeddings: Annotated[
        Path | None, typer.Option(help="Ready-made embeddings of the judged queries, in the order of the file, .npy.")
    ] = None,
    language: LanguageOption = None,
    refine: Annotated[bool, typer.Option("--refine", help="Refine the model, and measure that, too.")] = False,
    other: Annotated[
        list[Path] | None,
        typer.Option(help="Fit a model to these texts, too: a folder in BEIR's layout, or a file as for `keytok fit`."),
    ] = None,
    splade: Annotated[
        str | None, typer.Option(help="SPLADE to compare with: a sparse encoder over tokens, hub id or path.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random half of documents to fit a model to.", min=0)] = 0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Path of a JSON file with the results.")] = None,
    markdown_path: Annotated[
        Path | None, typer.Option("--markdown", help="Path of a Markdown page with the tables.")
    ] = None,
    png_path: Annotated[Path | None, typer.Option("--png", help="Path of a PNG chart of the results.")] = None,
) -> None:
    """
    Measure key tokens next to the dense vectors and BM25 on a test collection.

    Without --model, models are fitted to all documents, to a random half of them, and to each --other collection.
    """
    with needs("eval", "The evaluation needs an extra"):
        from keytok_haystack.evaluation import evaluate  # noqa: PLC0415
        from keytok_haystack.evaluation.chart import draw_chart  # noqa: PLC0415
        from keytok_haystack.evaluation.tables import terminal_table, write_markdown  # noqa: PLC0415
    if png_path is not None:
        check_plots()

    collection = Collection.load(data, split)
    report = evaluate(
        collection,
        split=split,
        embedder=embedder,
        model=model,
        language=language,
        embeddings=_array(embeddings, collection.documents),
        query_embeddings=_array(query_embeddings, collection.queries),
        others=other or [],
        splade=splade,
        refine=refine,
        seed=seed,
        max_tokens=max_tokens,
        progress_bar=True,
    )
    if json_path is not None:
        write_json(json_path, report.to_dict())
    if markdown_path is not None:
        write_markdown(markdown_path, report)
    if png_path is not None:
        draw_chart(png_path, report)
    terminal().print(terminal_table(report))


def _array(file: Path | None, texts: Sized) -> NDArray[np.float32] | None:
    return None if file is None else ready_made(file, len(texts)).embeddings
