"""The compose file and the image, as far as they can be checked where no Docker engine runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import tomllib
import venv
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.flow.processes import Worker
from tutormax_streams import environment
from tutormax_streams.embedded import ApacheKafka
from tutormax_streams.embedded.server import free_port

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
FINAL_STAGE = DOCKERFILE.split("\nFROM ")[-1]
SCHEMA_MODULE = "github.com/compose-spec/compose-go/v2"  # the reference implementation; it carries the JSON schema
SCHEMA_VERSION = "v2.4.7"


def instruction(name: str) -> str:
    (argument,) = re.findall(rf"^{name} (.*)$", FINAL_STAGE, re.MULTILINE)
    return str(argument)


def test_compose_is_valid_by_its_json_schema(tmp_path: Path) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("the schema comes from a Go module, and there is no Go here")
    done = subprocess.run(
        [go, "mod", "download", "-json", f"{SCHEMA_MODULE}@{SCHEMA_VERSION}"],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"the Go module with the schema cannot be had: {done.stdout.decode()[-200:]}")
    schema = json.loads((Path(json.loads(done.stdout)["Dir"]) / "schema" / "compose-spec.json").read_text())
    jsonschema.validators.validator_for(schema)(schema).validate(COMPOSE)


def test_workers_can_be_scaled() -> None:
    worker = SERVICES["worker"]
    assert not {"container_name", "hostname", "network_mode"} & worker.keys(), "one name for all"
    assert all(":" not in str(port) for port in worker["ports"]), "a fixed host port serves one worker only"
    assert all(":" not in volume for volume in worker["volumes"]), "a named volume would be shared"
    assert worker["volumes"] == [instruction("VOLUME")], "the tables' directory is each container's own"
    assert not {"TUTORMAX_INSTANCE_ID", "TUTORMAX_DATA_DIR"} & worker["environment"].keys()


def test_workers_are_given_nothing_that_they_do_not_read() -> None:
    read = environment.variables().keys()
    for name in ("worker", "setup"):
        assert SERVICES[name]["environment"].keys() <= read, name


def test_workers_start_after_what_they_need() -> None:
    assert SERVICES["worker"]["depends_on"] == {
        "kafka": {"condition": "service_healthy"},
        "postgres": {"condition": "service_healthy"},
        "setup": {"condition": "service_completed_successfully"},
    }
    assert SERVICES["setup"]["command"] == ["database", "ensure"]
    for name in ("kafka", "postgres", "redis"):
        assert SERVICES[name]["healthcheck"]["test"], name


def test_servers_are_the_platforms_versions_and_keep_their_data() -> None:
    images = {name: SERVICES[name]["image"] for name in ("kafka", "postgres", "redis")}
    assert images == {"kafka": "apache/kafka:4.1.1", "postgres": "postgres:15-alpine", "redis": "redis:7-alpine"}
    for name in images:
        assert [volume.split(":")[0] for volume in SERVICES[name]["volumes"]] == [name]
    assert set(COMPOSE["volumes"]) == set(images)


def test_kafka_is_one_kraft_node_that_advertises_what_clients_can_reach() -> None:
    environment = SERVICES["kafka"]["environment"]
    assert environment["KAFKA_PROCESS_ROLES"] == "broker,controller"
    listeners = dict(entry.split("://") for entry in environment["KAFKA_LISTENERS"].split(","))
    advertised = dict(entry.split("://") for entry in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    assert advertised["INSIDE"] == SERVICES["worker"]["environment"]["KAFKA_BOOTSTRAP_SERVERS"]
    assert listeners.keys() - advertised.keys() == {environment["KAFKA_CONTROLLER_LISTENER_NAMES"]}
    protocols = dict(entry.split(":") for entry in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert protocols.keys() == listeners.keys()


@pytest.mark.slow
def test_a_real_broker_starts_with_the_compose_files_settings() -> None:
    """The image turns KAFKA_A_B into the property a.b; only ports and the directory differ here."""
    reason = ApacheKafka.why_not()
    if reason is not None:
        pytest.skip(reason)
    settings = {
        key.removeprefix("KAFKA_").lower().replace("_", "."): str(value)
        for key, value in SERVICES["kafka"]["environment"].items()
    }
    del settings["log.dirs"]
    inside, controller, host = free_port(), free_port(), free_port()
    ports = {"9092": inside, "9093": controller, "29092": host, "${KAFKA_HOST_PORT:-29092}": host}
    for key in ("listeners", "advertised.listeners", "controller.quorum.voters"):
        for written, free in ports.items():
            settings[key] = re.sub(rf":{re.escape(written)}(,|$)", rf":{free}\1", settings[key])
    kafka = ApacheKafka(settings)
    kafka.port = inside
    with kafka:
        assert kafka.running


def test_the_image_runs_our_command_as_nobody_special() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.loads(instruction("ENTRYPOINT"))[0] in scripts
    assert json.loads(instruction("CMD")) == ["worker"]
    assert int(instruction("USER")) >= 1000
    assert DOCKERFILE.count("\nFROM ") == 2, "tools stay in the stage that builds"
    grace = SERVICES["worker"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > 30, "a worker may take 30 s to drain"


@pytest.mark.parametrize("variable", ["TUTORMAX_WEB_PORT", "TUTORMAX_HEALTH_PORT"])
@pytest.mark.parametrize(("path", "healthy"), [("/livez", True), ("/elsewhere", False)])
def test_the_image_asks_livez_on_the_port_that_the_worker_has(path: str, healthy: bool, variable: str) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == path else 404)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    command: list[str] = json.loads(re.findall(r"^HEALTHCHECK .*\\\n +CMD (.*)$", FINAL_STAGE, re.MULTILINE)[0])
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        done = subprocess.run(
            [sys.executable, *command[1:]],
            env=os.environ | {"TUTORMAX_WEB_PORT": "1", variable: str(server.server_port)},
            capture_output=True,
            timeout=30,
            check=False,
        )
    assert (done.returncode == 0) == healthy, done.stderr


def test_the_builder_gets_what_the_dockerfile_copies_and_nothing_else() -> None:
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert ignored.index("*") < ignored.index("!pyproject.toml")
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied


IMPORT_ALL = """
import importlib, pkgutil
for name in ("models", "tables", "agents", "tutormax_streams"):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        importlib.import_module(module.name)
print(package.__file__)
"""


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """The programs of a clean environment that has what the Dockerfile installs: dependencies by pip, our wheel."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        wheel_of = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(home), str(ROOT)]
        subprocess.run(wheel_of, check=True, capture_output=True)
        (wheel,) = home.glob("*.whl")
        venv.create(home / "venv", with_pip=True)
        programs = home / "venv" / "bin"
        quietly = ["--quiet", "--no-compile", "--disable-pip-version-check"]
        subprocess.run([programs / "python", "-m", "pip", "install", *quietly, wheel], check=True)
        yield programs


@pytest.mark.slow
def test_the_wheel_runs_from_a_clean_environment_in_an_empty_directory(
    installed: Path, empty_postgres: str, tmp_path: Path
) -> None:
    """No source tree in sight."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["TUTORMAX_DATABASE_URL"] = empty_postgres

    def ran(*command: str) -> str:
        done = subprocess.run(
            [installed / command[0], *command[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "worker" in ran("tutormax-streams", "--help")
    assert Path(ran("python", "-c", IMPORT_ALL).strip()).is_relative_to(installed.parent), (
        "every module, extras not installed"
    )
    made = ran("tutormax-streams", "database", "ensure")  # which reads SQL files out of the wheel
    assert "created tutor_performance_metrics" in made
    assert made.endswith("the database is as it must be\n")
    assert list(tmp_path.iterdir()) == [], "importing and asking for help leave nothing behind"


@pytest.mark.slow
async def test_a_worker_of_the_wheel_gets_ready_and_ends_when_it_is_told_to(
    installed: Path, kafka: str, topic_prefix: str, postgres: str, tmp_path: Path
) -> None:
    given = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "KAFKA_PARTITIONS": "2",
        "KAFKA_TOPIC_PREFIX": topic_prefix,
        "TUTORMAX_APP_ID": topic_prefix.rstrip("."),
        "TUTORMAX_DATABASE_URL": postgres,
        "PYTHONPATH": "",
    }
    worker = Worker("of-the-wheel", tmp_path, given, [str(installed / "tutormax-streams"), "worker"])
    worker.start()
    try:
        await worker.until_ready()
        assert await worker.stop() == 0
    finally:
        worker.kill()
