"""A child that works on a store while the shim logs what it does: each line of its input is a seed and a directory.

A line is said for each.  After each transaction the digest of what the store then holds is written to DIRECTORY/acks,
which is in the log too: the promise that it is durable.
"""

import hashlib
import json
import os
import random
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from dkfs.core.journal import TABLES_JOURNALED
from dkfs.history import recovery
from dkfs.store import Store
from dkfs.store.compact import compact_small
from dkfs.store.reader import Reader
from dkfs.store.rows import UNJOURNALED
from dkfs.store.transaction import Transaction
from tests.crash.power_disk import ACKS
from tests.crash.power_record import Recording
from tests.crash.shim import Shim
from tests.history.forgetting import keep_only, some_versions
from tests.history.model_history import ModelHistory
from tests.history.random_history import RandomOperations
from tests.store.collecting import collect

SEGMENT_LIMIT = 20_000
_STEPS = range(4, 14)


def digest(reader: Reader) -> bytes:
    """Return what tells the history that *reader* sees from any other."""
    state = hashlib.sha256()
    for table in TABLES_JOURNALED:
        for key, value in reader.rows(table):
            if table != "meta" or key not in UNJOURNALED:
                state.update(b"%s %d %d " % (table.encode(), len(key), len(value)) + key + value)
    return state.hexdigest().encode()


class Promises:
    """Writes a promise after each transaction."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._real = Transaction.__exit__

    def __enter__(self) -> None:
        promises = self

        def leave(
            transaction: Transaction,
            exc_type: type[BaseException] | None,
            exc: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            promises._real(transaction, exc_type, exc, trace)
            if exc_type is None:
                with Reader(transaction._index, transaction._blobs) as reader:
                    os.write(promises._fd, digest(reader))

        Transaction.__exit__ = leave  # type: ignore[method-assign, assignment]

    def __exit__(self, *_: object) -> None:
        Transaction.__exit__ = self._real  # type: ignore[method-assign]
        os.close(self._fd)


class Work:
    """A random history in one store, with all that is done to stores."""

    def __init__(self, history: ModelHistory, rng: random.Random) -> None:
        self._history = history
        self._rng = rng
        self._operations = RandomOperations(history, rng)

    def step(self) -> None:
        """Do one thing."""
        choice = self._rng.choice(
            ["one"] * 9 + ["many"] * 2 + ["forget", "collect", "reopen", "abort", "checkpoint"]
        )
        getattr(self, f"_{choice}")()

    def _one(self) -> None:
        self._operations.step()

    def _many(self) -> None:
        with self._history.batch():
            for _ in range(self._rng.randrange(2, 12)):
                self._operations.step()

    def _forget(self) -> None:
        keep_only(self._history.store, some_versions(self._rng, self._history.last))

    def _collect(self) -> None:
        collect(self._history.store, max_unused=0)

    def _reopen(self) -> None:
        path = self._history.store.path
        self._history.store.close()
        self._history.store = Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT)

    def _abort(self) -> None:
        with suppress(InterruptedError), self._history.store.write() as writer:
            writer.put_blob(self._rng.randbytes(self._rng.randrange(1, 30_000)))
            raise InterruptedError

    def _checkpoint(self) -> None:
        with self._history.store.write() as writer:
            writer.put_checkpoint()


def work(directory: Path, seed: str) -> None:
    """Do what *seed* says in *directory*, which is empty."""
    rng = random.Random(seed)
    with Promises(directory / os.fsdecode(ACKS)):
        with ModelHistory(directory / "store") as history:
            history.store._writing().output.limit = SEGMENT_LIMIT
            todo = Work(history, rng)
            for _ in range(rng.choice(_STEPS)):
                todo.step()
        compact_small(directory / "store")


def record(directory: Path, seed: str) -> None:
    """Do what *seed* says to files, recorded in *directory*."""
    state = directory.with_name("backing")
    state.mkdir()
    rng = random.Random(seed)
    fd = os.open(
        directory / os.fsdecode(ACKS), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    recording = Recording(directory / "store", state, rng, lambda seq: os.write(fd, b"%d" % seq))
    prefixes = dict(recording.run(rng.choice(_STEPS)))
    os.close(fd)
    Path(f"{directory}.prefixes").write_text(json.dumps(prefixes))
    shutil.rmtree(state)


def reopen(directory: Path) -> None:
    """Do what opening does after a cut, in *directory*."""
    open_store(directory / "store").close()


def open_store(path: Path) -> Store:
    """Open the store at *path* as a mount does."""
    return recovery.open_store(path, writable=True, segment_limit=SEGMENT_LIMIT)


def main() -> None:
    """Serve until the input ends."""
    shim = Shim()
    for line in sys.stdin:
        seed, place = line.rstrip("\n").split(" ", 1)
        directory = Path(place)
        fd = os.open(f"{place}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        shim.root(directory)
        shim.log(fd)
        if seed == "reopen":
            reopen(directory)
        elif seed.startswith("record"):
            record(directory, seed)
        else:
            work(directory, seed)
        shim.log(-1)
        os.close(fd)
        print(flush=True)


if __name__ == "__main__":
    main()
