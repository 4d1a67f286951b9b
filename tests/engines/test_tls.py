# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Servers with https have to prove who they are, before they are told credentials and documents."""

import json
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from haystack import Document, Pipeline
from haystack.document_stores.errors import DocumentStoreError
from nodes.gate import Gate
from nodes.stores import connection_to, engine_of

from haystack_integrations.components.retrievers.keytok import SparseRetriever
from keytok_haystack import pipeline_yaml
from keytok_haystack.engines.connection import connected, document_store

PASSWORD = "hunter2"
HOST = "127.0.0.1"

two_engines = pytest.mark.parametrize("kind", ["opensearch-knn", "elasticsearch-9"])


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_cert(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return file


@pytest.fixture
def proxy(authority: trustme.CA, make_store) -> Iterator[Callable[[str, str], Gate]]:
    """Starts a proxy with TLS before an engine, with a certificate of some sort, that notes what it is asked."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    certificates = {
        "good": lambda: authority.issue_cert(HOST),
        "of another name": lambda: authority.issue_cert("search.example.com"),
        "expired": lambda: authority.issue_cert(HOST, not_before=yesterday - timedelta(9), not_after=yesterday),
        "of an unknown authority": lambda: trustme.CA().issue_cert(HOST),
    }
    with ExitStack() as gates:

        def start(kind: str, sort: str) -> Gate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificates[sort]().configure_cert(context)
            gate = gates.enter_context(closing(Gate(make_store.url(kind), context)))
            gate.seen = []
            gate.asked = lambda path, body: gate.seen.append(path)
            return gate

        yield start


def server_options(kind: str, url: str) -> tuple[str, ...]:
    return ("--engine", engine_of(kind), "--url", url.replace("://", f"://admin:{PASSWORD}@"))


def commands(kind: str, url: str, index: str, model: Path, output: Path) -> list[tuple[Any, ...]]:
    server = server_options(kind, url)
    return [
        ("mapping", model, *server),
        ("mapping", model, *server, "--create", "--index", index),
        ("backfill", *server, "--index", index, "--model", model, "--yes"),
        ("drop", *server, "--index", index, "--field", "key_tokens", "--yes"),
        ("fit", *server, "--index", index, "--output", output, "--yes"),
    ]


@pytest.fixture
def index(kind, make_store, small_texts, small_embeddings, small_model) -> str:
    store = make_store(kind, dimension=8, model=small_model)
    store.write_documents(
        [
            Document(id=str(i), content=text, embedding=embedding)
            for i, (text, embedding) in enumerate(zip(small_texts, small_embeddings.tolist(), strict=True))
        ]
    )
    return str(store._index)


@two_engines
def test_a_server_with_a_certificate_of_a_private_authority_is_used(
    kind, proxy, index, ca_cert, keytok, small_model_folder, tmp_path
):
    gate = proxy(kind, "good")
    for command in commands(kind, gate.url, index, small_model_folder, tmp_path / "model"):
        code, out, err = keytok(*command, "--ca-cert", ca_cert)
        assert code == 0, err
        assert out
    with connected(document_store(engine_of(kind), gate.url, index, ca_cert=ca_cert)) as connection:
        assert connection.client.count(index=index)["count"] == 60


@two_engines
@pytest.mark.parametrize(
    ("sort", "is_named", "reason"),
    [
        ("good", False, "unable to get local issuer|self-signed certificate in certificate chain"),
        ("of an unknown authority", True, "unable to get local issuer|self-signed certificate in certificate chain"),
        ("of another name", True, "IP address mismatch|hostname '127.0.0.1' doesn't match"),
        ("expired", True, "certificate has expired"),
    ],
)
def test_a_server_that_proves_nothing_is_told_nothing(
    kind, sort, is_named, reason, proxy, index, ca_cert, keytok, small_model_folder, tmp_path
):
    gate = proxy(kind, sort)
    options = ("--ca-cert", ca_cert) if is_named else ()
    demo = ("demo", "--output", tmp_path / "demo", *server_options(kind, gate.url))
    for command in (*commands(kind, gate.url, index, small_model_folder, tmp_path / "model"), demo):
        code, out, err = keytok(*command, *options)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert re.search(rf"has not proved who it is \(({reason}).*--ca-cert.*--insecure", err), err
        assert PASSWORD not in err
    assert gate.seen == []
    for command in commands(kind, gate.url, index, small_model_folder, tmp_path / "model"):
        code, out, err = keytok(*command, "--insecure")
        assert code == 0, err
    assert gate.seen


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["opensearch-knn"])
def test_the_demo_runs_on_an_engine_with_tls(kind, proxy, make_store, ca_cert, keytok, tmp_path):
    server = server_options(kind, proxy(kind, "good").url)
    code, out, err = keytok("demo", *server, "--ca-cert", ca_cert, "--output", tmp_path / "demo", "--json")
    assert code == 0, err
    assert json.loads(out)["through_query_pipeline"]["nDCG@10"] == pytest.approx(0.433, abs=0.001)
    with connection_to("opensearch", make_store.url(kind), "keytok-demo") as connection:
        assert connection.client.count(index="keytok-demo")["count"] == 1400
    make_store.delete(kind, "keytok-demo")


@two_engines
def test_what_is_no_certificate_is_refused(kind, index, keytok, small_model_folder, tmp_path):
    (tmp_path / "no.pem").write_text("no")
    for file in (tmp_path / "no.pem", tmp_path / "none.pem", tmp_path):
        for command in commands(kind, "https://localhost:9", index, small_model_folder, tmp_path / "model"):
            code, out, err = keytok(*command, "--ca-cert", file)
            assert (code, out, err.count("\n")) == (2, "", 1)
            assert "not a file with certificates in PEM format" in err


@two_engines
def test_a_server_without_tls_at_an_address_with_https_is_told_so(kind, make_store, keytok, small_model_folder):
    url = make_store.url(kind).replace("http:", "https:")
    code, out, err = keytok("mapping", small_model_folder, "--engine", engine_of(kind), "--url", url)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "does its address begin with http://" in err


@pytest.mark.parametrize("name", ["query", "hybrid"])
@two_engines
async def test_the_pipelines_verify_whom_they_ask(kind, name, proxy, index, ca_cert, cranfield_model_folder, embedder):
    gate = proxy(kind, "good")
    pipeline = Pipeline.loads(
        pipeline_yaml(
            f"{name}.{engine_of(kind)}",
            {"text_embedder": {"model": embedder}},
            model=cranfield_model_folder,
            document_store={"hosts": gate.url, "index": index},
        )
    )
    with pytest.raises(DocumentStoreError, match="has not proved who it is"):
        pipeline.get_component("retriever").warm_up()
    assert gate.seen == []


@two_engines
def test_a_store_verifies_by_its_own_settings_and_warns_where_it_does_not(
    kind, proxy, index, ca_cert, small_model_folder, caplog
):
    gate = proxy(kind, "good")
    store = type(document_store(engine_of(kind), gate.url, index))
    retriever = SparseRetriever(store(hosts=gate.url, index=index, ca_certs=str(ca_cert), verify_certs=True))
    retriever.run(key_tokens={"flow": 1.0})
    retriever.close()
    assert "does not verify" not in caplog.text
    silent = SparseRetriever(store(hosts=gate.url, index=index))
    if kind == "opensearch-knn":  # whose store verifies nothing by default
        silent.run(key_tokens={"flow": 1.0})
        assert "does not verify the certificate of OpenSearch at" in caplog.text
    else:
        with pytest.raises(DocumentStoreError, match="has not proved who it is"):
            silent.run(key_tokens={"flow": 1.0})
    silent.close()
