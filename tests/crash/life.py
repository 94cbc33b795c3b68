"""One life of a store in the crash machine: it is mounted, worked on and killed again and again, and judged after each kill.

Nothing here opens a database: this process forks daemons, workers and judges, which do.  What is found wrong is said with the seed
that shows it again: the calls and the plan of kills follow from it, the instant of a kill does not.
"""

import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self

from dkfs import failpoints
from dkfs.config.settings import Engine, Io, MountSettings
from dkfs.daemon import (
    launch,
    session,  # noqa: F401 -- loaded here, so that no daemon has to
)
from dkfs.errors import DkfsError
from dkfs.history.tree import Tree as Version
from dkfs.model.ids import Seq
from dkfs.store import Store
from dkfs.store.check import check
from tests.crash.ops import LOG, SHARED
from tests.crash.oracle import Judge, Story, Tree, explain, look
from tests.crash.worker import work
from tests.mount.model import Versions, differences, pictures_of
from tests.mounting import mounts_below, wait_for_end

_STEPS = (
    *("record.append", "record.begin", "record.version", "record.committed"),
    *("segment.write", "segment.sync", "journal.finish", "index.append", "index.put"),
    *(
        "intent.write",
        "intent.written",
        "index.commit",
        "index.committed",
        "index.cover",
        "fsync.backing",
        "fsync.wait",
    ),
    *("backing.write", "backing.create", "backing.make", "backing.rename", "backing.remove"),
    *("backing.link", "backing.setattr", "backing.truncate", "backing.setxattr", "backing.open"),
)
_AT_MOUNT = (
    "intent.recover",
    "replay.make",
    "replay.fill",
    "replay.end",
    "replay.record",
    "replay.settle",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How one life is led."""

    seed: int
    kills: int
    workers: int = 3
    calls: int = 150  # of each worker in a round, at most
    engine: Engine = "kernel"
    io: Io = "strict"


@dataclass(slots=True)
class Totals:
    """What many lives came to."""

    kills: int = 0
    calls: int = 0  # that were answered
    syncs: int = 0  # that promised something
    under_way: int = 0  # calls that were interrupted
    wiped: int = 0  # kills after which the directory was lost too
    at_steps: int = 0  # daemons that were to die at a step, some of them before they came there
    at_mount: int = 0  # that died while they mounted


class WrongError(Exception):
    """What was promised is not there."""


class Life:
    """See the module; a context manager, which takes the last mount away."""

    def __init__(self, base: Path, plan: Plan, totals: Totals) -> None:
        """Lead the life in *base*, an empty directory on a real file system."""
        self._plan = plan
        self._rng = random.Random(plan.seed)
        self._totals = totals
        self._base = base
        self._state, self._top, self._store = base / "state", base / "mnt", base / "store"
        self._logs = base / "logs"
        for each in (self._state, self._top, self._logs):
            each.mkdir()
        self._settings = MountSettings(
            state_dir=self._state,
            mountpoint=self._top,
            store=self._store,
            engine=plan.engine,
            io=plan.io,
            capture_interval_s=self._rng.choice([0.02, 0.2, 1.0]),
            metrics_addr=None,
            scrub_interval_s=None,
            log_file=base / "daemon.log",
        )
        self._daemon = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._daemon:
            os.kill(self._daemon, signal.SIGKILL)
            os.waitpid(self._daemon, 0)
        for point in mounts_below(self._base):
            os.system(f"umount --lazy {point}")

    def run(self) -> None:
        """Lead it; raises WrongError, which names the round and the seed."""
        self._mount("")
        self._furnish()
        for kill in range(self._plan.kills):
            try:
                self._round(kill)
            except WrongError as exc:
                raise WrongError(f"{self._plan}, kill {kill}: {exc}") from None
            self._totals.kills += 1

    def _round(self, number: int) -> None:
        stories = self._work(number, look(self._state))
        self._kept_or_wiped(stories)
        _asked(lambda: _wrong_in(self._store, self._state))

    def _mount(self, steps: str) -> None:
        """Mount; the daemon dies at *steps*, perhaps while it mounts: then once more without."""
        failpoints.arm(steps)
        try:
            self._daemon = launch.start(self._settings)
            if len(mounts_below(self._base)) > 1:
                raise WrongError("a dead mount lies below the new one")
        except DkfsError as exc:
            failpoints.arm("")
            if not steps:
                log = (self._base / "daemon.log").read_text()[-3000:]
                raise WrongError(f"it does not mount: {exc}; {log}") from exc
            self._totals.at_mount += 1
            self._mount("")
        finally:
            failpoints.arm("")

    def _steps(self) -> str:
        """Return where the next daemon is to die, mostly nowhere."""
        choice = self._rng.random()
        if choice < 0.5:
            return ""
        self._totals.at_steps += 1
        if choice < 0.6:
            return f"{self._rng.choice(_AT_MOUNT)}={self._rng.randrange(1, 9)}*off->kill"
        return f"{self._rng.choice(_STEPS)}={self._rng.randrange(1, 60)}*off->kill"

    def _furnish(self) -> None:
        """Make what the workers need."""
        for name in (SHARED, *(f"p{worker}" for worker in range(self._plan.workers))):
            (self._top / name).mkdir(exist_ok=True)
        log = os.open(self._top / LOG, os.O_CREAT | os.O_WRONLY, 0o644)
        os.fsync(log)
        os.close(log)
        for name in (SHARED, "."):
            fd = os.open(self._top / name, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)

    def _work(self, number: int, base: Tree) -> list[Story]:
        stories = [self._story(worker, number, base) for worker in range(self._plan.workers)]
        pids = [self._start(story, number) for story in stories]
        self._wait_and_kill(dict(zip(pids, stories, strict=True)))
        for pid in pids:
            self._end(pid)
        for story in stories:
            story.read(self._log(story, number))
            self._log(story, number).unlink(missing_ok=True)
            self._totals.calls += story.answered
            self._totals.under_way += len(story.calls) - story.answered
            if story.trouble:
                raise WrongError(story.trouble[0])
        return stories

    def _story(self, worker: int, number: int, base: Tree) -> Story:
        key = (number * self._plan.workers + worker) * 100_000
        return Story(worker, base, key, passes=self._plan.io != "strict")

    def _log(self, story: Story, number: int) -> Path:
        return self._logs / f"{number}-{story.worker}"

    def _start(self, story: Story, number: int) -> int:
        rng = random.Random(f"{self._plan.seed} {number} {story.worker}")
        log = self._log(story, number)
        calls = self._plan.calls
        return _forked(lambda: work(self._top, log, story.worker, story.model(), rng, calls))

    def _wait_and_kill(self, workers: dict[int, Story]) -> None:
        """Kill the daemon, and sometimes workers before or after it."""
        whom = self._rng.random()
        time.sleep(self._rng.random() ** 2 * 0.5)
        if whom < 0.25:
            victim = self._rng.choice(list(workers))
            workers[victim].was_killed = True
            os.kill(victim, signal.SIGKILL)
            time.sleep(self._rng.random() * 0.02)
        self._kill(self._daemon)
        self._daemon = 0
        if whom > 0.9:
            for pid in workers:
                os.kill(pid, signal.SIGKILL)

    def _kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status != -signal.SIGKILL:
            log = (self._base / "daemon.log").read_text()[-3000:]
            raise WrongError(f"the daemon had ended by itself, with {status}; {log}")

    def _end(self, pid: int) -> None:
        assert wait_for_end(pid, seconds=30), "a worker hangs"
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) > 0:
            raise WrongError("a worker failed")

    # Judgement.

    def _kept_or_wiped(self, stories: list[Story]) -> None:
        if self._rng.random() < 0.4:
            self._judge_kept(stories)
        else:
            self._judge_wiped(stories)

    def _judge_kept(self, stories: list[Story]) -> None:
        """The directory is there: all that was answered is in it, and the next mount changes nothing."""
        tree = look(self._state)
        for judge in [Judge(story, tree) for story in stories]:
            self._totals.syncs += judge.promised.syncs
            if not judge.is_all_there():
                self._tell(stories, tree)
                raise WrongError(f"worker {judge.story.worker} lost something: {judge.why}")
        before = pictures_of(os.fsencode(self._state))
        self._mount(self._steps())
        wrong = differences(before, pictures_of(os.fsencode(self._state)))
        if wrong:
            raise WrongError(f"the mount changed what had survived: {wrong[:4]}")

    def _judge_wiped(self, stories: list[Story]) -> None:
        """The directory is lost: what comes back is a beginning of what was done, with all that was synced."""
        shutil.rmtree(self._state)
        self._state.mkdir()
        self._totals.wiped += 1
        self._mount(self._steps())
        tree = look(self._state)
        judges = [Judge(story, tree) for story in stories]
        self._totals.syncs += sum(judge.promised.syncs for judge in judges)
        wrong = explain(judges, tree)
        if wrong:
            self._tell(stories, tree)
            raise WrongError(f"the store is no beginning of what was done: {wrong}")

    def _tell(self, stories: list[Story], tree: Tree) -> None:
        """Print what the workers did, and what there is, for whoever looks into it."""
        for story in stories:
            for index, call in enumerate(story.calls):
                print(story.worker, index, call.began, call.ended, call.op.name, *call.op.args)
        for path, each in sorted(tree.items()):
            print(path, each.kind, oct(each.mode), each.inode, len(each.data), each.data[:24])
        with Store.open(self._store, writable=False) as store, store.read() as reader:
            for record in reader.log(Seq(max(1, reader.last - 40)), reader.last):
                print(record.seq, record.operation)


def _wrong_in(store: Path, state: Path) -> str:
    with Store.open(store, writable=False) as opened:
        found = [str(each) for each in check(opened, read_data=True)]
        if found:
            return f"check found {found[:3]}"
        with opened.read() as reader:
            pictures = Versions(reader).pictures(Version(reader, reader.last))
    wrong = differences(pictures_of(os.fsencode(state)), pictures)
    return f"the newest version is not the directory: {wrong[:4]}" if wrong else ""


def _forked(work: Callable[[], None]) -> int:
    """Do *work* in a child; return its pid."""
    pid = os.fork()
    if pid == 0:
        _be(work)
    return pid


def _be(work: Callable[[], None]) -> NoReturn:
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 -- the edge of a process
        traceback.print_exc()
    finally:
        os._exit(status)


def _answer(writing: int, question: Callable[[], str]) -> None:
    os.write(writing, question().encode())


def _asked(question: Callable[[], str]) -> None:
    """Raise WrongError with what *question* answers in a child, unless that is nothing."""
    reading, writing = os.pipe()
    pid = _forked(lambda: _answer(writing, question))
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        text = answer.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if text or status:
        raise WrongError(text or f"the examiner ended with {status}")
