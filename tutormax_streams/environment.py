"""What the environment says: settings out of it, a sentence when they are wrong, and a list of them without secrets."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from psycopg import conninfo
from pydantic import AliasChoices, SecretStr, ValidationError
from pydantic_core import ErrorDetails, PydanticUndefined

from tutormax_streams.refused import CONFIGURATION, Refused
from tutormax_streams.settings import Settings

HIDDEN: Final = "********"


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective setting, fit to be shown."""

    name: str  # of the environment variable
    value: str  # secrets hidden
    source: str  # "environment" or "default"
    help: str


def load() -> Settings:
    """The settings of this process. Raises `Refused`, in words that name the variables."""
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(_sentence(fault) for fault in error.errors(include_url=False))
        raise Refused(f"{faults}. `tutormax-streams settings --defaults` lists them all", CONFIGURATION) from None


def variable(field: str) -> str:
    """The environment variable that a field of `Settings` is read from."""
    alias = Settings.model_fields[field].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else field.upper()


def variables() -> dict[str, str]:
    """Every variable that is read, and what it is for, in the order of `Settings`."""
    return {variable(field): _help(field) for field in Settings.model_fields}


def defaults() -> list[Setting]:
    """All settings as they are when the environment says nothing."""
    return listing(Settings.model_construct(), {})


def listing(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[Setting]:
    """All effective settings with secrets hidden."""
    named = {name.upper() for name, value in environ.items() if value}
    return [
        Setting(
            name=variable(field),
            value=_shown(getattr(settings, field)),
            source="environment" if variable(field) in named else "default",
            help=_help(field),
        )
        for field in Settings.model_fields
    ]


def unknown(environ: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence for each variable that looks like one of ours and is none: most likely a slip of the pen."""
    known = variables()
    sentences = []
    for name in sorted(environ):
        if name.startswith("TUTORMAX_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            sentences.append(f"{name} is not a setting" + (f"; is {near[0]} meant?" if near else ""))
    return sentences


def as_json(settings: list[Setting]) -> list[dict[str, str]]:
    return [asdict(setting) for setting in settings]


def _help(field: str) -> str:
    """The sentence behind "NAME:" in the field's docstring, on one line."""
    text = " ".join((Settings.model_fields[field].description or "").split())
    return text.removeprefix(variable(field)).lstrip(":. ")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        return _without_password(secret) if "://" in secret else HIDDEN
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _without_password(url: str) -> str:
    parts = conninfo.conninfo_to_dict(url)
    user = f"{parts['user']}:{HIDDEN}@" if "password" in parts else f"{parts['user']}@" if "user" in parts else ""
    port = f":{parts['port']}" if "port" in parts else ""
    return f"postgresql://{user}{parts.get('host', '')}{port}/{parts.get('dbname', '')}"


def _sentence(fault: ErrorDetails) -> str:
    """What is wrong with one variable; its value too unless it is a secret."""
    name = str(fault["loc"][0]) if fault["loc"] else "the environment"
    field = next((field for field in Settings.model_fields if name in (field, variable(field))), None)
    message = fault["msg"].removeprefix("Value error, ")
    message = (message[:1].lower() + message[1:]).replace("input should", "must").replace("string should", "must")
    if field is None:
        return f"{name}: {message}"
    secret = _is_secret(field) or fault["input"] is PydanticUndefined
    return f"{variable(field)}: {message}" + ("" if secret else f" (it is {str(fault['input'])!r})")


def _is_secret(field: str) -> bool:
    return "SecretStr" in str(Settings.model_fields[field].annotation)
