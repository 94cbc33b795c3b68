"""Random changes of who may see what."""

import random

from dkfs.model.node import Kind
from dkfs.overlay.access import ACL_ACCESS
from tests.history.model_history import ModelHistory
from tests.overlay.acls import Entry, acl, mode_of, random_acl
from tests.overlay.virtual_kernel import chown


class Operations:
    """Changes a tree of few names in random ways that change who may do what."""

    def __init__(self, history: ModelHistory, rng: random.Random) -> None:
        self._history = history
        self._rng = rng

    def run(self, count: int) -> None:
        with self._history.batch():
            while self._history.last < count:
                self._step()

    def _step(self) -> None:
        history, rng = self._history, self._rng
        paths = history.tree.paths()
        kinds = {path: history.tree.states[node].attr.kind for path, node in paths.items()}
        files = [p for p, k in kinds.items() if k is Kind.FILE]
        directories = [p for p, k in kinds.items() if k is Kind.DIR]
        new = (rng.choice(directories) + b"/" + rng.choice((b"a", b"b", b"c", b"9"))).strip(b"/")
        is_new = new not in paths and new.count(b"/") < 3
        some = rng.choice(list(paths))
        action = rng.choice(
            ["create"] * 4 + ["mkdir"] * 2 + ["rights"] * 5 + ["move", "link", "remove"]
        )
        if action == "create" and is_new:
            history.create(new, b"%d" % history.last)
            self._change_rights(new)
        elif action == "create" and files:
            history.write(rng.choice(files), b"%d" % history.last)
        elif action == "mkdir" and is_new:
            history.mkdir(new)
            self._change_rights(new)
        elif action == "rights":
            self._change_rights(some)
        elif action == "move" and is_new and some and not new.startswith(some + b"/"):
            history.rename(some, new)
        elif action == "link" and is_new and files:
            history.link(rng.choice(files), new)
        elif action == "remove" and some:
            if kinds[some] is Kind.FILE:
                history.unlink(some)
            elif not any(p.startswith(some + b"/") for p in paths):
                history.rmdir(some)

    def _change_rights(self, path: bytes) -> None:
        history, rng = self._history, self._rng
        action = rng.choice(("chmod", "chmod", "chown", "acl"))
        if action == "chown" or history.state(path).attr.uid == 1000:
            chown(history, path, rng.randrange(1001, 1005), rng.randrange(2001, 2004))
        if action == "chmod":
            usual = rng.choice((0o755, 0o755, 0o750, 0o711, 0o700, 0o444))
            history.chmod(path, usual if rng.random() < 0.8 else rng.randrange(0o1000))
            history.setxattr(path, {})
        elif action == "acl":
            entries = random_acl(rng)
            entries[0] = (1, 7, entries[0][2])
            if rng.random() < 0.7:
                entries[-1] = (32, 5, entries[-1][2])
            history.setxattr(path, {ACL_ACCESS: acl(*entries)})
            history.chmod(path, mode_of(entries))
            self._acls()[history.state(path).xattrs] = entries

    def _acls(self) -> dict[object, list[Entry]]:
        return self._history.__dict__.setdefault("acls", {})  # type: ignore[no-any-return]
