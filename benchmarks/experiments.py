# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
One setting of the method after the other: what it gains, on collections and embedders, fitted to all or to halves.

    python benchmarks/experiments.py NAME=FOLDER[:SPLIT] ... --embeddings FOLDER --output FILE.jsonl [--only EXPERIMENT]

`FOLDER` of the embeddings has `EMBEDDER.NAME.documents.npy` and `EMBEDDER.NAME.queries.npy` for each collection and
embedder that is to be measured. Each line of the output is a setting, with nDCG@10 as a ratio to the dense vectors,
fitted to all documents and to random halves of them (the mean of `--halves`; all documents are searched), and the
postings that a query reads of each document. With `--only`, the lines of other experiments stay as they are.

The rules are written down here once more, as a few matrices over a whole collection, so that many settings share a fit
and constants of the library can be varied. At the defaults they give what the library gives, but for its rounding.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, vstack
from tqdm import tqdm

from keytok_haystack.decoders.ridge import RegressionSums
from keytok_haystack.embedding_space import Preparation, Spectrum
from keytok_haystack.evaluation import Collection
from keytok_haystack.evaluation.measures import mean_ndcg
from keytok_haystack.evaluation.systems import default_bm25
from keytok_haystack.sparse_vectors.rows import (
    join_rows,
    row_maxima,
    row_norms,
    scale_columns,
    scale_rows,
    split_rows,
    top_k,
)
from keytok_haystack.sparse_vectors.token_rows import TokenRows
from keytok_haystack.utils.sampling import random_rows
from keytok_haystack.vocabulary import Analysis
from keytok_haystack.vocabulary.analysis import folded
from keytok_haystack.weighting import Weighting, inverse_document_frequency, root_frequencies, strongest_tokens

ENGLISH = Analysis("english")
LETTER = regex.compile(r"\p{L}")
RUNS = regex.compile(r"\w+")
HYPHENATED = regex.compile(r"\w+(?:[-.'\u2019_/+]\w+)*")
ANALYSES = {
    "stems": lambda text: [ENGLISH.normal_form(word) for word in ENGLISH.words(text)],
    "words, not stemmed": ENGLISH.words,
    "stems, stop words kept": lambda text: [
        ENGLISH.normal_form(word) for word in RUNS.findall(folded(text)) if len(word) > 1
    ],
    "stems, compounds whole": lambda text: [
        ENGLISH.normal_form(word) for word in HYPHENATED.findall(folded(text)) if word not in ENGLISH.stop_words
    ],
}


@dataclass(frozen=True)
class Setting:
    """A setting of all rules; the values are the library's."""

    analysis: str = "stems"
    regularization: float = 0.6
    min_df: int = 2
    idf: float = 1.15
    k: int = 64
    literal_share: float = 0.4
    exponent: float = 0.5
    normalization: float = 0.25
    m: int = 64
    query_literals: float = 1.5
    gain_share: float = 0.7
    gain_power: float = 0.5
    dense_weight: float = 0.0
    bm25_weight: float = 0.0
    first_phase: float = 1.0
    rescored: int = 50

    @property
    def of_fit(self) -> tuple[Any, ...]:
        return self.analysis, self.regularization, self.min_df, self.idf

    @property
    def of_documents(self) -> tuple[Any, ...]:
        return self.k, self.literal_share, self.exponent, self.normalization


def settings() -> Iterator[tuple[str, str, Setting]]:
    """Yield `(experiment, name, setting)`; one part of the default is changed at a time."""
    default = Setting()
    yield "default", "default", default

    def each(
        experiment: str, parameter: str, label: str, values: tuple[Any, ...]
    ) -> Iterator[tuple[str, str, Setting]]:
        for value in values:
            yield experiment, label.format(value), replace(default, **{parameter: value})

    yield from each("words", "analysis", "{}", tuple(ANALYSES)[1:])
    yield from each("documents", "k", "K = {}", (32, 48, 96, 128))
    yield from each("documents", "literal_share", "literal share {}", (0.2, 0.3, 0.35, 0.5, 0.65))
    yield from each("documents", "exponent", "exponent {}", (0.4, 0.6))
    yield from each("documents", "normalization", "normalization {}", (0.0, 0.5))
    yield from each("queries", "m", "M = {}", (16, 32, 48, 96))
    yield from each("queries", "query_literals", "literals {} times the aligned", (1.0, 1.25, 1.75, 2.0))
    yield from each("queries", "gain_share", "share of the gain kept {}", (0.6, 0.65, 0.75, 0.8, 0.9, 1.0))
    yield from each("regression", "regularization", "lambda {}", (0.25, 0.4, 0.9))
    yield from each("regression", "min_df", "min_df {}", (1, 3))
    yield from each("regression", "idf", "idf ** {}", (1.0, 1.3))
    hybrid = replace(default, dense_weight=1.5, bm25_weight=0.05)
    yield "hybrid", "default", hybrid
    for dense_weight in (0.0, 1.0, 2.0, 3.0, 4.0):
        yield "hybrid", f"cosines {dense_weight}", replace(hybrid, dense_weight=dense_weight)
    for bm25_weight in (0.0, 0.025, 0.1):
        yield "hybrid", f"BM25 {bm25_weight}", replace(hybrid, bm25_weight=bm25_weight)
    for rescored in (20, 100, 200):
        yield "hybrid", f"the best {rescored} scored again", replace(hybrid, rescored=rescored)
    for first_phase in (1.0, 0.4, 0.5, 0.6, 0.7, 0.8):
        for rescored in (30, 50, 100) if first_phase < 1 else (50,):
            name = f"found by {first_phase}, the best {rescored}" if first_phase < 1 else "found by all tokens"
            changes = {"first_phase": first_phase, "rescored": rescored}
            if first_phase < 1:
                yield "phases", name, replace(default, **changes)
            if first_phase in (0.6, 1.0):
                yield "phases", f"hybrid, {name}", replace(hybrid, **changes)


@dataclass
class Texts:
    """Word counts of a collection's documents and queries, for one analysis."""

    words: list[str]
    documents: csr_array
    queries: csr_array

    @classmethod
    def of(cls, collection: Collection, analysis: str) -> "Texts":
        index: dict[str, int] = {}
        parts = []
        for texts in (collection.documents.values(), collection.queries.values()):
            found = [[index.setdefault(w, len(index)) for w in ANALYSES[analysis](text)] for text in texts]
            rows = np.repeat(np.arange(len(found)), [len(row) for row in found])
            parts.append((rows, np.array([column for row in found for column in row]), len(found)))
        counts = [
            csr_array(coo_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(n, len(index))))
            for rows, columns, n in parts
        ]
        for matrix in counts:
            matrix.sum_duplicates()
        return cls(list(index), *counts)


@dataclass
class Fit:
    """Logits of a collection's documents and queries by a decoder that is fitted to some of the documents."""

    texts: Texts
    documents: NDArray[np.float32]
    queries: NDArray[np.float32]
    rows: NDArray[np.int64]
    setting: Setting
    _sparse: dict[tuple[Any, ...], csr_array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fitted = self.documents[self.rows]
        prepare = Spectrum.from_embeddings(fitted).removal()
        prepared, counts = prepare(fitted), csr_array(self.texts.documents[self.rows])
        sums = RegressionSums(prepared.mean(axis=0), np.ones(len(self.texts.words), dtype=bool))
        sums.add(prepared, TokenRows(counts), fitted)
        has_letter = np.array([LETTER.search(word) is not None for word in self.texts.words])
        self.decoded = np.flatnonzero((sums.document_frequency >= self.setting.min_df) & has_letter)
        frequency = inverse_document_frequency(sums.document_frequency, len(self.rows))
        self.idf = frequency ** np.float32(self.setting.idf)
        weight = sums.solve(self.decoded, self.setting.regularization).coefficients * self.idf[self.decoded, None]
        decoder = (weight / np.abs(weight).max()).astype(np.float16).astype(np.float32)
        mean = prepared.mean(axis=0)
        self.logits = (prepare(self.documents) - mean) @ decoder.T
        self.query_logits = (prepare(self.queries) - mean) @ decoder.T
        self.literals = scale_columns(root_frequencies(self.texts.documents), self.idf)
        largest = row_maxima(csr_array(self.literals[self.rows])).mean()
        self.scale = self.logits[self.rows].clip(0).max(axis=1).mean() / largest

    def encode_documents(self, setting: Setting) -> csr_array:
        if setting.of_documents not in self._sparse:
            weighting = Weighting(exponent=setting.exponent, normalization=setting.normalization)
            weights = weighting.document_weights(top_k(self._with_literals(setting.literal_share), setting.k))
            weights.data /= row_maxima(weights)[self.rows].mean()
            self._sparse[setting.of_documents] = weights
        return self._sparse[setting.of_documents]

    def _with_literals(self, share: float) -> csr_array:
        """The 192 strongest logits of each document with its literal words, more than any setting keeps."""
        factor = np.float32(share / (1 - share) * self.scale)
        position = np.full(len(self.texts.words), -1)
        position[self.decoded] = np.arange(len(self.decoded))
        blocks = []
        for start in range(0, len(self.logits), 1000):
            logits, literals = self.logits[start : start + 1000].copy(), csr_array(self.literals[start : start + 1000])
            rows, columns = np.repeat(np.arange(len(logits)), np.diff(literals.indptr)), position[literals.indices]
            known = columns >= 0
            logits[rows[known], columns[known]] += factor * literals.data[known]
            others = (factor * literals.data[~known], (rows[~known], literals.indices[~known]))
            joined = csr_array(self._over_words(top_k(logits, 192)) + csr_array(others, shape=literals.shape))
            joined.sort_indices()
            blocks.append(top_k(joined, 192))
        return csr_array(vstack(blocks, format="csr"))

    def _over_words(self, rows: csr_array) -> csr_array:
        shape = (rows.shape[0], len(self.texts.words))
        over = csr_array((rows.data, self.decoded[rows.indices].astype(np.int32), rows.indptr), shape=shape)
        over.sort_indices()
        return over

    def encode_queries(self, setting: Setting, documents: csr_array) -> csr_array:
        aligned, counts = self._over_words(top_k(self.query_logits, setting.m)), self.texts.queries
        roots = csr_array((np.sqrt(counts.data), counts.indices, counts.indptr), shape=counts.shape)
        literals = scale_columns(roots, self.idf)
        norms, literal_norms = row_norms(aligned), row_norms(literals)
        factors = setting.query_literals * np.where(norms > 0, norms, 1) / np.where(literal_norms > 0, literal_norms, 1)
        queries = csr_array(aligned + scale_rows(literals, factors))
        sample = csr_array(documents[self.rows])
        frequency = np.bincount(sample.indices, minlength=sample.shape[1])
        mean = np.bincount(sample.indices, sample.data, minlength=sample.shape[1]) / np.maximum(frequency, 1)
        mean[frequency == 0] = mean[frequency == 1].mean()
        expected = queries.data * mean[queries.indices]
        gain = expected / np.maximum(frequency[queries.indices], 1) ** setting.gain_power
        kept = np.zeros(queries.nnz, dtype=bool)
        for start, stop in pairwise(queries.indptr.tolist()):
            if stop > start:
                order = start + np.argsort(-gain[start:stop], kind="stable")
                sums = np.cumsum(expected[order])
                kept[order[: np.searchsorted(sums, setting.gain_share * sums[-1]) + 1]] = True
        indptr = np.concatenate([[0], np.cumsum(kept)])[queries.indptr]
        chosen = csr_array((queries.data[kept], queries.indices[kept], indptr), shape=queries.shape)
        largest = row_maxima(chosen)
        return scale_rows(chosen, 1 / np.where(largest > 0, largest, 1))


def strongest_of(queries: csr_array, share: float) -> csr_array:
    """Return the tokens that find documents (`strongest_tokens`)."""
    rows = [
        strongest_tokens(dict(zip(columns.tolist(), weights.tolist(), strict=True)), share)
        for columns, weights in split_rows(queries)
    ]
    chosen = [(np.array(sorted(row), dtype=np.int32), np.array([row[i] for i in sorted(row)])) for row in rows]
    return join_rows(chosen, queries.shape[1])


@dataclass
class Bench:
    """A collection with the embeddings of one embedder."""

    collection: Collection
    documents: NDArray[np.float32]
    queries: NDArray[np.float32]
    halves: int
    only: str | None
    _texts: dict[str, Texts] = field(default_factory=dict)

    @cached_property
    def cosines(self) -> NDArray[np.float32]:
        normalize = Preparation()
        similarities: NDArray[np.float32] = normalize(self.queries) @ normalize(self.documents).T
        return similarities

    @cached_property
    def bm25(self) -> NDArray[np.float32]:
        system = default_bm25(list(self.collection.documents.values()), list(self.collection.queries.values()))
        return np.stack([np.asarray(system.scores(i)) for i in range(len(self.queries))])

    @cached_property
    def dense(self) -> float:
        return mean_ndcg(self.collection, self.cosines)

    def combined(
        self, scores: NDArray[np.floating], first: NDArray[np.floating], setting: Setting
    ) -> NDArray[np.floating]:
        """
        Return the scores of the best documents by all parts, shape `(queries, n)`.

        :param scores: Their scores by all key tokens.
        :param first: Their scores by the tokens that find them.
        """
        if not (setting.bm25_weight or setting.dense_weight or setting.first_phase < 1):
            return scores
        rescored = np.zeros_like(scores)
        for i, row in enumerate(scores):
            best = np.argpartition(-first[i], setting.rescored)[: setting.rescored]
            best = best[first[i, best] > 0]
            rescored[i, best] = row[best] + setting.bm25_weight * self.bm25[i, best]
            rescored[i, best] += setting.dense_weight * (1 + self.cosines[i, best])
        return rescored

    def measure(self, progress: "tqdm[Any]") -> dict[tuple[str, str], dict[str, float]]:
        n = len(self.documents)
        samples = {"all": [np.arange(n)], "half": [random_rows(n, n // 2, seed) for seed in range(self.halves)]}
        measured: dict[tuple[str, str], dict[str, float]] = {}
        chosen = (entry for entry in settings() if self.only in (None, entry[0]))
        ordered = sorted(chosen, key=lambda entry: repr(entry[2].of_fit))
        for sample, all_rows in samples.items():
            values: dict[tuple[str, str], list[tuple[float, float]]] = {}
            for rows in all_rows:
                fit: Fit | None = None
                for experiment, name, setting in ordered:
                    if fit is None or fit.setting.of_fit != setting.of_fit:
                        texts = self._of(setting.analysis)
                        fit = Fit(texts, self.documents, self.queries, rows, setting)
                    documents = fit.encode_documents(setting)
                    queries = fit.encode_queries(setting, documents)
                    strongest = strongest_of(queries, setting.first_phase)
                    scores = (queries @ documents.T).toarray()
                    scores = self.combined(scores, (strongest @ documents.T).toarray(), setting)
                    ratio = mean_ndcg(self.collection, scores) / self.dense
                    frequency = np.bincount(documents.indices, minlength=documents.shape[1])
                    postings = frequency[strongest.indices].sum() / queries.shape[0] / n
                    values.setdefault((experiment, name), []).append((ratio, postings))
                    progress.update()
            for key, found in values.items():
                ratio, postings = np.mean(found, axis=0)
                measured.setdefault(key, {})[sample] = round(float(ratio), 4)
                if sample == "all":
                    measured[key]["postings"] = round(float(postings), 3)
        return measured

    def _of(self, analysis: str) -> Texts:
        if analysis not in self._texts:
            self._texts[analysis] = Texts.of(self.collection, analysis)
        return self._texts[analysis]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("collections", nargs="+", metavar="NAME=FOLDER[:SPLIT]")
    parser.add_argument("--embeddings", type=Path, required=True)
    parser.add_argument("--embedders", nargs="+", default=["minilm", "mpnet"])
    parser.add_argument("--halves", type=int, default=4)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", help="the experiment to measure")
    options = parser.parse_args()

    table: dict[tuple[str, str], dict[str, Any]] = {(experiment, name): {} for experiment, name, _ in settings()}
    if options.only and options.output.exists():
        for line in map(json.loads, options.output.read_text().splitlines()):
            key = (line.pop("experiment"), line.pop("setting"))
            if key[0] != options.only and key in table:
                table[key] = line
    with tqdm(desc="Measuring", unit=" settings") as progress:
        for embedder in options.embedders:
            for argument in options.collections:
                name, _, place = argument.partition("=")
                folder, _, split = place.partition(":")
                files = [options.embeddings / f"{embedder}.{name}.{part}.npy" for part in ("documents", "queries")]
                if not all(file.exists() for file in files):
                    continue
                bench = Bench(
                    Collection.load(folder, split or "test"), *map(np.load, files), options.halves, options.only
                )
                for key, found in bench.measure(progress).items():
                    table[key].setdefault(embedder, {})[name] = found
                lines = [{"experiment": e, "setting": s, **found} for (e, s), found in table.items()]
                options.output.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
