"""The entry point: finding the command, one-line errors, exit statuses, help."""

import os
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dkfs.cli import main as main_module
from dkfs.cli.main import COMMANDS, HIDDEN, load
from tests.cli.conftest import Dkfs
from tests.mounting import CHECKOUT


def start(*words: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "dkfs", *map(str, words)],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_help_names_every_command_and_the_exit_statuses(dkfs: Dkfs) -> None:
    result = dkfs("--help")

    assert result.status == 0
    for name, summary in COMMANDS.items():
        assert f"  {name}" in result.out
        assert summary in result.out
    assert "0 ok, 1 failed, 2 usage, 3 not found, 4 store trouble, 5 damage found" in result.out


@pytest.mark.parametrize("name", [*COMMANDS, *HIDDEN])
def test_the_help_of_a_command_is_its_docstring_and_ends_with_its_exit_statuses(name: str) -> None:
    module = load(name)
    doc = module.__doc__ or ""

    text = module.add_parser().format_help()

    assert doc.strip() in text
    assert "exit status" in doc.strip().splitlines()[-2] + doc.strip().splitlines()[-3]
    assert not any(len(line) > 120 for line in text.splitlines())


def test_help_imports_neither_the_loop_nor_the_store() -> None:
    script = (
        "import sys; from dkfs.cli.main import main; main(['--help']);"
        " sys.exit(any(m in sys.modules for m in ('trio', 'pyfuse3', 'lmdb', 'dkfs.store')))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        capture_output=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_help_takes_a_quarter_of_a_second_of_the_processor() -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start("--help").communicate(timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(seconds() for _ in range(5)) <= 0.25


def test_without_a_command_the_help_is_on_stderr_and_the_status_is_usage(dkfs: Dkfs) -> None:
    result = dkfs()

    assert (result.status, result.out) == (2, "")
    assert "commands:" in result.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("frobnicate",), "unknown command frobnicate"),
        (("ls", "--colour"), "unrecognized arguments: --colour"),
        (("history",), "required: FILE"),
        (("completion", "tcsh"), "invalid choice: 'tcsh'"),
        (("-C", "/nonexistent", "log"), "-C /nonexistent: No such file or directory"),
        (("log",), "no store: give --store, set DKFS_STORE, or stand in a dkfs mount"),
    ],
)
def test_a_bad_command_line_is_one_line(dkfs: Dkfs, words: tuple[str, ...], said: str) -> None:
    result = dkfs(*words)

    assert result.status in (2, 3)
    assert result.out == ""
    assert result.err.startswith("dkfs: ")
    assert result.err.count("\n") == 1
    assert said in result.err


def test_general_options_stand_before_or_behind_the_command(dkfs: Dkfs, store: Path) -> None:
    for words in (
        ("--store", store, "--json", "ls", "3"),
        ("ls", "--json", "3", "--store", store),
        ("--store", "wrong", "ls", "3", "--store", store, "--json"),
        ("-C", store, "ls", "--store", ".", "--json", "3"),
    ):
        assert [message["path"] for message in dkfs(*words).messages] == ["etc"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("history", "--", "-x"), "-x was never there"),
        (("log", "--", "--json"), "--json was never there"),
        (("tag", "--", "-x"), "'-x' cannot be a tag"),
        (("--", "history", "--", "-x"), "-x was never there"),
    ],
)
def test_what_follows_two_dashes_is_no_option(
    dkfs: Dkfs, store: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in dkfs("--store", store, *words).err


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error(store: Path, tmp_path: Path, closed: str) -> None:
    done = subprocess.run(
        [
            *("sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "dkfs"),
            *("restore", "4", "--target", str(tmp_path / "out"), "--store", str(store)),
        ],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        capture_output=True,
        check=False,
    )

    assert b"internal error" not in done.stderr
    assert done.returncode == (0 if os.geteuid() == 0 else 1)  # owners are for root to give
    assert (tmp_path / "out" / "etc" / "app.conf").read_bytes() == b"port=8080\n"


def test_a_program_that_stops_reading_ends_a_command_quietly(store: Path) -> None:
    with start("log", "--json", "--store", store) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == (b"", 141)


def test_an_error_of_ours_shows_where_it_comes_from_only_with_debug(
    dkfs: Dkfs, store: Path
) -> None:
    assert "Traceback" not in dkfs("ls", "99", "--store", store).err
    assert "Traceback" not in dkfs("ls", "99", "--debug=false", "--store", store).err
    assert "Traceback" in dkfs("ls", "99", "--debug", "--store", store).err


def test_an_error_that_nobody_foresaw_is_one_line(
    dkfs: Dkfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise ZeroDivisionError("odd\nmessage")

    monkeypatch.setattr(main_module, "load", fail)

    result = dkfs("log")

    assert (result.status, result.err) == (
        1,
        "dkfs: internal error: ZeroDivisionError: odd\\nmessage\n",
    )


def test_an_interrupt_has_its_status(dkfs: Dkfs, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "load", interrupt)

    assert dkfs("log").status == 130
    assert dkfs("mount-helper", "a", "b").status == 8


def test_nothing_is_imported_from_the_current_directory(tmp_path: Path) -> None:
    for module in ("argparse", "json", "trio"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('imported from here')")

    done = subprocess.run(
        [sys.executable, "-m", "dkfs", "--version"],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        capture_output=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, b"")


def test_an_interrupt_while_the_program_is_loaded_has_its_status(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        """
import sys

class Interrupt:
    def find_spec(self, name, *rest):
        if name == "dkfs.cli.main":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
"""
    )

    done = subprocess.run(
        [sys.executable, "-m", "dkfs", "--version"],
        env=dict(os.environ, PYTHONPATH=f"{tmp_path}:{CHECKOUT}"),
        capture_output=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (130, b"")


def test_an_interrupt_while_the_commands_are_imported_is_no_traceback() -> None:
    script = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'dkfs.cli.main':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from dkfs.__main__ import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (130, b"")
    with open(CHECKOUT / "pyproject.toml", "rb") as file:
        assert tomllib.load(file)["project"]["scripts"] == {"dkfs": "dkfs.__main__:main"}
