# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Key tokens next to BM25 and HNSW on one node as the collection grows: indexing, bytes, latency, ranking.

    python benchmarks/engines.py [--data FOLDER --split SPLIT] [--sizes 10000 100000 400000] [--elasticsearch 100000]

Documents are drawn from a real collection, as in `embedded.py`; the model is fitted to the collection itself. Each
system has its own index of one shard: the text alone; with dense vectors (HNSW by Lucene on OpenSearch, `bbq_hnsw` on
Elasticsearch, k = 10); with key tokens; and with both, with and without a graph of the vectors, for one request that
adds cosines and BM25. Two threads write requests that are generated as they are sent; then the index is merged into one
segment, so that nothing is measured during a merge. Before that, HNSW and key tokens are asked once in the segments
that writing has left.

All systems answer the same queries one by one, in an order that changes, through the engine's client and return ten
ids; a query of key tokens includes its projection. Where the label says *explained*, they answer through Haystack's
components, with ten whole documents, and the tokens that these share with the query. *Short keys* are the positions of
words in the vocabulary instead of the words, in an index of their own. The first ten documents of a query
whose strongest tokens find documents are compared with those that all tokens find, and nDCG@10 is measured on the real
collection.

Up to `--throughput` documents are also written by Haystack's DocumentWriter and by `backfill`, next to the same
documents in requests of two threads. The launcher of the tests starts the node, with the vector instructions that the
engines' distributions switch on. Linux only, for the peak memory.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")

import msgspec
import numpy as np
from documents import Fitted, drawn
from elasticsearch import Elasticsearch
from haystack import Document, Pipeline
from haystack.components.writers import DocumentWriter
from haystack_integrations.components.retrievers.elasticsearch import ElasticsearchEmbeddingRetriever
from haystack_integrations.components.retrievers.opensearch import OpenSearchEmbeddingRetriever
from haystack_integrations.document_stores.elasticsearch import ElasticsearchDocumentStore
from haystack_integrations.document_stores.opensearch import OpenSearchDocumentStore
from memory import peak_mib, resident_mib
from numpy.typing import NDArray
from opensearchpy import OpenSearch
from tqdm import tqdm

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.retrievers.keytok import KeyTokenExplainer, SparseRetriever
from keytok_haystack import KeyTokenModel
from keytok_haystack.engines import DenseShare, index_definition, search_request
from keytok_haystack.engines.elasticsearch import ElasticsearchServer
from keytok_haystack.engines.mapping import Engine, FieldType
from keytok_haystack.engines.opensearch import OpenSearchServer
from keytok_haystack.evaluation import Collection
from keytok_haystack.evaluation.measures import measure_run
from keytok_haystack.live_index import backfill
from keytok_haystack.utils.resources import resource
from keytok_haystack.weighting import BM25_WEIGHT, DENSE_WEIGHT, FIRST_PHASE, RESCORED

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "tests"))
from nodes.launcher import Node  # noqa: E402

EXACT = "key tokens, found by all"
DRAWN = ("BM25", "HNSW", "key tokens", "hybrid, one request", "hybrid, no graph")
KINDS: dict[Engine, str] = {"opensearch": "opensearch-knn", "elasticsearch": "elasticsearch-9"}
VECTOR_INSTRUCTIONS = ("--add-modules=jdk.incubator.vector",)
FILES = {"vectors": ("vec", "veb", "veq"), "graph": ("vex",), "postings": ("doc", "tim", "tip")}
TOP_K = 10
BATCH = 500
WRITERS = 2
IDS = {"_source": False}


@dataclass(frozen=True)
class Corpus:
    """Texts and embeddings (n, d) of documents, and the model that finds their key tokens."""

    texts: list[str]
    embeddings: NDArray[np.float32]
    model: KeyTokenModel


@dataclass(frozen=True)
class Variant:
    """
    An index to measure: what its documents have beside their text.

    :param graph: Whether the vectors have a graph.
    :param short_keys: Whether key tokens are named by their positions in the vocabulary, not by their words.
    """

    dense: bool = False
    key_tokens: bool = False
    graph: bool = True
    short_keys: bool = False

    def create(
        self, client: Any, index: str, corpus: Corpus, engine: Engine = "opensearch", *, lean: bool | None = None
    ) -> None:
        dimension = corpus.embeddings.shape[1] if self.dense else None
        # Elasticsearch leaves all vectors out of `_source` by default
        lean = engine == "elasticsearch" if lean is None else lean
        definition = index_definition(engine, dimension, corpus.model, graph=self.graph, lean=lean)
        properties = definition["mappings"]["properties"]
        if engine == "elasticsearch" and self.dense and self.graph:
            properties["embedding"]["index_options"] = {"type": "bbq_hnsw"}
        if not self.key_tokens:
            del properties["key_tokens"]
        definition["settings"]["index.number_of_replicas"] = 0
        client.indices.delete(index=index, ignore_unavailable=True)
        client.indices.create(index=index, body=definition)

    def request(self, corpus: Corpus, start: int) -> str:
        """Return a bulk request for a batch of documents."""
        rows = slice(start, start + BATCH)
        texts, embeddings = corpus.texts[rows], corpus.embeddings[rows]
        documents: list[dict[str, Any]] = [{"content": text} for text in texts]
        if self.dense:
            for document, embedding in zip(documents, embeddings.tolist(), strict=True):
                document["embedding"] = embedding
        if self.key_tokens:
            weights = corpus.model.encode_documents(embeddings, texts)
            for document, tokens in zip(documents, corpus.model.document_tokens(weights), strict=True):
                document["key_tokens"] = short_keys(corpus.model, tokens) if self.short_keys else tokens
        lines = []
        for number, document in enumerate(documents, start=start):
            lines.append(b'{"index":{"_id":"%d"}}' % number)
            lines.append(msgspec.json.encode({"id": str(number), **document}))
        return b"\n".join([*lines, b""]).decode()


VARIANTS = {
    "text": Variant(),
    "hnsw": Variant(dense=True),
    "key_tokens": Variant(key_tokens=True),
    "short_keys": Variant(key_tokens=True, short_keys=True),
    "hybrid": Variant(dense=True, key_tokens=True),
    "hybrid_without_graph": Variant(dense=True, key_tokens=True, graph=False),
}
HYBRID = VARIANTS["hybrid"]


def short_keys(model: KeyTokenModel, tokens: dict[str, float]) -> dict[str, float]:
    """Return key tokens by their positions in the vocabulary; words that it does not have stay."""
    positions = _positions(model)
    return {positions.get(key, key): weight for key, weight in tokens.items()}


@cache
def _positions(model: KeyTokenModel) -> dict[str, str]:
    # in upper case, as no word is
    return {key: f"X{position:X}" for position, key in enumerate(model.vocabulary.keys)}


Ask = Callable[[int], list[tuple[str, float]]]


def timed(asks: Sequence[Ask], queries: int, rounds: int) -> tuple[list[float], list[float]]:
    """
    Return the median latency of each, in ms, and the 95th percentile: asked in turn, after a round that warms up.

    The order is another for each query, since one that reads what another has just read finds it in the caches.
    """
    random = np.random.default_rng(0)
    latencies: list[list[float]] = [[] for _ in asks]
    for turn in tqdm(range(rounds + 1), desc="asking", unit=" rounds", leave=False):
        for i in range(queries):
            for position in random.permutation(len(asks)):
                started = time.perf_counter()
                asks[position](i)
                if turn:
                    latencies[position].append(1000 * (time.perf_counter() - started))
    medians, tails = ([float(np.percentile(values, p)) for values in latencies] for p in (50, 95))
    return medians, tails


def write(
    client: Any,
    name: str,
    variant: Variant,
    corpus: Corpus,
    engine: Engine = "opensearch",
    latency: Callable[[], float] | None = None,
    *,
    lean: bool | None = None,
) -> dict[str, Any]:
    """Write an index, and return the duration, the size, and how fast queries are before the segments are merged."""
    variant.create(client, name, corpus, engine, lean=lean)
    started = time.perf_counter()
    starts = range(0, len(corpus.texts), BATCH)

    def send(start: int) -> None:
        answer = client.bulk(index=name, body=variant.request(corpus, start), filter_path="errors")
        assert not answer["errors"]

    with ThreadPoolExecutor(WRITERS) as pool:
        list(tqdm(pool.map(send, starts), total=len(starts), desc=name, unit=" requests", leave=False))
    client.indices.refresh(index=name)
    written = time.perf_counter() - started
    unmerged: dict[str, Any] = {}
    if latency is not None:
        segments = client.indices.stats(index=name)["_all"]["primaries"]["segments"]["count"]
        unmerged = {"segments": segments, "p50_ms": latency()}
    started = time.perf_counter()
    client.indices.forcemerge(index=name, max_num_segments=1)
    merged = time.perf_counter() - started
    client.indices.flush(index=name, force=True)  # and the segments that were merged are deleted
    client.indices.refresh(index=name)
    stats = client.indices.stats(index=name, include_segment_file_sizes=True)["_all"]["primaries"]
    files = stats["segments"]["file_sizes"]
    return {
        "seconds_to_write": written,
        "seconds_to_merge": merged,
        "bytes": stats["store"]["size_in_bytes"],
        **{
            f"bytes_of_{name}": sum(files.get(e, {}).get("size_in_bytes", 0) for e in ends)
            for name, ends in FILES.items()
        },
        **({"unmerged": unmerged} if unmerged else {}),
    }


class Queries:
    """Queries of a collection, and the requests that each system makes of a query."""

    def __init__(
        self, texts: list[str], embeddings: NDArray[np.float32], model: KeyTokenModel, engine: Engine = "opensearch"
    ) -> None:
        self.texts, self.embeddings, self.model, self.engine = texts, embeddings, model, engine

    def bm25(self, i: int) -> dict[str, Any]:
        return {"query": {"match": {"content": self.texts[i]}}, "size": TOP_K, "track_total_hits": False}

    def hnsw(self, i: int) -> dict[str, Any]:
        vector = self.embeddings[i].tolist()
        if self.engine == "opensearch":
            return {"query": {"knn": {"embedding": {"vector": vector, "k": TOP_K}}}, "size": TOP_K}
        knn = {"field": "embedding", "query_vector": vector, "k": TOP_K, "num_candidates": 10 * TOP_K}  # as Haystack
        return {"knn": knn, "size": TOP_K}

    def key_tokens(self, i: int, first_phase: float = FIRST_PHASE) -> dict[str, Any]:
        return self._request(self.tokens(i), first_phase=first_phase)

    def short_keys(self, i: int) -> dict[str, Any]:
        return self._request(short_keys(self.model, self.tokens(i)))

    def hybrid(self, i: int) -> dict[str, Any]:
        dense = DenseShare(self.embeddings[i].tolist(), DENSE_WEIGHT)
        factor = OpenSearchServer.bm25_factor if self.engine == "opensearch" else ElasticsearchServer.bm25_factor
        return self._request(self.tokens(i), text=self.texts[i], bm25_weight=BM25_WEIGHT / factor, dense=dense)

    def tokens(self, i: int) -> dict[str, float]:
        return self.model.query_tokens(self.model.encode_queries(self.embeddings[i : i + 1], [self.texts[i]]))[0]

    def _request(self, tokens: dict[str, float], **options: Any) -> dict[str, Any]:
        field_type: FieldType = "rank_features" if self.engine == "opensearch" else "sparse_vector"
        options = {"first_phase": FIRST_PHASE, "window": RESCORED, "engine": self.engine, **options}
        return search_request(tokens, "key_tokens", field_type, TOP_K, **options)


def systems(url: str, client: Any, queries: Queries, model: Path) -> dict[str, Ask]:
    """Return the function of each system that answers a query, by its name in the results."""

    def asks(index: str, request: Callable[[int], dict[str, Any]]) -> Ask:
        def ask(i: int) -> list[tuple[str, float]]:
            answer = client.search(index=index, body={**request(i), **IDS})
            return [(hit["_id"], hit["_score"]) for hit in answer["hits"]["hits"]]

        return ask

    def store(index: str) -> Any:
        if queries.engine == "opensearch":
            return OpenSearchDocumentStore(hosts=url, index=index, create_index=False, return_embedding=False)
        return ElasticsearchDocumentStore(hosts=url, index=index)

    def explained(index: str, **weights: float) -> Ask:
        retriever, explainer = SparseRetriever(store(index), model=model, top_k=TOP_K, **weights), KeyTokenExplainer()

        def ask(i: int) -> list[tuple[str, float]]:
            found = retriever.run(query_embedding=queries.embeddings[i].tolist(), query=queries.texts[i])
            hits = explainer.run(documents=found["documents"], key_tokens=found["key_tokens"])["documents"]
            return [(hit.id, hit.score) for hit in hits]

        return ask

    retriever = OpenSearchEmbeddingRetriever if queries.engine == "opensearch" else ElasticsearchEmbeddingRetriever
    dense_retriever = retriever(document_store=store("hnsw"), top_k=TOP_K)

    def dense(i: int) -> list[tuple[str, float]]:
        hits = dense_retriever.run(query_embedding=queries.embeddings[i].tolist())["documents"]
        return [(hit.id, hit.score) for hit in hits]

    def projection(i: int) -> list[tuple[str, float]]:
        queries.tokens(i)
        return []

    return {
        "BM25": asks("text", queries.bm25),
        "HNSW": asks("hnsw", queries.hnsw),
        "key tokens": asks("key_tokens", queries.key_tokens),
        EXACT: asks("key_tokens", lambda i: queries.key_tokens(i, 1.0)),
        "key tokens, short keys": asks("short_keys", queries.short_keys),
        "projection alone": projection,
        "hybrid, one request": asks("hybrid", queries.hybrid),
        "hybrid, no graph": asks("hybrid_without_graph", queries.hybrid),
        "HNSW, ten documents": dense,
        "key tokens, ten documents, explained": explained("key_tokens"),
        "hybrid, no graph, ten documents, explained": explained(
            "hybrid_without_graph", dense_weight=DENSE_WEIGHT, bm25_weight=BM25_WEIGHT
        ),
    }


@contextmanager
def running(engine: Engine, heap: str = "4g") -> Iterator[tuple[str, Any]]:
    """Start a node, and give its address and a client."""
    with Node(KINDS[engine], heap=heap, jvm_options=VECTOR_INSTRUCTIONS) as node:
        client = (
            OpenSearch(node.url, timeout=3600)
            if engine == "opensearch"
            else Elasticsearch(node.url, request_timeout=3600)
        )
        with closing(client):
            yield node.url, client


def measure(corpus: Corpus, queries: Queries, rounds: int, model: Path) -> dict[str, Any]:
    """Write all indices on a node of their own, and ask all systems in turn."""
    with running(queries.engine) as (url, client):
        asking = systems(url, client, queries, model)
        n = len(queries.texts)

        def latency_of(ask: Ask) -> Callable[[], float]:
            return lambda: timed([ask], n, 1)[0][0]

        early = {"hnsw": latency_of(asking["HNSW"]), "key_tokens": latency_of(asking["key tokens"])}
        indexing = {
            name: write(client, name, variant, corpus, queries.engine, early.get(name))
            for name, variant in VARIANTS.items()
        }
        found = {name: [{key for key, _ in ask(i)} for i in range(n)] for name, ask in asking.items()}
        medians, tails = timed([*asking.values()], n, rounds)
    truth = found[EXACT]
    return {
        "documents": len(corpus.texts),
        "indexing": indexing,
        "systems": {
            name: {
                "p50_ms": p50,
                "p95_ms": p95,
                "overlap": float(
                    np.mean([len(a & b) / max(1, len(b)) for a, b in zip(found[name], truth, strict=True)])
                ),
            }
            for name, p50, p95 in zip(asking, medians, tails, strict=True)
        },
    }


def rank(corpus: Corpus, queries: Queries, collection: Collection, model: Path) -> dict[str, float]:
    """Return nDCG@10 of the systems on the real collection, in an engine."""
    ids = list(collection.documents)
    with running(queries.engine, heap="512m") as (url, client):
        for name, variant in VARIANTS.items():
            write(client, name, variant, corpus, queries.engine)
        measured = {}
        for name, ask in systems(url, client, queries, model).items():
            if "projection" in name:
                continue
            run = {
                query: [(ids[int(key)], score) for key, score in ask(i)] for i, query in enumerate(collection.queries)
            }
            measured[name] = measure_run(collection, run)["nDCG@10"]
    return measured


def throughput(corpus: Corpus, model: Path) -> dict[str, Any]:
    """Return the documents per second of three ways to write an index with text, dense vectors and key tokens."""
    n = len(corpus.texts)
    with running("opensearch") as (url, client):
        ready_made = write(client, "ready-made", HYBRID, corpus)

        HYBRID.create(client, "writer", corpus)
        indexing = Pipeline()
        indexing.add_component("key_tokens", KeyTokenSparseEmbedder(model, progress_bar=False))
        indexing.add_component("writer", DocumentWriter(OpenSearchDocumentStore(hosts=url, index="writer")))
        indexing.connect("key_tokens.documents", "writer.documents")
        started = time.perf_counter()
        for batch in documents(corpus):
            indexing.run({"documents": batch})
        writer = time.perf_counter() - started

        write(client, "dense", VARIANTS["hnsw"], corpus)
        store = OpenSearchDocumentStore(hosts=url, index="dense")
        before = resident_mib()
        report = backfill(store, corpus.model, progress_bar=False)
        grown = peak_mib() - before
        again = backfill(store, corpus.model, progress_bar=False)
        resumed = backfill(store, corpus.model, resume=True, progress_bar=False)
    assert (report.written, again.written, resumed.written) == (n, 0, 0), (report, again, resumed)
    return {
        "documents": n,
        "documents_per_second": {
            "ready-made requests, 2 threads": n / ready_made["seconds_to_write"],
            "KeyTokenSparseEmbedder and DocumentWriter": n / writer,
            "backfill of an index with dense vectors": n / report.seconds,
            "backfill again": n / again.seconds,
            "backfill --resume": n / resumed.seconds,
        },
        "backfill_peak_mib": grown,
    }


def documents(corpus: Corpus) -> Iterator[list[Document]]:
    for start in range(0, len(corpus.texts), 1000):
        rows = range(start, min(start + 1000, len(corpus.texts)))
        yield [Document(id=str(i), content=corpus.texts[i], embedding=corpus.embeddings[i].tolist()) for i in rows]


def table(report: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    parts = [("OpenSearch", report["sizes"]), ("Elasticsearch", report["elasticsearch"])]
    lines = [f"## {engine}\n\n{measured(sizes, report['ndcg'][engine.lower()])}\n" for engine, sizes in parts if sizes]
    lines += [
        "## Writing\n",
        "| writing | " + " | ".join(f"{row['documents']:,}" for row in report["throughput"]) + " |",
    ]
    lines.append(f"| --- |{' ---: |' * len(report['throughput'])}")
    for name in report["throughput"][0]["documents_per_second"]:
        rates = [f"{row['documents_per_second'][name]:,.0f} documents/s" for row in report["throughput"]]
        lines.append(f"| {name} | {' | '.join(rates)} |")
    grown = [f"{row['backfill_peak_mib']:.0f} MiB" for row in report["throughput"]]
    lines.append(f"| memory that backfill adds at its peak | {' | '.join(grown)} |")
    return "\n".join(lines)


def measured(sizes: list[dict[str, Any]], ndcg: dict[str, float]) -> str:
    """Return the results of an engine in Markdown."""
    lines = [
        "| index | documents | written in | merged in | bytes per document |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for size in sizes:
        for name, row in size["indexing"].items():
            lines.append(
                f"| {name.replace('_', ' ')} | {size['documents']:,} | {row['seconds_to_write']:.0f} s | "
                f"{row['seconds_to_merge']:.0f} s | {row['bytes'] / size['documents']:,.0f} |"
            )
    heads = [f"{size['documents']:,}: p50 | p95 | of HNSW | overlap" for size in sizes]
    lines += ["", f"| system | {' | '.join(heads)} | nDCG@10 |", f"| --- |{' ---: |' * (4 * len(sizes) + 1)}"]
    for name in sizes[0]["systems"]:
        cells = []
        for size in sizes:
            row = size["systems"][name]
            ratio = row["p50_ms"] / size["systems"][baseline(name)]["p50_ms"]
            overlap = f"{row['overlap']:.3f}" if "key tokens" in name else ""
            cells += [f"{row['p50_ms']:.2f} ms", f"{row['p95_ms']:.2f} ms", f"{ratio:.2f}", overlap]
        score = ndcg.get(name)
        lines.append(f"| {name} | {' | '.join(cells)} | {'' if score is None else f'{score:.3f}'} |")
    return "\n".join(lines)


def baseline(name: str) -> str:
    """Return the HNSW measurement to compare a system with, which returns as much."""
    return "HNSW, ten documents" if "ten documents" in name else "HNSW"


def draw(report: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 7.5), layout="constrained")
    growth, choice = figure.subplots(2, 1)
    sizes = [size["documents"] for size in report["sizes"]]
    for name in DRAWN:
        rows = [size["systems"][name] for size in report["sizes"]]
        line = growth.plot(sizes, [row["p50_ms"] for row in rows], marker="o", label=name)[0]
        low, high = ([row[key] for row in rows] for key in ("p50_ms", "p95_ms"))
        growth.fill_between(sizes, low, high, color=line.get_color(), alpha=0.15)
    growth.set(xscale="log", xlabel="documents", ylabel="ms per query (p50, shaded to p95)", ylim=(0, None))
    figure.legend(frameon=False, loc="outside upper left", ncols=3, fontsize=9)
    largest = report["sizes"][-1]["systems"]
    for name in DRAWN:
        point = (largest[name]["p50_ms"], report["ndcg"]["opensearch"][name])
        choice.plot(*point, "o")
        above = name in ("key tokens", "hybrid, no graph")
        choice.annotate(
            name, point, textcoords="offset points", xytext=(0, 8 if above else -14), ha="center", fontsize=9
        )
    choice.set(xlabel=f"ms per query at {sizes[-1]:,} documents (p50)", ylabel="nDCG@10 on the collection")
    choice.margins(0.25)
    for axes in (growth, choice):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--data", default=str(resource("examples/cranfield")))
    parser.add_argument("--split", default="test")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--elasticsearch", type=int, nargs="*", default=[], help="numbers of documents there")
    parser.add_argument("--queries", type=int, default=200, help="number of queries to time")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--throughput", type=int, nargs="+", default=[10_000, 40_000])
    parser.add_argument("--output", type=Path, default=HERE / "results")
    options = parser.parse_args()

    collection, base, asked, model = Fitted.load(options.data, options.split)
    originals, query_texts = list(collection.documents.values()), list(collection.queries.values())
    real = Corpus(originals, base, model)
    chosen = np.random.default_rng(0).permutation(len(query_texts))[: options.queries]
    asks: dict[Engine, Queries] = {
        engine: Queries([query_texts[i] for i in chosen], asked[chosen], model, engine) for engine in KINDS
    }

    largest = max(options.sizes + options.throughput + options.elasticsearch)
    batches = list(drawn(base, originals, largest))
    embeddings = np.concatenate([batch for batch, _ in batches])
    texts = [text for _, batch in batches for text in batch]

    def corpus(n: int) -> Corpus:
        return Corpus(texts[:n], embeddings[:n], model)

    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / f"engines.{Path(options.data).name}"
    engines: list[Engine] = ["opensearch", *(["elasticsearch"] if options.elasticsearch else [])]
    report: dict[str, Any] = {"data": collection.name, "queries": len(chosen), "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        model.save(folder)
        report["ndcg"] = {
            engine: rank(real, Queries(query_texts, asked, model, engine), collection, folder) for engine in engines
        }
        report["throughput"] = [throughput(corpus(n), folder) for n in options.throughput]
        for part, engine, sizes in (
            ("elasticsearch", engines[-1], options.elasticsearch),
            ("sizes", engines[0], options.sizes),
        ):
            report[part] = []
            for n in sizes:
                report[part].append(measure(corpus(n), asks[engine], options.rounds, folder))
                # what has been measured is not lost if a larger index fails
                file.with_name(f"{file.name}.json").write_text(json.dumps(report, indent=2) + "\n")

    file.with_name(f"{file.name}.md").write_text(table(report) + "\n")
    draw(report, file.with_name(f"{file.name}.png"))
    print(table(report))


if __name__ == "__main__":
    main()
