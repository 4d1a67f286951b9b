# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
What a search in two phases finds among many documents: nDCG@10, and the share of the exact ten.

    python benchmarks/phases.py --data FOLDER [--split SPLIT] [--documents 100000]

The documents are those of a real collection, and others drawn from it as in `embedded.py`, of which none is judged. A
query's strongest tokens find the best documents (`strongest_tokens`), and all its tokens score these; next to the
ranking by all tokens. Scores are products of matrices.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from documents import Fitted, drawn
from scipy.sparse import csr_array

from keytok_haystack.evaluation.measures import measure_run
from keytok_haystack.sparse_vectors.rank_features import truncate_weights
from keytok_haystack.sparse_vectors.rows import dicts_to_rows
from keytok_haystack.weighting import strongest_tokens

HERE = Path(__file__).resolve().parent
TOP_K = 10


def best(scores: np.ndarray, among: np.ndarray) -> list[int]:
    """Return the ten documents with the highest scores."""
    chosen: list[int] = among[np.argsort(-scores[among], kind="stable")[:TOP_K]].tolist()
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.6, 0.7])
    parser.add_argument("--windows", type=int, nargs="+", default=[50, 100])
    parser.add_argument("--output", type=Path, default=HERE / "results")
    options = parser.parse_args()

    collection, base, asked, model = Fitted.load(options.data, options.split)
    originals, texts = list(collection.documents.values()), list(collection.queries.values())

    documents = model.document_tokens(model.encode_documents(base, originals))
    for embeddings, batch in drawn(base, originals, options.documents - len(originals)):
        documents += model.document_tokens(model.encode_documents(embeddings, batch))
    keys = {key: i for i, key in enumerate(dict.fromkeys(key for tokens in documents for key in tokens))}
    weights = dicts_to_rows(documents, keys)
    weights = csr_array((truncate_weights(weights.data), weights.indices, weights.indptr), shape=weights.shape)
    queries = model.query_tokens(model.encode_queries(asked, texts))
    known = [{key: weight for key, weight in tokens.items() if key in keys} for tokens in queries]
    ids = [*collection.documents, *(f"drawn {i}" for i in range(options.documents - len(originals)))]

    def scores_of(tokens: dict[str, float]) -> np.ndarray:
        query = np.zeros(len(keys), dtype=np.float32)
        query[[keys[key] for key in tokens]] = list(tokens.values())
        return np.asarray(weights @ query)

    settings: list[tuple[float, int] | None] = [None, *((s, w) for s in options.shares for w in options.windows)]
    found: dict[Any, list[list[int]]] = {setting: [] for setting in settings}
    scored: dict[Any, dict[str, list[tuple[str, float]]]] = {setting: {} for setting in settings}
    for name, tokens in zip(collection.queries, known, strict=True):
        scores = scores_of(tokens)
        first = {share: scores_of(strongest_tokens(tokens, share)) for share in options.shares}
        for setting in settings:
            among = np.arange(len(scores))
            if setting is not None:
                share, window = setting
                among = np.argpartition(-first[share], window)[:window]
            hits = best(scores, among)
            found[setting].append(hits)
            scored[setting][name] = [(ids[i], float(scores[i])) for i in hits]
    exact = found[None]
    report = {
        "data": collection.name,
        "documents": options.documents,
        "settings": [
            {
                "first_phase": 1.0 if setting is None else setting[0],
                "rescored": None if setting is None else setting[1],
                "nDCG@10": measure_run(collection, scored[setting])["nDCG@10"],
                "overlap": float(
                    np.mean([len({*a} & {*b}) / len(b) for a, b in zip(found[setting], exact, strict=True)])
                ),
            }
            for setting in settings
        ],
    }
    file = options.output / f"phases.{options.data.name}.json"
    file.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
