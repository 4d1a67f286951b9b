# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Engines for tests, as a plugin of pytest: its fixtures, and which tests are marked `engine` and `slow`.

All workers of a run share one node of a kind. The process that controls them starts it when a test first asks for it,
so that it ends with the run, however that ends.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any
from xmlrpc.client import ServerProxy
from xmlrpc.server import SimpleXMLRPCServer

import pytest
from nodes.gate import Gate
from nodes.launcher import ENGINES, QUICK_START, Node, is_like, missing_requirement

if TYPE_CHECKING:
    from nodes.stores import StoreFactory

DECISIVE = ("opensearch-knn", "elasticsearch-9")
"""The kinds that decide whether a change is right; tests of all others are slow."""

MISSING = missing_requirement()
URL_VARIABLES = {"opensearch": "OPENSEARCH_URL", "elasticsearch": "ELASTICSEARCH_URL"}

ask_for_url = pytest.StashKey[Callable[[str], str]]()
current_item = pytest.StashKey[pytest.Item]()


class SharedNodes:
    """Nodes for all tests of a run."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._server: SimpleXMLRPCServer | None = None

    def url(self, kind: str) -> str:
        """Return the address of a node; start it if it does not run yet."""
        if kind not in self._nodes:
            self._nodes[kind] = Node(kind, jvm_options=QUICK_START).start()
        return self._nodes[kind].url

    def serve(self) -> str:
        """Return the address at which other processes can call `url`, one at a time."""
        if self._server is None:
            self._server = SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
            self._server.register_function(self.url)
            threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        for node in self._nodes.values():
            node.stop()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "engine: runs on a real OpenSearch or Elasticsearch; set by this plugin.")
    config.addinivalue_line("markers", "slow: is part of `make test-all` only.")
    if hasattr(config, "workerinput"):
        config.stash[ask_for_url] = ServerProxy(config.workerinput["shared_nodes"]).url
        return
    nodes = SharedNodes()
    config.stash[ask_for_url] = nodes.url
    config.add_cleanup(nodes.close)
    config.pluginmanager.register(_Controller(nodes))


class _Controller:
    def __init__(self, nodes: SharedNodes) -> None:
        self._nodes = nodes

    @pytest.hookimpl(optionalhook=True)  # of pytest-xdist
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["shared_nodes"] = self._nodes.serve()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Where CI runs, nothing is skipped: what is missing ends the run."""
    if MISSING and os.environ.get("CI") == "true" and not all(map(os.environ.get, URL_VARIABLES.values())):
        pytest.exit(f"The tests of OpenSearch and Elasticsearch cannot run: {MISSING}", returncode=1)


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        # `engine` is what the library calls it: OpenSearch or Elasticsearch, whatever node
        values = {value for name, value in parameters.items() if isinstance(value, str) and name != "engine"}
        kinds = values & ENGINES.keys()
        if kinds or (fixtures & {"engine_url", "own_nodes"} and "in-memory" not in values):
            item.add_marker("engine")
        if "own_nodes" in fixtures or not kinds.issubset(DECISIVE):
            item.add_marker("slow")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.config.stash[current_item] = item


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say in one line what was skipped."""
    if MISSING and terminalreporter.stats.get("skipped"):
        terminalreporter.write_line(f"The tests of OpenSearch and Elasticsearch were skipped: {MISSING}")
    elif terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("The tests of engines that are not like your own cluster were skipped.")


@pytest.fixture(scope="session")
def engine_url(pytestconfig: pytest.Config) -> Callable[[str], str]:
    """Return the address of a kind of engine, which is started if need be: a node, or the user's own cluster."""

    asked: set[str] = set()

    def url(kind: str) -> str:
        if own := os.environ.get(URL_VARIABLES[kind.partition("-")[0]]):
            if not is_like(own, kind):
                pytest.skip(f"{own} is not like {kind}")
            return own
        if MISSING:
            pytest.skip(MISSING)
        # once, since fixtures of slow tests may be torn down when another test is the current one
        if kind not in {*DECISIVE, *asked} and not pytestconfig.stash[current_item].get_closest_marker("slow"):
            pytest.fail(f"What uses {kind} is to be marked as slow.")
        asked.add(kind)
        return pytestconfig.stash[ask_for_url](kind)

    return url


@pytest.fixture(scope="module")
def own_nodes() -> Iterator[dict[str, Node]]:
    """The nodes that tests of a module may kill, by their kinds."""
    if MISSING:
        pytest.skip(MISSING)
    nodes: dict[str, Node] = {}
    yield nodes
    for node in nodes.values():
        node.stop()


@pytest.fixture
def node(kind: str, own_nodes: dict[str, Node]) -> Node:
    """A node that a test may kill; it runs, whatever a test before has done to it."""
    node = own_nodes.setdefault(kind, Node(kind, jvm_options=QUICK_START))
    return node if node.is_running else node.start()


@pytest.fixture(scope="session")
def make_store(engine_url: Callable[[str], str]) -> Iterator["StoreFactory"]:
    """`make_store("opensearch-knn")`: a document store over a new index, with key tokens, on that engine."""
    from nodes.stores import StoreFactory  # noqa: PLC0415  # imports Haystack

    factory = StoreFactory(engine_url)
    yield factory
    if any(map(os.environ.get, URL_VARIABLES.values())):  # nodes end with their indices
        factory.close()


@pytest.fixture
def gate(make_store: "StoreFactory") -> Iterator[Callable[[str], Gate]]:
    """`gate("opensearch-knn")`: a new gate before that engine."""
    with ExitStack() as gates:
        yield lambda kind: gates.enter_context(closing(Gate(make_store.url(kind))))
