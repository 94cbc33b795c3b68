"""argparse as dkfs wants it: one-line errors, and switches that may say =true or =false as the seed's do."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from dkfs.errors import UsageError


class Switch(argparse.Action):
    """An option without a value, or with one after "=": --debug, --debug=false; kept as a text."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - the signature is argparse's
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,  # noqa: ARG002 - same
    ) -> None:
        """Keep what was given."""
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with *message*."""
        raise UsageError(f"{message} (see {self.prog} --help)")

    @property
    def actions(self) -> tuple[argparse.Action, ...]:
        """Return every argument, in the order of adding; for the completion scripts."""
        return tuple(self._actions)

    def spell_out(self, words: Sequence[str]) -> list[str]:
        """Return *words* with =true behind each bare switch, up to "--" or to a wrapped command."""
        options = {text: action for action in self._actions for text in action.option_strings}
        wraps = any(action.nargs == argparse.REMAINDER for action in self._actions)
        spelled: list[str] = []
        rest = iter(words)
        for word in rest:
            action = options.get(word)
            spelled.append(f"{word}=true" if isinstance(action, Switch) else word)
            if word == "--" or (wraps and not word.startswith("-")):
                break
            if action and action.nargs != 0 and not isinstance(action, Switch):
                spelled.extend(value for value in (next(rest, None),) if value is not None)
        return [*spelled, *rest]

    def parse(self, words: Sequence[str], namespace: argparse.Namespace) -> argparse.Namespace:
        """Return *namespace* with what *words* say; raises UsageError.

        Options may stand between the words that are none: NAME --expires 1y VERSION.
        """
        spelled = self.spell_out(words)
        before = dict(vars(namespace))
        try:
            return self.parse_args(spelled, namespace)
        except UsageError:
            if "--" in spelled or any(
                action.nargs == argparse.REMAINDER for action in self._actions
            ):
                raise
        found = self.parse_intermixed_args(spelled, argparse.Namespace(**before))
        vars(namespace).update(vars(found))
        return namespace


def new_parser(name: str, doc: str | None) -> Parser:
    """Return the parser of the command *name*, its module's docstring *doc* being the help."""
    parser = Parser(
        prog=f"dkfs {name}" if name else "dkfs",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        # What is not given is absent, so that a value given before the command's name stays.
        argument_default=argparse.SUPPRESS,
    )
    add_general(parser)
    return parser


def add_general(parser: Parser) -> None:
    """Add the options that every command knows, before and behind its name."""
    general = parser.add_argument_group("general options")
    general.add_argument("-C", dest="directory", metavar="DIR", help="start in DIR")
    general.add_argument("--store", metavar="DIR", help="the store")
    general.add_argument("--config", metavar="FILE", help="settings in TOML")
    general.add_argument("--json", action="store_true", help="print JSON Lines")
    general.add_argument(
        "--debug", action=Switch, metavar="[=BOOL]", help="log more; show where errors come from"
    )


def add_dry_run(parser: Parser) -> None:
    """Add -n."""
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would be done")
