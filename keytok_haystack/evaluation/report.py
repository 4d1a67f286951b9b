# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Result of an evaluation, and the names that reports give to decoders and embedders."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keytok_haystack.model import KeyTokenModel
from keytok_haystack.utils.files import rounded

_DECODERS = {
    "language-model": "LM head",
    "masked-language-model": "MLM head",
    "word-embeddings": "word embeddings",
    "fit": "fitted",
}

SystemMeasures = dict[str, Any]
"""
Measures of a retrieval system: `nDCG@10` and `R@100`, means over the queries; `p_values`, for each system that it is
compared with the probability that chance alone makes such a difference of nDCG@10 (`paired_p_value`);
`tokens_per_document` and `postings_per_document` (`System`), None for systems that do not search for tokens;
`bytes_per_document` of the index in memory; and `ms_per_query`, the median time of scoring all documents and selecting
the best, without embedding the query. Entries of a list also have the keys that distinguish them: `system`, `decoder`,
`fitted_on`, `k_document`, `m_query`.
"""


@dataclass
class EvaluationReport:
    """
    Result of an evaluation; its fields are the keys of the JSON that `keytok evaluate` writes.

    :param data: Name of the collection.
    :param split: Split of its judgements.
    :param embedder: Name of the embedding model, if known.
    :param splade: Name of the SPLADE that is compared with, if any.
    :param dimension: Dimension of its embeddings.
    :param documents: Number of documents.
    :param queries: Number of judged queries.
    :param decoder: Kind of decoder used for `systems`, `controls` and `sweep`.
    :param fitted_on: Texts that this decoder was fitted to.
    :param k_document: Number of key tokens that a document keeps.
    :param m_query: Number of aligned tokens of a query.
    :param seconds: Time to `embed` all documents, `fit` the decoder, `refine` it, `project` all documents to key
        tokens, and encode all documents by the `splade`; None for a step that was not taken or whose time is not known.
    :param embeddings_cached: Whether the time of embedding was measured in an earlier run.
    :param systems: Measures of each system by its name.
    :param decoders: Measures of key tokens by different decoders, with more and fewer tokens per document.
    :param controls: Measures of key tokens with one part changed at a time, which shows where the quality comes from.
    :param refined: Measures of the systems that use key tokens, with the refined decoder; empty without one.
    :param out_of_sample: Measures of the same systems with models that were not fitted to all of the documents.
    :param sweep: Measures of key tokens with more and fewer tokens per document and per query.
    """

    data: str
    split: str
    embedder: str | None
    splade: str | None
    dimension: int
    documents: int
    queries: int
    decoder: str
    fitted_on: str
    k_document: int
    m_query: int
    seconds: dict[str, float | None]
    embeddings_cached: bool
    systems: dict[str, SystemMeasures]
    decoders: list[SystemMeasures]
    controls: dict[str, SystemMeasures]
    refined: dict[str, SystemMeasures]
    out_of_sample: list[SystemMeasures]
    sweep: list[SystemMeasures]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON data, with numbers rounded to 6 significant digits."""
        data: dict[str, Any] = rounded(asdict(self))
        return data


def decoder_name(model: KeyTokenModel) -> str:
    """Return the name of a model's kind of decoder in reports."""
    if model.refined:
        return "refined"
    return _DECODERS.get(model.source, model.source)


def embedder_name(embedder: str) -> str:
    """Return a name of an embedder that is the same on every machine: a hub id as it is, or the end of a path."""
    preset, colon, checkpoint = embedder.rpartition(":")
    return preset + colon + "/".join(Path(checkpoint).parts[-2:])
