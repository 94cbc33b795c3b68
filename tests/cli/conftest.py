"""What the tests of the command line share: a store with a little history, and the command called in this process."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dkfs.cli.main import main
from dkfs.model.node import Kind
from tests.history.model_history import ModelHistory


@dataclass(frozen=True)
class Outcome:
    """What a command said."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def messages(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.lines]


class Dkfs:
    """dkfs, called as a function."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str | Path) -> Outcome:
        self._capsys.readouterr()
        status = main([str(word) for word in words])
        captured = self._capsys.readouterr()
        return Outcome(status, captured.out, captured.err)


@pytest.fixture
def dkfs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Dkfs:
    """Call dkfs, standing in an empty directory, in UTC."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("TZ", "UTC")
    return Dkfs(capsys)


@pytest.fixture
def history(tmp_path: Path) -> Iterator[ModelHistory]:
    """Make a store: version N is N seconds after 2023-11-14T22:13:20Z, done by test[100], uid 1000."""
    with ModelHistory(tmp_path / "store") as made:
        made.mkdir(b"etc")  # 2
        made.create(b"etc/app.conf", b"port=1\n")  # 3
        made.write(b"etc/app.conf", b"port=8080\n")  # 4
        made.chmod(b"etc/app.conf", 0o600)  # 5
        made.create(b"odd\x1b[31m\xff", b"")  # 6
        made.symlink(b"link", b"etc/app.conf")  # 7
        made.mknod(b"null", Kind.CHAR, rdev=0x103)  # 8
        made.rename(b"etc", b"conf")  # 9
        made.unlink(b"conf/app.conf")  # 10
        yield made


@pytest.fixture
def store(history: ModelHistory) -> Path:
    """Return where the store of *history* is."""
    return history.store.path
