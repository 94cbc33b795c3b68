"""Which kind of open is made: the kernel's rules are an oracle of their own here, never asked by the code."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.io_mode import IoMode, IoRule, IoRules, OpenKind, Opens, decide
from dkfs.core.patterns import Pattern

_CACHED, _DIRECT = OpenKind.CACHED, OpenKind.DIRECT
_PASSED, _PASSED_DIRECT = OpenKind.PASSTHROUGH, OpenKind.PASSTHROUGH_DIRECT


def _decide(
    mode: IoMode, opens: Opens | None = None, *, writes: bool = True, syncs: bool = False
) -> OpenKind:
    return decide(mode, opens or Opens(), writes=writes, syncs=syncs)


def test_each_mode_alone_gives_the_kinds_of_the_design() -> None:
    assert _decide(IoMode.STRICT) is _CACHED
    assert _decide(IoMode.STRICT, writes=False) is _CACHED
    assert _decide(IoMode.HYBRID) is _PASSED_DIRECT
    assert _decide(IoMode.HYBRID, writes=False) is _PASSED
    assert _decide(IoMode.CHECKPOINT) is _PASSED
    assert _decide(IoMode.CHECKPOINT, writes=False) is _PASSED


def test_a_file_whose_writes_are_to_be_durable_when_they_return_is_written_through_dkfs() -> None:
    assert _decide(IoMode.CHECKPOINT, syncs=True) is _PASSED_DIRECT
    assert _decide(IoMode.CHECKPOINT, writes=False, syncs=True) is _PASSED
    assert _decide(IoMode.STRICT, syncs=True) is _CACHED


def test_in_hybrid_writes_are_seen_although_a_reader_bypasses_dkfs() -> None:
    opens = Opens()
    opens.add(_decide(IoMode.HYBRID, opens, writes=False))

    assert _decide(IoMode.HYBRID, opens) is _PASSED_DIRECT


def test_what_is_in_the_page_cache_of_the_mount_stays_there_until_the_last_is_closed() -> None:
    opens = Opens(paged=1)
    assert _decide(IoMode.CHECKPOINT, opens) is _CACHED
    assert _decide(IoMode.HYBRID, opens, writes=False) is _CACHED

    opens.add(_CACHED, -1)
    assert opens.is_empty
    assert _decide(IoMode.CHECKPOINT, opens) is _PASSED


def test_a_strict_open_beside_passthrough_sees_its_writes_at_least() -> None:
    assert _decide(IoMode.STRICT, Opens(passed=2)) is _PASSED_DIRECT
    assert _decide(IoMode.STRICT, Opens(passed=2), writes=False) is _PASSED


# ---- the kernel's rules, as fs/fuse/iomode.c has them


@dataclass
class _Kernel:
    """One inode: iocachectr, and how often its backing file is in use."""

    counter: int = 0  # > 0: users of the page cache; < 0: opens that exclude it
    mapped_direct: set[int] = field(default_factory=set)
    kinds: dict[int, OpenKind] = field(default_factory=dict)

    def open(self, number: int, kind: OpenKind) -> bool:
        """Return whether the application gets its file, and no EIO."""
        if self.counter < 0 and not kind.is_passthrough:
            return False
        if kind is _CACHED:
            self.counter += 1
        elif kind.is_passthrough:
            if self.counter > 0:
                return False
            self.counter -= 1
        self.kinds[number] = kind
        return True

    def map(self, number: int) -> bool:
        """Return whether the application gets its map."""
        kind = self.kinds[number]
        if kind is _DIRECT and number not in self.mapped_direct:
            if self.counter < 0:
                return False
            self.counter += 1
            self.mapped_direct.add(number)
        return True

    def close(self, number: int) -> None:
        kind = self.kinds.pop(number)
        if kind is _CACHED or number in self.mapped_direct:
            self.counter -= 1
            self.mapped_direct.discard(number)
        elif kind.is_passthrough:
            self.counter += 1


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(("open", "arrive", "map", "close", "hear")),
        st.sampled_from(IoMode),
        st.booleans(),
        st.booleans(),
        st.integers(0, 7),
    ),
    max_size=60,
)


def _take(waiting: list[int], which: int) -> int | None:
    return waiting.pop(which % len(waiting)) if waiting else None


@given(_STEPS)
def test_no_order_of_opens_maps_and_closes_makes_a_mix_that_the_kernel_refuses(
    steps: list[tuple[str, IoMode, bool, bool, int]],
) -> None:
    """Replies arrive, and RELEASEs are heard of, in any order, late; modes change from open to open."""
    kernel, opens = _Kernel(), Opens()
    answered: dict[int, OpenKind] = {}
    on_their_way: list[int] = []
    open_now: list[int] = []
    closed: list[int] = []
    for number, (what, mode, writes, syncs, which) in enumerate(steps):
        if what == "open":
            answered[number] = decide(mode, opens, writes=writes, syncs=syncs)
            opens.add(answered[number])
            on_their_way.append(number)
        elif what == "arrive" and (one := _take(on_their_way, which)) is not None:
            assert kernel.open(one, answered[one]), (answered[one], kernel)
            open_now.append(one)
        elif what == "map" and open_now:
            assert kernel.map(open_now[which % len(open_now)])
        elif what == "close" and (one := _take(open_now, which)) is not None:
            kernel.close(one)
            closed.append(one)
        elif what == "hear" and (one := _take(closed, which)) is not None:
            opens.add(answered[one], -1)


@pytest.mark.parametrize(
    ("first", "second", "goes"),
    [
        (_CACHED, _CACHED, True),
        (_CACHED, _DIRECT, True),
        (_CACHED, _PASSED, False),
        (_CACHED, _PASSED_DIRECT, False),
        (_DIRECT, _PASSED, True),
        (_PASSED, _CACHED, False),
        (_PASSED, _DIRECT, False),
        (_PASSED, _PASSED_DIRECT, True),
        (_PASSED_DIRECT, _PASSED, True),
        (_PASSED_DIRECT, _CACHED, False),
    ],
)
def test_the_oracle_says_what_was_measured_on_linux_6_18(
    first: OpenKind, second: OpenKind, *, goes: bool
) -> None:
    kernel = _Kernel()
    assert kernel.open(1, first)

    assert kernel.open(2, second) is goes


# ---- rules


def test_the_first_rule_that_matches_a_path_or_a_directory_above_it_decides() -> None:
    rules = IoRules(
        IoMode.STRICT,
        (
            IoRule(Pattern(b"models/keep"), IoMode.STRICT),
            IoRule(Pattern(b"/models"), IoMode.CHECKPOINT),
            IoRule(Pattern(b"*.parquet"), IoMode.HYBRID),
        ),
    )

    assert rules.mode_of(b"models/a/b.bin") is IoMode.CHECKPOINT
    assert rules.mode_of(b"models/keep/b.bin") is IoMode.STRICT
    assert rules.mode_of(b"x/models/b.bin") is IoMode.STRICT
    assert rules.mode_of(b"x/t.parquet") is IoMode.HYBRID
    assert not rules.is_strict
    assert IoRules(IoMode.STRICT, (IoRule(Pattern(b"a"), IoMode.STRICT),)).is_strict
