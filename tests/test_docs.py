# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""README and docs are run: Python, YAML, shell and diff blocks as they stand; tables are compared with their source."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import nbformat
import pytest
from haystack import Pipeline
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.embedders import keytok as embedders
from haystack_integrations.components.retrievers import keytok as retrievers
from nbclient import NotebookClient

from keytok_haystack.cli.app import SUMMARIES, command_of
from keytok_haystack.evaluation.tables import LABELS

ROOT = Path(__file__).resolve().parent.parent
COLLECTIONS = ("cranfield", "cisi", "scifact")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "pipelines" / "README.md"]
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
# hubs are out of reach of tests: a package carries the same model, and a small random one takes the other's place
HUB_ID, LANGUAGE_MODEL = "sentence-transformers/all-MiniLM-L6-v2", "HuggingFaceTB/SmolLM2-135M-Instruct"
ADDRESS, ENGINE = "http://localhost:9200", "opensearch-knn"
INDEX = re.compile(r"""(index[=:"'\s]+)(articles|reports|splade)\b""")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


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
def adapted(embedder, tiny, make_store):
    """Make code of a page run here: another embedder, and on an engine indices of their own."""
    prefix = f"test-{uuid4().hex[:8]}"
    indices = set()

    def adapt(code: str) -> str:
        if ADDRESS in code:
            code = code.replace(ADDRESS, make_store.url(ENGINE))
            indices.update(INDEX.findall(code))
        code = code.replace(HUB_ID, embedder)
        if LANGUAGE_MODEL in code:
            code = code.replace(LANGUAGE_MODEL, str(tiny("llama")))
        return INDEX.sub(rf"\1{prefix}-\2", code)

    yield adapt
    for _, index in indices:
        make_store.delete(ENGINE, f"{prefix}-{index}")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python", "bash")], ids=name_of)
def test_a_page_runs_from_top_to_bottom(page, workplace, adapted, keytok, capsys):
    namespace, printed = {}, ""
    for language, code in blocks(page, "python", "bash"):
        if language == "python":
            exec(compile(adapted(code), name_of(page), "exec"), namespace)
            printed += capsys.readouterr().out
        else:
            run_commands(adapted(code), keytok)
    for _, code in blocks(page, "diff"):
        for marker in "+-":  # the pipeline before the change, and after it
            lines = [line[1:] for line in code.splitlines() if not line.startswith(marker)]
            exec(compile("\n".join(lines), name_of(page), "exec"), namespace)
    assert not blocks(page, "python") or printed.strip()


def run_commands(code: str, keytok: Callable[..., tuple[int, str, str]]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in code.splitlines():
        command = shlex.split(line, comments=True)
        if not command:
            continue
        if command[0] == "make":
            assert command[1] in targets
        elif command[0] == "keytok":
            # nobody is there to be asked
            asks = command[1] in ("backfill", "drop", "fit") and "--dry-run" not in command
            agreed = ["--yes"] if asks else []
            status, out, err = keytok(*command[1:], *agreed)
            assert status == 0, err
            assert out.strip()
        else:
            assert command[:2] == ["pip", "install"]


@pytest.mark.slow
@pytest.mark.parametrize("page", NOTEBOOKS, ids=name_of)
def test_a_notebook_prints_what_it_shows(page, workplace, adapted):
    notebook = nbformat.read(page, as_version=4)
    shown = [printed_words(cell) for cell in notebook.cells]
    for cell in notebook.cells:
        cell.source = "" if cell.source.startswith("%pip") else adapted(cell.source)
    NotebookClient(notebook, resources={"metadata": {"path": str(workplace)}}, timeout=600).execute()
    assert [printed_words(cell) for cell in notebook.cells] == shown
    assert any(shown)


def printed_words(cell: nbformat.NotebookNode) -> list[str]:
    """What a cell prints, without numbers, whose last digits depend on the machine."""
    outputs = "".join(output.get("text", "") for output in cell.get("outputs", ()) if output.get("name") == "stdout")
    return re.sub(r"[\d.]+", "", outputs).split()


@pytest.mark.slow
def test_readme_runs_with_nothing_but_the_wheel(tmp_path, workplace, embedder):
    """The blocks that need no engine, in an environment with what README.md installs."""
    readme, uv = ROOT / "README.md", (sys.executable, "-m", "uv")
    run = partial(subprocess.run, check=True, cwd=workplace)
    run([*uv, "build", "--quiet", "--out-dir", tmp_path, ROOT])
    (wheel,) = tmp_path.glob("*.whl")
    (extras,) = re.findall(r"^pip install .*(\[.*\])", readme.read_text(encoding="utf-8"), re.MULTILINE)
    shutil.rmtree(workplace / "models")  # README.md fits one
    script = ""
    with TemporaryDirectory() as environment:  # too large to be kept
        programs = Path(environment) / "bin"
        run([*uv, "venv", "--quiet", environment])
        run([*uv, "pip", "install", "--quiet", "--python", programs / "python", f"{wheel}{extras}"])
        for language, block in blocks(readme, "python", "bash"):
            code = block.replace(HUB_ID, embedder)
            if ADDRESS in code:
                continue
            if language == "python":
                script += code
            for line in code.splitlines():
                if line.startswith("keytok "):
                    run([programs / "keytok", *shlex.split(line)[1:]])
        printed = run([programs / "python", "-c", script], stdout=subprocess.PIPE, text=True).stdout
    assert "'contribution'" in printed


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=name_of)
def test_yaml_of_a_page_loads(page):
    for _, definition in blocks(page, "yaml"):
        assert Pipeline.loads(definition).graph.nodes


def test_pages_are_120_characters_wide():
    for page in PAGES:
        prose = re.sub(r"^```.*?^```$|^[|#<].*?$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        assert max(map(len, prose.splitlines())) <= 120, name_of(page)


def test_links_of_the_pages_lead_somewhere():
    for page in PAGES:
        for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
            linked = page.parent / target if target else page
            assert linked.is_file(), f"{name_of(page)}: {target}"
            assert not anchor or anchor in anchors_of(linked), f"{name_of(page)}: {target}#{anchor}"


def anchors_of(page: Path) -> list[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_the_tables_hold_the_committed_results():
    """The numbers of both pages' main tables, read back."""
    results = [
        json.loads((ROOT / "docs" / "research" / "results" / f"{name}.json").read_text()) for name in COLLECTIONS
    ]
    for page, block, names in (("README.md", "summary", 7), ("docs/research/results.md", "systems", 12)):
        text = (ROOT / page).read_text(encoding="utf-8")
        table = text.split(f"<!-- table: {block} -->")[1].split("<!-- end -->")[0]
        rows = {cells[0]: cells[1:] for cells in cells_of(table)}
        assert rows.pop(next(iter(rows))) == ["Cranfield", "CISI", "SciFact"]
        shown = [name for name, label in LABELS.items() if label in rows]
        assert len(shown) == names
        for name in shown:
            measured = [result["systems"].get(name) for result in results]  # a SPLADE not on all collections
            expected = [f"{each['nDCG@10']:.3f}".removeprefix("0") if each else "" for each in measured]
            assert [cell.partition(" ")[0] for cell in rows[LABELS[name]]] == expected, f"{page}: {name}"


def cells_of(table: str) -> list[list[str]]:
    """The cells of a Markdown table's rows, without emphasis and without the rule below the header."""
    rows = [[cell.replace("*", "").strip() for cell in line.strip("|").split("|")] for line in table.split("\n")]
    return [row for row in rows if len(row) > 1 and not row[0].startswith("---")]


@pytest.fixture(scope="module")
def make_report() -> Callable[..., int]:
    """What `make report` runs."""
    specification = importlib.util.spec_from_file_location("report", ROOT / "benchmarks" / "report.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.main


def test_the_pages_are_what_make_report_writes(make_report, capsys):
    assert make_report(["--check"]) == 0, capsys.readouterr().out


@pytest.fixture
def copied_pages(tmp_path) -> Path:
    shutil.copy(ROOT / "README.md", tmp_path)
    for folder in ("docs", "benchmarks/results"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


@pytest.mark.parametrize("page", ["README.md", "docs/research/results.md"])
def test_a_page_that_disagrees_with_the_results_is_noticed_and_written_anew(page, make_report, copied_pages, capsys):
    right = (copied_pages / page).read_text()
    cranfield = json.loads((copied_pages / "docs/research/results/cranfield.json").read_text())
    ndcg = cranfield["systems"]["dense"]["nDCG@10"]
    wrong = right.replace(f"| {ndcg:.3f}".replace("0.", "."), "| .999")
    assert wrong != right
    (copied_pages / page).write_text(wrong)
    assert make_report(["--check"], copied_pages) == 1
    assert page in capsys.readouterr().out
    assert (copied_pages / page).read_text() == wrong
    assert make_report([], copied_pages) == 0
    assert (copied_pages / page).read_text() == right


def test_every_component_and_every_command_has_a_table_on_a_page():
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name in (*embedders.__all__, *retrievers.__all__):
        assert f"<!-- table: {name} -->\n| parameter |" in pages, name
    for name in SUMMARIES:
        assert f"## keytok {name}\n" in pages, name
        assert not command_of(name).params or f"<!-- table: keytok-{name} -->\n| option |" in pages, name


@pytest.mark.parametrize("name", COLLECTIONS)
def test_results_that_change_are_noticed(name, make_report, copied_pages):
    file = copied_pages / "docs/research/results" / f"{name}.json"
    report = json.loads(file.read_text())
    report["systems"]["key_tokens"]["nDCG@10"] += 0.01
    file.write_text(json.dumps(report))
    assert make_report(["--check"], copied_pages) == 1


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
        "key tokens as `keytok mapping` has it: K = 64": ("key tokens", 100_000, "merged"),
        "key tokens, `best_compression`": ("key tokens, best_compression", 100_000, "merged"),
        "key tokens, K = 128": ("key tokens, K = 128", 10_000, "merged"),
        "key tokens, K = 32": ("key tokens, K = 32", 10_000, "merged"),
        "key tokens, not in `_source`": ("key tokens, not in _source", 100_000, "retained"),
    }
    dense = totals[expected["dense vectors, 384-d"]]
    seen = set()
    for line in (ROOT / "docs" / "engines.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.replace("*", "").strip() for cell in line.strip("|").split("|")]
        if key := expected.get(cells[0]):
            assert cells[1:] == [f"{totals[key]:,.0f}", f"{totals[key] / dense:.2f}", f"{key[1]:,}"], line
            seen.add(cells[0])
    assert seen == set(expected)


def test_the_notes_for_contributors_name_every_module():
    notes = set(re.findall(r"`(?:[\w/]+/)?(\w+)(?:\.py)?`", (ROOT / "AGENTS.md").read_text(encoding="utf-8")))
    modules = {
        file.stem
        for package in ("keytok_haystack", "components/haystack_integrations")
        for file in (ROOT / package).rglob("*.py")
        if file.stem != "__init__"
    }
    assert modules <= notes, modules - notes
