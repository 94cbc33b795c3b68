"""What a mount answers on its control socket."""

import base64
import functools
import os
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from dkfs import __version__
from dkfs.config.settings import MountSettings
from dkfs.daemon.control import Message
from dkfs.daemon.courtesy import Courtesy
from dkfs.daemon.forgetting import Forgetting
from dkfs.daemon.listener import Say
from dkfs.daemon.maintenance import Maintenance
from dkfs.daemon.scrubbing import Scrubbing
from dkfs.errors import MountError, StoreError, UsageError
from dkfs.fuse.engine import Engine, alone
from dkfs.history.rollback import Move, redo, rollback, undo
from dkfs.history.versions import check_tag_name, parse_version
from dkfs.model.ids import Seq
from dkfs.model.operation import NOBODY
from dkfs.overlay.mounted import FileSystem
from dkfs.overlay.rollback import Rolled
from dkfs.store import Reader
from dkfs.store.reserve import Reserve

_FREEZE_S = 5.0  # that the kernel may take to write what maps have stored
OTHERS_S = 1.0  # that a mount, unmounted here, may take to end


class Stop(Protocol):
    """Unmounts; raises MountError if somebody uses the mount."""

    def __call__(self, *, lazily: bool) -> Awaitable[None]:
        """Unmount; *lazily* even if somebody uses it."""
        ...


class Commands:
    """The commands by name; all run in the loop's thread, between requests of the kernel."""

    def __init__(
        self, settings: MountSettings, fs: FileSystem, engine: Engine, *, stop: Stop
    ) -> None:
        self._settings = settings
        self._fs = fs
        self._engine = engine
        self._stop = stop
        self._since = time.time()
        self._ended = trio.Event()
        self._stopping = 0
        self._said = trio.Event()
        self.budget_members: Callable[[], dict[str, object]] = (
            dict  # what the status tells of a budget
        )
        self._commands: dict[str, Callable[[Message], Awaitable[Message]]] = {
            "status": self._status,
            "flush": self._flush,
            "tag": self._tag,
            "untag": self._untag,
            "rollback": self._rollback,
            "undo": functools.partial(self._take_back, undo),
            "redo": functools.partial(self._take_back, redo),
            "hold": self._hold,
            "release": self._release,
            "stop": self._stop_mount,
        }
        self.scrubbing = Scrubbing(fs.store.path, settings.scrub_interval_s)
        self._commands["scrub"] = self.scrubbing.command
        reserve = Reserve(fs.store.path, settings.reserve)
        reserve.keep()
        self.maintenance = Maintenance(
            fs.store, reserve, Courtesy(lambda: engine.turn), depth=settings.encoding.depth
        )
        forgetting = Forgetting(fs.store, self.maintenance)
        # Those that take long: they say how far they are.
        self._lasting: dict[str, Callable[[Message, Say], Awaitable[Message]]] = {
            "forget": forgetting.versions,
            "forget-contents": forgetting.contents,
            "gc": self.maintenance.gc,
        }

    async def answer(self, request: Message, say: Say) -> None:
        """See Handler."""
        name = str(request["command"])
        if name in self._lasting:
            await say({"message_type": "result", **await self._lasting[name](request, say)})
            return
        command = self._commands.get(name)
        if command is None:
            raise UsageError(
                f"control command {name!r} is unknown:"
                f" expected one of {', '.join(sorted((*self._commands, *self._lasting)))}"
            )
        try:
            await say({"message_type": "result", **await command(request)})
        finally:
            if name == "stop":
                self._stopping -= 1
                if not self._stopping:
                    self._said.set()

    async def drained(self) -> None:
        """Record everything, now that the mount is gone, and answer who asked for it."""
        async with alone(self._engine):
            self._fs.captures.capture_all()
        await trio.to_thread.run_sync(self._fs.recorder.flush)
        self._ended.set()
        if self._stopping:
            with trio.move_on_after(5.0):
                await self._said.wait()

    async def _status(self, _: Message) -> Message:
        fs, settings, io = self._fs, self._settings, self._fs.modes.state
        return {
            "pid": os.getpid(),
            "version": __version__,
            "state_dir": os.fspath(settings.state_dir),
            "mountpoint": os.fspath(settings.mountpoint),
            "store": os.fspath(settings.store),
            "engine": self._engine.name,
            "io": io.mode,
            "io_asked": io.asked,
            "io_rules": io.rules,
            "io_why": io.why,
            "io_opens": io.opens,
            "last": fs.recorder.committed,
            "queued_operations": fs.recorder.queued,
            "queued_bytes": fs.recorder.held_bytes,
            "recording": fs.recorder.is_recording,
            "lag_seconds": fs.recorder.lag_s(),
            "files_open": len(fs.files.handles),
            "inodes": len(fs.table),
            "since": self._since,
            **self.scrubbing.members(),
            **self.budget_members(),
        }

    async def _flush(self, _: Message) -> Message:
        return {"last": await self._captured(unasked=True)}

    async def _frozen(self) -> Seq:
        """Return the version of one instant, what maps have stored in it too; raises MountError if the kernel is too slow.

        The kernel writes what maps have stored; then, between two requests, everything is captured.
        """
        written = self._fs.rollback.written_ones()
        with trio.move_on_after(_FREEZE_S) as limit:
            await trio.to_thread.run_sync(self._engine.write_back, written, abandon_on_cancel=True)
        if limit.cancelled_caught:
            raise MountError(
                f"what maps have stored was not written within {_FREEZE_S:g} s: nothing was named"
            )
        return await self._captured()

    async def _captured(self, *, unasked: bool = False) -> Seq:
        """Record what was written so far; return the version that has it and nothing after it, when it is durable.

        *Unasked*, for who only wants to see what there is, see PassedCaptures.capture(), and what cannot be recorded is passed
        over.  Else raises StoreError then.
        """
        captures = self._fs.captures
        looked = 0
        instant = self._fs.recorder.last
        while True:
            async with alone(self._engine):
                captures.looked = looked  # of this request only: not while others are handled
                try:
                    with self._engine.at_work():
                        first = captures.before_all(unasked=unasked)
                        if first is None:
                            captures.capture_all(unasked=unasked)
                    if first is None:
                        instant = self._fs.recorder.last
                        if not unasked:
                            captures.refuse_uncaptured("nothing was done")
                        break
                finally:
                    captures.looked = 0
            await trio.to_thread.run_sync(first)
            looked += 1
        if not await trio.to_thread.run_sync(self._fs.recorder.flush):
            raise StoreError(f"the store fails: {self._fs.recorder.failure}")
        return instant

    async def _tag(self, request: Message) -> Message:
        name = _text(request, "name")
        check_tag_name(name)
        seq = await self._named(request)
        async with alone(self._engine):
            return {"name": name, "seq": self._fs.tags.tag(name, seq)}

    async def _untag(self, request: Message) -> Message:
        name = _text(request, "name")
        async with alone(self._engine):
            return {"name": name, "seq": self._fs.tags.untag(name)}

    async def _hold(self, request: Message) -> Message:
        name = _text(request, "name")
        check_tag_name(name)
        seq = await self._named(request)
        expires = request.get("expires_ns")
        if expires is not None and not isinstance(expires, int):
            raise UsageError('control request: "expires_ns" is not a number')
        async with alone(self._engine):
            seq = self._fs.tags.tag(name, seq, is_hold=True, expires_ns=expires)
        return {"name": name, "seq": seq}

    async def _release(self, request: Message) -> Message:
        name = _text(request, "name")
        async with alone(self._engine):
            return {"name": name, "seq": self._fs.tags.untag(name, is_hold=True)}

    async def _rollback(self, request: Message) -> Message:
        paths = request.get("paths", [])
        if not isinstance(paths, list):
            raise UsageError('control request: "paths" is not a list')
        await self._captured()
        chosen = tuple(base64.b64decode(str(path)) for path in paths)
        async with self.maintenance.paused():  # what it goes to must not be forgotten meanwhile
            return await self._roll(rollback(self._version(request), chosen), request)

    async def _take_back(self, find: Callable[[Reader], Move], request: Message) -> Message:
        async with self.maintenance.paused():
            with self._fs.store.read() as reader:
                move = find(reader)
            await self._captured()
            return await self._roll(move, request)

    async def _roll(self, move: Move, request: Message) -> Message:
        is_dry = request.get("dry_run") is True
        rollback = self._fs.rollback
        if not is_dry:
            written = rollback.written_ones()
            await trio.to_thread.run_sync(self._engine.write_back, written)
        async with alone(self._engine):
            rolled = rollback.roll_back(move, NOBODY, dry_run=is_dry)
        self._fs.count.again()
        try:
            await trio.to_thread.run_sync(
                self._engine.invalidate, rolled.stale, os.fsencode(self._settings.mountpoint)
            )
        finally:
            rollback.settling.clear()
        return _rolled(rolled, move.target)

    async def _stop_mount(self, _: Message) -> Message:
        if not self._stopping:
            self._said = trio.Event()  # an earlier stop may have found the mount busy
        self._stopping += 1
        await self._stop(lazily=False)
        with trio.move_on_after(OTHERS_S):
            await self._ended.wait()
        if not self._ended.is_set():
            self._engine.end()  # another namespace still has the mount
        await self._ended.wait()
        if self._fs.recorder.queued or not self._fs.recorder.is_recording:
            raise StoreError(f"not everything is recorded: {self._fs.recorder.failure}")
        return {"last": self._fs.recorder.committed}

    async def _named(self, request: Message) -> Seq:
        """Return the version that *request* names, else the present one, which has everything written so far."""
        if "version" not in request:
            return await (self._frozen() if request.get("freeze") is True else self._captured())
        await self._captured(unasked=True)
        return self._version(request)

    def _version(self, request: Message) -> Seq:
        with self._fs.store.read() as reader:
            return parse_version(reader, _text(request, "version"), now_ns=time.time_ns())


def _rolled(rolled: Rolled, target: Seq) -> Message:
    changes: list[Message] = [
        {
            "change": difference.change,
            "path": difference.path.decode("utf-8", "replace"),
            "path_b64": base64.b64encode(difference.path).decode("ascii"),
        }
        for difference in rolled.plan.differences
    ]
    return {
        "seq": rolled.seq,
        "target": target,
        "changes": changes,
        "changed": len(changes),
        "problems": list(rolled.result.problems) if rolled.result else [],
        "damaged": rolled.result.damaged if rolled.result else 0,
    }


def _text(request: Message, key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str):
        raise UsageError(f'control request has no "{key}": expected a string')
    return value
