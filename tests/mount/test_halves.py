"""The kernel cuts a write that begins within a page in two; no version of a file that stays open may lie between."""

import os
import time

import pytest

from dkfs.history.tree import Tree
from dkfs.store import Store
from tests.mounting import PATIENCE_S, Mounted

pytestmark = [pytest.mark.mount, pytest.mark.slow]

LENGTH = 9_001  # bytes of a write: where the next one begins lies within a page


def sizes_in_versions(place: Mounted) -> set[int]:
    with Store.open(place.store, writable=False) as store, store.read() as reader:
        node = Tree(reader, reader.last).find(b"log")
        return {state.attr.size for _, state in reader.node_versions(node)}


def test_a_file_that_is_always_being_appended_to_has_versions_and_none_with_half_of_a_write(
    unmounted: Mounted,
) -> None:
    unmounted.mount("capture_interval=100ms")
    fd = os.open(unmounted.mountpoint / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    began_s = time.monotonic()
    looked_s = began_s + 4
    while True:
        os.write(fd, bytes(LENGTH))
        if time.monotonic() > looked_s:
            if len(sizes_in_versions(unmounted)) > 10 or looked_s > began_s + PATIENCE_S:
                break
            looked_s += 2  # a busy machine takes longer
    os.close(fd)
    unmounted.umount()

    sizes = sizes_in_versions(unmounted)
    assert len(sizes) > 10
    assert [size for size in sizes if size % LENGTH] == []
