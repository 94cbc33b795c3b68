import random
from collections.abc import Iterator

import pytest

from dkfs.errors import NotFoundError, UsageError
from dkfs.history.log import By, LogLine, file_history, log, parse_by, spans
from dkfs.history.tree import is_under
from dkfs.model.ids import NO_NODE, ROOT, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.model.operation import LogRecord, Operation, OpKind, Origin
from dkfs.store import Reader
from tests.history.model_history import ModelHistory, ModelLine, visible
from tests.history.random_history import fill

SEEDS = [1, 2, 3]

MANY = {OpKind.FOUND, OpKind.ROLLBACK}


def seqs(
    history: ModelHistory,
    path: bytes | None = None,
    *,
    since: Seq | None = None,
    until: Seq | None = None,
    by: By | None = None,
) -> list[int]:
    with history.store.read() as reader:
        return [line.seq for line in log(reader, path, since=since, until=until, by=by)]


def told(history: ModelHistory, path: bytes) -> list[tuple[int, str, OpKind | None]]:
    with history.store.read() as reader:
        return [(each.seq, each.change, each.kind) for each in file_history(reader, path)]


@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_every_line_has_the_paths_of_its_time(
    history: ModelHistory, *, seed: int, oldest_first: bool
) -> None:
    fill(history, seed, 300)

    with history.store.read() as reader:
        found = list(log(reader, oldest_first=oldest_first))
    in_order = found if oldest_first else found[::-1]
    assert [line.seq for line in in_order] == list(range(1, history.last + 1))
    said = [ModelLine(line.kind, line.path, line.new_path) for line in in_order]
    assert said == history.lines[1:]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_log_of_a_path_has_all_that_changed_at_or_below_it(
    history: ModelHistory, seed: int
) -> None:
    fill(history, seed, 200)
    rng = random.Random(seed)
    ever = sorted({path for tree in history.trees for path in tree.paths()})
    pictures = [
        {path: (node, tree.states[node]) for path, node in tree.paths().items()}
        for tree in history.trees
    ]

    for top in rng.sample(ever, 12):
        found = set(seqs(history, top))
        for seq in range(1, history.last + 1):
            below = [
                {path: what for path, what in picture.items() if is_under(path, top)}
                for picture in (pictures[seq - 1], pictures[seq])
            ]
            line = history.lines[seq]
            assert line is not None
            # A directory gets a new mtime by what happens in it; that is not a line of the directory's own log.
            if line.path is not None and any(
                path is not None and is_under(path, top) for path in (line.path, line.new_path)
            ):
                assert seq in found
            elif below[0].keys() != below[1].keys():
                assert seq in found, (top, seq)
            elif line.kind not in MANY | {OpKind.RENAME, OpKind.EXCHANGE}:
                assert seq not in found


def test_a_move_of_a_directory_above_the_path_is_in_its_log(history: ModelHistory) -> None:
    history.mkdir(b"d")
    history.create(b"d/f")
    history.create(b"x")
    away = history.rename(b"d", b"e")
    history.write(b"x", b"1")
    back = history.rename(b"e", b"d")

    assert seqs(history, b"d/f") == [back, away, 3]
    assert seqs(history, b"e/f") == [back, away]


def test_operations_of_many_names_are_in_the_log_of_what_they_touched(
    history: ModelHistory,
) -> None:
    found = history.found([b"a/", b"a/f", b"b/", b"b/f"])
    written = history.write(b"a/f", b"1")
    back = history.rollback(found)

    assert seqs(history, b"a/f") == [back, written, found]
    assert seqs(history, b"b/f") == [found]
    assert seqs(history, b"") == [back, written, found, 1]


def test_the_log_begins_and_ends_where_it_is_told(history: ModelHistory) -> None:
    for name in (b"a", b"b", b"c", b"d"):
        history.create(name)

    assert seqs(history, since=Seq(2), until=Seq(4)) == [4, 3, 2]
    assert seqs(history, since=Seq(0), until=Seq(99)) == [5, 4, 3, 2, 1]
    assert seqs(history, since=Seq(6)) == []
    assert seqs(history, until=Seq(0)) == []


def test_only_the_operations_of_somebody(history: ModelHistory) -> None:
    history.create(b"a")
    history.origin = Origin(pid=7, uid=0, comm=b"make")
    history.create(b"b")
    history.origin = Origin(pid=8, uid=0, comm=b"a-very-long-com")
    history.create(b"c")

    assert seqs(history, by=By(pid=7)) == [3]
    assert seqs(history, by=By(uid=0)) == [4, 3]
    assert seqs(history, by=By(comm=b"a-very-long-command")) == [4]
    assert seqs(history, by=By(uid=0, comm=b"make")) == [3]
    assert seqs(history, b"c", by=By(pid=7)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1234", By(pid=1234)),
        ("pid=1234", By(pid=1234)),
        ("uid=0", By(uid=0)),
        ("make", By(comm=b"make")),
        ("comm=7", By(comm=b"7")),
        ("comm=a=b", By(comm=b"a=b")),
        ("\udcff", By(comm=b"\xff")),
    ],
)
def test_every_way_to_write_who(text: str, expected: By) -> None:
    assert parse_by(text) == expected


@pytest.mark.parametrize("text", ["", "uid=root", "pid=", "comm=", "gid=5", "pid=" + "9" * 5000])
def test_who_cannot_be_anything_else(text: str) -> None:
    with pytest.raises(UsageError, match="names nobody"):
        parse_by(text)


def test_a_line_has_what_belongs_to_its_kind(history: ModelHistory) -> None:
    history.create(b"f", b"12345")
    history.tag("good", Seq(2))
    history.rollback(2)

    with history.store.read() as reader:
        rollback, tag, create, _ = log(reader)
    assert (create.size, create.tag, create.path, create.changed) == (5, None, b"f", 3)
    assert (tag.tag, tag.target, tag.path, tag.node) == ("good", 2, None, NO_NODE)
    assert (rollback.target, rollback.paths, rollback.path) == (2, (), None)
    assert create.time_ns == history.time_ns(2)


def test_what_is_done_to_a_removed_directory_has_its_last_path(history: ModelHistory) -> None:
    history.mkdir(b"d")
    history.mkdir(b"d/e")
    node = history.tree.paths()[b"d/e"]
    history.rmdir(b"d/e")
    history.rmdir(b"d")
    state = history.trees[3].states[node]
    with history.store.write() as writer:
        operation = Operation(
            OpKind.SETATTR, history.time_ns(6), history.origin, node, state.parent, b"e"
        )
        writer.append(Seq(6), operation, [(node, state)], [])

    with history.store.read() as reader:
        assert next(log(reader)).path == b"d/e"


def test_the_root_is_a_path_too(history: ModelHistory) -> None:
    history.chmod(b"", 0o700)

    with history.store.read() as reader:
        assert next(log(reader)).path == b""
    assert told(history, b"/") == [(1, "+", OpKind.FOUND), (2, "U", OpKind.SETATTR)]


def test_the_log_reads_no_further_than_it_is_read(
    history: ModelHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        history.create(b"f%d" % number)
    read = 0
    records = Reader.log

    def counting(
        self: Reader, first: Seq, last: Seq, *, reverse: bool = False
    ) -> Iterator[LogRecord]:
        nonlocal read
        for record in records(self, first, last, reverse=reverse):
            read += 1
            yield record

    monkeypatch.setattr(Reader, "log", counting)
    with history.store.read() as reader:
        lines = log(reader)
        assert [next(lines).seq, next(lines).seq] == [21, 20]
        assert read == 2


@pytest.mark.parametrize("path", [b"nosuch", b"f/x", b"n" * 300])
def test_a_path_that_never_was_is_not_found(history: ModelHistory, path: bytes) -> None:
    history.create(b"f")

    with history.store.read() as reader:
        with pytest.raises(NotFoundError, match="was never there in versions 1 to 2"):
            log(reader, path)
        with pytest.raises(NotFoundError, match="was never there in versions 1 to 2"):
            file_history(reader, path)


# ---- the history of one path


def expected_history(history: ModelHistory, path: bytes) -> list[tuple[int, NodeState | None]]:
    """Return the distinct states at *path*, by looking at every version."""
    found: list[tuple[int, NodeState | None]] = []
    before: NodeState | None = None
    for seq, tree in enumerate(history.trees):
        node = tree.paths().get(path)
        state = None if node is None else tree.states[node]
        if state is None:
            if before is not None:
                found.append((seq, None))
        elif before is None or visible(state, dir_times=False) != visible(before, dir_times=False):
            found.append((seq, state))
        else:
            continue  # the same as before: not a version of its own
        before = state
    return found


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_the_history_of_every_path_is_what_looking_at_every_version_shows(
    history: ModelHistory, seed: int
) -> None:
    fill(history, seed, 250)
    ever = {path for tree in history.trees for path in tree.paths()}

    with history.store.read() as reader:
        for path in ever:
            found = [(each.seq, each.state) for each in file_history(reader, path)]
            assert found == expected_history(history, path), path


def test_writing_renaming_and_removing_a_file(history: ModelHistory) -> None:
    history.create(b"f", b"1")
    history.write(b"f", b"2")
    history.rename(b"f", b"g")
    history.write(b"g", b"3")
    history.rename(b"g", b"f")
    history.unlink(b"f")

    assert told(history, b"f") == [
        (2, "+", OpKind.CREATE),
        (3, "M", OpKind.WRITE),
        (4, "-", OpKind.RENAME),
        (6, "+", OpKind.RENAME),
        (7, "-", OpKind.UNLINK),
    ]
    assert told(history, b"g") == [
        (4, "+", OpKind.RENAME),
        (5, "M", OpKind.WRITE),
        (6, "-", OpKind.RENAME),
    ]


def test_a_file_below_a_directory_that_was_moved_away_and_replaced(history: ModelHistory) -> None:
    history.mkdir(b"d")
    history.create(b"d/f", b"1")
    history.rename(b"d", b"e")
    history.write(b"e/f", b"2")
    history.mkdir(b"d")
    history.create(b"d/f", b"3")
    history.exchange(b"d", b"e")

    assert told(history, b"d/f") == [
        (3, "+", OpKind.CREATE),
        (4, "-", OpKind.RENAME),
        (7, "+", OpKind.CREATE),
        (8, "M", OpKind.EXCHANGE),
    ]


def test_a_save_by_renaming_over_is_one_more_version_of_the_file(history: ModelHistory) -> None:
    history.create(b"f", b"1")
    for data in (b"2", b"3"):
        history.create(b"f.tmp", data)
        history.rename(b"f.tmp", b"f")

    assert told(history, b"f") == [
        (2, "+", OpKind.CREATE),
        (4, "M", OpKind.RENAME),
        (6, "M", OpKind.RENAME),
    ]


def test_another_type_at_the_path_is_told(history: ModelHistory) -> None:
    history.create(b"f")
    history.symlink(b"l", b"f")
    history.rename(b"l", b"f")

    assert told(history, b"f") == [(2, "+", OpKind.CREATE), (4, "T", OpKind.RENAME)]


def test_the_names_of_a_file_share_its_history(history: ModelHistory) -> None:
    history.create(b"f", b"1")
    history.link(b"f", b"g")
    history.write(b"f", b"2")

    assert told(history, b"g") == [(3, "+", OpKind.LINK), (4, "M", OpKind.WRITE)]


def test_a_version_of_a_file_has_who_and_when_and_what(history: ModelHistory) -> None:
    history.create(b"f", b"1")
    history.chmod(b"f", 0o600)

    with history.store.read() as reader:
        _, version = file_history(reader, b"f")
    assert (version.seq, version.time_ns) == (3, history.time_ns(3))
    assert (version.origin, version.fields) == (history.origin, ("mode",))
    assert version.state == history.state(b"f")
    assert version.node == history.tree.paths()[b"f"]


def test_spans_tell_when_a_path_named_which_node(history: ModelHistory) -> None:
    history.mkdir(b"d")
    history.create(b"d/f")
    node = history.tree.paths()[b"d/f"]
    history.rename(b"d", b"e")
    history.rename(b"e", b"d")

    with history.store.read() as reader:
        assert [(s.first, s.end, s.node) for s in spans(reader, b"d/f")] == [
            (3, 4, node),
            (5, 6, node),
        ]
        assert [(s.first, s.end, s.node) for s in spans(reader, b"")] == [(1, 6, ROOT)]


def test_a_path_may_be_as_deep_as_a_path_can_be(history: ModelHistory) -> None:
    with history.store.read() as reader, pytest.raises(NotFoundError):
        file_history(reader, b"x/" * 2047 + b"x")


def test_the_history_of_a_file_does_not_scan_the_log(
    history: ModelHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.create(b"f", b"1")

    def refused(*_: object, **__: object) -> Iterator[LogLine]:
        raise AssertionError("the log is scanned")

    monkeypatch.setattr(Reader, "log", refused)
    assert told(history, b"f") == [(2, "+", OpKind.CREATE)]
    assert history.state(b"f").attr.kind is Kind.FILE
