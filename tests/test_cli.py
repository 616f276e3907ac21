"""The command line: its manual, its settings, and how it tells an operator what is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import typer
from aiokafka.errors import KafkaTimeoutError
from typer.testing import CliRunner, Result

import tutormax_streams.__main__
import tutormax_streams.cli
from tutormax_streams import environment
from tutormax_streams.cli import app
from tutormax_streams.embedded.server import HOST, free_port
from tutormax_streams.settings import Settings

OURS = ("TUTORMAX_", "KAFKA_", "POSTGRES_")
COMMANDS = [
    "demo", "worker", "topics ensure", "topics check", "topics tail", "database ensure", "database check", "generate",
    "rebuild", "audit", "settings", "dead-letters list", "dead-letters show", "dead-letters replay",
]  # fmt: skip


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)  # a worker's data directory is relative


@pytest.fixture
def nobody() -> str:
    """An address where no server listens."""
    return f"{HOST}:{free_port()}"


def tutormax(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env=environ)


def paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, found in getattr(command, "commands", {}).items():
        yield from paths(found, (*path, name))
    if not getattr(command, "commands", {}):
        yield path


# -- the manual -----------------------------------------------------------------------------------------------------


def test_the_commands_are_those_of_the_manual():
    assert sorted(" ".join(path) for path in paths(typer.main.get_command(app))) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_a_page_with_examples_that_name_the_command(command: str):
    result = tutormax(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"tutormax-streams {command}" in result.output
    assert len(result.output.splitlines()) > 10


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str):
    found: Any = typer.main.get_command(app)
    for name in command.split():
        found = found.commands[name]
    unexplained = [parameter.name for parameter in found.params if parameter.name != "help" and not parameter.help]
    assert unexplained == []


def test_without_a_command_there_is_help_with_the_exit_codes():
    result = tutormax()
    assert "Exit codes" in result.output
    assert "rebuild" in result.output


def test_help_answers_without_loading_kafka_faust_or_a_database_driver():
    loaded = "import sys, tutormax_streams.cli; print({'aiokafka', 'faust', 'psycopg', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "tutormax_streams", "settings", "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)


# -- settings -------------------------------------------------------------------------------------------------------


def test_every_setting_is_listed_with_its_variable_and_its_purpose():
    listed = json.loads(tutormax("settings", "--json").stdout)
    assert len(listed) == len(Settings.model_fields)
    assert [setting["name"] for setting in listed if not setting["help"]] == []
    assert "KAFKA_BOOTSTRAP_SERVERS" in tutormax("settings").stdout


def test_what_a_setting_may_be_is_said_with_it():
    fields = {environment.variable(name): field for name, field in Settings.model_fields.items()}
    choices = {name: get_args(field.annotation) for name, field in fields.items()}
    told = environment.variables()
    for name, values in choices.items():
        for value in values:
            if isinstance(value, str):
                assert re.search(rf"\b{re.escape(value)}\b", told[name]), f"{name} may be {value}"


def test_variables_are_those_that_are_read(monkeypatch: pytest.MonkeyPatch):
    taken = {"TUTORMAX_WEB_PORT": "7777", "KAFKA_PARTITIONS": "3", "TUTORMAX_ROLES": "sink", "POSTGRES_DB": "other"}
    for name in environment.variables():
        monkeypatch.setenv(name, taken.get(name, ""))
    shown = {setting.name: setting for setting in environment.listing(environment.load())}
    assert {name: shown[name].value for name in taken} == taken
    assert {name for name, setting in shown.items() if setting.source == "environment"} == taken.keys()


@pytest.mark.parametrize("output", [(), ("--json",)])
def test_secrets_are_never_shown(output: tuple[str, ...]):
    url = "postgresql://me:hunter2@db.example.com:5433/tutors?sslmode=require"
    result = tutormax(
        "settings", *output, TUTORMAX_DATABASE_URL=url, KAFKA_SECURITY_PASSWORD="hunter2", POSTGRES_PASSWORD="hunter2"
    )
    assert result.exit_code == 0
    assert "hunter2" not in result.output
    assert "postgresql://me:********@db.example.com:5433/tutors" in result.output


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("KAFKA_PARTITIONS", "many", "KAFKA_PARTITIONS: must be a valid integer"),
        ("TUTORMAX_ROLES", "stream,cook", "TUTORMAX_ROLES: must be 'stream' or 'sink'"),
        ("TUTORMAX_ROLES", ",", "TUTORMAX_ROLES: name at least one of stream, sink"),
        ("TUTORMAX_NAIVE_TIMEZONE", "Mars/Olympus", "TUTORMAX_NAIVE_TIMEZONE: 'Mars/Olympus' is not a time zone"),
        ("TUTORMAX_DATABASE_URL", "hunter2@nowhere", "TUTORMAX_DATABASE_URL: must look like postgresql://"),
        ("TUTORMAX_WEB_PORT", "0", "TUTORMAX_WEB_PORT: must be greater than or equal to 1"),
    ],
)
@pytest.mark.parametrize("command", ["worker", "settings", "audit"])
def test_a_bad_setting_is_a_sentence_that_names_the_variable(command: str, variable: str, value: str, told: str):
    result = tutormax(command, **{variable: value})
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "hunter2" not in result.output


def test_all_bad_settings_are_told_at_once():
    result = tutormax("settings", KAFKA_PARTITIONS="many", TUTORMAX_STORE="drawer")
    assert "KAFKA_PARTITIONS" in result.stderr
    assert "TUTORMAX_STORE" in result.stderr


def test_a_variable_that_looks_like_a_slip_is_pointed_out():
    result = tutormax("settings", TUTORMAX_ROELS="sink")
    assert result.exit_code == 0
    assert "TUTORMAX_ROELS is not a setting; is TUTORMAX_ROLES meant?" in result.stderr


# -- a deployment, from nothing -------------------------------------------------------------------------------------


def test_topics_are_missing_then_made_and_hold_what_generate_published(kafka: str, topic_prefix: str):
    given = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "KAFKA_PARTITIONS": "1",
        "KAFKA_TOPIC_PREFIX": topic_prefix,
        "TUTORMAX_APP_ID": f"{topic_prefix}app",
    }
    checked = tutormax("topics", "check", **given)
    assert checked.exit_code == 1
    assert f"{topic_prefix}sessions" in checked.stdout
    ensured = tutormax("topics", "ensure", **given)
    assert ensured.exit_code == 0, ensured.output
    assert f"created {topic_prefix}sessions" in ensured.stdout
    for command in ("check", "ensure"):
        again = tutormax("topics", command, **given)
        assert (again.exit_code, again.stdout) == (0, "all topics are as they must be\n")
    published = tutormax("generate", "--tutors", "3", "--days", "5", **given)
    assert published.exit_code == 0, published.output
    total, by_topic = re.findall(r"^published (\d+) events: (.*)$", published.stdout.replace("\n", " ").strip())[0]
    told = {topic: int(events) for events, topic in re.findall(r"(\d+) to ([\w-]+)", by_topic)}
    assert told["tutors"] == 3
    assert int(total) == sum(told.values())
    raw = ("tail", "tutors", "sessions", "feedback", "tutor-events", "--from-beginning", "--no-follow", "--json")
    tailed = tutormax("topics", *raw, **given)
    assert tailed.exit_code == 0, tailed.output
    assert len(tailed.stdout.splitlines()) == int(total)
    assert len(tutormax("topics", *raw, "--limit", "2", **given).stdout.splitlines()) == 2


def test_a_database_without_tables_is_told_and_gets_them(empty_postgres: str):
    checked = tutormax("database", "check", TUTORMAX_DATABASE_URL=empty_postgres)
    assert checked.exit_code == 1
    assert "tutor_performance_metrics" in checked.stdout
    ensured = tutormax("database", "ensure", TUTORMAX_DATABASE_URL=empty_postgres)
    assert ensured.exit_code == 0, ensured.output
    assert "created tutor_performance_metrics" in ensured.stdout
    for command in ("check", "ensure"):
        again = tutormax("database", command, TUTORMAX_DATABASE_URL=empty_postgres)
        assert (again.exit_code, again.stdout) == (0, "the database is as it must be\n")


# -- what is wrong, in a sentence ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["topics ensure", "topics check", "topics tail", "generate", "dead-letters list", "dead-letters show sessions/0/1",
     "dead-letters replay --all"],
)  # fmt: skip
def test_kafka_away_is_a_sentence_and_exit_code_3(command: str, nobody: str):
    result = tutormax(*command.split(), KAFKA_BOOTSTRAP_SERVERS=nobody)
    assert result.exit_code == 3
    assert result.stderr == (
        f"tutormax-streams: no Kafka broker answers at {nobody}: start it, or set KAFKA_BOOTSTRAP_SERVERS\n"
    )


@pytest.mark.parametrize("command", ["database ensure", "database check", "audit", "rebuild"])
def test_postgresql_away_is_a_sentence_and_exit_code_4(command: str, nobody: str):
    result = tutormax(*command.split(), TUTORMAX_DATABASE_URL=f"postgresql://me:hunter2@{nobody}/tutors")
    assert result.exit_code == 4
    assert "TUTORMAX_DATABASE_URL or POSTGRES_*" in result.stderr
    assert "hunter2" not in result.stderr
    assert "Traceback" not in result.stderr


def worker(**environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tutormax_streams", "worker"],
        env={**os.environ, "TUTORMAX_WEB_PORT": str(free_port()), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_worker_without_kafka_ends_with_a_sentence_and_exit_code_3(nobody: str):
    done = worker(KAFKA_BOOTSTRAP_SERVERS=nobody)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith(f"tutormax-streams: no Kafka broker answers at {nobody}")
    assert "Traceback" not in done.stderr


SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_worker_that_waits_for_kafka_is_stopped_by_a_signal_at_once(number: signal.Signals):
    """Somebody takes the connection and never says a word."""
    with socket.create_server((HOST, 0)) as silent:
        silent.settimeout(60)
        waiting = subprocess.Popen(
            [sys.executable, "-m", "tutormax_streams", "worker"],
            env=os.environ
            | {"TUTORMAX_WEB_PORT": str(free_port()), "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{silent.getsockname()[1]}"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            connection, _ = silent.accept()
            with connection:
                time.sleep(0.3)
                waiting.send_signal(number)
                started = time.monotonic()
                out, err = waiting.communicate(timeout=10)
        finally:
            waiting.kill()
    assert waiting.returncode == 0, err
    assert out == ""
    assert "Traceback" not in err
    assert "Unclosed" not in err
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("at", ["environment.load", "startup.check_machine", "worker.Runtime"])
def test_a_signal_between_the_waits_of_a_start_ends_the_worker_too(
    number: signal.Signals, at: str, monkeypatch: pytest.MonkeyPatch
):
    async def prepared(settings: Settings) -> None:
        return None

    monkeypatch.setattr("tutormax_streams.startup.prepare", prepared)

    def end(*_: object) -> None:  # this process has more tests
        raise SystemExit(0)

    monkeypatch.setattr("tutormax_streams.signals._end", end)
    monkeypatch.setattr("uvloop.install", lambda: None)
    monkeypatch.setattr("tutormax_streams.logs.configure", lambda *args: None)
    monkeypatch.setattr(f"tutormax_streams.{at}", lambda *args: os.kill(os.getpid(), number))
    before = {each: signal.getsignal(each) for each in SIGNALS}
    try:
        assert tutormax("worker", TUTORMAX_WEB_PORT=str(free_port())).exit_code == 0
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_a_kafka_that_goes_away_while_a_worker_starts_is_a_sentence_and_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Between two questions of the start-up checks."""

    def away() -> int:
        raise KafkaTimeoutError("no offsets in 15000 ms")

    monkeypatch.setattr("tutormax_streams.signals.end_the_process", lambda: None)
    monkeypatch.setattr("tutormax_streams.worker.main", away)
    monkeypatch.setattr(sys, "argv", ["tutormax-streams", "worker"])
    with pytest.raises(SystemExit) as ended:
        tutormax_streams.__main__.main()
    said = capsys.readouterr().err
    assert (ended.value.code, said) == (
        3,
        "tutormax-streams: Kafka failed: KafkaTimeoutError: no offsets in 15000 ms\n",
    )


def test_a_worker_takes_no_command_line_along():
    """Nor its libraries: typer and rich are 5 MiB that nobody needs for months."""
    seen = "import sys; print(*{'typer', 'rich', 'worker'} & {n.rpartition('.')[2] for n in sys.modules})"
    script = f"""
import atexit, sys
sys.argv[1:] = ["worker"]
atexit.register(lambda: exec({seen!r}))
from tutormax_streams.__main__ import main
main()
"""
    refused = {**os.environ, "KAFKA_PARTITIONS": "none"}
    done = subprocess.run([sys.executable, "-c", script], env=refused, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (2, "worker"), done.stderr
    assert done.stderr.startswith("tutormax-streams: KAFKA_PARTITIONS:")


def test_a_worker_whose_port_is_taken_ends_with_a_sentence_and_exit_code_2(nobody: str):
    with socket.create_server((HOST, 0)) as taken:
        done = worker(TUTORMAX_WEB_PORT=str(taken.getsockname()[1]), TUTORMAX_WEB_HOST=HOST)
    assert done.returncode == 2
    assert "set TUTORMAX_WEB_HOST and TUTORMAX_WEB_PORT" in done.stderr


def test_a_worker_that_cannot_write_ends_with_a_sentence_and_exit_code_2():
    done = worker(TUTORMAX_DATA_DIR="/proc/nowhere")
    assert done.returncode == 2
    assert "set TUTORMAX_DATA_DIR" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("topics tail nonsense", "nonsense: choose from tutors"),
        ("dead-letters replay", "say which letters"),
        ("dead-letters replay --all --fix [1]", "must be a JSON object"),
        ("dead-letters replay --all --fix {", "is no JSON"),
        ("demo --tutors 1", "--tutors"),
        ("generate --days 400", "--days"),
    ],
)
def test_a_bad_option_is_told_with_exit_code_2(arguments: str, told: str):
    result = tutormax(*arguments.split())
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_name_that_is_no_letter_is_told():
    result = tutormax("dead-letters", "show", "sessions-3-120")
    assert result.exit_code == 1
    assert "'sessions-3-120' is no place of a letter" in result.stderr


def test_a_bug_has_an_exit_code_of_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(tutormax_streams.cli, "app", broken)
    with pytest.raises(SystemExit) as ended:
        tutormax_streams.__main__.main()
    assert ended.value.code == 70
    assert "ZeroDivisionError" in capsys.readouterr().err
