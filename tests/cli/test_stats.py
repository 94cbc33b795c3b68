"""dkfs stats: sizes that restoring takes, what is stored, what made it grow."""

import random
from pathlib import Path

import pytest

from dkfs.core.delta import Copy, Like
from dkfs.model.ids import ROOT, NodeId
from dkfs.store import Store
from tests.cli.conftest import Dkfs
from tests.history.model_history import ModelHistory
from tests.store.making import append, file_state


def numbers(message: dict[str, object]) -> dict[str, int]:
    return {key: value for key, value in message.items() if isinstance(value, int)}


def test_restore_size_is_that_of_the_version(
    dkfs: Dkfs, history: ModelHistory, store: Path
) -> None:
    latest, earlier = (
        dkfs("stats", *words, "--mode", "restore-size", "--json", "--store", store).messages[0]
        for words in ([], ["4"])
    )

    assert (latest["version"], latest["files"], latest["restore_size_bytes"]) == (10, 1, 0)
    assert (earlier["version"], earlier["files"], earlier["directories"]) == (4, 1, 2)
    assert earlier["restore_size_bytes"] == len(b"port=8080\n")


def test_restore_size_can_be_asked_of_a_path(dkfs: Dkfs, store: Path) -> None:
    result = dkfs("stats", "4:etc/app.conf", "--mode", "restore-size", "--store", store)

    assert result.lines[0] == "restore-size of version 4, etc/app.conf"
    assert "files" in result.lines[1]


def test_what_is_saved_and_what_is_stored_add_up_to_full_copies(dkfs: Dkfs, tmp_path: Path) -> None:
    path = tmp_path / "store"
    make(path)

    raw = numbers(dkfs("stats", "--mode", "raw-data", "--json", "--store", path).messages[0])

    assert raw["versions_of_contents"] == 4
    assert raw["full_copies_bytes"] == 2 * 9000 + 2 * 50_000
    assert raw["saved_by_dedup_bytes"] == 9000  # the copy
    assert 40_000 < raw["saved_by_deltas_bytes"] < 50_000  # the change of a few bytes
    assert 0 < raw["saved_by_compression_bytes"] < 9000  # the text; noise has nothing to save
    causes = ("dedup", "deltas", "compression")
    saved = sum(raw[f"saved_by_{cause}_bytes"] for cause in causes)
    assert saved + raw["stored_contents_bytes"] == raw["full_copies_bytes"]
    files = sum(file.stat().st_size for file in path.rglob("*.seg"))
    assert raw["store_bytes"] == files + (path / "index.lmdb").stat().st_size


def test_unique_is_what_only_that_version_reaches(dkfs: Dkfs, tmp_path: Path) -> None:
    path = tmp_path / "store"
    seqs = make(path)

    alone = [
        numbers(dkfs("stats", str(seq), "--mode", "unique", "--json", "--store", path).messages[0])
        for seq in seqs
    ]

    # The text is in two files; the noise is the base of its own change; the change is the newest.
    assert [number["unique_bytes"] for number in alone[:3]] == [0, 0, 0]
    assert 0 < alone[3]["unique_bytes"] < 1000


def test_growth_is_told_by_path_writer_and_day(dkfs: Dkfs, tmp_path: Path) -> None:
    path = tmp_path / "store"
    make(path)

    by_path = dkfs("stats", "--by", "path", "--mode", "unique", "--json", "--store", path).messages
    by_day = dkfs("stats", "--by", "day", "--mode", "unique", "--store", path).lines

    grown = [message for message in by_path if message["message_type"] == "growth"]
    assert [message["path"] for message in grown] == ["noise", "text", "copy"]
    assert [message["versions"] for message in grown] == [2, 1, 1]
    assert grown[2]["stored_bytes"] == 0
    assert by_day[-1].split()[0] == "2023-11-14"


def test_a_version_without_new_contents_is_no_growth(dkfs: Dkfs, tmp_path: Path) -> None:
    path = tmp_path / "store"
    Store.create(path)
    with Store.open(path, writable=True) as store:
        for mtime_ns in (1, 2, 3):
            with store.write() as writer:
                blob = writer.put_blob(b"the same").blob
                state = file_state(b"f", size=8, content=blob, mtime_ns=mtime_ns)
                append(writer, {2: state}, {(ROOT, b"f"): NodeId(2)} if mtime_ns == 1 else None)

    messages = dkfs("stats", "--by", "path", "--mode", "raw-data", "--json", "--store", path)

    raw, grown = messages.messages
    assert (raw["versions_of_contents"], raw["full_copies_bytes"]) == (1, 8)
    assert (grown["path"], grown["versions"]) == ("f", 1)


def test_an_empty_store_has_nothing(dkfs: Dkfs, tmp_path: Path) -> None:
    Store.create(tmp_path / "store")

    result = dkfs("stats", "--store", tmp_path / "store", "--by", "writer")

    assert result.status == 0
    assert result.lines[0] == "raw-data"


def test_a_mode_that_is_none_is_refused(dkfs: Dkfs, store: Path) -> None:
    assert dkfs("stats", "--mode", "everything", "--store", store).status == 2


def make(path: Path) -> list[int]:
    """Make a store of a text, a copy of it, noise, and the noise changed; return the versions."""
    text = b"the same line again\n" * 450
    noise = random.Random(8).randbytes(50_000)
    changed = noise[:20_000] + b"changed" + noise[20_007:]
    seqs = []
    Store.create(path)
    with Store.open(path, writable=True) as store:
        with store.write() as writer:
            append(writer, {1: file_state(b"")})
        for node, name, data in ((2, b"text", text), (3, b"copy", text), (4, b"noise", noise)):
            with store.write() as writer:
                blob = writer.put_blob(data).blob
                state = file_state(name, size=len(data), content=blob)
                seqs.append(append(writer, {node: state}, {(ROOT, name): NodeId(node)}))
        with store.write() as writer:
            copies = (Copy(0, 0, 20_000), Copy(20_007, 20_007, len(noise) - 20_007))
            like = Like((store.hash(noise),), copies)
            blob = writer.put_blob(changed, like=like).blob
            seqs.append(append(writer, {4: file_state(b"noise", size=50_000, content=blob)}))
    return [int(seq) for seq in seqs]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--by", "path", "--top", "-1"), "--top: '-1'"),
        (("--top", "few"), "--top: 'few'"),
        (("--by", "path", "--depth", "0"), "--depth: 0, expected at least 1"),
    ],
)
def test_a_wrong_number_is_told_before_anything_is_shown(
    dkfs: Dkfs, store: Path, words: tuple[str, ...], said: str
) -> None:
    result = dkfs("stats", *words, "--store", store)

    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"dkfs: {said}")
