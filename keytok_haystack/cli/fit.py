# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from keytok_haystack.alignment_measures import RefinementEffect
from keytok_haystack.cli.confirmation import confirm
from keytok_haystack.cli.display import token_table
from keytok_haystack.cli.inputs import ready_made
from keytok_haystack.cli.options import (
    CaCertOption,
    ContentFieldOption,
    EmbedderOption,
    EmbeddingFieldOption,
    IdFieldOption,
    InsecureFlag,
    JsonFlag,
    LanguageOption,
    MaxTokensOption,
    TextFieldOption,
    YesFlag,
)
from keytok_haystack.cli.terminal import print_json, terminal, warn
from keytok_haystack.decoders import REGULARIZATION, calibrate, fit
from keytok_haystack.decoders import refine as refine_model
from keytok_haystack.decoders.refine import check_enough_texts
from keytok_haystack.encoders import Embedded, embed, head_of
from keytok_haystack.engines import Engine
from keytok_haystack.evaluation import TextFields, stream_texts
from keytok_haystack.model import Comprehension, KeyTokenModel
from keytok_haystack.model_folder import check_replaceable, has_model
from keytok_haystack.utils.extras import needs, needs_engine
from keytok_haystack.utils.files import sole_writer
from keytok_haystack.utils.sampling import sampled
from keytok_haystack.vocabulary import NO_LANGUAGE, WordVocabulary, check_language, detect_language
from keytok_haystack.weighting import Weighting


def fit_command(
    output: Annotated[Path, typer.Option(help="Folder of the key-token model to write.")],
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Texts: a folder in BEIR's layout, or a file: .jsonl, .csv, .tsv or .txt, also .gz, or .parquet.",
            show_default=False,
        ),
    ] = None,
    text_field: TextFieldOption = None,
    id_field: IdFieldOption = None,
    embedder: EmbedderOption = None,
    max_tokens: MaxTokensOption = None,
    embeddings: Annotated[Path | None, typer.Option(help="Ready-made embeddings of all texts, (n, d), .npy.")] = None,
    language: LanguageOption = None,
    engine: Annotated[
        Engine | None, typer.Option(help="Search engine whose documents, texts and vectors, take the place of DATA.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Address of the server.")] = None,
    index: Annotated[str | None, typer.Option(help="Name of its index, or of an alias.")] = None,
    embedding_field: EmbeddingFieldOption = "embedding",
    content_field: ContentFieldOption = "content",
    sample: Annotated[
        int, typer.Option(help="Maximum number of texts to fit to, of DATA or of the index, drawn at random.", min=1)
    ] = 100_000,
    k: Annotated[int, typer.Option(help="Maximum number of key tokens of a document.")] = Weighting.k_document,
    m: Annotated[int, typer.Option(help="Maximum number of aligned tokens of a query.")] = Weighting.m_query,
    regularization: Annotated[
        str, typer.Option(help="Ridge penalty in units of the embeddings' variance, or 'gcv' to choose it.")
    ] = str(REGULARIZATION),
    min_df: Annotated[int, typer.Option(help="Minimum number of texts with a word that is fitted.")] = 2,
    literal_share: Annotated[
        float,
        typer.Option(
            help="Share of a document's literal tokens beside those that its embedding says: from 0 to below 1."
        ),
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
            help="With --head: share of the head's spectrum to keep, its bulk (EmbedFilter), such as 0.9.",
            show_default=False,
        ),
    ] = None,
    refine: Annotated[
        bool, typer.Option("--refine", help="Refine the model by self-distillation; needs torch.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the random choices of refinement.", min=0)] = 0,
    device: Annotated[
        str | None, typer.Option(help="Device to refine on, such as cpu or cuda. Default: a GPU if there is one.")
    ] = None,
    ca_cert: CaCertOption = None,
    insecure: InsecureFlag = False,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Fit a key-token model to your texts, with your embedder: no labels, no GPU, seconds beyond the embedding."""
    fields = TextFields(text_field or (), id_field)
    source = _checked_fit_sources(data, fields, engine, url, index, embedder, embeddings)
    if isinstance(source, _Index):
        source = source._replace(ca_cert=ca_cert, verify=not insecure)
    penalty: float | Literal["gcv"] = "gcv" if regularization == "gcv" else _positive_number(regularization)
    weighting = Weighting(k_document=k, m_query=m, literal_share=literal_share)
    check_replaceable(output)
    _check_options(language, keep, head=head, refine=refine, device=device)
    if has_model(output) and not yes:
        confirm(f"The key-token model '{output}' will be replaced.")
    decoder = _head(embedder, language) if head else None
    with sole_writer(output):
        if isinstance(source, _Index):
            texts, embedded = _of_index(source, embedding_field, content_field, sample)
            total = len(texts)  # of those that are not drawn, nothing is known
        else:
            texts, embedded, total = _of_data(source, fields, sample, embedder, max_tokens, embeddings)
        if refine:
            check_enough_texts(len(texts))
        if decoder is not None:
            head_model = replace(decoder, weighting=weighting)
            model = calibrate(head_model, embedded.embeddings, texts, kept_spectrum=keep, embedder=embedder)
        else:
            model = fit(
                embedded.embeddings,
                texts,
                language=language,
                regularization=penalty,
                min_df=min_df,
                weighting=weighting,
                embedder=embedder,
                progress_bar=True,
            )
        model.save(output)
        effect = None
        if refine:  # what is fitted is kept if that fails
            model, effect = _refined(model, embedded.embeddings, texts, seed, device)
            model.save(output)
    for warning in _warnings(model, texts, total, language):
        warn(warning)
    if as_json:
        summary = {
            "output": str(output),
            "fingerprint": model.fingerprint,
            "texts": len(texts),
            "dimension": model.dimension,
            "decoder": model.source,
            "features": len(model.decoder),
            "language": model.vocabulary.language if isinstance(model.vocabulary, WordVocabulary) else None,
            "comprehension": None if model.comprehension is None else asdict(model.comprehension),
            "seconds": {"embed": embedded.seconds, "fit": model.fit_seconds, "refine": model.refine_seconds},
            "refinement": None if effect is None else asdict(effect),
        }
        print_json(summary)
        return
    _show(output, model, texts, embedded, effect)


def _check_options(language: str | None, keep: float | None, *, head: bool, refine: bool, device: str | None) -> None:
    """Refuse options that do not go together, before any work."""
    if refine:
        with needs("refine", "Refining needs torch"):
            from keytok_haystack.utils.device import usable_device  # noqa: PLC0415

        usable_device(device)
    if keep is not None and not head:
        msg = "--keep is for --head: a fitted decoder has no spectrum of its own."
        raise ValueError(msg)
    if language is not None:
        check_language(language)


def _refined(
    model: KeyTokenModel, embeddings: NDArray[np.float32], texts: list[str], seed: int, device: str | None
) -> tuple[KeyTokenModel, RefinementEffect]:
    """Return the refined model, and what refinement has changed."""
    refined = refine_model(model, embeddings, texts, seed=seed, device=device, progress_bar=True)
    return refined, RefinementEffect.measure(model, refined, embeddings, texts)


def _show(
    output: Path, model: KeyTokenModel, texts: list[str], embedded: Embedded, effect: RefinementEffect | None
) -> None:
    """Print what has been fitted, for people."""
    console = terminal()
    console.print(
        f"[bold]{escape(str(output))}[/bold]: {len(model.decoder):,} {_kind(model)} from {len(texts):,} texts "
        f"in {model.fit_seconds:.1f} s{_embedding_note(embedded)}",
        soft_wrap=True,
    )
    if model.comprehension is not None:
        console.print(_comprehension_note(model.comprehension), soft_wrap=True)
    if effect is not None:
        console.print(f"Refined in {model.refine_seconds:.1f} s.", _effect_table(effect))
    console.print(token_table(model, texts[:1], embedded.embeddings[:1], top=12))
    if model.embedder:
        console.print(f'\nNext: keytok tokens {output} "a text of yours"', soft_wrap=True, markup=False)


class _Index(NamedTuple):
    """Index whose documents a model is fitted to."""

    engine: Engine
    url: str
    name: str
    ca_cert: Path | None = None
    verify: bool = True


def _checked_fit_sources(
    data: Path | None,
    fields: TextFields,
    engine: Engine | None,
    url: str | None,
    index: str | None,
    embedder: str | None,
    embeddings: Path | None,
) -> Path | _Index:
    """Require exactly one source of texts and embeddings, and return it."""
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
    if data is None and (fields.text or fields.id):
        msg = "--text-field and --id-field are for DATA: --content-field names the field of an index with the texts."
        raise ValueError(msg)
    if data is not None and (embedder is None) == (embeddings is None):
        msg = "Give either --embedder, to embed the texts, or --embeddings with ready-made ones."
        raise ValueError(msg)
    return source


def _of_data(
    data: Path,
    fields: TextFields,
    size: int,
    embedder: str | None,
    max_tokens: int | None,
    embeddings: Path | None,
) -> tuple[list[str], Embedded, int]:
    """Return texts of DATA, their embeddings, and the number of all texts."""
    texts, rows, total = sampled(stream_texts(data, fields), size)
    if embedder is not None:
        return texts, embed(texts, embedder, max_tokens=max_tokens), total
    given = ready_made(embeddings, total)
    return texts, given if len(texts) == total else Embedded(given.embeddings[rows]), total


def _of_index(index: _Index, embedding_field: str, content_field: str, size: int) -> tuple[list[str], Embedded]:
    """Return the texts and embeddings of documents of an index."""
    with needs_engine(index.engine):
        from keytok_haystack.engines.connection import document_store  # noqa: PLC0415
        from keytok_haystack.live_index import Fields, sample  # noqa: PLC0415

        store = document_store(index.engine, index.url, index.name, ca_cert=index.ca_cert, verify=index.verify)
    fields = Fields(embedding_field, content_field)
    texts, embeddings = sample(store, size, fields)
    return texts, Embedded(embeddings)


def _head(embedder: str | None, language: str | None) -> KeyTokenModel:
    if embedder is None or language is not None:
        msg = "--head reads the head and the tokens of the --embedder: name it, and leave --language out."
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


def _warnings(model: KeyTokenModel, texts: Sequence[str], total: int, language: str | None) -> Iterator[str]:
    """Yield what seems to be wrong with the corpus that a model was fitted to, or with its language."""
    if len(texts) < total:
        yield f"The model is fitted to {len(texts):,} of {total:,} texts, drawn at random: --sample draws more."
    if empty := sum(not text.strip() for text in texts):
        yield f"{empty:,} of the {len(texts):,} texts are empty: they say nothing about their embeddings."
    if language not in {None, NO_LANGUAGE} and (found := detect_language(texts)) != language:
        seems = "in several languages, or in one without a stemmer" if found == NO_LANGUAGE else found.capitalize()
        yield f"The texts seem to be {seems}, but --language {language} is how they were read."
    if model.comprehension is not None and model.comprehension.warning is not None:
        yield model.comprehension.warning


def _kind(model: KeyTokenModel) -> str:
    """Return what the features of a model are called: "tokens", or "words", with their language."""
    if not isinstance(model.vocabulary, WordVocabulary):
        return "tokens"
    language = model.vocabulary.language
    return "words, not stemmed," if language == NO_LANGUAGE else f"{language.capitalize()} words"


def _embedding_note(embedded: Embedded) -> str:
    if embedded.seconds is None:
        return ""
    return f" (embedding them: {'cached' if embedded.cached else f'{embedded.seconds:.1f} s'})"


def _comprehension_note(comprehension: Comprehension) -> str:
    return (
        f"Coverage {comprehension.coverage:.0%} (usually more than 90%): so many of the words in the texts can be read "
        f"from embeddings.\nHeld-out AUC {comprehension.literal_auc:.2f} (usually 0.75 to 0.8, chance 0.5): how often "
        "a word of a text that was left out ranks above another."
    )


def _effect_table(effect: RefinementEffect) -> Table:
    """Return the alignment before and after refinement as a table for the terminal."""
    table = Table("", "fitted", "refined", box=None, header_style="dim", padding=(0, 2))
    table.add_row("top-10 tokens kept", "", f"{effect.tokens_kept:.0%}")
    for label, name in (
        ("literal tokens rank above others (AUC)", "literal_auc"),
        ("texts with a literal token in their top 10 (Hit@10)", "hit_at_k"),
        ("local alignment rate", "local_alignment_rate"),
        ("global alignment rate", "global_alignment_rate"),
    ):
        table.add_row(label, f"{getattr(effect.before, name):.3f}", f"{getattr(effect.after, name):.3f}")
    return table
