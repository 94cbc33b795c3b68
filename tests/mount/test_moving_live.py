"""History is copied from the store of a mount that is being written to."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dkfs.store import Store
from dkfs.store.check import check
from tests.history.streams import assert_equal
from tests.mounting import Mounted, dkfs

pytestmark = [pytest.mark.mount, pytest.mark.slow]

WRITE = """
import os, random, sys
rng = random.Random(3)
top = sys.argv[1]
for number in range(150):
    path = os.path.join(top, "f%d" % rng.randrange(20))
    with open(path + ".tmp", "wb") as file:
        file.write(rng.randbytes(rng.randrange(200_000)))
    os.rename(path + ".tmp", path)
    with open(os.path.join(top, "log"), "ab") as file:
        file.write(b"%d\\n" % number)
"""


def test_a_copy_follows_a_mount_that_is_written_to(mounted: Mounted, open_dir: Path) -> None:
    copy = open_dir / "copy"
    words = ("copy", "--to-store", copy, "--store", mounted.store)
    writer = subprocess.Popen([sys.executable, "-c", WRITE, mounted.mountpoint])
    try:
        while writer.poll() is None:
            dkfs(*words)
            with Store.open(copy, writable=False) as store:
                assert list(check(store, read_data=True)) == []
            threading.Event().wait(0.05)
    finally:
        writer.kill()
        writer.wait()
    assert writer.returncode == 0
    mounted.umount()
    dkfs(*words)

    with Store.open(mounted.store, writable=False) as source:
        assert_equal(source, copy)


def test_a_mount_of_a_replica_is_the_end_of_receiving(mounted: Mounted, open_dir: Path) -> None:
    copy = open_dir / "copy"
    words = ("copy", "--to-store", copy, "--store", mounted.store)
    (mounted.mountpoint / "file").write_text("one")
    mounted.flush()
    dkfs(*words)
    (mounted.mountpoint / "file").write_text("two")
    mounted.umount()
    dkfs("replay", "--state-dir", open_dir / "elsewhere", "--store", copy)
    assert (open_dir / "elsewhere" / "file").read_text() == "one"
    (open_dir / "elsewhere" / "file").write_text("three")
    dkfs("replay", "--state-dir", open_dir / "elsewhere", "--store", copy)

    result = dkfs(*words, check=False)

    assert result.returncode == 2
    assert "which did not come from its source" in result.stderr


@pytest.mark.parametrize("where", ["mountpoint", "state_dir"])
def test_a_store_is_not_copied_into_what_is_recorded_into_it(mounted: Mounted, where: str) -> None:
    target = getattr(mounted, where) / "copy"
    done = mounted.dkfs("copy", "--to-store", target, check=False)

    assert done.returncode == 2
    assert "which is recorded into the store that is copied: expected it elsewhere" in done.stderr
    assert not target.exists()
