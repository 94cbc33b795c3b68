"""Nodes whose last contents are not in the store."""

import pytest

from dkfs.history.lost import Lost
from dkfs.model.ids import NodeId

NODE, OTHER = NodeId(7), NodeId(8)


def lost() -> Lost:
    """Return one that has heard that NODE is lost."""
    made = Lost()
    made.note({NODE: True, OTHER: False}, ())
    return made


def test_a_lost_node_is_refused_until_contents_of_it_are_recorded() -> None:
    nodes = lost()
    nodes.refuse(OTHER)
    for _ in range(2):
        with pytest.raises(OSError, match="damaged"):
            nodes.refuse(NODE)
    nodes.note({NODE: False}, ())

    nodes.refuse(NODE)
    nodes.refuse_any()
    assert nodes.take() == frozenset()


def test_who_asks_about_all_hears_of_each_loss_once() -> None:
    nodes = lost()
    with pytest.raises(OSError, match="damaged"):
        nodes.refuse_any()

    nodes.refuse_any()
    nodes.note({OTHER: True}, ())
    with pytest.raises(OSError, match="damaged"):
        nodes.refuse_any()


def test_a_node_is_to_be_captured_once_for_each_time_that_it_was_refused() -> None:
    nodes = lost()
    assert nodes.take() == {NODE}
    assert nodes.take() == frozenset()
    with pytest.raises(OSError, match="damaged"):
        nodes.refuse(NODE)

    assert nodes.take() == {NODE}


def test_what_cannot_be_read_is_not_captured_again() -> None:
    nodes = Lost()
    nodes.note({NODE: True}, (NODE,))
    with pytest.raises(OSError, match="damaged"):
        nodes.refuse(NODE)

    assert nodes.take() == frozenset()


def test_only_so_many_lost_nodes_are_remembered() -> None:
    nodes = Lost()
    nodes.note({NodeId(i): True for i in range(1, 1002)}, ())

    nodes.refuse(NodeId(1))
    with pytest.raises(OSError, match="damaged"):
        nodes.refuse(NodeId(2))
