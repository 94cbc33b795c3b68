""".dkfs where versions, or the contents of files, were forgotten."""

import errno
import os
import random

import pytest

from dkfs.history.forget import forget_contents
from dkfs.model.ids import NodeId, Seq
from tests.history.forgetting import keep_only, some_versions
from tests.history.model_history import ModelHistory
from tests.history.random_history import fill
from tests.overlay.virtual_kernel import (
    ADMIN,
    OTHER,
    Kernel,
    number_of_error,
    shown,
    virtual_of,
)


@pytest.fixture
def gaps(history: ModelHistory) -> ModelHistory:
    """Make versions 3, 4, 7 and 8 of what were 8."""
    history.create(b"a", b"one")  # 2
    history.write(b"a", b"two")  # 3
    history.create(b"b")  # 4
    history.write(b"a", b"three")  # 5
    history.mkdir(b"d")  # 6
    history.rename(b"b", b"c")  # 7
    history.write(b"a", b"four")  # 8
    keep_only(history.store, {3, 4, 7, 8})
    return history


def test_only_versions_that_are_kept_are_listed_and_found(
    gaps: ModelHistory, kernel: Kernel
) -> None:
    assert kernel.list(b".dkfs/versions") == [b"3", b"4", b"7", b"8"]
    for name in (b"1", b"2", b"5", b"6", b"9"):
        assert not kernel.exists(b".dkfs/versions/" + name)
    assert kernel.read(b".dkfs/versions/7/a") == b"three"
    assert kernel.link(b".dkfs/latest") == b"versions/8"


def test_the_versions_of_a_file_are_those_that_are_kept(gaps: ModelHistory, kernel: Kernel) -> None:
    assert kernel.list(b".dkfs/files") == [b"a", b"b", b"c", b"d"]
    assert kernel.list(b".dkfs/files/a") == [b"8", b"7", b"3"]
    assert kernel.read(b".dkfs/files/a/3") == b"two"
    for name in (b"2", b"4", b"5"):
        assert not kernel.exists(b".dkfs/files/a/" + name)


def test_a_time_leads_to_the_last_version_that_is_kept(gaps: ModelHistory, kernel: Kernel) -> None:
    assert kernel.read(b".dkfs/at/2023-11-14T22:13:26Z/a") == b"two"
    assert not kernel.exists(b".dkfs/at/2023-11-14T22:13:22Z")


def test_what_is_held_open_of_a_version_is_stale_when_it_is_forgotten(
    history: ModelHistory,
) -> None:
    history.mkdir(b"d")  # 2
    history.create(b"d/a", b"one")  # 3
    history.create(b"b")  # 4
    virtual = virtual_of(history)
    kernel = Kernel(virtual)
    top = kernel.find(b".dkfs/versions/3").number
    directory = kernel.find(b".dkfs/versions/3/d").number
    file = kernel.find(b".dkfs/versions/3/d/a").number
    fh = virtual.open(file, os.O_RDONLY, ADMIN)
    dh = virtual.opendir(directory, ADMIN)

    keep_only(history.store, {2, 4})

    for call in (
        lambda: virtual.getattr(file),
        lambda: virtual.read(fh, 0, 10),
        lambda: virtual.open(file, os.O_RDONLY, ADMIN),
        lambda: virtual.lookup(top, b"d", ADMIN),
        lambda: virtual.lookup(directory, b"a", ADMIN),
        lambda: virtual.opendir(directory, ADMIN),
        lambda: virtual.names(dh, again=True),
        lambda: virtual.getxattr(file, b"user.a", ADMIN),
    ):
        assert number_of_error(call) == errno.ESTALE
    assert not kernel.exists(b".dkfs/versions/3")
    assert kernel.read(b".dkfs/versions/4/d/a") == b"one"
    virtual.release(fh)
    virtual.releasedir(dh)


def test_forgotten_contents_have_a_size_and_cannot_be_opened(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.create(b"a", b"three")  # 2
    history.write(b"a", b"four")  # 3
    forget_contents(history.store, [(NodeId(2), Seq(2))])

    assert kernel.find(b".dkfs/versions/2/a").size == 5
    assert number_of_error(lambda: kernel.read(b".dkfs/versions/2/a")) == errno.ENODATA
    assert number_of_error(lambda: kernel.read(b".dkfs/files/a/2")) == errno.ENODATA
    assert kernel.read(b".dkfs/versions/3/a") == b"four"


@pytest.mark.parametrize("seed", range(4))
def test_every_kept_version_of_a_random_history_is_shown_as_it_was(
    history: ModelHistory, kernel: Kernel, seed: int
) -> None:
    rng = random.Random(seed)
    fill(history, seed, 60)
    kept = some_versions(rng, history.last)
    keep_only(history.store, kept)

    assert kernel.list(b".dkfs/versions") == [b"%d" % seq for seq in sorted(kept)]
    for seq in rng.sample(sorted(kept), min(5, len(kept))):
        tree = history.trees[seq]
        for path, node in tree.paths().items():
            status = kernel.find((b".dkfs/versions/%d/" % seq + path).rstrip(b"/"))
            attr = tree.states[node].attr
            assert (status.mtime_ns, status.size, status.uid) == (
                attr.mtime_ns,
                attr.size,
                attr.uid,
            ), shown(tree.states[node])


# ---- who may read


def test_a_file_that_was_locked_up_before_it_was_removed_stays_so(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.create(b"secret", b"one")  # 2: others may read it
    history.chmod(b"secret", 0o600)  # 3
    history.unlink(b"secret")  # 4
    assert number_of_error(lambda: kernel.read(b".dkfs/versions/2/secret", OTHER)) == errno.EACCES

    keep_only(history.store, {2, 4})

    assert number_of_error(lambda: kernel.read(b".dkfs/versions/2/secret", OTHER)) == errno.EACCES
    assert kernel.read(b".dkfs/versions/2/secret") == b"one"


def test_what_lay_in_a_directory_that_was_locked_up_and_removed_stays_so(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.mkdir(b"d")  # 2
    history.create(b"d/a", b"one")  # 3
    history.chmod(b"d", 0o700)  # 4
    history.unlink(b"d/a")  # 5
    history.rmdir(b"d")  # 6

    keep_only(history.store, {3, 6})

    assert number_of_error(lambda: kernel.find(b".dkfs/versions/3/d/a", OTHER)) == errno.EACCES
    assert kernel.read(b".dkfs/versions/3/d/a") == b"one"
