"""What is mapped and was looked at is given back, and still there."""

import mmap
from pathlib import Path

from dkfs.daemon.memory import give_back, mapped

MIB = 1 << 20


def resident_kib(start: int) -> int:
    """Return how much of the map that begins at *start* is resident."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.startswith(f"{start:x}-"):
            return next(int(each.split()[1]) for each in lines if each.startswith("Rss:"))
    raise AssertionError("nothing is mapped there")


def test_pages_that_were_looked_at_are_let_go_of(tmp_path: Path) -> None:
    path = tmp_path / "index"
    path.write_bytes(b"x" * 4 * MIB)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        assert pages[::4096].count(b"x") == 1024
        ((start, _),) = mapped(path)
        before = resident_kib(start)
        give_back(path)

        assert (before, resident_kib(start)) == (4096, 0)
        assert pages[::4096].count(b"x") == 1024


def test_what_is_not_mapped_is_no_trouble(tmp_path: Path) -> None:
    give_back(tmp_path / "nothing")

    assert mapped(tmp_path / "nothing") == []
