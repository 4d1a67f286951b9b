# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Real OpenSearch and Elasticsearch nodes for tests, without Docker.

Maven copies the servers' own jars from Maven Central, once; a JVM of its own runs each node, from one of the Java files
beside this one; and a node ends with the process that started it. Run this file to start one by hand:

    python tests/nodes/launcher.py opensearch-knn

Elasticsearch's jars are under Elastic's licences: they are fetched for tests and never shipped.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Self

_HERE = Path(__file__).resolve().parent
_CACHE = Path(os.environ.get("KEYTOK_CACHE", Path.home() / ".cache" / "keytok-haystack")) / "engines"
_DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_JDK = 21

QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Options of a JVM that starts with half the work, and need not be fast once it has run for long."""


class EngineUnavailableError(RuntimeError):
    """What is needed to start an engine is not installed; the message says what to install."""


@dataclass(frozen=True)
class Engine:
    """
    What a node is made of.

    :param main: The Java file that starts it.
    :param version: The engine's version.
    :param artifacts: Maven coordinates `group:artifact:version[:type]` of all that goes on the class path; a zip is
        unpacked. After `!` follows a dependency that is left out.
    :param modules: Artifacts that are loaded as modules, and the class of each.
    :param plugins: Plugin classes that the class path holds.
    :param compiled: The Java file of a plugin that is compiled and loaded as a module.
    """

    main: str
    version: str
    artifacts: tuple[str, ...]
    modules: dict[str, str] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    compiled: str = ""


def _opensearch(version: str, log4j: str, *further: str, plugins: tuple[str, ...] = ()) -> Engine:
    modules = ("transport-netty4-client", "mapper-extras-client", "lang-painless", "reindex-client", "analysis-common")
    return Engine(
        "OpenSearchNode.java",
        version,
        (
            f"org.opensearch:opensearch:{version}",
            *(f"org.opensearch.plugin:{module}:{version}" for module in modules),
            f"org.apache.logging.log4j:log4j-core:{log4j}",
            *further,
        ),
        plugins=plugins,
    )


def _elasticsearch(version: str) -> Engine:
    return Engine(
        "ElasticsearchNode.java",
        version,
        (
            f"org.elasticsearch:elasticsearch:{version}",
            f"org.elasticsearch.plugin:transport-netty4:{version}",
            f"org.elasticsearch.plugin:x-pack-core:{version}!org.elasticsearch.plugin:x-pack-template-resources",
        ),
        modules={
            "transport-netty4": "org.elasticsearch.transport.netty4.Netty4Plugin",
            "x-pack-core": "org.elasticsearch.xpack.core.XPackClientPlugin",  # the sparse_vector query
        },
        compiled="CosineScripts.java",
    )


ENGINES = {
    "opensearch": _opensearch(
        "3.8.0",
        "2.25.4",
        "org.opensearch.plugin:search-pipeline-common:3.8.0",
        plugins=("org.opensearch.search.pipeline.common.SearchPipelineCommonModulePlugin",),
    ),
    "opensearch-knn": _opensearch(
        "3.5.0",
        "2.25.3",
        "org.opensearch.plugin:opensearch-knn:3.5.0.0:zip",
        # what the k-NN plugin expects of the distribution
        "com.google.guava:guava:33.2.1-jre",
        "org.opensearch.plugin:transport-grpc-spi:3.6.0!*:*",
        "org.opensearch:protobufs:1.3.0",
        plugins=("org.opensearch.knn.plugin.KNNPlugin",),
    ),
    "elasticsearch-7": Engine(
        "Elasticsearch7Node.java",
        "7.17.29",
        (
            "org.elasticsearch:elasticsearch:7.17.29",
            "org.elasticsearch.plugin:transport-netty4-client:7.17.29",
            "org.elasticsearch.plugin:mapper-extras-client:7.17.29",
            "org.elasticsearch.plugin:reindex-client:7.17.29",
        ),
    ),
    "elasticsearch-8": _elasticsearch("8.19.21"),
    "elasticsearch-9": _elasticsearch("9.5.3"),
}


def missing_requirement() -> str | None:
    """Say in one line what is missing to start engines, and what to install; None if nothing is."""
    try:
        _java()
        _maven()
    except EngineUnavailableError as error:
        return str(error)
    return None


@cache
def is_like(url: str, kind: str) -> bool:
    """Tell whether a cluster can do what the tests of an engine expect: its major version, or its k-NN plugin."""
    if kind.startswith("opensearch"):
        with urllib.request.urlopen(f"{url}/_cat/plugins", timeout=30) as answer:
            return (b"knn" in answer.read()) == (kind == "opensearch-knn")
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(json.load(answer)["version"]["number"]).startswith(kind.removeprefix("elasticsearch-") + ".")


class Node:
    """
    A running node, as a context manager.

    :param kind: One of `ENGINES`.
    :param port: The HTTP port; 0 takes any free one.
    :param heap: The JVM's heap.
    :param settings: Further settings of the node.
    :param jvm_options: Further options of the JVM.
    :raises EngineUnavailableError: No new enough JDK, or no Maven, is installed.
    """

    def __init__(
        self,
        kind: str,
        *,
        port: int = 0,
        heap: str = "512m",
        settings: dict[str, str] | None = None,
        jvm_options: tuple[str, ...] = (),
    ) -> None:
        self.kind = kind
        self.port = port
        self.heap = heap
        self.settings = settings or {}
        self.jvm_options = jvm_options
        self.url = ""

    def start(self, timeout: float = 120) -> Self:
        """Start the node and wait until it answers; a second start finds the data of the first."""
        engine, folder, java = ENGINES[self.kind], _prepared(self.kind), _java()
        if not self.url:
            self._home = Path(tempfile.mkdtemp(prefix=f"{self.kind}-"))
            (self._home / "config").mkdir()
            if engine.modules:
                shutil.copytree(folder / "modules", self._home / "modules")
            if engine.compiled:
                _compile(_HERE / engine.compiled, folder / "jars", self._home / "modules", engine.version)
        settings = {
            "path.home": self._home,
            "path.data": self._home / "data",
            "path.logs": self._home / "logs",
            "cluster.name": "test",
            "node.name": "node",
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": self.port,
            "transport.port": 0,
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            **self.settings,
        }
        command = [java, f"-Xms{self.heap}", f"-Xmx{self.heap}", *self.jvm_options]
        command += [f"-Dplugins={','.join(engine.plugins)}", "-cp", f"{folder / 'jars'}{os.sep}*", _HERE / engine.main]
        command += [f"{name}={value}" for name, value in settings.items()]
        # the node reads from this pipe, and ends when it is closed: with this process, however this ends
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        ready = threading.Event()
        log: deque[str] = deque(maxlen=40)
        self.url = ""

        def follow() -> None:
            for line in self._process.stdout or ():
                log.append(line)
                if match := re.match(r"READY (\S+)", line):
                    self.url = match[1]
                    ready.set()
            ready.set()

        threading.Thread(target=follow, daemon=True).start()
        ready.wait(timeout)
        if not self.url:
            self.stop()
            msg = f"{self.kind} did not start:\n{''.join(log)}"
            raise RuntimeError(msg)
        self.port = int(self.url.rpartition(":")[2])
        return self

    @property
    def is_running(self) -> bool:
        return bool(self.url) and self._process.poll() is None

    def kill(self) -> None:
        """End the node at once, as a crash would; `start` starts it again on the same port, with its data."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the node and remove its data."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()


class Cluster:
    """
    OpenSearch nodes that form one cluster, as a context manager.

    :param kind: One of `ENGINES`, of OpenSearch.
    :param size: How many nodes.
    :param heap: The heap of each JVM.
    """

    def __init__(self, kind: str = "opensearch", *, size: int = 3, heap: str = "384m") -> None:
        self.kind = kind
        ports = {f"node-{i}": port for i, port in enumerate(_free_ports(size))}
        together = {
            "discovery.type": "zen",
            "discovery.seed_hosts": ",".join(f"127.0.0.1:{port}" for port in ports.values()),
            "cluster.initial_cluster_manager_nodes": ",".join(ports),
        }
        self.nodes = {
            name: Node(
                kind,
                heap=heap,
                settings={**together, "node.name": name, "transport.port": str(port)},
                jvm_options=QUICK_START,
            )
            for name, port in ports.items()
        }

    @property
    def urls(self) -> list[str]:
        """The addresses of all nodes, also of killed ones, which come back to theirs."""
        return [node.url for node in self.nodes.values()]

    def start(self) -> Self:
        """Start the nodes that are not running, and wait until the cluster is whole."""
        _prepared(self.kind)  # once, and not by each node
        with ThreadPoolExecutor(len(self.nodes)) as pool:  # together, since the first ones wait for a majority
            list(pool.map(Node.start, [node for node in self.nodes.values() if not node.is_running]))
        self.wait_until_green()
        return self

    def wait_until_green(self) -> None:
        """Wait until all nodes have joined and every shard has all its copies."""
        health = f"_cluster/health?wait_for_nodes={len(self.nodes)}&wait_for_status=green&timeout=60s"
        urllib.request.urlopen(f"{self.urls[0]}/{health}", timeout=90).close()

    def stop(self) -> None:
        """End the nodes and remove their data."""
        for node in self.nodes.values():
            if node.url:
                node.kill()  # alone, the last of them would wait for the others
                node.stop()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *exception: object) -> None:
        self.stop()


def _free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on."""
    with ExitStack() as stack:
        listening = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in listening:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in listening]


def _java() -> Path:
    """Return a `java` that is new enough: of JAVA_HOME, of the search path or of the usual folders."""
    for home in _java_homes():
        release = home / "release"
        if (home / "bin" / "javac").exists() and release.is_file():
            version = re.search(r'JAVA_VERSION="(\d+)', release.read_text())
            if version and int(version[1]) >= _JDK:
                return home / "bin" / "java"
    msg = f"no JDK {_JDK} or later was found: install one (such as temurin-25-jdk), or set JAVA_HOME"
    raise EngineUnavailableError(msg)


def _java_homes() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home)
    if java := shutil.which("java"):
        yield Path(java).resolve().parent.parent
    for pattern in (
        "/usr/lib/jvm/*",
        "/Library/Java/JavaVirtualMachines/*/Contents/Home",
        "/opt/homebrew/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
        f"{Path.home()}/.sdkman/candidates/java/*",
        f"{Path.home()}/.jdks/*",
    ):
        yield from sorted(Path("/").glob(pattern.removeprefix("/")), reverse=True)


def _maven() -> str:
    maven = shutil.which("mvn")
    if maven is None:
        msg = "Maven was not found: install it (package maven), so that the engines' jars can be fetched"
        raise EngineUnavailableError(msg)
    return maven


def _prepared(kind: str) -> Path:
    """Return the folder with the jars of an engine, fetching them if it is not there."""
    engine = ENGINES[kind]
    parts = hashlib.sha256(repr((engine.artifacts, engine.modules)).encode()).hexdigest()[:8]
    folder = _CACHE / f"{kind}-{engine.version}-{parts}"
    if folder.is_dir():
        return folder
    maven = _maven()
    print(f"Fetching {kind} {engine.version} from Maven Central ...", file=sys.stderr)
    _CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE) as name:
        temporary = Path(name) / folder.name
        temporary.mkdir()
        pom = Path(name) / "pom.xml"
        pom.write_text(_pom(engine))

        def dependencies(goal: str, *options: str) -> None:
            done = subprocess.run(
                [maven, "-q", "-B", "-f", pom, f"{_DEPENDENCY_PLUGIN}:{goal}", *options],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "JAVA_HOME": str(_java().parent.parent)},
            )
            if done.returncode:
                msg = f"Maven could not fetch {kind} {engine.version}:\n{done.stdout[-2000:]}"
                raise RuntimeError(msg)

        jars = temporary / "jars"
        exclude = [f"-DexcludeArtifactIds={','.join(engine.modules)}"] if engine.modules else []
        dependencies("copy-dependencies", f"-DoutputDirectory={jars}", "-DexcludeTypes=zip", *exclude)
        if any(artifact.endswith(":zip") for artifact in engine.artifacts):
            unpacked = Path(name) / "unpacked"
            markers = f"-DmarkersDirectory={Path(name) / 'markers'}"
            dependencies("unpack-dependencies", f"-DoutputDirectory={unpacked}", markers, "-DincludeTypes=zip")
            for jar in unpacked.glob("*.jar"):
                shutil.copy(jar, jars)
        for module, main in engine.modules.items():
            target = temporary / "modules" / module
            dependencies("copy-dependencies", f"-DoutputDirectory={target}", f"-DincludeArtifactIds={module}")
            (target / "plugin-descriptor.properties").write_text(_descriptor(module, main, engine.version))
        try:
            temporary.replace(folder)
        except OSError:
            if not folder.is_dir():  # another process was quicker
                raise
    return folder


def _compile(source: Path, jars: Path, modules: Path, version: str) -> None:
    """Compile a plugin of one Java file, as a module of its name."""
    name, classes = source.stem, modules / "classes"
    target = modules / name
    target.mkdir()
    tools = _java().parent
    subprocess.run(
        [tools / "javac", "-nowarn", "--release", "17", "-cp", f"{jars}{os.sep}*", "-d", classes, source], check=True
    )
    subprocess.run([tools / "jar", "--create", "--file", target / f"{name}.jar", "-C", classes, "."], check=True)
    shutil.rmtree(classes)
    (target / "plugin-descriptor.properties").write_text(_descriptor(name, name, version))


def _descriptor(name: str, main: str, version: str) -> str:
    return (
        f"name={name}\ndescription={name}\nversion={version}\n"
        f"elasticsearch.version={version}\njava.version=17\nclassname={main}\n"
    )


def _pom(engine: Engine) -> str:
    dependencies = []
    for artifact in engine.artifacts:
        coordinates, _, left_out = artifact.partition("!")
        tags = zip(("groupId", "artifactId", "version", "type"), coordinates.split(":"), strict=False)
        content = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
        if left_out:
            group, _, name = left_out.partition(":")
            exclusion = f"<groupId>{group}</groupId><artifactId>{name}</artifactId>"
            content += f"<exclusions><exclusion>{exclusion}</exclusion></exclusions>"
        dependencies.append(f"<dependency>{content}</dependency>")
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>test</groupId><artifactId>engine</artifactId>"
        f"<version>1</version><packaging>pom</packaging><dependencies>{''.join(dependencies)}</dependencies></project>"
    )


if __name__ == "__main__":
    with Node(sys.argv[1] if len(sys.argv) > 1 else "opensearch-knn", port=9200) as node:
        print(f"{node.kind} is at {node.url}; Enter ends it.")
        sys.stdin.readline()
