# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from keytok_haystack.cli.inputs import embedder_of, is_interactive, ready_made, vocabulary_of
from keytok_haystack.cli.options import EmbedderOption, MaxTokensOption
from keytok_haystack.encoders import Embedded, embed
from keytok_haystack.evaluation import Collection
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.vocabulary import Vocabulary


def evaluate_command(
    data: Annotated[Path, typer.Argument(help="A test collection: a folder in BEIR's layout.")],
    split: Annotated[str, typer.Option(help="Which judgements to use: qrels/SPLIT.tsv.")] = "test",
    model: Annotated[
        Path | None, typer.Option(help="The key-token model. Without one, it is fitted to the collection's documents.")
    ] = None,
    embedder: EmbedderOption = None,
    max_tokens: MaxTokensOption = None,
    embeddings: Annotated[Path | None, typer.Option(help="Ready-made embeddings of the documents, .npy.")] = None,
    query_embeddings: Annotated[
        Path | None, typer.Option(help="Ready-made embeddings of the judged queries, in the order of the file, .npy.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Whose tokenizer to fit with: hub id or path. Default: the embedder's.")
    ] = None,
    refine: Annotated[bool, typer.Option("--refine", help="Refine the model, and measure that, too.")] = False,
    other: Annotated[
        list[Path] | None,
        typer.Option(help="Fit a model to this collection, too: a folder in BEIR's layout, or a JSONL file."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides which half of the documents a model is fitted to.", min=0)] = 0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the results here as JSON.")] = None,
    markdown_path: Annotated[Path | None, typer.Option("--markdown", help="Write the tables here as Markdown.")] = None,
    png_path: Annotated[Path | None, typer.Option("--png", help="Draw the results here.")] = None,
) -> None:
    """
    Measure key tokens next to the dense vectors and BM25 on a test collection.

    Without --model, models are fitted to all documents, to a random half of them, and to each --other collection.
    """
    if model is not None and (tokenizer or refine or other):
        msg = "--tokenizer, --refine and --other are for models that are fitted here: leave them out, or --model."
        raise ValueError(msg)
    given = None if model is None else KeyTokenModel.load(model)
    vocabulary = _vocabulary_to_fit(tokenizer or embedder) if given is None else given.vocabulary
    collection = Collection.load(data, split)
    documents, queries = _embedded(collection, embeddings, query_embeddings, given, embedder, max_tokens)
    from keytok_haystack.cli.evaluation import Evaluation, write  # noqa: PLC0415  # needs the extra eval
    from keytok_haystack.evaluation.tables import terminal_table  # noqa: PLC0415

    evaluation = Evaluation(collection, split, documents, queries, embedder, is_interactive())
    if given is not None:
        report = evaluation.of_model(given)
    else:
        report = evaluation.of_fitted_models(vocabulary, other or [], seed, refine=refine)
    Console(highlight=False).print(terminal_table(report))
    write(report, json_path, markdown_path, png_path)


def _vocabulary_to_fit(source: str | None) -> Vocabulary:
    if source is None:
        msg = "Give --embedder, --model, or for ready-made embeddings a --tokenizer, whose tokens become the features."
        raise ValueError(msg)
    return vocabulary_of(source)


def _embedded(
    collection: Collection,
    documents: Path | None,
    queries: Path | None,
    model: KeyTokenModel | None,
    embedder: str | None,
    max_tokens: int | None,
) -> tuple[Embedded, Embedded]:
    """Return the embeddings of a collection's documents and queries: those in files, or else new ones."""
    texts, query_texts = list(collection.documents.values()), list(collection.queries.values())
    if documents is not None and queries is not None:
        return ready_made(documents, len(texts)), ready_made(queries, len(query_texts))
    if documents is not None or queries is not None:
        msg = "Ready-made embeddings are needed of both: give --embeddings and --query-embeddings."
        raise ValueError(msg)
    name, interactive = embedder_of(model, embedder), is_interactive()
    return (
        embed(texts, name, max_tokens=max_tokens, progress_bar=interactive),
        embed(query_texts, name, role="query", max_tokens=max_tokens, progress_bar=interactive),
    )
