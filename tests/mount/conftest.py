"""The mount that the programs of others are run on."""

from collections.abc import Iterator

import pytest

from tests.mount.programs import check
from tests.mounting import Mounted


@pytest.fixture
def place(unmounted: Mounted) -> Iterator[Mounted]:
    """Mount for everybody; afterwards the mount, the directory and the history must agree."""
    log = unmounted.base / "log"
    unmounted.mount("allow_other", "suid", "dev", f"log_file={log}")
    pid = unmounted.daemon_pid
    yield unmounted
    check(unmounted, pid)
    said = log.read_text()
    assert not any(word in said for word in ("WARNING", "ERROR", "Traceback")), said
