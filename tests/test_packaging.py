"""What is shipped and how it hangs together: the wheel's packages, the names they claim, the drawing of the layers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = {"models", "tables", "agents", "tutormax_streams"}


def tracked() -> list[Path]:
    try:
        names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git work tree")
    return [ROOT / name for name in names.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_other_distribution_owns_our_names() -> None:
    strangers = {
        f"{name} of {distribution.name}"
        for distribution in distributions()
        if distribution.name != PROJECT["project"]["name"]
        for name in {path.parts[0].removesuffix(".py") for path in distribution.files or []}
        if name in PACKAGES | {"tests", "benchmarks"}
    }
    assert strangers == set()


def test_the_wheel_contains_exactly_our_packages(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    shipped = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in shipped if ".dist-info/" not in name} == PACKAGES
    expected = {str(path.relative_to(ROOT)) for path in tracked() if path.relative_to(ROOT).parts[0] in PACKAGES}
    assert expected <= shipped
    assert "tutormax_streams/embedded/pom.xml" in shipped


def test_make_n_says_what_it_would_do_and_does_nothing(tmp_path: Path) -> None:
    """There is nothing in this VENV that could be run."""
    done = subprocess.run(
        ["make", "-n", "test", f"VENV={tmp_path}"],
        cwd=ROOT,
        env=os.environ | {"MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/bin/pytest tests/flow" in done.stdout


def test_the_drawing_of_the_layers_names_every_module_of_the_top_layer() -> None:
    (contract,) = PROJECT["tool"]["importlinter"]["contracts"]
    drawn = set(re.findall(r"tutormax_streams\.(\w+)", contract["layers"][0]))
    there = {
        path.stem
        for path in (ROOT / "tutormax_streams").iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").is_file()
    }
    assert there - drawn == {"batches"}, "name it in the top layer of the import contract in pyproject.toml"


def test_nothing_refers_to_what_is_not_in_the_repository() -> None:
    outside = re.compile(rb"(\.\./" + rb"shared|/" + rb"work/(main|shared|scratch))")
    assert [str(path) for path in tracked() if outside.search(path.read_bytes())] == []


def test_test_directories_are_no_packages() -> None:
    """An `__init__.py` there would give two test files of one name the same module."""
    assert [path for path in tracked() if path.name == "__init__.py" and "tests" in path.relative_to(ROOT).parts] == []
