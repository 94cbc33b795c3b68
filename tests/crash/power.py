"""The power-cut machine: runs workloads, and opens whatever a power cut in them could have left."""

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

from tests.crash.power_disk import ACKS, EXHAUSTIVE, Disk, Image, State
from tests.crash.shim import Op, read_log, start

_ENDS = (Op.SYNC, Op.DURABLE, Op.FLUSH)


@dataclass(slots=True)
class Totals:
    """What was tried."""

    workloads: int = 0
    states: int = 0
    sampled: int = 0  # states of instants with too many unsynced changes for every combination
    absent: int = 0
    in_flight: int = 0  # states that hold the transaction that was not promised yet
    nested: int = 0  # states after a second cut, while what the first one left was being opened
    wrong: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Return it for people."""
        return (
            f"{self.workloads} workloads, {self.states} states ({self.sampled} of samples):"
            f" {self.absent} before the store was there, {self.in_flight} with more than was promised, {self.nested} after a second cut;"
            f" {len(self.wrong)} wrong"
        )


@dataclass(frozen=True, slots=True)
class Promises:
    """What a workload promised, in order."""

    acks: list[bytes]
    prefixes: dict[str, str] | None  # by version; None: the promises are digests of transactions

    @classmethod
    def read(cls, acks: list[bytes], prefixes: Path) -> "Promises":
        """Return *acks*, with what is in the file *prefixes* if there is one; it is removed."""
        if not prefixes.exists():
            return cls(acks, None)
        found = json.loads(prefixes.read_text())
        prefixes.unlink()
        return cls(acks, found)

    def kept(self, said: dict[str, object], count: int) -> Literal["", "exactly", "more"]:
        """Return whether the first *count* promises are kept by what was found, and if so, how much more is there."""
        last = said["last"]
        assert isinstance(last, int)
        if self.prefixes is not None:
            promised = int(self.acks[count - 1]) if count else 0
            if last < promised or self.prefixes.get(str(last)) != said["prefix"]:
                return ""
            return "more" if last > promised else "exactly"
        found = str(said["digest"]).encode()
        if (found == self.acks[count - 1]) if count else not last:
            return "exactly"
        return "more" if found in self.acks[count : count + 1] else ""


class Machine:
    """Runs in *directory* and looks in *states*, where syncs had better be cheap, by children; a context manager."""

    def __init__(self, directory: Path, shim: Path, states: Path) -> None:
        self._directory = directory
        self._states = states
        self._shim = shim
        self._worker = start(shim, "tests.crash.power_work")
        self._looker = self._new_looker()
        self.totals = Totals()
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in (self._worker, self._looker):
            child.kill()
            child.communicate()

    def _new_looker(self) -> subprocess.Popen[bytes]:
        # Without the shim: nothing of it is needed, and a SIGBUS is to be what it is.
        return start(None, "tests.crash.power_look")

    def run(
        self,
        seed: str,
        *,
        most: int | None = None,
        nested: int = 0,
        exhaustive: int = EXHAUSTIVE,
    ) -> None:
        """Run the workload *seed*, and look at its states, at *most* so many; of *nested* of them, at their openings'.

        Where at most *exhaustive* changes are not synced every combination of them is a state.
        """
        rng = random.Random(f"states {seed}")
        directory = self._directory / "work"
        directory.mkdir()
        self._ask(self._worker, f"{seed} {directory}")
        disk, states = self._play(Disk(), directory, rng, exhaustive)
        promises = Promises.read(disk.acks, Path(f"{directory}.prefixes"))
        shutil.rmtree(directory)
        self.totals.workloads += 1
        promised = [state for state in states if state.acks]
        if most is not None and len(states) > most:
            before = [state for state in states if not state.acks]
            states = rng.sample(before, min(len(before), most // 8))
            states += rng.sample(promised, min(len(promised), most - len(states)))
        for state in states:
            self._look(seed, state, promises)
        for state in rng.sample(promised, min(nested, len(promised))):
            self._cut_again(seed, state, promises, rng)

    def _play(
        self, disk: Disk, directory: Path, rng: random.Random, exhaustive: int = EXHAUSTIVE
    ) -> tuple[Disk, list[State]]:
        """Return the different states before each sync, and at the end."""
        seen: set[tuple[int, tuple[tuple[bytes, bytes | None], ...]]] = set()
        found: list[State] = []
        entries = list(read_log(directory.with_name(f"{directory.name}.log"), directory))
        for at, entry in enumerate(entries):
            disk.play(entry)
            following = entries[at + 1] if at + 1 < len(entries) else None
            if following and following.op not in _ENDS and following.path != ACKS:
                continue
            for state in disk.states(at + 1, rng, exhaustive=exhaustive):
                key = (state.acks, _key(state.image))
                if key not in seen:
                    seen.add(key)
                    found.append(state)
        return disk, found

    def _look(self, seed: str, state: State, promises: Promises) -> None:
        """Open *state*; note what is wrong."""
        directory = self._made(state.image)
        said = self._opened(directory)
        self.totals.states += 1
        self.totals.sampled += state.is_sampled
        where = f"seed {seed}, {state.at} calls, {state.how}"
        wrong = said["wrong"]
        assert isinstance(wrong, list)
        if said.get("absent"):
            self.totals.absent += 1
            if state.acks:
                wrong.append("the store is gone")
        elif "last" in said:
            kept = promises.kept(said, state.acks)
            self.totals.in_flight += kept == "more"
            if not kept:
                wrong.append(f"last is {said['last']}, promised were {state.acks} times something")
        self.totals.wrong += [f"{where}: {each}" for each in wrong]
        if wrong and "DKFS_TEST_KEEP" in os.environ:
            _write(Path(os.environ["DKFS_TEST_KEEP"]) / f"{seed}-{self.totals.states}", state.image)
        shutil.rmtree(directory)

    def _cut_again(self, seed: str, state: State, promises: Promises, rng: random.Random) -> None:
        """Cut the power while *state* is being opened, and look at what that may leave."""
        directory = self._directory / "again"
        _write(directory, state.image)
        before = Disk.holding(state.image, directory)
        self._ask(self._worker, f"reopen {directory}")
        _, states = self._play(before, directory, rng)
        shutil.rmtree(directory)
        for again in states:
            self.totals.nested += 1
            how = f"{state.how}; then {again.how}"
            self._look(seed, replace(again, acks=state.acks, how=how), promises)

    def _made(self, image: Image) -> Path:
        self._count += 1
        directory = self._states / f"state{self._count}"
        _write(directory, image)
        return directory

    def _opened(self, directory: Path) -> dict[str, object]:
        try:
            said: dict[str, object] = json.loads(self._ask(self._looker, f"{directory}/store"))
        except EOFError:
            status = self._looker.wait()
            self._looker = self._new_looker()
            return {"wrong": [f"opening it ended the process with status {status}"]}
        return said

    def _ask(self, child: subprocess.Popen[bytes], line: str) -> bytes:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(line.encode() + b"\n")
        child.stdin.flush()
        answer = child.stdout.readline()
        if not answer:
            raise EOFError(line)
        return answer


def _key(image: Image) -> tuple[tuple[bytes, bytes | None], ...]:
    # LMDB makes its table of readers anew.
    return tuple(each for each in sorted(image.items()) if not each[0].endswith(b"-lock"))


def _write(directory: Path, image: Image) -> None:
    for name, data in sorted(image.items()):
        path = directory / os.fsdecode(name)
        if data is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    directory.mkdir(exist_ok=True)


def seeds(name: str, count: int, *, first: int = 0) -> Iterator[str]:
    """Yield *count* seeds, the one that DKFS_TEST_SEED names if it is set."""
    given = os.environ.get("DKFS_TEST_SEED")
    for number in range(first, first + count):
        yield given or f"{name}-{number}"
