"""dkfs umount and its helper, as far as no mount is needed."""

from pathlib import Path

import pytest

from tests.cli.conftest import Dkfs


def test_what_is_not_mounted_is_named(dkfs: Dkfs, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing"):
        result = dkfs("umount", place)
        assert (result.status, result.err) == (1, f"dkfs: {place} is not mounted\n")


def test_a_mount_of_something_else_is_left_alone(dkfs: Dkfs) -> None:
    result = dkfs("umount", "/proc")

    assert (result.status, result.err) == (
        1,
        "dkfs: /proc is a mount of proc, expected fuse.dkfs\n",
    )


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("umount.fuse.dkfs", "/proc"), 32),
        (("umount.fuse.dkfs", "/proc", "-n", "-l", "-f", "-v", "-r", "-c"), 32),
        (("umount.fuse.dkfs",), 1),
        (("umount.fuse.dkfs", "/proc", "-N", "/proc/1/ns/mnt"), 1),
    ],
)
def test_the_helper_speaks_the_statuses_of_umount(
    dkfs: Dkfs, words: tuple[str, ...], status: int
) -> None:
    assert dkfs(*words).status == status


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("STATE", "MNT", "-f", "-o", "rw,store=STORE"), 0, ""),
        (("STATE", "MNT", "-sfnv", "-o", "rw,store=STORE,colour=red"), 0, ""),
        (
            ("STATE", "MNT", "-f", "-o", "rw,colour=red"),
            1,
            "dkfs: -o colour: unknown mount option\n",
        ),
        (("STATE", "MNT", "-o", "ro,remount"), 1, "dkfs: -o remount is not supported"),
        (("STATE/none", "MNT", "-o", "rw"), 1, "dkfs: state directory STATE/none: No such file"),
        (("STATE", "MNT/none", "-o", "rw"), 32, "dkfs: mount point MNT/none: No such file"),
        (("STATE", "MNT", "-N", "/proc/1/ns/mnt"), 1, "dkfs: -N: "),
        (("STATE",), 1, "dkfs: the following arguments are required: MOUNTPOINT"),
    ],
)
@pytest.mark.parametrize("name", ["mount.fuse.dkfs", "mount-helper", None])
def test_the_helper_speaks_the_statuses_of_mount(
    dkfs: Dkfs, tmp_path: Path, name: str | None, words: tuple[str, ...], status: int, said: str
) -> None:
    if name is None and words[1:2] == ("-N",):
        pytest.skip("mount.fuse3 passes no -N")
    places = {"STATE": tmp_path / "state", "MNT": tmp_path / "mnt", "STORE": tmp_path / "store"}
    for place in ("STATE", "MNT"):
        places[place].mkdir()

    def real(text: str) -> str:
        for word, place in places.items():
            text = text.replace(word, str(place))
        return text

    result = dkfs(*([name] if name else []), *map(real, words))

    assert result.status == status
    assert result.err.startswith(real(said))
    assert not places["STORE"].exists()
