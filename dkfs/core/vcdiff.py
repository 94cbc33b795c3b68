"""VCDIFF, the delta format of RFC 3284 that xdelta writes: pure, no I/O.

What is written: one window, the default code table, no secondary compression, neither checksum nor application data;
any xdelta3 can decode it. What is read: the same with any number of windows, each with a segment of the reference or
none; a segment of the target, another code table and a compressed section are refused, for dkfs never writes them.

decode() takes any bytes: what it returns has the length asked for, or it raises CorruptError; it never makes more
than that many bytes, and the number of its steps is bounded by the length of the delta.
"""

from collections.abc import Sequence
from typing import Final

from dkfs.core.delta import Copy
from dkfs.errors import CorruptError

_MAGIC: Final = b"\xd6\xc3\xc4\x00"
_SOURCE: Final = 0x01  # window indicator: the window copies from a segment of the reference
_RUN: Final = 0
_ADD: Final = 1
_COPY: Final = 2
_NEAR: Final = 4
_SAME: Final = 3
_SAME_MODE: Final = 2 + _NEAR  # modes 0 self, 1 here, 2 to 5 near, 6 to 8 same

_Half = tuple[int, int, int]  # what, size (0: the next integer of the section is it), mode


def _code_table() -> tuple[tuple[_Half, ...], ...]:
    """Return the default table, RFC 3284 section 5.6: one or two instructions for each code."""
    table: list[tuple[_Half, ...]] = [((_RUN, 0, 0),)]
    table += [((_ADD, size, 0),) for size in range(18)]
    modes = range(_SAME_MODE + _SAME)
    table += [((_COPY, size, mode),) for mode in modes for size in (0, *range(4, 19))]
    for mode in modes:
        copies = range(4, 7) if mode < _SAME_MODE else range(4, 5)
        table += [((_ADD, add, 0), (_COPY, copy, mode)) for add in range(1, 5) for copy in copies]
    table += [((_COPY, 4, mode), (_ADD, 1, 0)) for mode in modes]
    return tuple(table)


_CODES: Final = _code_table()
_CODE_OF: Final = {code[0]: number for number, code in enumerate(_CODES) if len(code) == 1}


def encode(data: bytes, reference_length: int, copies: Sequence[Copy]) -> bytes:
    """Return the delta that makes *data*; *copies* are sorted and disjoint."""
    literals, instructions, addresses = [], bytearray(), bytearray()
    cache = _Addresses()
    at = 0
    for offset, source, length in copies:
        if offset > at:
            literals.append(data[at:offset])
            instructions += _instruction(_ADD, offset - at, 0)
        mode, coded = cache.encode(source, reference_length + offset)
        instructions += _instruction(_COPY, length, mode)
        addresses += coded
        at = offset + length
    if at < len(data):
        literals.append(data[at:])
        instructions += _instruction(_ADD, len(data) - at, 0)
    added = b"".join(literals)
    sizes = (len(data), 0, len(added), len(instructions), len(addresses))
    body = b"".join((*map(_integer, sizes), added, instructions, addresses))
    indicator = b"\1" + _integer(reference_length) + b"\0" if copies else b"\0"
    return b"".join((_MAGIC, b"\0", indicator, _integer(len(body)), body))


def decode(payload: bytes, reference: bytes, length: int) -> bytes:
    """Return the *length* bytes that *payload* makes out of *reference*; raises CorruptError."""
    if payload[:4] != _MAGIC or payload[4:5] != b"\0":
        raise CorruptError(f"VCDIFF that starts with {payload[:5].hex()}, need d6c3c40000")
    target = bytearray()
    windows = _Section(payload, 5, len(payload))
    try:
        while not windows.is_empty:
            _decode_window(windows, reference, target, length)
    except IndexError:
        raise CorruptError(f"VCDIFF of {len(payload)} bytes ends too early") from None
    if len(target) != length:
        raise CorruptError(f"VCDIFF of {len(target)} bytes, need {length}")
    return bytes(target)


class _Section:
    """A part of a delta that is read from its start; raises IndexError at its end."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self._data = data
        self._at = at
        self._end = end

    @property
    def is_empty(self) -> bool:
        return self._at >= self._end

    def byte(self) -> int:
        if self._at >= self._end:
            raise IndexError
        self._at += 1
        return self._data[self._at - 1]

    def integer(self) -> int:
        """Read seven bits a byte, highest first."""
        value = 0
        for _ in range(9):
            byte = self.byte()
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value
        raise CorruptError("VCDIFF with an integer longer than 63 bits")

    def take(self, size: int) -> bytes:
        start = self._skip(size)
        return self._data[start : start + size]

    def section(self, size: int) -> "_Section":
        start = self._skip(size)
        return _Section(self._data, start, start + size)

    def _skip(self, size: int) -> int:
        start = self._at
        if size > self._end - start:
            raise IndexError
        self._at += size
        return start


class _Addresses:
    """The caches of RFC 3284 section 5.1, with which an address is coded in few bytes."""

    def __init__(self) -> None:
        self._near = [0] * _NEAR
        self._next = 0
        self._same = [0] * (_SAME * 256)

    def encode(self, address: int, here: int) -> tuple[int, bytes]:
        """Return the mode and the bytes of *address*, the shortest there are."""
        slot = address % len(self._same)
        if self._same[slot] == address:
            found = _SAME_MODE + slot // 256, bytes((slot % 256,))
        else:
            distances = [address, here - address]
            distances += [address - near if near <= address else 1 << 62 for near in self._near]
            mode = min(range(_SAME_MODE), key=distances.__getitem__)
            found = mode, _integer(distances[mode])
        self._remember(address)
        return found

    def decode(self, mode: int, section: _Section, here: int) -> int:
        """Return the address that *section* says next; raises CorruptError, IndexError."""
        if mode >= _SAME_MODE:
            address = self._same[(mode - _SAME_MODE) * 256 + section.byte()]
        elif mode >= 2:
            address = self._near[mode - 2] + section.integer()
        else:
            distance = section.integer()
            address = here - distance if mode else distance
        if not 0 <= address < here:
            raise CorruptError(f"VCDIFF that copies from {address}, need less than {here}")
        self._remember(address)
        return address

    def _remember(self, address: int) -> None:
        self._near[self._next] = address
        self._next = (self._next + 1) % _NEAR
        self._same[address % len(self._same)] = address


class _Window:
    """A window that is being decoded: what it may copy from, and what it must not exceed."""

    def __init__(
        self, reference: bytes, segment: tuple[int, int], target: bytearray, size: int
    ) -> None:
        self._reference = reference
        self._first, self._last = (
            segment  # the segment is never cut out: every window may name all of the reference
        )
        self._target = target
        self._start = len(target)
        self._left = size

    @property
    def here(self) -> int:
        return self._last - self._first + len(self._target) - self._start

    @property
    def is_full(self) -> bool:
        return not self._left

    def run(self, byte: int, size: int) -> None:
        self._need(size)
        self._target += bytes((byte,)) * size

    def add(self, literals: _Section, size: int) -> None:
        self._need(size)
        self._target += literals.take(size)

    def copy(self, address: int, size: int) -> None:
        """Append what is at *address* of the segment and the window behind it; they may overlap what is made."""
        self._need(size)
        at = self._first + address
        if at < self._last:
            part = self._reference[at : min(at + size, self._last)]
            self._target += part
            size -= len(part)
            at = self._last
        if not size:
            return
        start = self._start + at - self._last
        part = bytes(self._target[start : start + size])
        repeats, rest = divmod(size, len(part))
        self._target += part * repeats + part[:rest]

    def _need(self, size: int) -> None:
        if size > self._left:
            raise CorruptError(f"VCDIFF that makes {size} bytes where {self._left} are left")
        self._left -= size


def _decode_window(
    windows: _Section, reference: bytes, target: bytearray, target_limit: int
) -> None:
    """Append what the next window makes to *target*; raises CorruptError, IndexError."""
    indicator = windows.byte()
    if indicator & ~_SOURCE:
        raise CorruptError(f"VCDIFF window of type {indicator:#04x}, need 0 or 1")
    first = last = 0
    if indicator:
        size, first = windows.integer(), windows.integer()
        last = first + size
        if last > len(reference):
            raise CorruptError(f"VCDIFF that copies bytes {first} to {last} of {len(reference)}")
    body = windows.section(windows.integer())
    target_size, compression = body.integer(), body.byte()
    if compression or target_size > target_limit - len(target):
        raise CorruptError(
            f"VCDIFF window of {target_size} bytes, compression {compression}; need"
            f" {target_limit - len(target)}, 0"
        )
    sizes = [body.integer() for _ in range(3)]
    literals, instructions, addresses = [body.section(size) for size in sizes]
    window = _Window(reference, (first, last), target, target_size)
    cache = _Addresses()
    while not instructions.is_empty:
        for what, fixed, mode in _CODES[instructions.byte()]:
            size = fixed or instructions.integer()
            if what == _COPY:
                window.copy(cache.decode(mode, addresses, window.here), size)
            elif what == _ADD:
                window.add(literals, size)
            else:
                window.run(literals.byte(), size)
    if not (window.is_full and body.is_empty and literals.is_empty and addresses.is_empty):
        raise CorruptError("VCDIFF window with sections that are longer than what it makes")


def _instruction(what: int, size: int, mode: int) -> bytes:
    code = _CODE_OF.get((what, size, mode))
    if code is not None and size:
        return bytes((code,))
    return bytes((_CODE_OF[what, 0, mode],)) + _integer(size)


def _integer(value: int) -> bytes:
    out = bytearray((value & 0x7F,))
    while value := value >> 7:
        out.append(value & 0x7F | 0x80)
    out.reverse()
    return bytes(out)
