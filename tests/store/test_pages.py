from contextlib import closing
from pathlib import Path

import pytest

from dkfs.errors import CorruptError
from dkfs.store import Store, pages
from dkfs.store.pages import Verification
from tests.store.making import add_file

PAGE = 4096


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    Store.create(tmp_path / "store")
    with Store.open(tmp_path / "store", writable=True) as store:
        for number in range(100):
            add_file(store, b"%d" % number, b"data")
    return tmp_path / "store"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The indexes that this process looks at."""
    found: list[Path] = []
    real = pages.verify_pages

    def verify(path: Path) -> list[str]:
        found.append(path)
        return real(path)

    monkeypatch.setattr(pages, "verify_pages", verify)
    return found


def test_what_was_verified_is_not_looked_at_again(filled: Path, looks: list[Path]) -> None:
    with closing(Verification(filled / "index.lmdb")) as verification:
        with Store.open(filled, writable=True, verification=verification):
            pass

    assert looks == []


def test_an_index_that_was_written_after_it_was_verified_is_looked_at_again(
    filled: Path, looks: list[Path]
) -> None:
    with closing(Verification(filled / "index.lmdb")) as verification:
        verification.wait()
        with Store.open(filled, writable=True) as store:
            add_file(store, b"later", b"data")
        looks.clear()

        assert not verification.is_sound()


def test_an_index_that_was_damaged_after_it_was_verified_is_refused(filled: Path) -> None:
    with closing(Verification(filled / "index.lmdb")) as verification:
        verification.wait()
        _damage(filled / "index.lmdb")

        with pytest.raises(CorruptError, match="page 10"):
            Store.open(filled, writable=True, verification=verification)


def test_an_index_that_is_damaged_is_refused(filled: Path) -> None:
    _damage(filled / "index.lmdb")
    with closing(Verification(filled / "index.lmdb")) as verification:
        with pytest.raises(CorruptError, match="page 10"):
            Store.open(filled, writable=True, verification=verification)


def test_an_index_that_is_not_there_is_not_sound(tmp_path: Path) -> None:
    with closing(Verification(tmp_path / "index.lmdb")) as verification:
        assert not verification.is_sound()


def _damage(index: Path) -> None:
    data = bytearray(index.read_bytes())
    data[10 * PAGE : 11 * PAGE] = b"\xff" * PAGE
    index.write_bytes(data)
