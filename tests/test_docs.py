# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""README and docs are run: Python, YAML and shell blocks as they lie there, and tables against the results."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from haystack import Pipeline
from haystack.document_stores.in_memory import InMemoryDocumentStore

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"  # hubs are out of reach of tests; a package carries the same model
ADDRESS, ENGINE = "http://localhost:9200", "opensearch-knn"
INDEX = re.compile(r"""(index[=:"'\s]+)(articles|reports|splade)\b""")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    return [(found, code) for found, code in BLOCK.findall(page.read_text(encoding="utf-8")) if found in languages]


@pytest.fixture
def workplace(tmp_path, monkeypatch, cranfield, cranfield_model):
    """A folder with the texts and the model that the pages speak of."""
    lines = [json.dumps({"text": text}) for text in list(cranfield.documents.values())[:80]]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    cranfield_model.save(tmp_path / "models" / "key-tokens")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    InMemoryDocumentStore(index="keytok").delete_all_documents()


@pytest.fixture
def adapted(embedder, make_store):
    """Make code of a page run here: another embedder, and on an engine indices of their own."""
    prefix = f"test-{uuid4().hex[:8]}"
    indices = set()

    def adapt(code: str) -> str:
        if ADDRESS in code:
            code = code.replace(ADDRESS, make_store.url(ENGINE))
            indices.update(INDEX.findall(code))
        return INDEX.sub(rf"\1{prefix}-\2", code).replace(HUB_ID, embedder)

    yield adapt
    for _, index in indices:
        make_store.delete(ENGINE, f"{prefix}-{index}")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python", "bash")], ids=lambda page: page.name)
def test_a_page_runs_from_top_to_bottom(page, workplace, adapted, capsys):
    namespace = {}
    for language, code in blocks(page, "python", "bash"):
        if language == "python":
            exec(compile(adapted(code), page.name, "exec"), namespace)
        else:
            run_commands(adapted(code))
    assert not blocks(page, "python") or capsys.readouterr().out.strip()


def run_commands(code: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in code.splitlines():
        command = shlex.split(line, comments=True)
        if not command:
            continue
        if command[0] == "make":
            assert command[1] in targets
        elif command[0] == "keytok":
            done = subprocess.run(
                [Path(sys.executable).parent / "keytok", *command[1:]], check=False, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout.strip()
        else:
            assert command[:2] == ["pip", "install"]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=lambda page: page.name)
def test_yaml_of_a_page_loads(page):
    for _, definition in blocks(page, "yaml"):
        assert Pipeline.loads(definition).graph.nodes


def test_links_of_the_pages_lead_somewhere():
    for page in [*PAGES, ROOT / "AGENTS.md"]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_tables_hold_the_committed_results():
    results = {
        name: json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())
        for name in ("cranfield", "cisi", "scifact")
    }
    labels = {
        "BM25": "bm25",
        "dense vectors": "dense",
        "key tokens from those vectors": "key_tokens",
        "key tokens + BM25, in one query over one index": "key_tokens_bm25",
        "dense + BM25": "dense_bm25",
        "dense + BM25 + key tokens": "dense_bm25_key_tokens",
        "queries without literal tokens": "key_tokens_without_literals",
        "queries of literal tokens alone": "literals_only",
        "documents by their own tokens": "own_tokens",
        "documents by their own tokens, queries of literal tokens alone": "own_tokens_literals_only",
        "raw word embeddings instead of a fitted decoder": "word_embeddings",
        "the same, without literal tokens": "word_embeddings_without_literals",
    }
    seen = set()
    for page in (ROOT / "README.md", ROOT / "docs" / "results.md"):
        for line in page.read_text(encoding="utf-8").splitlines():
            cells = [cell.replace("*", "").strip() for cell in line.strip("|").split("|")]
            if (system := labels.get(cells[0])) is None:
                continue
            for name, cell in zip(results, cells[1:4], strict=True):
                systems = results[name]["systems"] | results[name]["controls"]
                assert cell == f"{systems[system]['nDCG@10']:.3f}".removeprefix("0"), f"{page.name}: {line}"
            seen.add((page.name, system))
    assert {system for page, system in seen if page == "results.md"} == set(labels.values())
    assert len([system for page, system in seen if page == "README.md"]) == 6


def test_the_table_of_bytes_on_disk_holds_the_committed_results():
    rows = json.loads((ROOT / "benchmarks" / "results" / "storage.json").read_text())["variants"]
    totals = {
        (row["name"], row["documents"], moment): row[moment]["total"]
        for row in rows
        for moment in ("merged", "retained")
        if row["engine"] == "opensearch-knn" and moment in row
    }
    expected = {
        "dense vectors, 384-d": ("384-d", 10_000, "merged"),
        "dense vectors, 4,096-d": ("4096-d", 3_000, "merged"),
        "key tokens as `keytok mapping` has it: K = 128, `best_compression`": (
            "key tokens, best_compression, K = 128",
            100_000,
            "merged",
        ),
        "key tokens, K = 88": ("key tokens, best_compression, K = 88", 100_000, "merged"),
        "key tokens, K = 128, default codec": ("key tokens", 100_000, "merged"),
        "key tokens, K = 128, not in `_source`": ("key tokens, not in _source", 100_000, "retained"),
    }
    dense = totals[expected["dense vectors, 384-d"]]
    seen = set()
    for line in (ROOT / "docs" / "engines.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.replace("*", "").strip() for cell in line.strip("|").split("|")]
        if key := expected.get(cells[0]):
            assert cells[1:] == [f"{totals[key]:,.0f}", f"{totals[key] / dense:.2f}", f"{key[1]:,}"], line
            seen.add(cells[0])
    assert seen == set(expected)
