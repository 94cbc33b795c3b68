import pytest

from dkfs.errors import CorruptError, NotFoundError, UsageError
from dkfs.history.tree import DirectoryPaths, Tree, clean_path, is_under, path_key, shown
from dkfs.model.ids import NO_NODE, ROOT, NodeId, Seq
from dkfs.model.node import Kind
from dkfs.model.operation import Operation, OpKind
from tests.history.model_history import ModelHistory
from tests.history.random_history import fill

SEEDS = [1, 2, 3]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_version_of_a_random_history_walks_as_the_model_was(
    history: ModelHistory, seed: int
) -> None:
    fill(history, seed, 250)

    with history.store.read() as reader:
        for version in range(1, history.last + 1):
            model = history.trees[version]
            expected = [(p, n, model.states[n]) for p, n in model.paths().items()]
            assert list(Tree(reader, Seq(version)).walk()) == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_every_path_of_a_random_history_resolves_to_its_node_and_only_while_it_was_there(
    history: ModelHistory, seed: int
) -> None:
    fill(history, seed, 250)
    ever = {path for tree in history.trees for path in tree.paths()}

    with history.store.read() as reader:
        for version in range(1, history.last + 1, 7):
            paths = history.trees[version].paths()
            tree = Tree(reader, Seq(version))
            for path in ever:
                assert tree.find(path) == paths.get(path, NO_NODE)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_path_of_a_directory_resolves_back_to_it(history: ModelHistory, seed: int) -> None:
    fill(history, seed, 250)

    with history.store.read() as reader:
        for version in range(1, history.last + 1, 7):
            model = history.trees[version]
            for path, node in model.paths().items():
                if model.states[node].attr.kind is Kind.DIR:
                    assert Tree(reader, Seq(version)).path(node) == path


def test_slashes_and_dots_in_a_path_change_nothing(history: ModelHistory) -> None:
    history.mkdir(b"d")
    history.create(b"d/f")

    with history.store.read() as reader:
        tree = Tree(reader, reader.last)
        node = tree.resolve(b"d/f")
        assert tree.resolve(b"//d/.//f/") == node
        assert tree.resolve(b"/") == tree.resolve(b"") == tree.resolve(b".") == ROOT


def test_a_path_that_climbs_is_refused(history: ModelHistory) -> None:
    history.mkdir(b"d")

    with history.store.read() as reader, pytest.raises(UsageError, match=r"'\.\.'"):
        Tree(reader, reader.last).resolve(b"d/../d")


def test_a_missing_path_is_named_with_its_version(history: ModelHistory) -> None:
    history.create(b"f")

    with history.store.read() as reader:
        tree = Tree(reader, Seq(1))
        with pytest.raises(NotFoundError, match="f does not exist at version 1"):
            tree.resolve(b"f")


@pytest.mark.parametrize("path", [b"f/x", b"l/x", b"n" * 256, b"d/" + b"n" * 5000, b"D"])
def test_what_is_below_a_file_or_a_symlink_or_too_long_does_not_exist(
    history: ModelHistory, path: bytes
) -> None:
    history.mkdir(b"d")
    history.create(b"d/x")
    history.create(b"f")
    history.symlink(b"l", b"d")

    with history.store.read() as reader, pytest.raises(NotFoundError):
        Tree(reader, reader.last).resolve(path)


def test_names_of_255_bytes_and_of_any_bytes_are_found(history: ModelHistory) -> None:
    names = [b"\x01", b"\xff\xfe", b"n" * 255, "ü".encode()]
    for name in names:
        history.create(name)

    with history.store.read() as reader:
        tree = Tree(reader, reader.last)
        assert [name for name, _ in tree.children(ROOT)] == sorted(names)
        assert all(tree.path(tree.resolve(name)) == name for name in names)


def test_version_0_has_no_root(history: ModelHistory) -> None:
    with history.store.read() as reader:
        assert Tree(reader, Seq(0)).find(b"") == NO_NODE
        with pytest.raises(NotFoundError):
            list(Tree(reader, Seq(0)).walk())


def test_walking_from_a_path_yields_it_and_what_is_below(history: ModelHistory) -> None:
    for path in (b"d", b"d/e"):
        history.mkdir(path)
    for path in (b"d/e/f", b"d.x", b"d/a"):
        history.create(path)

    with history.store.read() as reader:
        tree = Tree(reader, reader.last)
        assert [path for path, _, _ in tree.walk(b"/d/")] == [b"d", b"d/a", b"d/e", b"d/e/f"]
        assert [path for path, _, _ in tree.walk(b"d/a")] == [b"d/a"]


def test_a_tree_of_2000_levels_is_walked(history: ModelHistory) -> None:
    with history.batch():
        for depth in range(1, 100):
            history.mkdir(b"/".join([b"d"] * depth))
    with history.store.write() as writer:
        top = states = history.trees[-1].states
        parent = NodeId(max(top))
        deep = []
        for number in range(1900):
            node = NodeId(parent + 1 + number)
            deep.append((node, history._seen(states[parent], (NodeId(node - 1), b"d"))))
        names = [(NodeId(node - 1), b"d", node) for node, _ in deep]
        operation = Operation(OpKind.FOUND, history.time_ns(101), history.origin)
        writer.append(Seq(writer.last + 1), operation, deep, names)

    with history.store.read() as reader:
        assert sum(1 for _ in Tree(reader, reader.last).walk()) == 2000
        assert Tree(reader, reader.last).path(deep[-1][0]) == b"/".join([b"d"] * 1999)


def test_a_directory_inside_itself_is_damage_and_not_an_endless_walk(history: ModelHistory) -> None:
    history.mkdir(b"d")
    history.mkdir(b"d/e")
    d, e = history.tree.paths()[b"d"], history.tree.paths()[b"d/e"]
    state = history._seen(history.tree.states[d], (e, b"d"))
    with history.store.write() as writer:
        operation = Operation(OpKind.FOUND, history.time_ns(9), history.origin)
        writer.append(Seq(writer.last + 1), operation, [(d, state)], [(e, b"d", d)])

    with history.store.read() as reader:
        tree = Tree(reader, reader.last)
        with pytest.raises(CorruptError, match="lies inside itself"):
            list(tree.walk())
        with pytest.raises(CorruptError, match="lies inside itself"):
            tree.path(e)


def test_a_name_of_an_unknown_node_is_damage(history: ModelHistory) -> None:
    with history.store.write() as writer:
        operation = Operation(OpKind.FOUND, history.time_ns(2), history.origin)
        writer.append(Seq(2), operation, [], [(ROOT, b"ghost", NodeId(99))])

    with history.store.read() as reader:
        with pytest.raises(CorruptError, match="ghost is node 99"):
            list(Tree(reader, reader.last).walk())
        with pytest.raises(NotFoundError, match="node 99"):
            Tree(reader, reader.last).path(NodeId(99))


def test_remembered_paths_stay_right_when_there_are_too_many_to_remember(
    history: ModelHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dkfs.history.tree._PATHS_KEPT", 2)
    for path in (b"a", b"a/b", b"a/b/c", b"x", b"x/y"):
        history.mkdir(path)
    nodes = history.tree.paths()

    with history.store.read() as reader:
        paths = DirectoryPaths(reader)
        for path in (b"a/b/c", b"x/y", b"a/b", b"a/b/c", b"x"):
            assert paths.join(nodes[path], b"f", reader.last) == path + b"/f"
            assert len(paths._known) <= 4


def test_path_that_is_a_prefix_of_another_is_not_confused() -> None:
    assert is_under(b"a/b", b"a")
    assert is_under(b"a", b"a")
    assert is_under(b"a", b"")
    assert not is_under(b"ab", b"a")
    assert not is_under(b"a", b"a/b")


def test_a_directory_sorts_right_before_what_it_holds() -> None:
    paths = [b"a.x", b"a/b", b"a", b"", b"a/b/c", b"a/b.c"]

    assert sorted(paths, key=path_key) == [b"", b"a", b"a/b", b"a/b/c", b"a/b.c", b"a.x"]


def test_a_nul_byte_in_a_path_is_refused() -> None:
    with pytest.raises(UsageError, match="NUL"):
        clean_path(b"a\0b")


def test_a_path_is_shown_on_one_line() -> None:
    assert shown(b"") == "/"
    assert shown(b"a\nb\xff") == "a\\nb\\xff"
    assert len(shown(b"x" * 4096)) == 203
