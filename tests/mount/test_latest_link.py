"""What the kernel keeps of a symbolic link is never the version that was the latest before."""

import os

import pytest

from tests.mount.engines import each_engine
from tests.mounting import Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]


@each_engine
def test_latest_is_read_anew_after_each_version(
    unmounted: Mounted, mount_options: tuple[str, ...]
) -> None:
    unmounted.mount(*mount_options)
    latest = unmounted.mountpoint / ".dkfs" / "latest"
    seen = []
    for number in range(3):
        (unmounted.mountpoint / "file").write_bytes(b"%d" % number)
        unmounted.flush()
        seen.append((os.readlink(latest), (latest / "file").read_bytes()))

    assert [contents for _, contents in seen] == [b"0", b"1", b"2"]
    assert len({target for target, _ in seen}) == 3
