"""Fills a ModelHistory with random operations that are possible, and with what applications do in several."""

import random

from dkfs.model.node import Kind
from tests.history.model_history import CELL, ModelHistory


def fill(history: ModelHistory, seed: int, count: int) -> ModelHistory:
    """Do operations that *seed* chooses until *history* has at least *count* versions."""
    chooser = RandomOperations(history, random.Random(seed))
    with history.batch():
        while history.last < count:
            chooser.step()
    return history


class RandomOperations:
    """Chooses operations that are possible."""

    NAMES = (b"a", b"b", b"c", b"c.d", b"d", b"e", b"\xff")
    DATA = (
        b"",
        b"one",
        b"two",
        b"x" * CELL,
        bytes(CELL * 2),
        b"y" * CELL + bytes(2 * CELL) + b"tail",
        b"z" * CELL + b"other" * 20_000,
    )

    def __init__(self, history: ModelHistory, rng: random.Random) -> None:
        self._history = history
        self._rng = rng

    def step(self) -> None:
        """Do one operation, or what an application does in several."""
        history, rng = self._history, self._rng
        tree = history.tree
        self._paths = tree.paths()
        self._kinds = {path: tree.states[node].attr.kind for path, node in self._paths.items()}
        choice = rng.choice(
            ["make"] * 5 + ["write"] * 4 + ["rename"] * 4 + ["metadata"] * 2 + ["remove"] * 2
            + ["exchange", "link", "link", "save", "again", "found", "rollback", "tag"]
        )  # fmt: skip
        getattr(self, f"_{choice}")()

    def _free(self) -> bytes | None:
        above = self._rng.choice([p for p, k in self._kinds.items() if k is Kind.DIR])
        path = (above + b"/" + self._rng.choice(self.NAMES)).lstrip(b"/")
        return None if path in self._paths or path.count(b"/") > 4 else path

    def _any(self, *kinds: Kind) -> bytes | None:
        found = [p for p, k in self._kinds.items() if p and (not kinds or k in kinds)]
        return self._rng.choice(found) if found else None

    def _make(self) -> None:
        path, history, rng = self._free(), self._history, self._rng
        if path is None or len(self._paths) > 40:
            return
        kind = rng.choice(["file"] * 4 + ["dir"] * 4 + ["symlink", "fifo", "char"])
        if kind == "file":
            history.create(path, rng.choice(self.DATA))
        elif kind == "dir":
            history.mkdir(path)
        elif kind == "symlink":
            history.symlink(path, rng.choice(self.NAMES))
        elif kind == "fifo":
            history.mknod(path)
        else:
            history.mknod(path, Kind.CHAR, rng.randrange(3))

    def _write(self) -> None:
        path = self._any(Kind.FILE)
        if path is not None:
            self._history.write(path, self._rng.choice(self.DATA))

    def _metadata(self) -> None:
        path = self._rng.choice(list(self._paths))
        if self._rng.random() < 0.5:
            self._history.chmod(path, self._rng.choice((0o600, 0o640, 0o700)))
        elif self._kinds[path] in (Kind.FILE, Kind.DIR):
            self._history.setxattr(path, self._rng.choice(({}, {b"user.a": b"1"})))

    def _rename(self) -> None:
        old, new = self._any(), self._rng.choice((self._free(), self._any()))
        if old is None or new is None or (new + b"/").startswith(old + b"/"):
            return
        if new in self._paths:
            is_directory = self._kinds[old] is Kind.DIR
            if (self._kinds[new] is Kind.DIR) != is_directory or self._paths[old] == self._paths[
                new
            ]:
                return
            if any(path.startswith(new + b"/") for path in self._paths):
                return
        self._history.rename(old, new)

    def _exchange(self) -> None:
        one, other = self._any(), self._any()
        if one is None or other is None or self._paths[one] == self._paths[other]:
            return
        if not one.startswith(other + b"/") and not other.startswith(one + b"/"):
            self._history.exchange(one, other)

    def _link(self) -> None:
        old, new = self._any(Kind.FILE), self._free()
        if old is not None and new is not None:
            self._history.link(old, new)

    def _remove(self) -> None:
        path = self._any()
        if path is not None:
            self._remove_tree(path)

    def _remove_tree(self, top: bytes) -> None:
        for path in reversed(self._paths):
            if path == top or path.startswith(top + b"/"):
                if self._kinds[path] is Kind.DIR:
                    self._history.rmdir(path)
                else:
                    self._history.unlink(path)

    def _save(self) -> None:
        """Write a new file and rename it over the old one."""
        path, temporary = self._any(Kind.FILE), self._free()
        if path is not None and temporary is not None:
            self._history.create(temporary, self._rng.choice(self.DATA))
            self._history.rename(temporary, path)

    def _again(self) -> None:
        """Remove a directory with all in it, and make it again."""
        top = self._any(Kind.DIR)
        if top is None:
            return
        below = [p for p in self._paths if p == top or p.startswith(top + b"/")]
        self._remove_tree(top)
        for path in below:
            if self._kinds[path] is Kind.DIR:
                self._history.mkdir(path)
            elif self._rng.random() < 0.8:
                self._history.create(path, self._rng.choice(self.DATA))

    def _found(self) -> None:
        removed, new = self._any(), self._free()
        if removed is None or new is None or (new + b"/").startswith(removed + b"/"):
            return
        made = [new + b"/", new + b"/f", new + b"/s/", new + b"/s/g", new + b"/h=" + new + b"/f"]
        self._history.found(made if len(self._paths) < 40 else (), [removed])

    def _rollback(self) -> None:
        self._history.rollback(self._rng.randrange(1, self._history.last + 1))

    def _tag(self) -> None:
        self._history.tag(f"t{self._history.last}", self._history.last)
