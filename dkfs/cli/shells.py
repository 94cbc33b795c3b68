"""Completion scripts for bash, zsh and fish, written from the parsers."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from dkfs.cli.parser import Parser

# What stands for a value in the help says how it is completed.
_DIRECTORIES: Final = frozenset({"DIR", "MOUNTPOINT", "STATE_DIR [MOUNTPOINT]"})
_FILES: Final = frozenset({"FILE", "PATH", "COMMAND"})
_NAMES: Final = {"tag": "tags", "forget": "tags", "release": "holds"}  # what NAME is of
_VERSIONS: Final = frozenset({"VERSION", "WHEN", "A[..B]", "VERSION[:PATH]", "VERSION:PATH"})


@dataclass(frozen=True, slots=True)
class Value:
    """How a value is completed."""

    kind: str  # directories, files, versions, words, or none
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command."""

    names: tuple[str, ...]
    help: str
    value: Value | None  # None: it takes none


@dataclass(frozen=True, slots=True)
class CommandWords:
    """What can follow a command."""

    name: str
    summary: str
    options: tuple[Option, ...]
    value: Value  # of its first positional argument; the rest are alike or are paths


def describe(name: str, summary: str, parser: Parser) -> CommandWords:
    """Return what can follow the command *name*."""
    options = []
    positional = Value("none")
    for action in parser.actions:
        if action.help == argparse.SUPPRESS:
            continue
        if action.option_strings:
            takes_value = action.nargs != 0 and not str(action.metavar).startswith("[=")
            value = _value(action, name) if takes_value else None
            options.append(Option(tuple(action.option_strings), action.help or "", value))
        elif positional.kind == "none":
            positional = _value(action, name)
    return CommandWords(name, summary, tuple(options), positional)


def _value(action: argparse.Action, command: str) -> Value:
    metavar = str(action.metavar)
    if action.choices:
        return Value("words", tuple(map(str, action.choices)))
    if metavar == "NAME" and command in _NAMES:
        return Value(_NAMES[command])
    for kind, metavars in (
        ("directories", _DIRECTORIES),
        ("files", _FILES),
        ("versions", _VERSIONS),
        ("topics", {"TOPIC"}),
    ):
        if metavar in metavars:
            return Value(kind)
    return Value("none")


def _bash_value(value: Value) -> str:
    if value.kind == "words":
        return f'COMPREPLY=($(compgen -W "{" ".join(value.words)}" -- "$cur"))'
    return {
        "directories": 'COMPREPLY=($(compgen -d -- "$cur"))',
        "files": 'COMPREPLY=($(compgen -f -- "$cur"))',
        "none": "COMPREPLY=()",
    }.get(value.kind, f"_dkfs_ask {value.kind}")


def bash(commands: Sequence[CommandWords]) -> str:
    """Return the script for bash."""
    return "".join(line + "\n" for line in _bash_lines(commands))


def _bash_lines(commands: Sequence[CommandWords]) -> Iterator[str]:
    yield from (
        "# dkfs completion for bash, written by `dkfs completion bash`",
        "_dkfs_ask() {",
        "    local before= i",
        "    # Not by way of compgen -W, which would run a name such as $(reboot).",
        '    mapfile -t COMPREPLY < <(dkfs "${given[@]}" __complete "$1" "$cur" 2>/dev/null)',
        "    # bash replaces only what follows the last colon.",
        "    [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]] && before=${cur%:*}:",
        '    for i in "${!COMPREPLY[@]}"; do printf -v "COMPREPLY[i]" %q "${COMPREPLY[i]#"$before"}"; done',
        "    compopt -o nospace 2>/dev/null",
        "}",
        "_dkfs() {",
        "    local line=${COMP_LINE:0:COMP_POINT} cur prev command= i",
        "    local -a words given=()",
        '    read -ra words <<<"$line"',
        "    cur=${line##*[[:space:]]}",
        "    [[ -n $cur ]] && unset 'words[-1]'",
        "    prev=${words[-1]}",
        "    for ((i = 1; i < ${#words[@]}; i++)); do",
        "        case ${words[i]} in",
        '            -C|--store|--config) given+=("${words[@]:i:2}"); ((i++)) ;;',
        '            --store=*) given+=("${words[i]}") ;;',
        "            --) break ;;",
        "            -*) ;;",
        "            *) command=${command:-${words[i]}} ;;",
        "        esac",
        "    done",
        "    case $command in",
    )
    names = " ".join(command.name for command in commands)
    yield f"""        "") COMPREPLY=($(compgen -W "{names}" -- "$cur")) ;;"""
    for command in commands:
        yield f"        {command.name})"
        yield "            case $prev in"
        for option in command.options:
            if option.value is not None:
                yield f"                {'|'.join(option.names)}) {_bash_value(option.value)}; return ;;"
        yield "            esac"
        words = " ".join(name for option in command.options for name in option.names)
        yield f'            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W "{words}" -- "$cur"))'
        yield f"            else {_bash_value(command.value)}; fi ;;"
    yield from ("    esac", "}", "complete -F _dkfs dkfs")


def zsh(commands: Sequence[CommandWords]) -> str:
    """Return the script for zsh."""
    return "".join(line + "\n" for line in _zsh_lines(commands))


def _zsh_lines(commands: Sequence[CommandWords]) -> Iterator[str]:
    yield from (
        "#compdef dkfs",
        "# dkfs completion for zsh, written by `dkfs completion zsh`",
        "_dkfs_ask() {",
        "    local -a found",
        '    found=(${(f)"$(dkfs __complete "$1" "$PREFIX" 2>/dev/null)"})',
        '    compadd -S "" -- $found',
        "}",
        "_dkfs() {",
        "    local -a commands",
        "    local state",
        "    commands=(",
    )
    for command in commands:
        yield f"        {_quoted(f'{command.name}:{command.summary}')}"
    yield from (
        "    )",
        "    _arguments -C '-C[start in DIR]:directory:_directories' \\",
        "        '--store[the store]:directory:_directories' \\",
        "        '1:command:->command' '*::argument:->argument'",
        "    case $state in",
        "        command) _describe command commands ;;",
        "        argument) case $words[1] in",
    )
    for command in commands:
        yield f"            {command.name}) _arguments \\"
        for option in command.options:
            for name in option.names:
                text = option.help.replace("[", "(").replace("]", ")").replace(":", " ")
                value = "" if option.value is None else f":value:{_zsh_value(option.value)}"
                yield f"                {_quoted(f'{name}[{text}]{value}')} \\"
        yield f"                {_quoted(f'*:argument:{_zsh_value(command.value)}')} ;;"
    yield from ("        esac ;;", "    esac", "}", '_dkfs "$@"')


def _zsh_value(value: Value) -> str:
    if value.kind == "words":
        return f"({' '.join(value.words)})"
    return {"directories": "_directories", "files": "_files", "none": " "}.get(
        value.kind, f"_dkfs_ask {value.kind}"
    )


def fish(commands: Sequence[CommandWords]) -> str:
    """Return the script for fish."""
    return "".join(line + "\n" for line in _fish_lines(commands))


def _fish_lines(commands: Sequence[CommandWords]) -> Iterator[str]:
    yield "# dkfs completion for fish, written by `dkfs completion fish`"
    yield "complete -c dkfs -f"
    for command in commands:
        yield (
            f"complete -c dkfs -n __fish_use_subcommand -a {command.name}"
            f" -d {_quoted(command.summary)}"
        )
    for command in commands:
        seen = f"complete -c dkfs -n '__fish_seen_subcommand_from {command.name}'"
        for option in command.options:
            names = " ".join(_fish_name(name) for name in option.names)
            value = "" if option.value is None else f" -r {_fish_value(option.value)}"
            yield f"{seen} {names} -d {_quoted(option.help)}{value}".rstrip()
        if command.value.kind != "none":
            yield f"{seen} {_fish_value(command.value)}"


def _fish_name(name: str) -> str:
    return f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"


def _fish_value(value: Value) -> str:
    if value.kind == "words":
        return f"-a {_quoted(' '.join(value.words))}"
    return {
        "directories": "-a '(__fish_complete_directories)'",
        "files": "-F",
        "none": "",
    }.get(value.kind, f"-a '(dkfs __complete {value.kind} (commandline -ct) 2>/dev/null)'")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


WRITERS: Final[dict[str, Callable[[Sequence[CommandWords]], str]]] = {
    "bash": bash,
    "fish": fish,
    "zsh": zsh,
}
