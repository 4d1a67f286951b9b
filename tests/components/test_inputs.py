# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Whatever is given as a vector or as key tokens, there is a result or an error that says what is wrong.

`KEYTOK_EXAMPLES=10000` tries more.
"""

import math
import os
from typing import Any

import numpy as np
import pytest
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder, PC1Adjuster
from haystack_integrations.components.retrievers.keytok import KeyTokenExplainer, SparseRetriever

many = settings(
    max_examples=int(os.environ.get("KEYTOK_EXAMPLES", "1000")),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)

numbers = st.one_of(
    st.floats(),
    st.integers(),
    st.sampled_from([1e308, 3.4e38, 3.5e38, 1e-45, 10**400, -(10**400), 0, -0.0]),
    st.sampled_from([np.float16(2), np.float64(1e300), np.int8(3), np.float32("inf")]),
)
anything = st.one_of(numbers, st.text(max_size=3), st.none(), st.complex_numbers(), st.binary(max_size=2))
vectors = st.one_of(
    st.lists(numbers, min_size=8, max_size=8),
    st.lists(anything, max_size=9),
    st.lists(st.lists(anything, max_size=2), max_size=8),
    st.builds(np.array, st.lists(st.floats(), min_size=8, max_size=8), st.sampled_from([np.float16, np.float64])),
    st.builds(np.array, st.lists(st.complex_numbers(), min_size=8, max_size=8)),
    anything,
)
token_dicts = st.one_of(
    st.dictionaries(st.text(max_size=3), numbers, max_size=4),
    st.dictionaries(st.one_of(st.text(max_size=3), st.integers(), st.none()), anything, max_size=4),
    st.lists(st.text(max_size=3), max_size=3),
    anything,
)
OKAY = dict.fromkeys(["shock", "wave"], 1.0)


@pytest.fixture(scope="module")
def components(small_model_folder, small_texts, small_embeddings) -> dict[str, Any]:
    """The components that take a vector or key tokens, warmed up."""
    store = InMemoryDocumentStore()
    embedder = KeyTokenSparseEmbedder(small_model_folder, progress_bar=False)
    written = embedder.run(
        documents=[
            Document(id=str(i), content=text, embedding=embedding)
            for i, (text, embedding) in enumerate(zip(small_texts, small_embeddings.tolist(), strict=True))
        ]
    )
    store.write_documents(written["documents"])
    return {
        "embedder": embedder,
        "adjuster": PC1Adjuster(small_model_folder),
        "retriever": SparseRetriever(store, model=small_model_folder),
        "hybrid": SparseRetriever(store, model=small_model_folder, dense_weight=1.0),
        "explainer": KeyTokenExplainer(),
    }


def is_good(vector: Any) -> bool:
    """Whether a vector is one of eight numbers that float32 holds, and not zero."""
    if not isinstance(vector, list | np.ndarray) or len(vector) != 8:
        return False
    kinds = (float, int, np.floating, np.integer)
    if not all(isinstance(each, kinds) and not isinstance(each, bool | np.bool_) for each in vector):
        return False
    try:
        floats = [float(each) for each in vector]
    except OverflowError:
        return False
    with np.errstate(over="ignore"):
        single = np.array(floats, np.float32)
    return bool(np.isfinite(single).all() and single.any() and np.linalg.norm(floats) <= 1e37)


@many
@given(vector=vectors)
@example(vector=[1e308] * 8)
@example(vector=[3.4e38] * 8)
@example(vector=[10**400] * 8)
@example(vector=["1.5"] * 8)
@example(vector=[1 + 2j] * 8)
@example(vector=np.array([1e-45] * 8))
def test_a_vector_gives_a_result_or_an_error_that_says_what_is_wrong(vector, components):
    for name in ("embedder", "adjuster", "retriever", "hybrid"):
        run = components[name].run
        ask = (
            (lambda run=run: run(query_embedding=vector, key_tokens=OKAY))
            if name == "hybrid"
            else (lambda run=run: run(query_embedding=vector))
            if name == "retriever"
            else (lambda run=run: run(embedding=vector))
        )
        if is_good(vector):
            result = ask()
            weights = result.get("key_tokens", {})
            assert all(math.isfinite(weight) and weight > 0 for weight in weights.values())
            assert np.isfinite(result.get("embedding", [])).all()
            assert all(math.isfinite(hit.score) for hit in result.get("documents", []))
        else:
            with pytest.raises((ValueError, TypeError), match=r"[Ee]mbedding|exactly one|query_embedding"):
                ask()


@many
@given(vector=vectors)
@example(vector=[1e308] * 8)
@example(vector=["1.5"] * 8)
def test_an_error_about_a_vector_names_the_document(vector, components):
    documents = [Document(id="fine", embedding=[1.0, *[0.5] * 7]), Document(id="this one", embedding=vector)]
    for name in ("embedder", "adjuster"):
        if is_good(vector):
            assert len(components[name].run(documents=documents)["documents"]) == 2
        else:
            with pytest.raises(ValueError, match="'this one'"):
                components[name].run(documents=documents)


def are_good(tokens: Any) -> bool:
    kinds = (float, int, np.floating, np.integer)
    if not isinstance(tokens, dict):
        return False
    return all(
        isinstance(key, str)
        and isinstance(weight, kinds)
        and not isinstance(weight, bool)
        and 1.1754943508222875e-38 <= weight <= 3.4028234663852886e38
        for key, weight in tokens.items()
    )


@many
@given(tokens=token_dicts)
@example(tokens={"shock": 10**400})
@example(tokens={"shock": "1"})
@example(tokens={"shock": np.float32(0.5)})
@example(tokens=None)
def test_key_tokens_give_a_result_or_an_error_that_says_what_is_wrong(tokens, components):
    found = Document(id="this one", meta={"key_tokens": OKAY})
    asks = {
        "retriever": lambda: components["retriever"].run(key_tokens=tokens),
        "hybrid": lambda: components["hybrid"].run(key_tokens=tokens, query_embedding=[1.0] * 8),
        "explainer": lambda: components["explainer"].run(documents=[found], key_tokens=tokens),
    }
    for name, ask in asks.items():
        if are_good(tokens) or (tokens is None and name == "hybrid"):
            assert all(math.isfinite(hit.score or 0.0) for hit in ask()["documents"])
        else:
            with pytest.raises((ValueError, TypeError), match=r"the query|exactly one"):
                ask()


@many
@given(tokens=token_dicts)
@example(tokens={"shock": 10**400})
@example(tokens={"shock": "1"})
def test_an_error_about_key_tokens_names_the_document(tokens, components):
    documents = [Document(id="this one", meta={"key_tokens": tokens})]
    explain = components["explainer"].run
    if tokens is None or are_good(tokens):
        (explained,) = explain(documents=documents, key_tokens=OKAY)["documents"]
        assert all(math.isfinite(match["contribution"]) for match in explained.meta["matched_tokens"])
    else:
        with pytest.raises((ValueError, TypeError), match="'this one'"):
            explain(documents=documents, key_tokens=OKAY)
