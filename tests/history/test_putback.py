"""What a directory has lost comes back under the names that it has in the last version."""

import os
import shutil
from pathlib import Path

from dkfs.history.replay import reconcile
from tests.overlay.world import ME, World


def test_a_file_whose_last_state_has_a_name_that_is_another_files_now_comes_back_beside_it(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    directory, _ = world.fs.names.mkdir(world.root, b"d", 0o755, ME)
    number, inode, _ = world.fs.names.create(directory, b"a", 0o644, os.O_RDWR, ME)
    world.fs.files.write(number, 0, b"one")
    world.fs.names.link(inode, directory, b"b", ME)
    world.fs.names.unlink(directory, b"b", ME)
    other, _, _ = world.fs.names.create(directory, b"b", 0o644, os.O_RDWR, ME)
    world.fs.files.write(other, 0, b"other")
    for each in (number, other):
        world.fs.files.release(each)
    world.create(b"kept", b"kept")
    world.recorder.flush()
    shutil.rmtree(world.state / "d")

    reconcile(
        world.store,
        world.root_fd,
        prefer="newer",
        clock_ns=lambda: 1 << 62,
        identity=b"another directory",
    )

    assert (world.state / "d" / "a").read_bytes() == b"one"
    assert (world.state / "d" / "b").read_bytes() == b"other"
    world.close()
