# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
What hits cost that can be explained: with all their key tokens, or with the score of each token of the query.

    python benchmarks/hits.py [--data FOLDER --split SPLIT] [--documents 20000]

Documents are drawn as in `engines.py`, and have their text, dense vectors and key tokens, merged into one segment; on
Elasticsearch also in an index that leaves key tokens and vectors out of `_source`, as by default. The same requests ask
for ten and a hundred hits: ids alone; documents without key tokens; documents with them; and documents without them
whose queries have names, so that the engine tells the score of each token (`include_named_queries_score`).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from documents import Fitted, drawn
from engines import HERE, HYBRID, Ask, Corpus, Queries, running, timed, write

from keytok_haystack.engines import search_request
from keytok_haystack.engines.mapping import Engine
from keytok_haystack.utils.resources import resource
from keytok_haystack.weighting import FIRST_PHASE, RESCORED

LEAN, FULL = {"excludes": ["embedding", "key_tokens"]}, {"excludes": ["embedding"]}
NAMED = {"include_named_queries_score": True}


def measure(engine: Engine, corpus: Corpus, queries: Queries, rounds: int, *, lean: bool) -> dict[str, Any]:
    """Return the median latency of each kind of hits, in ms, for ten and a hundred."""
    n = len(queries.texts)
    tokens = [queries.tokens(i) for i in range(n)]
    vectors = engine == "elasticsearch"
    # Elasticsearch has vectors in `fields`, whether or not `_source` has them
    whole: dict[str, Any] = {"_source": LEAN, "fields": ["key_tokens"]} if vectors else {"_source": FULL}
    kinds: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "ids": ({"_source": False}, {}),
        "without key tokens": ({"_source": LEAN}, {}),
        "with key tokens": (whole, {}),
        "with matched tokens": ({"_source": LEAN}, NAMED),
    }
    with running(engine) as (_, client):
        write(client, "hits", HYBRID, corpus, engine, lean=lean)

        def ask(size: int, selected: dict[str, Any], options: dict[str, Any]) -> Ask:
            field_type: Any = "sparse_vector" if vectors else "rank_features"

            def once(i: int) -> list[tuple[str, float]]:
                phases: dict[str, Any] = {"first_phase": FIRST_PHASE, "window": RESCORED, "named": bool(options)}
                request = search_request(tokens[i], "key_tokens", field_type, size, engine=engine, **phases)
                client.search(index="hits", body={**request, **selected}, **options)
                return []

            return once

        asks = {(name, size): ask(size, *kind) for size in (10, 100) for name, kind in kinds.items()}
        medians, _ = timed([*asks.values()], n, rounds)
    measured: dict[str, Any] = {name: {} for name in kinds}
    for (name, size), median in zip(asks, medians, strict=True):
        measured[name][str(size)] = median
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--data", default=str(resource("examples/cranfield")))
    parser.add_argument("--split", default="test")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=100, help="number of queries to time")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=HERE / "results")
    options = parser.parse_args()

    collection, base, asked, model = Fitted.load(options.data, options.split)
    originals, query_texts = list(collection.documents.values()), list(collection.queries.values())
    chosen = np.random.default_rng(0).permutation(len(query_texts))[: options.queries]
    texts, asked = [query_texts[i] for i in chosen], asked[chosen]
    batches = list(drawn(base, originals, options.documents))
    corpus = Corpus([t for _, ts in batches for t in ts], np.concatenate([e for e, _ in batches]), model)

    report: dict[str, Any] = {"documents": options.documents, "queries": len(texts), "rounds": options.rounds}
    indices: tuple[tuple[str, Engine, bool], ...] = (
        ("OpenSearch", "opensearch", False),
        ("Elasticsearch", "elasticsearch", False),
        ("Elasticsearch, lean", "elasticsearch", True),
    )
    report["ms"] = {
        name: measure(engine, corpus, Queries(texts, asked, model, engine), options.rounds, lean=lean)
        for name, engine, lean in indices
    }
    file = options.output / f"hits.{Path(options.data).name}.json"
    file.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
