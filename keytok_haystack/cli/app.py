# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import json
import logging
import os
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, NoReturn

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from keytok_haystack.cli.fitting import Changes, timed_calibration, timed_fit
from keytok_haystack.decoders import REGULARIZATION
from keytok_haystack.decoders.checkpoints import Checkpoint
from keytok_haystack.encoders import Embedded, embed, head_of, head_source, overview
from keytok_haystack.encoders.cache import RECORD
from keytok_haystack.engines import Engine, index_definition
from keytok_haystack.evaluation import Collection, read_texts
from keytok_haystack.model import KeyTokenModel, check_replaceable
from keytok_haystack.sparse_vectors.rank_features import unescape_feature
from keytok_haystack.training.settings import Settings, TargetRule
from keytok_haystack.utils.checks import check_embeddings
from keytok_haystack.vocabulary import Vocabulary
from keytok_haystack.weighting import Weighting

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

# typer's own errors derive from click's, or in later versions from its copy of click's, so the base is found by name
_USAGE_ERROR: type[Exception] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException" and issubclass(base, Exception)
)

EmbedderOption = Annotated[
    str | None,
    typer.Option(
        help="A sentence-transformers model, hub id or path; or a preset, NAME or NAME:CHECKPOINT (keytok presets)."
    ),
]
MaxTokensOption = Annotated[
    int | None, typer.Option(help="How long a preset's input may be, prompt included.", min=1, show_default=False)
]
EngineOption = Annotated[Engine, typer.Option(help="The search engine.")]
UrlOption = Annotated[str, typer.Option(help="The server's address.")]
IndexOption = Annotated[str, typer.Option(help="The name of an index that exists, or of an alias.")]
EmbeddingFieldOption = Annotated[str, typer.Option(help="The index's field of dense vectors.")]
ContentFieldOption = Annotated[str, typer.Option(help="The index's field of texts.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of text for people.")]


@app.callback()
def about() -> None:
    """Sparse vectors over readable tokens, from any dense embedding."""


def run() -> None:
    """Run the command line; bad input ends it with exit code 2 and one line that says what is wrong."""
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it reports that a head is not loaded
    try:
        sys.exit(app(standalone_mode=False))
    except _USAGE_ERROR as error:
        _fail(error.format_message())  # type: ignore[attr-defined]
    except Exception as error:
        if not isinstance(error, ValueError | OSError) and not _is_of_an_engine(error):
            raise
        _fail(str(error))


def _is_of_an_engine(error: Exception) -> bool:
    """Whether an engine has failed; only a command that talks to one has imported what is raised then."""
    errors = sys.modules.get("haystack.document_stores.errors")
    return errors is not None and isinstance(error, errors.DocumentStoreError)


def _fail(message: str) -> NoReturn:
    if not message:  # no command was given, and the help has been shown
        sys.exit(2)
    line = Text.assemble(("error: ", "red"), " ".join(message.split()))
    Console(stderr=True, highlight=False).print(line, soft_wrap=True)
    sys.exit(2)


@app.command("demo")
def demo_command(
    output: Annotated[Path, typer.Option(help="Where to put the model, the chart and the results.")] = Path(
        "keytok-demo"
    ),
    engine: Annotated[
        Engine | None, typer.Option(help="Index in this search engine, instead of the embedded index.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The engine's address. Default: http://localhost:9200.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """
    Run the whole thing on a real collection: Cranfield, all-MiniLM-L6-v2, no server, no network.

    With --engine, on a real OpenSearch or Elasticsearch: the index 'keytok-demo' there is made anew.
    """
    if url is not None and engine is None:
        msg = "--url needs an --engine: opensearch or elasticsearch."
        raise ValueError(msg)
    from keytok_haystack.cli.demo import demo  # noqa: PLC0415  # needs the extra demo

    demo(output, engine, url, as_json=as_json)


@app.command("fit")
def fit_command(
    output: Annotated[Path, typer.Option(help="The folder of the key-token model to write.")],
    data: Annotated[
        Path | None, typer.Argument(help="Texts: a folder in BEIR's layout, or a JSONL file.", show_default=False)
    ] = None,
    embedder: EmbedderOption = None,
    max_tokens: MaxTokensOption = None,
    embeddings: Annotated[Path | None, typer.Option(help="Ready-made embeddings of the texts, (n, d), .npy.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Whose tokenizer to use: hub id or path. Default: the embedder's.")
    ] = None,
    engine: Annotated[
        Engine | None, typer.Option(help="Fit to documents of this search engine, in place of DATA: texts and vectors.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The server's address.")] = None,
    index: Annotated[str | None, typer.Option(help="The name of its index, or of an alias.")] = None,
    embedding_field: EmbeddingFieldOption = "embedding",
    content_field: ContentFieldOption = "content",
    sample: Annotated[
        int, typer.Option(help="How many documents of the index to fit to at most, drawn at random.", min=1)
    ] = 100_000,
    k: Annotated[int, typer.Option(help="How many key tokens a document keeps.")] = Weighting.k_document,
    m: Annotated[int, typer.Option(help="How many aligned tokens a query has.")] = Weighting.m_query,
    regularization: Annotated[
        str, typer.Option(help="Ridge penalty in units of the embeddings' variance, or 'gcv' to choose it.")
    ] = str(REGULARIZATION),
    min_df: Annotated[int, typer.Option(help="Do not fit tokens of fewer texts.")] = 2,
    literal_share: Annotated[
        float,
        typer.Option(help="How much a document's own tokens count beside what its embedding says: from 0 to below 1."),
    ] = Weighting.literal_share,
    head: Annotated[
        bool,
        typer.Option(
            "--head",
            help="Fit no decoder: read the head that belongs to the embedder (LM head, MLM head, word embeddings).",
        ),
    ] = False,
    keep: Annotated[
        float | None,
        typer.Option(
            help="With --head: keep this share of the head's spectrum, its bulk (EmbedFilter), such as 0.9.",
            show_default=False,
        ),
    ] = None,
    refine: Annotated[
        bool, typer.Option("--refine", help="Refine the model by self-distillation; needs torch. Can be resumed.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the random choices of refinement.", min=0)] = 0,
    device: Annotated[
        str | None, typer.Option(help="Where to refine, such as cpu or cuda. Default: a GPU if there is one.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fit a key-token model to your texts, with your embedder: no labels, no GPU, seconds beyond the embedding."""
    source, vocabulary_source = _checked_fit_sources(data, engine, url, index, embedder, embeddings, tokenizer)
    penalty: float | Literal["gcv"] = "gcv" if regularization == "gcv" else _positive_number(regularization)
    weighting = Weighting(k_document=k, m_query=m, literal_share=literal_share)
    check_replaceable(output)
    if refine:
        from keytok_haystack.utils.device import usable_device  # noqa: PLC0415  # needs torch

        usable_device(device)
    if keep is not None and not head:
        msg = "--keep is for --head: what is fitted to texts has no spectrum of its own."
        raise ValueError(msg)
    decoder = _head(embedder, tokenizer) if head else None
    vocabulary = decoder.vocabulary if decoder else _vocabulary_of(vocabulary_source)
    if isinstance(source, _Index):
        texts, embedded = _of_index(source, embedding_field, content_field, sample)
    else:
        texts = read_texts(source)
        embedded = (
            embed(texts, embedder, max_tokens=max_tokens, progress_bar=_is_interactive())
            if embedder
            else _ready_made(embeddings, len(texts))
        )
    if decoder is not None:
        head_model = replace(decoder, weighting=weighting)
        model = timed_calibration(head_model, embedded.embeddings, texts, keep, embedder=embedder)
    else:
        model = timed_fit(
            embedded.embeddings,
            texts,
            vocabulary,
            progress_bar=_is_interactive(),
            regularization=penalty,
            min_df=min_df,
            weighting=weighting,
            embedder=embedder,
        )
    changes = None
    if refine:
        fitted, unfinished = model, output.with_name(f".{output.name}.refining")
        model = fitted.refine(
            embedded.embeddings,
            texts,
            seed=seed,
            device=device,
            checkpoint=unfinished,
            progress_bar=_is_interactive(),
        )
        changes = Changes.measure(fitted, model, embedded.embeddings, texts)
    model.save(output)
    if as_json:
        summary = {
            "output": str(output),
            "fingerprint": model.fingerprint,
            "texts": len(texts),
            "dimension": model.dimension,
            "decoder": model.source,
            "features": len(model.decoder),
            "seconds": {"embed": embedded.seconds, "fit": model.fit_seconds, "refine": model.refine_seconds},
            "refinement": None if changes is None else asdict(changes),
        }
        typer.echo(json.dumps(summary, indent=2))
        return
    console = Console(highlight=False)
    console.print(
        f"[bold]{escape(str(output))}[/bold]: {len(model.decoder):,} features from {len(texts):,} texts "
        f"in {model.fit_seconds:.1f} s{_embedding_note(embedded)}"
    )
    if changes is not None:
        console.print(f"Refined in {model.refine_seconds:.1f} s.", changes.table())
    console.print(_token_table(model, texts[:1], embedded.embeddings[:1], top=12))
    if embedder:
        console.print(f'\nNext: keytok tokens {output} "a text of yours"', soft_wrap=True, markup=False)


@app.command("tokens")
def tokens_command(
    model: Annotated[Path, typer.Argument(help="The folder of a key-token model.")],
    texts: Annotated[list[str], typer.Argument(help="Texts to read.")],
    embedder: EmbedderOption = None,
    top: Annotated[int, typer.Option(help="How many tokens to show.", min=1)] = 16,
    as_json: JsonFlag = False,
) -> None:
    """Show the key tokens of texts: what their embeddings say, in words."""
    loaded = KeyTokenModel.load(model)
    embedded = embed(texts, _embedder_of(loaded, embedder), progress_bar=False)
    if as_json:
        weights = loaded.encode_documents(embedded.embeddings, top_k=top)
        rows = [
            {"text": text, "key_tokens": {unescape_feature(key): weight for key, weight in tokens.items()}}
            for text, tokens in zip(texts, loaded.document_tokens(weights), strict=True)
        ]
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    Console(highlight=False).print(_token_table(loaded, texts, embedded.embeddings, top))


@app.command("presets")
def presets_command() -> None:
    """List the language models that are known by name, and how each of them is run."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("name", no_wrap=True, style="bold")
    for column in ("checkpoint", "pooling", "attention", "head of"):
        table.add_column(column, overflow="fold")
    for row in overview():
        table.add_row(*row)
    Console(highlight=False).print(table)


@app.command("mapping")
def mapping_command(
    model: Annotated[Path, typer.Argument(help="The key-token model that documents are written with.")],
    engine: EngineOption,
    field: Annotated[str, typer.Option(help="The field of the key tokens.")] = "key_tokens",
    dense: Annotated[bool, typer.Option(help="Whether the index holds the dense vectors, too.")] = True,
    create: Annotated[
        bool, typer.Option("--create", help="Create the index, or add the field to an index that exists.")
    ] = False,
    url: Annotated[str | None, typer.Option(help="The server's address; its version decides some settings.")] = None,
    index: Annotated[str | None, typer.Option(help="The name of the index to create.")] = None,
) -> None:
    """Print what an index for key tokens needs, or create it: settings and mappings for OpenSearch or Elasticsearch."""
    loaded = KeyTokenModel.load(model)
    dimension = loaded.dimension if dense else None
    if create and not (url and index):
        msg = "--create needs the --url of the server and the name of the --index."
        raise ValueError(msg)
    if index and not create:
        msg = "--index goes with --create."
        raise ValueError(msg)
    if not url:
        typer.echo(json.dumps(index_definition(engine, dimension, loaded, field=field), indent=2))
        return
    from keytok_haystack.engines.connection import connected, document_store  # noqa: PLC0415  # needs an extra
    from keytok_haystack.live_index import create_index  # noqa: PLC0415  # needs an extra

    with connected(document_store(engine, url, index or "*")) as connection:
        definition = index_definition(engine, dimension, loaded, field=field, version=connection.version)
        if not index:
            typer.echo(json.dumps(definition, indent=2))
            return
        done = create_index(connection, definition, field, loaded.fingerprint)
        note = ""
        if connection.adapter.leaves_vectors_out(connection.client, index):
            note = (
                f" But '{index}' leaves vectors out of _source (index.mapping.exclude_source_vectors), which only a "
                "new index can change: the hits of other retrievers come without key tokens and cannot be explained."
            )
    typer.echo(
        {
            "created": f"Created the index '{index}' with the field '{field}' for the model {loaded.fingerprint}.",
            "extended": f"Added the field '{field}' for the model {loaded.fingerprint} to the index '{index}'.",
            "marked": f"Noted in the index '{index}' that its field '{field}' is for the model {loaded.fingerprint}.",
            "kept": f"The index '{index}' already has the field '{field}' for the model {loaded.fingerprint}.",
        }[done]
        + note
    )


@app.command("backfill")
def backfill_command(
    engine: EngineOption,
    url: UrlOption,
    index: IndexOption,
    model: Annotated[Path, typer.Option(help="The key-token model, for embeddings of the kind that the index has.")],
    embedding_field: EmbeddingFieldOption = "embedding",
    content_field: ContentFieldOption = "content",
    field: Annotated[str, typer.Option(help="The field of the key tokens to write.")] = "key_tokens",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, and show what would be done.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave documents alone that have key tokens, without looking at them.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """
    Give the documents of an index key tokens, made of the dense vectors that it has: nothing is embedded again.

    All other fields survive as they are, what others write meanwhile is not overwritten, and the command can be run
    again at any time: what is done is not written twice.
    """
    from keytok_haystack.cli.backfilling import show_report, show_trial  # noqa: PLC0415  # needs an extra
    from keytok_haystack.engines.connection import document_store  # noqa: PLC0415
    from keytok_haystack.live_index import Fields, backfill, trial  # noqa: PLC0415

    loaded = KeyTokenModel.load(model)
    store, fields = document_store(engine, url, index), Fields(embedding_field, content_field, field)
    if dry_run:
        show_trial(trial(store, loaded, fields), index, field, as_json=as_json)
        return
    report = backfill(store, loaded, fields, resume=resume, progress_bar=_is_interactive())
    done = f"{report.written:,} of {report.documents:,} documents have got key tokens in '{field}'"
    show_report(report, index, done, f"{report.already:,} had them", as_json=as_json)
    if report.failed:
        raise typer.Exit(1)


@app.command("drop")
def drop_command(
    engine: EngineOption,
    url: UrlOption,
    index: IndexOption,
    field: Annotated[str, typer.Option(help="The field of key tokens to empty.")],
    as_json: JsonFlag = False,
) -> None:
    """Take a field of key tokens out of all documents of an index, when another has taken its place."""
    from keytok_haystack.cli.backfilling import show_report  # noqa: PLC0415  # needs an extra
    from keytok_haystack.engines.connection import document_store  # noqa: PLC0415
    from keytok_haystack.live_index import drop  # noqa: PLC0415

    report = drop(document_store(engine, url, index), field, progress_bar=_is_interactive())
    done = f"'{field}' was taken out of {report.written:,} of {report.documents:,} documents"
    show_report(report, index, done, f"{report.already:,} did not have it", as_json=as_json)
    if report.failed:
        raise typer.Exit(1)


@app.command("evaluate")
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
    from keytok_haystack.evaluation.report import tables  # noqa: PLC0415

    evaluation = Evaluation(collection, split, documents, queries, embedder, _is_interactive())
    if given is not None:
        report = evaluation.of_model(given)
    else:
        report = evaluation.of_fitted_models(vocabulary, other or [], seed, refine=refine)
    Console(highlight=False).print(tables(report))
    write(report, json_path, markdown_path, png_path)


@app.command("align")
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
    from keytok_haystack.evaluation.alignment_page import table  # noqa: PLC0415

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
        progress_bar=_is_interactive(),
    )
    Console(highlight=False).print(table(report))
    write(report, html_path, json_path)


@app.command("train")
def train_command(
    data: Annotated[list[Path], typer.Argument(help="Texts: folders in BEIR's layout, or JSONL files.")],
    model: Annotated[
        str, typer.Option(help="What to train: a preset, NAME or NAME:CHECKPOINT, or another language model.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="The folder of the trained embedder to write.", show_default=False)
    ] = None,
    targets: Annotated[
        Literal["data", "model", "both"],
        typer.Option(help="What to teach: the texts' own tokens, what the model's embeddings say already, or both."),
    ] = TargetRule.kind,
    share: Annotated[float, typer.Option(help="The share of own tokens in targets of both kinds.")] = TargetRule.share,
    min_df: Annotated[int, typer.Option(help="No target tokens of fewer texts.", min=1)] = TargetRule.min_df,
    max_df: Annotated[
        float, typer.Option(help="No target tokens of more than this share of the texts.")
    ] = TargetRule.max_df,
    stop_words: Annotated[
        str, typer.Option(help="No target tokens of these: a language, a file with one word in a line, or none.")
    ] = "english",
    show_targets: Annotated[
        int | None, typer.Option(help="Show the targets of this many texts, and do not train.", min=1)
    ] = None,
    max_tokens: MaxTokensOption = None,
    epochs: Annotated[float, typer.Option(help="How often each text is seen.")] = Settings.epochs,
    batch_size: Annotated[int, typer.Option(help="How many texts are in a step.")] = Settings.batch_size,
    accumulate: Annotated[
        int, typer.Option(help="In how many parts a step's texts go through the model, to save memory.")
    ] = Settings.accumulate,
    learning_rate: Annotated[
        float | None, typer.Option(help="The highest. Default: 0.001 for LoRA, 0.0001 for full.", show_default=False)
    ] = None,
    temperature: Annotated[float, typer.Option(help="What logits are divided by.")] = Settings.temperature,
    method: Annotated[
        Literal["lora", "full"] | None,
        typer.Option(help="Default: lora for a causal language model, full for an encoder.", show_default=False),
    ] = None,
    rank: Annotated[int, typer.Option(help="The rank of LoRA.")] = Settings.rank,
    layers: Annotated[
        float | None,
        typer.Option(help="Train this share of the layers, the last. Default: 0.5, or 1 for full.", show_default=False),
    ] = None,
    bf16: Annotated[
        bool | None,
        typer.Option(
            "--bf16/--no-bf16", help="Compute in bfloat16. Default: on a GPU that has it.", show_default=False
        ),
    ] = None,
    checkpoint_steps: Annotated[
        int, typer.Option(help="After how many steps to write a checkpoint and to measure what is held out.")
    ] = Settings.checkpoint_steps,
    seed: Annotated[int, typer.Option(help="Of what is held out, and of the order of texts.", min=0)] = 0,
    evaluate_on: Annotated[
        list[Path] | None,
        typer.Option("--evaluate", help="Measure retrieval here, too: a folder in BEIR's layout. Can be repeated."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """
    Train an embedder on your texts, without labels (Text2Token): its embeddings learn to say the texts' key tokens.

    An interrupted run goes on where it was when the command is given again.
    """
    from keytok_haystack.cli import training  # noqa: PLC0415  # needs the extra train

    base = training.embedder_of(model)
    settings = Settings(
        method=method,
        rank=rank,
        layers=layers,
        epochs=epochs,
        batch_size=batch_size,
        accumulate=accumulate,
        learning_rate=learning_rate,
        temperature=temperature,
        bf16=bf16,
        checkpoint_steps=checkpoint_steps,
        seed=seed,
    )
    rule = TargetRule(targets, share, min_df, max_df, training.stop_words(stop_words))
    collections = training.collections_of(evaluate_on or ())
    dtype = {True: "bfloat16", False: "float32", None: None}[bf16]
    task = training.Task(base, training.texts_of(data), rule, max_tokens, dtype, _is_interactive())
    console = Console(highlight=False)
    if show_targets is not None:
        console.print(training.targets_table(task, show_targets))
        return
    if output is None:
        msg = "Name the folder to write: --output DIR. (--show-targets needs none.)"
        raise ValueError(msg)
    training.check_output(output, base)
    outcome = training.train_embedder(task, settings, collections, output)
    if as_json:
        typer.echo((output / RECORD).read_text(encoding="utf-8"))
        return
    console.print(training.summary(outcome, task, output))


class _Index(NamedTuple):
    """The index with the documents that a model is fitted to."""

    engine: Engine
    url: str
    name: str


def _checked_fit_sources(
    data: Path | None,
    engine: Engine | None,
    url: str | None,
    index: str | None,
    embedder: str | None,
    embeddings: Path | None,
    tokenizer: str | None,
) -> tuple[Path | _Index, str]:
    """Refuse what is no one source of texts and embeddings; return it, and that of the tokenizer."""
    source: Path | _Index
    if data is not None and not (engine or url or index):
        source = data
    elif data is None and engine is not None and url is not None and index is not None:
        source = _Index(engine, url, index)
    else:
        msg = "Give either DATA with texts, or --engine, --url and --index of documents with texts and embeddings."
        raise ValueError(msg)
    if data is None and embeddings is not None:
        msg = "--embeddings is for DATA: the documents of an index have their embeddings."
        raise ValueError(msg)
    if data is not None and (embedder is None) == (embeddings is None):
        msg = "Give either --embedder, to embed the texts, or --embeddings with ready-made ones."
        raise ValueError(msg)
    if (vocabulary_source := tokenizer or embedder) is None:
        msg = "Give a --tokenizer: its tokens become the readable features. Any language model's will do."
        raise ValueError(msg)
    return source, vocabulary_source


def _of_index(index: _Index, embedding_field: str, content_field: str, size: int) -> tuple[list[str], Embedded]:
    """Return the texts and embeddings of documents of an index."""
    from keytok_haystack.engines.connection import document_store  # noqa: PLC0415  # needs an extra
    from keytok_haystack.live_index import Fields, sample  # noqa: PLC0415  # needs an extra

    store, fields = document_store(*index), Fields(embedding_field, content_field)
    texts, embeddings = sample(store, size, fields, progress_bar=_is_interactive())
    return texts, Embedded(embeddings)


def _vocabulary_to_fit(source: str | None) -> Vocabulary:
    if source is None:
        msg = "Give --embedder, --model, or for ready-made embeddings a --tokenizer, whose tokens become the features."
        raise ValueError(msg)
    return _vocabulary_of(source)


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
        return _ready_made(documents, len(texts)), _ready_made(queries, len(query_texts))
    if documents is not None or queries is not None:
        msg = "Ready-made embeddings are needed of both: give --embeddings and --query-embeddings."
        raise ValueError(msg)
    name, interactive = _embedder_of(model, embedder), _is_interactive()
    return (
        embed(texts, name, max_tokens=max_tokens, progress_bar=interactive),
        embed(query_texts, name, role="query", max_tokens=max_tokens, progress_bar=interactive),
    )


def _embedder_of(model: KeyTokenModel | None, embedder: str | None) -> str:
    name = embedder or (model.embedder if model is not None else None)
    if name is None:
        msg = "It is not known which embedder to use: give --embedder."
        raise ValueError(msg)
    return name


def _vocabulary_of(source: str) -> Vocabulary:
    """Return the vocabulary of a `tokenizer.json`, of the model in a folder, or of one on the hub."""
    path = Path(source)
    return Vocabulary.from_tokenizer(path if path.exists() else Checkpoint.open(head_source(source)).tokenizer())


def _head(embedder: str | None, tokenizer: str | None) -> KeyTokenModel:
    if embedder is None or tokenizer is not None:
        msg = "--head reads the head and the tokenizer of the --embedder: name it, and leave --tokenizer out."
        raise ValueError(msg)
    return head_of(embedder)


def _positive_number(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        msg = f"--regularization must be a positive number or 'gcv', not '{value}'."
        raise ValueError(msg)
    return number


def _ready_made(file: Path | None, expected: int) -> Embedded:
    if file is None or not file.is_file():
        msg = f"There is no file '{file}'."
        raise FileNotFoundError(msg)
    try:
        loaded = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        msg = f"'{file}' is not an array of numbers in .npy format."
        raise ValueError(msg) from error
    if not isinstance(loaded, np.ndarray):
        msg = f"'{file}' is an archive: save the one array of embeddings in .npy format."
        raise ValueError(msg)  # noqa: TRY004  # bad input, not a bug
    array = check_embeddings(loaded)
    if len(array) != expected:
        msg = f"'{file}' has {len(array)} embeddings for {expected} texts."
        raise ValueError(msg)
    return Embedded(array)


def _is_interactive() -> bool:
    return sys.stderr.isatty()


def _embedding_note(embedded: Embedded) -> str:
    if embedded.seconds is None:
        return ""
    return f" (embedding them: {'cached' if embedded.cached else f'{embedded.seconds:.1f} s'})"


def _token_table(model: KeyTokenModel, texts: list[str], embeddings: NDArray[np.float32], top: int) -> Table:
    """Return the key tokens of texts as bars."""
    grid = Table(show_header=False, box=None, padding=(0, 1))
    grid.add_column(justify="right", style="bold")
    grid.add_column(justify="right")
    grid.add_column()
    weights = model.encode_documents(embeddings, top_k=top)
    for text, tokens in zip(texts, model.document_tokens(weights), strict=True):
        grid.add_row("", "", Text(text[:90] + ("…" if len(text) > 90 else ""), style="dim"))
        strongest = max(tokens.values(), default=1.0)
        for key, weight in tokens.items():
            bar = Text("█" * round(32 * weight / strongest), style="#d9822b")
            grid.add_row(Text(unescape_feature(key)), f"{weight:.2f}", bar)
    return grid
