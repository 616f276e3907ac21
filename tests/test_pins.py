"""Private names of Faust and aiokafka are used in one package only, are all listed, and each has a test that exists."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest

from tutormax_streams import batches
from tutormax_streams.batches import pins

ROOT = Path(__file__).parent.parent
HOME = ROOT / "tutormax_streams" / "batches"
PACKAGES = ("models", "tables", "agents", "tutormax_streams", "benchmarks")
FOREIGN = ("faust", "mode", "aiokafka")
NO_SECRETS = {
    "_asdict",
    "_fields",
    "_exit",
    "_abc_impl",
    "_is_protocol",
    "_current_frames",
}  # public in spite of their names, or Python's own
OURS = [importlib.import_module(f"{batches.__name__}.{found.name}") for found in pkgutil.iter_modules(batches.__path__)]
CLASSES = [
    thing
    for module in OURS
    for thing in vars(module).values()
    if inspect.isclass(thing) and thing.__module__ == module.__name__
]


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in NO_SECRETS


def private_accesses(tree: ast.AST, *, of_self: bool) -> set[str]:
    """Private attributes that a module reaches for."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and is_private(node.attr)
        and (of_self or not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}))
    }


def own_names(tree: ast.AST) -> set[str]:
    """Private names that a module makes itself: methods, fields, slots, attributes of self, constants."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            found.add(node.value)  # __slots__
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return {name for name in found if is_private(name)}


def overridden() -> set[str]:
    """Private names of foreign classes that classes of ours define anew."""
    return {
        name
        for cls in CLASSES
        for name in [*vars(cls), *inspect.get_annotations(cls)]
        for base in cls.__mro__[1:]
        if is_private(name) and base.__module__.split(".")[0] in FOREIGN
        if name in vars(base) or name in inspect.get_annotations(base)
    }


LISTED = {name.rpartition(".")[2] for name in pins.PRIVATE_NAMES}


@pytest.mark.parametrize(
    "path", [p for p in sources() if HOME not in p.parents], ids=lambda p: str(p.relative_to(ROOT))
)
def test_nobody_else_reaches_for_private_names(path: Path):
    tree = ast.parse(path.read_text())
    strangers = private_accesses(tree, of_self=False) - own_names(tree)
    assert not strangers, f"{path.relative_to(ROOT)} uses {sorted(strangers)}: move it to tutormax_streams/batches"
    assert not LISTED & private_accesses(tree, of_self=True) - own_names(tree)


def test_every_private_name_in_use_is_listed():
    trees = [ast.parse(path.read_text()) for path in sorted(HOME.glob("*.py"))]
    used = set().union(*(private_accesses(tree, of_self=True) for tree in trees))
    ours = set().union(*(own_names(tree) for tree in trees))
    assert overridden() <= LISTED, "overridden and not listed"
    assert used - ours <= LISTED, "used and not listed"


def test_every_listed_name_is_in_use():
    source = "\n".join(path.read_text() for path in HOME.glob("*.py") if path.name != "pins.py")
    unused = [name for name in LISTED if not re.search(rf"\b{name}\b", source)]
    assert not unused


@pytest.mark.parametrize("dotted", pins.PRIVATE_NAMES)
def test_every_listed_name_exists(dotted: str):
    owner, _, name = dotted.rpartition(".")
    module, _, class_name = owner.rpartition(".")
    cls: Any = getattr(importlib.import_module(module), class_name)
    assigned = re.compile(rf"^\s+self\.{name}\b.*?=", re.MULTILINE)
    assert any(
        name in vars(base) or name in inspect.get_annotations(base) or assigned.search(inspect.getsource(base))
        for base in cls.__mro__
        if base is not object and base.__module__.split(".")[0] in FOREIGN
    ), f"{cls} has no {name} any more"


def test_every_listed_name_has_its_test():
    contract = "\n".join(path.read_text() for path in (ROOT / "tests" / "faust_contract").glob("test_*.py"))
    written = set(re.findall(r"^(?:async )?def (test_\w+)", contract, re.MULTILINE))
    assert set(pins.PRIVATE_NAMES.values()) <= written


# -- versions ---------------------------------------------------------------------------------------------------------


def test_the_installed_versions_are_the_pinned_ones():
    assert pins.mismatches() == []


def test_another_version_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(pins.PINNED, "aiokafka", "9.9.9")
    monkeypatch.setitem(pins.PINNED, "not-installed-anywhere", "1")
    assert pins.mismatches() == [
        f"{name} {found} is installed, but this release is built on {wanted}: pip install {name}=={wanted}"
        for name, found, wanted in [("aiokafka", "0.14.0", "9.9.9"), ("not-installed-anywhere", "(none)", "1")]
    ]


def test_the_package_asks_for_the_pinned_versions():
    wanted = requires("tutormax-streams") or []
    for name, version in pins.PINNED.items():
        assert f"{name}=={version}" in wanted
