"""Every handler's edge: nothing but a FUSEError may reach pyfuse3.

Any other exception would end the mount for everybody (libfuse/pyfuse3 issue 53): served() turns all
others into their errno, or into EIO, logged and counted.
"""

import errno
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any, Protocol

from pyfuse3 import FUSEError

from dkfs.errors import DkfsError
from dkfs.fuse.engine import Meter

log = logging.getLogger(__name__)


class Served(Protocol):
    """What served() needs of the object whose methods it wraps."""

    meter: Meter

    def room(self) -> Awaitable[None] | None:
        """Return what to await before anything is changed; None if nothing."""
        ...


def served(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a handler of *method*, which is synchronous, or returns an awaitable if it is slow."""
    return _handler(method, makes_changes=False)


def changes(method: Callable[..., Any]) -> Callable[..., Any]:
    """See served(); waits first until the recorder has room."""
    return _handler(method, makes_changes=True)


def _handler(method: Callable[..., Any], *, makes_changes: bool) -> Callable[..., Any]:
    operation = method.__name__
    clock = time.perf_counter

    @functools.wraps(method)
    async def handler(self: Served, *args: Any) -> Any:
        started = clock()
        try:
            if makes_changes and (room := self.room()) is not None:
                await room
            result = method(self, *args)
            if type(result) is CoroutineType:
                return await result
            return result  # noqa: TRY300 - an else would cost nothing but lines
        except FUSEError:
            raise
        except (OSError, DkfsError) as exc:
            raise FUSEError(exc.errno or errno.EIO) from None
        except Exception as exc:  # the edge, see the module
            self.meter.count_internal_error()
            log.exception("%s failed, the application gets EIO", operation)
            raise FUSEError(errno.EIO) from exc
        finally:
            self.meter.observe_request(operation, clock() - started)

    return handler
