"""The contracts of pyproject.toml have teeth, and the limits of size and style that no linter checks hold."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
LINT_IMPORTS = Path(sys.executable).parent / "lint-imports"
ASYNC_LAYERS = {"fuse", "watch", "metrics", "csi", "web", "daemon"}
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50
EVERYTHING = {"Exception", "BaseException"}
REASON = re.compile(r"except .*:  # .*\w\w")  # the few edges that must, each says why

# Written in pieces, so that this file does not name them either.
REGISTRY_HOSTS = (
    "pypi" + ".org",
    "python" + "hosted.org",
    "debian" + ".org",
    "npm" + "js.org",
    "npm" + "js.com",
    "golang" + ".org",
    "crates" + ".io",
    "docker" + ".io",
)
MACHINE_PATHS = ("/" + "work/", "/tmp/" + "venv", "/tmp/" + "spec", "/" + "root/", ".pyenv" + "/")

# For each contract: a module, a line that breaks it there, and what lint-imports must then say.
BREAKS = [
    ("layers", "errors.py", "import dkfs.model", "dkfs.errors -> dkfs.model"),
    ("layers", "model/__init__.py", "import dkfs.core", "dkfs.model -> dkfs.core"),
    ("layers", "core/__init__.py", "import dkfs.store", "dkfs.core -> dkfs.store"),
    ("layers", "store/__init__.py", "import dkfs.history", "dkfs.store -> dkfs.history"),
    ("layers", "history/__init__.py", "import dkfs.overlay", "dkfs.history -> dkfs.overlay"),
    ("layers", "overlay/__init__.py", "import dkfs.fuse", "dkfs.overlay -> dkfs.fuse"),
    ("layers", "fuse/__init__.py", "import dkfs.metrics", "dkfs.fuse -> dkfs.metrics"),
    ("layers", "metrics/__init__.py", "import dkfs.config", "dkfs.metrics -> dkfs.config"),
    ("layers", "config/__init__.py", "import dkfs.daemon", "dkfs.config -> dkfs.daemon"),
    ("layers", "daemon/__init__.py", "import dkfs.cli", "dkfs.daemon -> dkfs.cli"),
    ("layers", "unlisted.py", "import os", "dkfs.unlisted"),
    ("store-formats", "history/__init__.py", "import lmdb", "dkfs.history -> lmdb"),
    ("store-formats", "overlay/__init__.py", "import blake3", "dkfs.overlay -> blake3"),
    ("store-formats", "cli/__init__.py", "import zstandard", "dkfs.cli -> zstandard"),
    ("store-formats", "history/__init__.py", "import bsdiff4", "dkfs.history -> bsdiff4"),
    ("store-formats", "core/delta.py", "from backports import zstd", "core.delta -> backports"),
    ("pyfastcdc", "core/delta.py", "import pyfastcdc", "dkfs.core.delta -> pyfastcdc"),
    ("pyfastcdc", "history/__init__.py", "import pyfastcdc", "dkfs.history -> pyfastcdc"),
    ("pyfuse3", "overlay/__init__.py", "import pyfuse3", "dkfs.overlay -> pyfuse3"),
    ("pyfuse3", "daemon/__init__.py", "import pyfuse3", "dkfs.daemon -> pyfuse3"),
    ("trio", "overlay/__init__.py", "import trio", "dkfs.overlay -> trio"),
    ("trio", "config/__init__.py", "import trio", "dkfs.config -> trio"),
    ("asyncio", "daemon/__init__.py", "import asyncio", "dkfs.daemon -> asyncio"),
    ("prometheus", "history/__init__.py", "import prometheus_client", "-> prometheus_client"),
    ("pure", "core/__init__.py", "import os", "dkfs.core -> os"),
    ("pure", "model/__init__.py", "import time", "dkfs.model -> time"),
    ("pure", "errors.py", "import threading", "dkfs.errors -> threading"),
]


def contract_ids() -> set[str]:
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    return {contract["id"] for contract in settings["tool"]["importlinter"]["contracts"]}


def lint_imports(directory: Path, contract: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT_IMPORTS, "--no-logo", "--no-cache", "--contract", contract],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    shutil.copytree(
        CHECKOUT / "dkfs", tmp_path / "dkfs", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path


def python_files(*directories: str) -> Iterator[tuple[str, str]]:
    """Find the Python files of the checkout: (path in it, text)."""
    for directory in directories:
        for path in sorted((CHECKOUT / directory).rglob("*.py")):
            yield str(path.relative_to(CHECKOUT)), path.read_text()


def committed_files() -> Iterator[tuple[str, str]]:
    """Find what belongs to the checkout, less what the tools leave in it: (path in it, text)."""
    for top in sorted(CHECKOUT.iterdir()):
        if top.is_dir() and top.name.startswith(".") and top.name != ".ci":
            continue
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                yield str(path.relative_to(CHECKOUT)), path.read_text(errors="replace")


def test_every_contract_is_broken_by_one_of_these_tests() -> None:
    assert {contract for contract, *_ in BREAKS} == contract_ids()


@pytest.mark.slow
@pytest.mark.parametrize(("contract", "module", "line", "named"), BREAKS)
def test_a_contract_names_the_import_that_breaks_it(
    copy: Path, contract: str, module: str, line: str, named: str
) -> None:
    with (copy / "dkfs" / module).open("a") as file:
        file.write(f"\n{line}\n")

    result = lint_imports(copy, contract)

    assert result.returncode == 1
    assert "0 kept, 1 broken" in result.stdout
    assert named in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("contract", sorted(contract_ids()))
def test_an_unchanged_copy_keeps_the_contract(copy: Path, contract: str) -> None:
    result = lint_imports(copy, contract)

    assert result.returncode == 0, result.stdout
    assert "1 kept, 0 broken" in result.stdout


def test_async_exists_only_in_the_layers_that_may_wait() -> None:
    found = [
        f"{path}:{node.lineno}"
        for path, text in python_files("dkfs")
        if path.split("/")[1] not in ASYNC_LAYERS
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Await)
    ]

    assert found == []


def test_modules_are_short() -> None:
    found = [
        f"{path}: {text.count(chr(10))} lines"
        for path, text in python_files("dkfs", "tests", "bench")
        if text.count("\n") > MAX_MODULE_LINES
    ]

    assert found == []


def test_functions_are_short() -> None:
    found = [
        f"{path}:{node.lineno} {node.name}: {length} lines"
        for path, text in python_files("dkfs", "tests", "bench")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]

    assert found == []


def test_no_handler_catches_everything_without_a_reason() -> None:
    found = [
        f"{path}:{node.lineno}"
        for path, text in python_files("dkfs", "tests", "bench")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ExceptHandler)
        if node.type is None or (isinstance(node.type, ast.Name) and node.type.id in EVERYTHING)
        if not isinstance(node.body[-1], ast.Raise)
        if not REASON.search(text.splitlines()[node.lineno - 1])
    ]

    assert found == []


def test_tests_are_modules_without_packages() -> None:
    found = [path for path, _ in python_files("tests") if path.endswith("__init__.py")]

    assert found == []


@pytest.mark.parametrize("host", REGISTRY_HOSTS)
def test_no_file_names_the_host_of_a_registry(host: str) -> None:
    pattern = re.compile(rf"\b{re.escape(host)}\b", re.IGNORECASE)

    found = [path for path, text in committed_files() if pattern.search(text)]

    assert found == []


@pytest.mark.parametrize("place", MACHINE_PATHS)
def test_no_file_names_a_path_of_one_machine(place: str) -> None:
    found = [path for path, text in committed_files() if place in text]

    assert found == []
