"""States, origins and names of operations as people and programs read them."""

import grp
import os
import pwd
from functools import cache

from dkfs.cli.output import json_path, local_time, mode_text, printable, utc_time
from dkfs.model.node import Kind, NodeState
from dkfs.model.operation import OpKind, Origin


def state_json(state: NodeState) -> dict[str, object]:
    """Return the members that describe *state*."""
    attr = state.attr
    members: dict[str, object] = {
        "kind": attr.kind.name.lower(),
        "mode": attr.mode,
        "permissions": mode_text(attr),
        "uid": attr.uid,
        "gid": attr.gid,
        "size": attr.size,
        "mtime": utc_time(attr.mtime_ns),
        "mtime_ns": attr.mtime_ns,
    }
    if attr.kind is Kind.SYMLINK:
        members |= json_path(state.target, "target")
    if attr.kind in (Kind.CHAR, Kind.BLOCK):
        members |= {"major": os.major(attr.rdev), "minor": os.minor(attr.rdev)}
    return members


def state_line(state: NodeState, path: bytes, *, numeric: bool) -> str:
    """Return a line as of ls -l."""
    attr = state.attr
    owner = str(attr.uid) if numeric else _user(attr.uid)
    group = str(attr.gid) if numeric else _group(attr.gid)
    size = str(attr.size)
    if attr.kind in (Kind.CHAR, Kind.BLOCK):
        size = f"{os.major(attr.rdev)}, {os.minor(attr.rdev)}"
    arrow = f" -> {printable(state.target)}" if attr.kind is Kind.SYMLINK else ""
    return (
        f"{mode_text(attr)}  {owner:8} {group:8} {size:>10}"
        f"  {local_time(attr.mtime_ns)}  {printable(path)}{arrow}"
    )


@cache
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@cache
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def origin_text(origin: Origin) -> str:
    """Return who did it; "-" if dkfs itself did or nobody knows."""
    if origin.pid == 0 and not origin.comm:
        return "-"
    return f"{printable(origin.comm) or '?'}[{origin.pid}] uid={origin.uid}"


def origin_json(origin: Origin) -> dict[str, object]:
    """Return the members that describe *origin*."""
    return {"pid": origin.pid, "uid": origin.uid, **json_path(origin.comm, "comm")}


def kind_text(kind: OpKind) -> str:
    """Return the name of an operation."""
    return kind.name.lower()
