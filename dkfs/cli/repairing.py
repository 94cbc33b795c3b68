"""`dkfs check --repair`: what is looked at, what is repaired, and what is said of it."""

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from dkfs.cli.checking import Found, Printer, Request, look, summary_members, summary_text
from dkfs.cli.location import find
from dkfs.cli.output import emit, printable
from dkfs.cli.progress import Progress
from dkfs.errors import CorruptError, StoreBusyError, StoreError, UsageError
from dkfs.history.recovery import recover
from dkfs.history.surviving import StateDirectory
from dkfs.store import Store
from dkfs.store.check import DamageKind
from dkfs.store.damage import Step
from dkfs.store.index import INDEX_NAME
from dkfs.store.intent import list_set_aside
from dkfs.store.lock import StoreLock
from dkfs.store.rebuild import REBUILT_NAME
from dkfs.store.repair import OtherStore, Source, repair_contents
from dkfs.store.repair_index import repair_index
from dkfs.store.segments import SEGMENTS_NAME
from dkfs.store.selection import Selection


def repair(args: argparse.Namespace, selection: Selection | None) -> int:
    """Do it; return the exit status."""
    store = find(args).store
    request = Request(read=selection, from_disk=selection is not None)
    with ExitStack() as stack:
        sources = _sources(args, stack)
        repairer = _Repairer(args, store, stack)
        repairer.index(request)
        repairer.contents(sources)
    if "dry_run" in args or not repairer.steps:
        return _end(args, repairer, repairer.found)
    if "json" not in args:
        print("looking again:")
    return _end(args, repairer, look(store, request, Printer(args)))


def _end(args: argparse.Namespace, repairer: "_Repairer", found: Found) -> int:
    if "json" in args:
        emit("summary", summary_members(found), repaired=repairer.steps, lost=repairer.lost)
    else:
        print(summary_text(found))
    return CorruptError.exit_status if found.damages else 0


def _sources(args: argparse.Namespace, stack: ExitStack) -> list[Source]:
    """Return where bytes may still be; the directory comes first, because it is nearest."""
    sources: list[Source] = []
    if "state_dir" in args:
        try:
            fd = os.open(args.state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise UsageError(f"--state-dir {printable(args.state_dir)}: {exc.strerror}") from None
        stack.callback(os.close, fd)
        sources.append(StateDirectory(fd, printable(args.state_dir)))
    for text in getattr(args, "sources", ()):
        path = Path(text)
        with Store.open(path, writable=False):
            sources.append(OtherStore(path))
    return sources


class _Repairer:
    """One repair, or what it would be."""

    def __init__(self, args: argparse.Namespace, store: Path, stack: ExitStack) -> None:
        self.found = Found()
        self.steps = 0
        self.lost = 0
        self._args = args
        self._store = store
        self._is_dry = "dry_run" in args
        self._scratch = _scratch(stack) if self._is_dry else None

    def index(self, request: Request) -> None:
        """Look at the store, and repair its index if it is damaged; then look again."""
        with self._locked():
            request = replace(request, is_alone=not self._is_dry)
            self.found = look(self._store, request, Printer(self._args))
            if not _is_index_damaged(self.found):
                return
            damages = self.found.damages if self.found.is_usable else None
            with Progress("rebuilding") as progress:
                for step in repair_index(
                    self._store, damages, scratch=self._scratch, on_progress=progress.tell
                ):
                    self._tell(step)
        if self._scratch is not None:
            self._store = _pretend(self._store, self._scratch)
        request = replace(request, is_alone=False)
        self.found = look(self._store, request, Printer(self._args))

    def contents(self, sources: list[Source]) -> None:
        """Repair contents and segments."""
        if not self.found.damages or not self.found.is_usable:
            return
        before = set(list_set_aside(self._store))
        with Store.open(self._store, writable=not self._is_dry, recover=recover) as store:
            for path in set(list_set_aside(self._store)) - before:
                how = f"what can be is taken in, all of it is kept as {path.name}"
                self._tell(Step("intent log", how, is_done=False))
            for step in repair_contents(store, self.found.damages, sources, dry_run=self._is_dry):
                self._tell(step)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._is_dry:
            yield
            return
        try:
            lock = StoreLock(self._store)
        except StoreBusyError as exc:
            raise StoreBusyError(f"{exc}: unmount before a repair") from None
        with lock:
            yield

    def _tell(self, step: Step) -> None:
        self.steps += 1
        self.lost += not step.is_done
        if "json" in self._args:
            blob = {} if step.blob is None else {"blob": step.blob.hex()}
            emit(
                "step", blob, what=step.what, how=step.how, done=step.is_done, dry_run=self._is_dry
            )
            return
        word = ("to repair" if self._is_dry else "repaired") if step.is_done else "not repaired"
        print(f"{word}: {printable(step.what)}: {printable(step.how)}")


def _is_index_damaged(found: Found) -> bool:
    kinds = {DamageKind.INDEX, DamageKind.ROW}
    return any(damage.kind in kinds for damage in found.damages)


def _scratch(stack: ExitStack) -> Path:
    scratch = Path(tempfile.mkdtemp(prefix="dkfs-check-"))
    stack.callback(shutil.rmtree, scratch)
    return scratch


def _pretend(store: Path, scratch: Path) -> Path:
    """Return a store that is what *store* would be with the index that was made in *scratch*."""
    try:
        (scratch / SEGMENTS_NAME).symlink_to(store / SEGMENTS_NAME)
        (scratch / REBUILT_NAME).rename(scratch / INDEX_NAME)
    except OSError as exc:
        raise StoreError(f"{scratch} cannot be written: {exc.strerror}") from exc
    return scratch
