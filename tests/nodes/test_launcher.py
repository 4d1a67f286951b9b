# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The launcher of the test engines: what it needs, and what is left when a node ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from nodes import launcher
from nodes.launcher import QUICK_START, EngineUnavailableError, Node, missing_requirement

TESTS = Path(__file__).parent.parent
VARIABLES = ("CI", "OPENSEARCH_URL", "ELASTICSEARCH_URL")


def jdk(folder: Path, version: str, *, tools: tuple[str, ...] = ("java", "javac")) -> Path:
    (folder / "bin").mkdir(parents=True)
    for tool in tools:
        (folder / "bin" / tool).touch(mode=0o755)
    (folder / "release").write_text(f'IMPLEMENTOR="Somebody"\nJAVA_VERSION="{version}"\nOS_NAME="Linux"\n')
    return folder


def only(monkeypatch: pytest.MonkeyPatch, *homes: Path) -> None:
    monkeypatch.setattr(launcher, "_java_homes", lambda: iter(homes))


def request(url: str, body: dict | None = None, method: str = "GET") -> dict:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, {"Content-Type": "application/json"}, method=method)) as answer:
        return json.load(answer)


def runs(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], check=False, capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.startswith("Z")


def ended(pid: int) -> bool:
    deadline = time.monotonic() + 15
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not runs(pid)


@pytest.fixture
def own_url(make_store) -> str:
    return make_store.url("opensearch-knn")


@pytest.mark.parametrize(
    ("version", "tools"),
    [("17.0.9", ("java", "javac")), ("1.8.0_402", ("java", "javac")), ("20", ("java", "javac")), ("25.0.1", ("java",))],
)
def test_a_java_that_is_too_old_or_no_jdk_is_not_taken(monkeypatch, tmp_path, version, tools):
    only(monkeypatch, jdk(tmp_path / "jdk", version, tools=tools), tmp_path / "nothing")
    message = missing_requirement()
    assert message is not None
    assert "\n" not in message
    for part in ("JDK 21", "install", "JAVA_HOME"):
        assert part in message
    with pytest.raises(EngineUnavailableError, match="JDK 21"):
        Node("opensearch").start()


def test_the_first_java_that_is_new_enough_is_taken(monkeypatch, tmp_path):
    homes = [jdk(tmp_path / name, version) for name, version in (("a", "17.0.9"), ("b", "21"), ("c", "25.0.1"))]
    only(monkeypatch, tmp_path / "nothing", *homes)
    assert launcher._java() == tmp_path / "b" / "bin" / "java"


def test_java_home_goes_before_the_search_path_and_links_are_followed(monkeypatch, tmp_path):
    home, other = jdk(tmp_path / "home", "21.0.1"), jdk(tmp_path / "other", "25")
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "java").symlink_to(other / "bin" / "java")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert launcher._java() == home / "bin" / "java"
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nothing"))
    assert launcher._java() == other.resolve() / "bin" / "java"
    monkeypatch.setenv("JAVA_HOME", "")
    assert launcher._java() == other.resolve() / "bin" / "java"


def test_maven_is_named_where_it_is_missing(monkeypatch, tmp_path):
    only(monkeypatch, jdk(tmp_path / "jdk", "25"))
    monkeypatch.setenv("PATH", str(tmp_path))
    message = missing_requirement()
    assert message is not None
    assert "\n" not in message
    assert "Maven" in message
    assert "install" in message


def test_nothing_is_missing_with_a_jdk_and_maven(monkeypatch, tmp_path):
    only(monkeypatch, jdk(tmp_path / "jdk", "21"))
    (tmp_path / "mvn").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing_requirement() is None


@pytest.mark.slow
def test_a_node_that_cannot_start_says_why_and_leaves_nothing(own_url, monkeypatch, tmp_path):
    monkeypatch.setattr(launcher.tempfile, "tempdir", str(tmp_path))
    taken = int(own_url.rpartition(":")[2])
    with pytest.raises(
        RuntimeError, match=r"(?s)opensearch-knn did not start.*(already in use|BindHttpException|Failed to bind)"
    ):
        Node("opensearch-knn", port=taken).start()
    assert list(tmp_path.iterdir()) == []
    assert request(own_url)["version"]["number"] == launcher.ENGINES["opensearch-knn"].version


@pytest.mark.slow
def test_a_killed_node_starts_again_with_its_port_and_data_and_a_stopped_one_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(launcher.tempfile, "tempdir", str(tmp_path))
    with Node("opensearch-knn", jvm_options=QUICK_START) as node:
        url, port, pid = node.url, node.port, node._process.pid
        request(f"{url}/kept/_doc/1?refresh=true", {"title": "a"}, "PUT")
        node.kill()
        assert not runs(pid)
        node.start()
        assert (node.url, node.port) == (url, port)
        request(f"{url}/_cluster/health/kept?wait_for_status=yellow&timeout=30s")
        assert request(f"{url}/kept/_doc/1")["_source"] == {"title": "a"}
        (home,) = tmp_path.iterdir()
        assert (home / "data").is_dir()
        pid = node._process.pid
    assert not runs(pid)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_node_ends_with_the_process_that_started_it():
    program = (
        "import time; from nodes.launcher import Node; node = Node('opensearch-knn').start();"
        "print(node._process.pid, node._home, flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        try:
            pid, home = parent.stdout.readline().split()
            assert runs(int(pid))
        finally:
            parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert ended(int(pid))
    launcher.shutil.rmtree(home)


TEST = """
import pytest


def test_without_an_engine():
    pass


@pytest.mark.parametrize("kind", ["opensearch-knn", "elasticsearch-9"])
def test_of_an_engine(make_store, kind):
    from haystack import Document

    from haystack_integrations.components.retrievers.keytok import SparseRetriever

    print("the address is", make_store.url(kind))
    store = make_store(kind)
    print("the index is", store._index)
    store.write_documents([Document(id="a", meta={"key_tokens": {"shock": 1.0}})])
    assert SparseRetriever(store).run(key_tokens={"shock": 1.0})["documents"][0].id == "a"
"""


@pytest.fixture
def run_tests(tmp_path):
    """Runs a few tests of engines in a process for which no Maven is installed."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_small.py").write_text(TEST)
        (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
        environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
        environment |= {"PATH": str(tmp_path), "PYTHONPATH": str(TESTS), **variables}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-rA",
            *("-p", "nodes.plugin", "-p", "no:cacheprovider"),
            "--import-mode=importlib",
            tmp_path,
            *arguments,
        ]
        return subprocess.run(
            list(map(str, command)), check=False, capture_output=True, text=True, env=environment, cwd=tmp_path
        )

    return run


def test_without_maven_the_tests_of_engines_are_skipped_with_one_line(run_tests):
    done = run_tests()
    assert done.returncode == 0, done.stdout
    assert "1 passed, 2 skipped" in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("The tests of OpenSearch and Elasticsearch")]
    assert len(lines) == 1
    assert "skipped" in lines[0]
    assert "Maven was not found: install it" in lines[0]


def test_on_ci_the_run_ends_where_maven_is_missing(run_tests):
    done = run_tests(CI="true")
    assert done.returncode not in (0, 5)
    assert "passed" not in done.stdout
    (said,) = [line for line in done.stderr.splitlines() if "Maven was not found: install it" in line]
    assert "cannot run" in said
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_an_own_cluster_is_used_in_place_of_a_node_and_left_as_it_was(run_tests, own_url, make_store):
    kept = make_store("opensearch-knn")
    done = run_tests(OPENSEARCH_URL=own_url)
    assert done.returncode == 0, done.stdout
    assert "2 passed, 1 skipped" in done.stdout
    assert f"the address is {own_url}" in done.stdout
    (made,) = re.findall(r"the index is (\S+)", done.stdout)
    indices = {each["index"] for each in request(f"{own_url}/_cat/indices?format=json&h=index")}
    assert kept._index in indices
    assert made not in indices


@pytest.mark.slow
def test_on_ci_own_clusters_make_up_for_what_is_missing(run_tests, own_url):
    urls = {"OPENSEARCH_URL": own_url, "ELASTICSEARCH_URL": "http://127.0.0.1:9"}  # which is not asked
    done = run_tests("-k", "not elasticsearch", CI="true", **urls)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_on_ci_one_own_cluster_does_not_make_up_for_the_other(run_tests):
    done = run_tests(CI="true", OPENSEARCH_URL="http://127.0.0.1:9")
    assert done.returncode not in (0, 5)
    assert "cannot run" in done.stdout + done.stderr
