"""dkfs completion, and what the scripts ask dkfs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dkfs.cli.main import COMMANDS
from dkfs.model.ids import Seq
from tests.cli.conftest import Dkfs
from tests.history.model_history import ModelHistory
from tests.mounting import CHECKOUT

ASK = """
dkfs() { "$PYTHON" -m dkfs "$@"; }
eval "$SCRIPT"
COMP_LINE=$1 COMP_POINT=${#1} COMPREPLY=()
_dkfs
printf '%s\\n' "${COMPREPLY[@]}"
"""


def bash_completes(script: str, line: str, store: Path) -> list[str]:
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK, "bash", line],
        env=dict(
            os.environ,
            PYTHON=sys.executable,
            PYTHONPATH=str(CHECKOUT),
            SCRIPT=script,
            DKFS_STORE=str(store),
        ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return sorted(done.stdout.splitlines())


@pytest.fixture
def script(dkfs: Dkfs) -> str:
    return dkfs("completion", "bash").out


def test_bash_completes_commands_options_and_values(
    script: str, dkfs: Dkfs, store: Path, tmp_path: Path
) -> None:
    (tmp_path / "here" / "folder").mkdir()

    assert bash_completes(script, "dkfs ", store) == sorted(COMMANDS)
    assert bash_completes(script, "dkfs --json rest", store) == ["restore"]
    assert bash_completes(script, "dkfs --json r", store) == sorted(
        name for name in COMMANDS if name.startswith("r")
    )
    assert bash_completes(script, "dkfs -C status statu", store) == ["status"]
    assert bash_completes(script, "dkfs log --s", store) == ["--since", "--store"]
    assert bash_completes(script, "dkfs completion ", store) == ["bash", "fish", "zsh"]
    assert bash_completes(script, "dkfs restore latest --target f", store) == ["folder"]


def test_bash_completes_versions_tags_and_paths_of_the_store(
    script: str, history: ModelHistory, store: Path
) -> None:
    history.tag("nightly", Seq(4))

    assert bash_completes(script, "dkfs ls n", store) == ["nightly"]
    assert bash_completes(script, "dkfs diff 3..", store) == ["3..latest", "3..nightly"]
    assert bash_completes(script, "dkfs tag --delete n", store) == ["nightly"]
    # What follows the colon only: that is what bash puts in.
    assert bash_completes(script, "dkfs cat 4:", store) == ["etc/"]
    assert bash_completes(script, "dkfs cat 4:etc/a", store) == ["etc/app.conf"]


def test_bash_runs_no_name_and_inserts_it_quoted(
    script: str, history: ModelHistory, store: Path, tmp_path: Path
) -> None:
    history.create(b"conf/$(touch here)")
    history.create(b"conf/`touch here`")
    history.tag("$(touch here)", history.last)

    offered = bash_completes(script, "dkfs cat latest:conf/", store)
    tags = bash_completes(script, "dkfs tag --delete ", store)

    assert list((tmp_path / "here").iterdir()) == []
    assert offered == sorted([r"conf/\$\(touch\ here\)", r"conf/\`touch\ here\`"])
    assert tags == [r"\$\(touch\ here\)"]


def test_bash_asks_the_store_that_the_line_names(
    script: str, history: ModelHistory, store: Path, tmp_path: Path
) -> None:
    history.tag("nightly", Seq(4))

    for line in (
        f"dkfs --store {store} ls n",
        f"dkfs ls --store {store} n",
        f"dkfs ls --store={store} n",
        f"dkfs -C {tmp_path} --store {store.name} ls n",
    ):
        assert bash_completes(script, line, tmp_path / "no-store") == ["nightly"]


def test_without_a_store_nothing_is_offered_and_nothing_said(dkfs: Dkfs) -> None:
    for word in ("", "3:", "nonsense:x"):
        result = dkfs("__complete", "versions", word)
        assert (result.status, result.out, result.err) == (0, "", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_shown_option_is_in_the_script(dkfs: Dkfs, shell: str) -> None:
    script = dkfs("completion", shell).out

    for name in COMMANDS:
        assert name in script
    for option in ("capture-interval", "dry-run", "target", "foreground"):
        assert option in script
    assert "enable-ebpf" not in script


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_itself_finds_no_error_in_the_script(dkfs: Dkfs, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")

    script = dkfs("completion", shell).out

    subprocess.run([shell, "-n"], input=script, text=True, check=True)
