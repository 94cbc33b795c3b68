"""The index is packed when a mount ends: small ones only, and whatever happens meanwhile nothing is lost."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dkfs.store import Store
from dkfs.store import compact as module
from dkfs.store.check import check
from dkfs.store.compact import compact_small
from tests.store.making import add_file

VERSIONS = 120


def fill(path: Path) -> None:
    """Record versions one by one, which leaves half-full pages and free ones."""
    with Store.open(path, writable=True) as store:
        for number in range(VERSIONS):
            add_file(store, b"f%d" % number, b"%d" % number * 20)


def expect_all(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        with store.read() as reader:
            assert reader.last == VERSIONS
            for number in range(VERSIONS):
                assert reader.blob(store.hash(b"%d" % number * 20)) == b"%d" % number * 20
        assert list(check(store, read_data=True)) == []


def test_a_small_index_is_packed(path: Path) -> None:
    fill(path)
    before = (path / "index.lmdb").stat().st_size

    freed = compact_small(path)

    assert freed > before // 5
    assert (path / "index.lmdb").stat().st_size == before - freed
    assert compact_small(path) == 0
    expect_all(path)


def test_an_index_that_would_take_its_time_is_left(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path)
    monkeypatch.setattr(module, "_SMALL", 50_000)

    assert compact_small(path) == 0


def test_a_store_that_is_open_is_left(path: Path) -> None:
    fill(path)
    with Store.open(path, writable=True):
        assert compact_small(path) == 0


def test_what_is_no_store_is_left(tmp_path: Path) -> None:
    assert compact_small(tmp_path) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "call", ["fsync", "rename", pytest.param("pwrite64", marks=pytest.mark.torture)]
)
def test_killed_at_any_system_call_of_it_a_store_has_every_version(path: Path, call: str) -> None:
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    fill(path)
    packer = (
        "import sys, pathlib, dkfs.store.compact as c; c.compact_small(pathlib.Path(sys.argv[1]))"
    )
    killed = 0
    for n in range(1, 9):
        run = subprocess.run(
            [
                *("strace", "-f", "-o", "/dev/null", "-e", f"trace={call}"),
                *("-e", f"inject={call}:signal=SIGKILL:when={n}"),
                *(sys.executable, "-c", packer, str(path)),
            ],
            check=False,
        )
        killed += run.returncode == -signal.SIGKILL

        expect_all(path)
        if run.returncode != -signal.SIGKILL:
            break
    assert killed
    assert compact_small(path) >= 0
    assert not list(path.glob("*.new*"))
