"""Killed at each of its steps, dkfs goes on: nothing that was durable is lost, and nobody has to repair anything."""

import os
import re
import shutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from dkfs import failpoints
from dkfs.errors import UsageError
from dkfs.history.tree import Tree
from dkfs.model.ids import Seq
from dkfs.model.operation import OpKind
from dkfs.store import Store
from dkfs.store.check import check
from tests.crash import scenes
from tests.crash.scenes import Say
from tests.mount.model import Versions, differences, pictures_of
from tests.mounting import CHECKOUT, Mounted

Scene = Callable[[Path, Say], None]

_CALL = re.compile(r'\bfailpoint\(\s*"([a-z.-]+)"\s*\)')
_STEP = re.compile(r'\b_?at\(\s*"([a-z ]+)"(?:\s+if [^"]*"([a-z ]+)")?')

# By the scene: how it is prepared, how it is played, and where it is killed.
SCENES: dict[str, tuple[Scene, Scene, str]] = {
    "work": (
        scenes.nothing,
        scenes.work,
        (
            "backing.{open write truncate truncate-by-name setattr setxattr removexattr privileges remove rename create"
            " tmpfile make own link link-first fallocate clone copy} record.{append begin version committed clean}"
            " segment.{write sync make} journal.finish index.{put append commit committed cover} tag.{put delete}"
        ),
    ),
    "sync": (scenes.some_files, scenes.sync, "intent.{write written remove}"),
    "recovery": (scenes.promise, scenes.make_store, "intent.recover"),
    "rollback": (
        scenes.much_changed,
        scenes.go_back,
        "rollback.{apply stage create aside rmdir remove name change unstage settle} record.plan",
    ),
    "replay": (
        scenes.some_files,
        scenes.come_back,
        "replay.{note fill make settle end} contents.write",
    ),
    "merge": (scenes.some_files, scenes.come_together, "replay.{record back}"),
    "prefer": (scenes.some_files, scenes.prefer_store, "replay.went-back"),
    "tidy": (scenes.some_files, scenes.tidy, "replay.unstage"),
    "forget": (
        scenes.old_versions,
        scenes.forget,
        (
            "forget.fold gc.{looked dead-rows-removed rolled checkpoint-written copied adopted rows-moved ended"
            " rows-of-segments-removed write sync appear note} segment.{seal unlink} scrub.note reserve.take"
        ),
    ),
    "compact": (scenes.old_versions, scenes.pack, "compact.{copied rename-lock rename}"),
    "create": (
        scenes.nothing,
        scenes.make_store,
        "store.{make index index-rename lock}",
    ),
    "tail": (scenes.leave_a_tail, scenes.make_store, "segment.{cut drop}"),
    "migrate": (
        scenes.old_format,
        scenes.update,
        "migrate.{commit replace rename}",
    ),
    "repair": (
        scenes.old_versions,
        scenes.mend,
        "repair.{commit keep rename-lock rename}",
    ),
    "receive": (scenes.old_versions, scenes.stream, "receive.batch"),
}
# What takes a mount or a full disk, and is killed elsewhere.
ELSEWHERE = {
    "fsync.backing": "test_killed_in_a_sync",
    "fsync.wait": "test_killed_in_a_sync",
    "fsync.directory": "test_killed_in_a_sync",
    "segment.truncate": "tests/store/test_collect_crash.py",
    "gc.shortened": "tests/store/test_collect_crash.py",
    "gc.cut": "tests/store/test_collect_crash.py",
    "journal.checkpoint": "gc.part-of-a-checkpoint-written",
    "gc.part-of-a-checkpoint-written": "tests/store/test_collect_crash.py",
}


def names(text: str) -> list[str]:
    """Return the names that *text* is short for."""
    found = []
    for word in re.findall(r"[\w-]+\.(?:\{[^}]*\}|[\w-]+)", text):
        group, _, rest = word.partition(".")
        found += [f"{group}.{each}" for each in rest.strip("{}").split()]
    return found


STEPS = [(scene, name) for scene, (_, _, text) in SCENES.items() for name in names(text)]


def in_code() -> list[str]:
    found: list[str] = []
    for file in sorted((CHECKOUT / "dkfs").rglob("*.py")):
        text = file.read_text()
        found += _CALL.findall(text)
        if file.name in {"collect.py", "store.py"}:
            for pair in _STEP.findall(text):
                found += [f"gc.{step.replace(' ', '-')}" for step in pair if step]
    return found


def test_each_failpoint_is_at_one_place_in_the_table_and_in_a_test() -> None:
    code = in_code()
    table = (CHECKOUT / "dkfs/docs/failpoints.md").read_text()
    rows = re.findall(r"^\| `([a-z.-]+)` \|", table, re.MULTILINE)

    assert [name for name in code if code.count(name) > 1] == []
    assert sorted(rows) == sorted(code)
    assert sorted({name for _, name in STEPS} | ELSEWHERE.keys()) == sorted(code)


def in_child(work: Callable[[Say], None], steps: str = "") -> tuple[int, list[str]]:
    """Do *work* in a child that dies at *steps*; return its wait status and what it said."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            failpoints.arm(steps)
            work(lambda path: _say(writing, path))
            status = 0
        except BaseException:  # noqa: BLE001 -- the edge of a process
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as said:
        lines = said.read().splitlines()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), lines


def _say(fd: int, path: str) -> None:
    os.write(fd, path.encode() + b"\n")


def sound(top: Path) -> None:
    """Fail unless the newest version is the directory, and everything can be read."""
    with scenes.opened(top) as store:
        assert [str(each) for each in check(store, read_data=True)] == []
        with store.read() as reader:
            newest = Versions(reader).pictures(Tree(reader, reader.last))
            log = [each.operation for each in reader.log(Seq(1), reader.last)]
            made = [each.name.decode() for each in log if each.kind is OpKind.TAG]
            removed = [each.name.decode() for each in log if each.kind is OpKind.UNTAG]
            assert sorted(made) == sorted([*removed, *(tag.name for tag in reader.tags())])
    assert differences(pictures_of(os.fsencode(top / "state")), newest) == []


def recovered(top: Path, said: list[str], *, is_last: bool) -> None:
    """Fail unless the directory is kept as it is, and what was said to be durable is in the store alone.

    *is_last*: what was said was not changed afterwards, and is compared.
    """
    kept = {
        path: (top / "state" / path).read_bytes()
        for path in said
        if (top / "state" / path).exists()
    }
    lost = top / "lost"
    lost.mkdir()
    if (top / "store").exists():
        shutil.copytree(top / "store", lost / "store")
    sound(lost)
    for path in dict.fromkeys(said if is_last else said[:-1]):
        assert not (top / "state" / path).exists() or (lost / "state" / path).exists(), path
        if is_last:
            assert (lost / "state" / path).read_bytes() == kept[path]
    sound(top)
    for path, data in kept.items():
        assert (top / "state" / path).read_bytes() == data


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize(("scene", "step"), STEPS)
def test_killed_at_any_step_it_goes_on(tmp_path: Path, scene: str, step: str) -> None:
    prepare, play, _ = SCENES[scene]
    assert in_child(lambda say: prepare(tmp_path, say))[0] == 0
    is_there = (tmp_path / "state").exists()
    before = pictures_of(os.fsencode(tmp_path / "state")) if is_there else {}

    slowly = ";record.begin=sleep(0.1)" if scene == "sync" else ""  # a sync is to be faster
    status, said = in_child(lambda say: play(tmp_path, say), f"{step}=kill{slowly}")

    assert status == -signal.SIGKILL, f"{step} was not reached"
    if scene in {"forget", "compact", "migrate", "repair", "receive"}:
        assert in_child(lambda say: play(tmp_path, say))[0] == 0  # once more, to its end
        with Store.open(tmp_path / "store", writable=False) as store:
            assert list(check(store, read_data=True)) == []
        return
    assert in_child(lambda _: recovered(tmp_path, said, is_last=scene == "sync"))[0] == 0
    if scene in {"rollback", "replay"}:
        after = pictures_of(os.fsencode(tmp_path / "state"))
        assert differences(before, after) == [], "half of it was left"


@pytest.mark.slow
@pytest.mark.root
def test_killed_at_any_commit_a_tag_is_there_if_the_log_tells_of_it(tmp_path: Path) -> None:
    assert in_child(lambda say: scenes.some_files(tmp_path, say))[0] == 0
    status = -signal.SIGKILL
    commits = 0
    while status == -signal.SIGKILL:
        copy = tmp_path / f"copy{commits}"
        shutil.copytree(tmp_path / "store", copy / "store")
        steps = f"index.commit={commits}*off->kill" if commits else "index.commit=kill"
        status, _ = in_child(lambda say, top=copy: scenes.tag(top, say), steps)  # type: ignore[misc]
        assert in_child(lambda _, top=copy: sound(top))[0] == 0  # type: ignore[misc]
        commits += 1
    assert commits > 3


@pytest.mark.slow
@pytest.mark.root
def test_the_note_of_a_rollback_that_ended_means_nothing(tmp_path: Path) -> None:
    def play(say: Say) -> None:
        scenes.much_changed(tmp_path, say)
        scenes.go_back(tmp_path, say)

    assert in_child(play)[0] == 0
    before = pictures_of(os.fsencode(tmp_path / "state"))
    assert in_child(lambda say: scenes.prefer_store(tmp_path, say))[0] == 0

    assert differences(before, pictures_of(os.fsencode(tmp_path / "state"))) == []


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.mount
@pytest.mark.parametrize("step", ["fsync.backing", "fsync.wait", "fsync.directory"])
def test_killed_in_a_sync(unmounted: Mounted, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoints.VARIABLE, f"{step}=kill")
    unmounted.mount()
    fd = os.open(unmounted.mountpoint / "file", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"written")
    with pytest.raises(OSError, match=r"not connected|abort"):
        os.fsync(fd if step != "fsync.directory" else os.open(unmounted.mountpoint, os.O_RDONLY))
    monkeypatch.delenv(failpoints.VARIABLE)
    unmounted.mount()

    assert (unmounted.mountpoint / "file").read_bytes() == b"written"


def test_a_chain_says_what_happens_at_each_pass() -> None:
    failpoints.arm("some.step=2*off->1*ENOSPC->off; other.step = EIO")
    try:
        failpoints.failpoint("some.step")
        failpoints.failpoint("some.step")
        with pytest.raises(OSError, match="No space"):
            failpoints.failpoint("some.step")
        failpoints.failpoint("some.step")
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                failpoints.failpoint("other.step")
    finally:
        failpoints.arm("")
    failpoints.failpoint("other.step")


@pytest.mark.parametrize("text", ["a.b", "a.b=die", "a.b=ENOTHING", "a.b=x*kill", "a.b=sleep()"])
def test_what_is_no_failpoint_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected off, kill"):
        failpoints.arm(text)
