"""Settings, read from the environment once at start and validated there.

Each field is followed by what an operator can do with it; `tutormax-streams settings` prints them with secrets hidden.
"""

from __future__ import annotations

import re
import socket
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import quote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from psycopg import ProgrammingError, conninfo
from pydantic import AliasChoices, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Role = Literal["stream", "sink"]

ORIGIN: Final = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:]+\])(:\d{1,5})?")
"""As browsers write it: no path, no user, no default port."""


class Settings(BaseSettings):
    """Effective settings of a process."""

    model_config = SettingsConfigDict(
        populate_by_name=True, extra="ignore", env_ignore_empty=True, use_attribute_docstrings=True
    )

    kafka_bootstrap_servers: str = "localhost:9092"
    """KAFKA_BOOTSTRAP_SERVERS: host:port of one or more brokers, separated by commas."""
    kafka_partitions: Annotated[int, Field(ge=1, le=1000)] = 24
    """KAFKA_PARTITIONS: partitions of all internal topics; changing it later needs `rebuild`."""
    kafka_replication_factor: Annotated[int, Field(ge=1, le=9)] = 1
    """KAFKA_REPLICATION_FACTOR: copies of each topic; 3 in production."""
    kafka_topic_prefix: str = "tutormax."
    """KAFKA_TOPIC_PREFIX: lets several deployments share brokers."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """KAFKA_SECURITY_PROTOCOL: how to talk to the brokers: PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL."""
    kafka_security_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """KAFKA_SECURITY_SASL_MECHANISM: with SASL_*: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512."""
    kafka_security_username: str | None = None
    """KAFKA_SECURITY_USERNAME: with SASL_*."""
    kafka_security_password: SecretStr | None = None
    """KAFKA_SECURITY_PASSWORD: with SASL_*."""
    kafka_security_ca_file: Path | None = None
    """KAFKA_SECURITY_CA_FILE: certificate authority for TLS; the system's when unset."""
    kafka_idempotent_producer: bool = True
    """KAFKA_IDEMPOTENT_PRODUCER: off only for brokers that cannot, such as the embedded one of the demo."""

    database_url: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("TUTORMAX_DATABASE_URL", "database_url")
    )
    """TUTORMAX_DATABASE_URL: postgresql://user:password@host:port/db; goes before POSTGRES_*."""
    postgres_host: str = "localhost"
    """POSTGRES_HOST: with the four below, where TUTORMAX_DATABASE_URL is unset."""
    postgres_port: int = 5432
    """POSTGRES_PORT: where the server listens."""
    postgres_user: str = "tutormax"
    """POSTGRES_USER: needs to read and write the platform's tables."""
    postgres_password: SecretStr = SecretStr("tutormax_dev")
    """POSTGRES_PASSWORD: that user's."""
    postgres_db: str = "tutormax"
    """POSTGRES_DB: the platform's database."""

    roles: Annotated[tuple[Role, ...], NoDecode] = Field(
        default=("stream", "sink"), validation_alias=AliasChoices("TUTORMAX_ROLES", "roles")
    )
    """TUTORMAX_ROLES: which apps this process runs, separated by commas: stream, sink."""
    app_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,80}$")] = Field(
        default="tutormax", validation_alias=AliasChoices("TUTORMAX_APP_ID", "app_id")
    )
    """TUTORMAX_APP_ID: first part of the consumer groups' and changelogs' names."""
    data_dir: Path = Field(
        default=Path("tutormax-data"), validation_alias=AliasChoices("TUTORMAX_DATA_DIR", "data_dir")
    )
    """TUTORMAX_DATA_DIR: local copies of the tables, one directory per worker. Losing it costs a recovery, no data."""
    store: Literal["rocksdb", "memory"] = Field(
        default="rocksdb", validation_alias=AliasChoices("TUTORMAX_STORE", "store")
    )
    """TUTORMAX_STORE: rocksdb, or memory, which recovers everything from Kafka at each start."""
    worker_name: str | None = Field(default=None, validation_alias=AliasChoices("TUTORMAX_INSTANCE_ID", "worker_name"))
    """TUTORMAX_INSTANCE_ID: stable, unique name of this worker (host name and web port when unset); a restart under
    the same name takes its partitions back at once, without waiting for the session to time out."""
    flush_interval_seconds: Annotated[float, Field(ge=0.05, le=60)] = Field(
        default=1.0, validation_alias=AliasChoices("TUTORMAX_FLUSH_INTERVAL_SECONDS", "flush_interval_seconds")
    )
    """TUTORMAX_FLUSH_INTERVAL_SECONDS: at most one flush of metrics in this time."""
    alert_hysteresis_pct: Annotated[float, Field(ge=0, le=50)] = Field(
        default=5.0, validation_alias=AliasChoices("TUTORMAX_ALERT_HYSTERESIS_PCT", "alert_hysteresis_pct")
    )
    """TUTORMAX_ALERT_HYSTERESIS_PCT: an alert is cleared when its figure is better than the threshold by that much of it."""
    alert_settle_seconds: Annotated[float, Field(ge=1, le=900)] = Field(
        default=30.0, validation_alias=AliasChoices("TUTORMAX_ALERT_SETTLE_SECONDS", "alert_settle_seconds")
    )
    """TUTORMAX_ALERT_SETTLE_SECONDS: no alerts for so long after news that were older than that: history flows in."""
    engagement_mode: Literal["normalized", "upstream"] = Field(
        default="normalized", validation_alias=AliasChoices("TUTORMAX_ENGAGEMENT_MODE", "engagement_mode")
    )
    """TUTORMAX_ENGAGEMENT_MODE: normalized, or upstream, which repeats the platform's formula literally, scales unmixed."""
    naive_timezone: str = Field(
        default="UTC", validation_alias=AliasChoices("TUTORMAX_NAIVE_TIMEZONE", "naive_timezone")
    )
    """TUTORMAX_NAIVE_TIMEZONE: zone of times that carry none."""
    web_host: str = Field(default="0.0.0.0", validation_alias=AliasChoices("TUTORMAX_WEB_HOST", "web_host"))  # noqa: S104
    """TUTORMAX_WEB_HOST: address that everything is served on."""
    web_port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=6066, validation_alias=AliasChoices("TUTORMAX_WEB_PORT", "web_port")
    )
    """TUTORMAX_WEB_PORT: of that address; workers on one host need different ones."""
    web_url: Annotated[str, Field(pattern=r"^https?://[^/]+$")] | None = Field(
        default=None, validation_alias=AliasChoices("TUTORMAX_WEB_URL", "web_url")
    )
    """TUTORMAX_WEB_URL: how other workers reach this one's web port (http://host name:port when unset); unique."""
    web_rate_per_minute: Annotated[float, Field(ge=0)] = Field(
        default=1200.0, validation_alias=AliasChoices("TUTORMAX_WEB_RATE_PER_MINUTE", "web_rate_per_minute")
    )
    """TUTORMAX_WEB_RATE_PER_MINUTE: lookups that one user may make in a minute, per worker; 0: as many as they like."""
    web_cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), validation_alias=AliasChoices("TUTORMAX_WEB_CORS_ORIGINS", "web_cors_origins")
    )
    """TUTORMAX_WEB_CORS_ORIGINS: pages of which other origins may ask, as https://host:port, separated by commas; none."""
    health_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, validation_alias=AliasChoices("TUTORMAX_HEALTH_PORT", "health_port")
    )
    """TUTORMAX_HEALTH_PORT: of TUTORMAX_WEB_HOST, for health and metrics alone; on the web port when unset."""
    secret_key: SecretStr | None = None
    """SECRET_KEY: what the platform signs its tokens with; lookups and the dashboard stay closed without it."""
    breaker_bad_pct: Annotated[float, Field(ge=0, le=100)] = Field(
        default=50.0, validation_alias=AliasChoices("TUTORMAX_BREAKER_BAD_PCT", "breaker_bad_pct")
    )
    """TUTORMAX_BREAKER_BAD_PCT: stop reading a topic when more than this share of it is rejected; 100 turns it off."""
    breaker_window: Annotated[int, Field(ge=1)] = Field(
        default=1000, validation_alias=AliasChoices("TUTORMAX_BREAKER_WINDOW", "breaker_window")
    )
    """TUTORMAX_BREAKER_WINDOW: over how many of its last records, per worker."""
    breaker_cooldown_seconds: Annotated[float, Field(gt=0)] = Field(
        default=30.0, validation_alias=AliasChoices("TUTORMAX_BREAKER_COOLDOWN_SECONDS", "breaker_cooldown_seconds")
    )
    """TUTORMAX_BREAKER_COOLDOWN_SECONDS: how long to leave it alone the first time; doubles while it stays bad."""
    watchdog_seconds: Annotated[float, Field(ge=0)] = Field(
        default=60.0, validation_alias=AliasChoices("TUTORMAX_WATCHDOG_SECONDS", "watchdog_seconds")
    )
    """TUTORMAX_WATCHDOG_SECONDS: a worker that stands still for so long, unexplained, says where and ends; 0: never."""
    log_format: Literal["json", "console"] = Field(
        default="json", validation_alias=AliasChoices("TUTORMAX_LOG_FORMAT", "log_format")
    )
    """TUTORMAX_LOG_FORMAT: json, an object a line; or console, lines for people."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", validation_alias=AliasChoices("TUTORMAX_LOG_LEVEL", "log_level")
    )
    """TUTORMAX_LOG_LEVEL: the least that is logged: DEBUG, INFO, WARNING, ERROR."""

    @field_validator("database_url")
    @classmethod
    def _readable_url(cls, value: SecretStr | None) -> SecretStr | None:
        try:
            conninfo.conninfo_to_dict(value.get_secret_value() if value else "")
        except ProgrammingError:
            # Not the driver's own words: they may repeat the password.
            raise ValueError("must look like postgresql://user:password@host:5432/database") from None
        return value

    @field_validator("roles", mode="before")
    @classmethod
    def _split_roles(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        return value

    @field_validator("roles")
    @classmethod
    def _some_role(cls, value: tuple[Role, ...]) -> tuple[Role, ...]:
        if not value:
            raise ValueError("name at least one of stream, sink")
        return value

    @field_validator("web_cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(dict.fromkeys(part.strip().lower() for part in value.split(",") if part.strip()))
        return value

    @field_validator("web_cors_origins")
    @classmethod
    def _exact_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "*" in value:
            raise ValueError("name each origin: with * any page on the web could ask with the session of who visits it")
        for origin in value:
            usual = origin.endswith(":443" if origin.startswith("https:") else ":80")
            if usual or not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin: write https://host or https://host:port, without a path"
                    " and without the usual port"
                )
        return value

    @field_validator("health_port")
    @classmethod
    def _port_of_its_own(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value == info.data.get("web_port"):
            raise ValueError("must differ from TUTORMAX_WEB_PORT; leave it unset to have health and metrics there")
        return value

    @field_validator("naive_timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as exc:
            raise ValueError(f"{value!r} is not a time zone, such as UTC or Europe/Berlin") from exc
        return value

    @property
    def instance_id(self) -> str:
        """Unique among the workers of a deployment, the same after a restart."""
        return self.worker_name or f"{socket.gethostname()}-{self.web_port}"

    @property
    def advertised_url(self) -> str:
        """Where other workers find this one's web server."""
        host = socket.gethostname() if self.web_host in ("0.0.0.0", "::", "") else self.web_host  # noqa: S104
        return self.web_url or f"http://{host}:{self.web_port}"

    @property
    def zone(self) -> tzinfo:
        # `UTC` itself and not a zone of that name: `models.times` has a short way for it.
        return UTC if self.naive_timezone == "UTC" else ZoneInfo(self.naive_timezone)

    @property
    def conninfo(self) -> str:
        """What psycopg connects to."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        password = quote(self.postgres_password.get_secret_value(), safe="")
        user, database = quote(self.postgres_user, safe=""), quote(self.postgres_db, safe="")
        return f"postgresql://{user}:{password}@{self.postgres_host}:{self.postgres_port}/{database}"

    @property
    def stream_group(self) -> str:
        """Consumer group of the stream app; also the first part of its changelogs' names."""
        return f"{self.app_id}-stream"

    @property
    def sink_group(self) -> str:
        return f"{self.app_id}-sink"
