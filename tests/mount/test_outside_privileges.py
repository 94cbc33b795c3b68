"""Set-id bits and capabilities go when the owner or the contents change, on the mount and in the history."""

import os
import stat
from pathlib import Path

import pytest

from tests.mount.behaviours import as_user
from tests.mount.model import pictures_of
from tests.mounting import Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_raw+ep
USER = 1234


@pytest.fixture
def file(unmounted: Mounted) -> Path:
    """Make a file with everything that is to go."""
    unmounted.mount("allow_other", "suid")
    path = unmounted.mountpoint / "file"
    path.write_bytes(b"contents")
    os.chown(path, USER, USER)
    path.chmod(0o6755)
    os.setxattr(path, "security.capability", CAPABILITY)
    return path


def test_history_has_no_capability_that_chown_took_away(file: Path, unmounted: Mounted) -> None:
    os.chown(file, USER, USER + 1)
    unmounted.dkfs("restore", "latest", "--privileged", "--target", unmounted.base / "restored")

    assert os.listxattr(file) == []
    seen, restored = (
        pictures_of(os.fsencode(top)) for top in (unmounted.state_dir, unmounted.base / "restored")
    )
    assert restored[b"file"] == seen[b"file"]


def test_owner_who_changes_nothing_of_the_owner_takes_the_bits_away(
    file: Path, unmounted: Mounted
) -> None:
    os.removexattr(file, "security.capability")

    assert as_user(USER, USER, lambda: os.chown(file, -1, -1)) is None
    assert stat.S_IMODE(file.stat().st_mode) == 0o755
    assert stat.S_IMODE((unmounted.state_dir / "file").stat().st_mode) == 0o755


def test_who_does_not_own_a_file_takes_no_bits_away(file: Path) -> None:
    as_user(USER + 1, USER + 1, lambda: os.chown(file, -1, -1))

    assert stat.S_IMODE(file.stat().st_mode) == 0o6755
