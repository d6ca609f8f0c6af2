"""What is said on the command line of `grouper`: its verbs and flags, as tables, and what they are made of.

It is argparse's, because nothing else is imported as fast. Two things are not as argparse has them: what is wrong is raised and
not printed, so that there is one place where errors become lines, and what comes after `--` in `run` is the command as it stands.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from .exit_status import EXIT_STATUSES, UsageError
from .values import duration, from_one, from_zero, lifetime, url, word

__all__ = ["Arguments", "parse"]


class Arguments(argparse.Namespace):
    """What was said. Durations are in seconds."""

    store: str | None = None
    debug: bool = False
    output: str = "text"
    verb: str = ""
    name: str = ""
    prefix: str = ""
    ttl: float | None = None
    count: int = 0
    delta: int = 1
    tickets: bool = False
    expires_in: float | None = None
    ticket: str | None = None
    token: str | None = None
    timeout: float | None = None
    started: bool = False
    allow_lost: bool = False
    id: str | None = None
    command: Sequence[str] = ()


def _width() -> int:
    """How wide help is. That of argparse imports much for it, with each argument that is declared."""
    try:
        columns = os.get_terminal_size(1).columns
    except (OSError, ValueError):
        columns = 0
    return min(columns or 100, 100) - 2


class Help(argparse.RawDescriptionHelpFormatter):
    """Help as it is written here, its examples too."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=_width())


class Parser(argparse.ArgumentParser):
    """A parser that raises what is wrong."""

    def __init__(self, prog: str, description: str = "", epilog: str | None = None, **_: object) -> None:
        super().__init__(
            prog=prog, description=description, epilog=epilog, formatter_class=Help, allow_abbrev=False, add_help=False
        )
        self.add_argument("-h", "--help", action="help", help="print this, and nothing else is done")

    def error(self, message: str) -> NoReturn:
        """Raise: UsageError."""
        verb = self.prog.removeprefix("grouper").strip()
        text = message.removeprefix("argument ")
        raise UsageError(f"{verb}: {text}: see `{self.prog} --help`" if verb else f"{text}: see `{self.prog} --help`")


def _common(parser: Parser, *, answers: bool) -> None:
    """Flags that can be given before the verb and after it, so that they have no default here."""
    group = parser.add_argument_group("with every verb")
    group.add_argument(
        "--store",
        metavar="URL",
        type=url,
        default=argparse.SUPPRESS,
        help="sqlite:PATH, or etcd://HOST:2379,HOST:2379/PREFIX (default: $GROUPER_STORE, else a file of this user's)",
    )
    if answers:
        group.add_argument(
            "-o",
            "--output",
            choices=("text", "json"),
            default=argparse.SUPPRESS,
            help="how to print what there is to say (default: text)",
        )
    group.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="print the traceback of an error too")


def _name(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="the wait group")


def _token(parser: Parser) -> None:
    parser.add_argument(
        "--token", metavar="T", type=word, help="what is called again with the same T within 10 minutes is done once: for retries"
    )


def _create(parser: Parser) -> None:
    _name(parser)
    parser.add_argument("--ttl", metavar="1h", type=lifetime, help="remove it when it has been Done for so long (default: never)")
    parser.add_argument(
        "--count",
        metavar="N",
        type=from_zero,
        default=0,
        help="let it count N in the same step, so that nobody finds it Done before",
    )


def _add(parser: Parser) -> None:
    _name(parser)
    parser.add_argument("--delta", metavar="N", type=from_one, default=1, help="how many (default: 1)")
    parser.add_argument(
        "--for", dest="expires_in", metavar="1h", type=lifetime, help="count them as lost if they are not done within this time"
    )
    parser.add_argument("--tickets", action="store_true", help="give each an id, for `done --ticket`, and print these (50 at most)")
    _token(parser)


def _done(parser: Parser) -> None:
    _name(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--ticket", metavar="ID", type=word, help="this very one; no error if it was settled before")
    which.add_argument("--delta", metavar="N", type=from_one, default=1, help="how many, any of them (default: 1)")
    _token(parser)


def _wait(parser: Parser) -> None:
    _name(parser)
    parser.add_argument(
        "--timeout", metavar="10m", type=duration, help="give up after this time, with status 4; 0 looks once (default: never)"
    )
    parser.add_argument("--started", action="store_true", help="wait for the first add too: a new group is Done")
    parser.add_argument("--allow-lost", action="store_true", help="status 0, not 5, though some were lost")


def _list(parser: Parser) -> None:
    parser.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="only those whose names begin so")


def _run(parser: Parser) -> None:
    parser.usage = "%(prog)s [-h] [--id ID] [--store URL] [--debug] NAME -- CMD [ARGUMENT ...]"
    _name(parser)
    parser.add_argument("--id", metavar="ID", help="what the member is called (default: made from CMD)")


VERBS: Final[dict[str, tuple[str, Callable[[Parser], None], str, tuple[str, ...]]]] = {
    "create": (
        "make a wait group",
        _create,
        "It is no error if the group exists, but with another ttl; then nothing changes.",
        ("grouper waitgroup create batch", "grouper waitgroup create batch --ttl 1h --count 10"),
    ),
    "add": (
        "count more, which nobody owns",
        _add,
        "Prints what the group counts then. Each is counted until somebody says `done`; where a process does the work, `run`\n"
        "is better: nobody can forget it. With -o json, tickets are printed too, if they are 50 at most.",
        (
            "grouper waitgroup add batch --delta 10",
            "grouper waitgroup add batch --for 1h              # lost, if it is not done in an hour",
            "ticket=$(grouper waitgroup add batch --tickets)",
            'grouper waitgroup add batch --token "$BUILD_ID"   # once, however often it is called',
        ),
    ),
    "done": (
        "count less",
        _done,
        "Prints what the group counts then. To settle more than was added is an error, and nothing is changed.",
        (
            "grouper waitgroup done batch",
            "grouper waitgroup done batch --delta 3",
            'grouper waitgroup done batch --ticket "$ticket"',
        ),
    ),
    "wait": (
        "wait until it counts zero",
        _wait,
        "In a terminal it shows the count falling. If members died, or tickets ran out of time, the status is 5.",
        (
            "grouper waitgroup wait batch",
            "grouper waitgroup wait batch --timeout 30m",
            "grouper waitgroup wait batch --started            # also if nothing was added yet",
        ),
    ),
    "status": (
        "what it counts, and who is a member: who is stuck?",
        _name,
        "Members whose process died are counted as lost before it is printed.",
        ("grouper waitgroup status batch", "grouper waitgroup status batch -o json | jq .status.counter"),
    ),
    "list": (
        "the groups, with what they count",
        _list,
        "With -o json it is an array of what status prints.",
        ("grouper waitgroup list", "grouper waitgroup list nightly-"),
    ),
    "delete": (
        "remove a wait group with all that is in it",
        _name,
        "It is no error if there is none. Who waits for it ends with status 7.",
        ("grouper waitgroup delete batch",),
    ),
    "run": (
        "be a member while a command runs",
        _run,
        "Joins the group, runs CMD, and leaves when that ends, however it ends; the status is CMD's. If this process is\n"
        "killed, the member is counted as lost. Signals that are sent to it go to CMD.",
        ("grouper waitgroup run batch -- ./work.sh part1", "grouper waitgroup run batch --id part1 -- make -C part1"),
    ),
}
"""By verb: what it does, its arguments, more about it, examples."""


def _statuses(*, run: bool = False) -> str:
    rows = [f"  {status:<5} {meaning}" for status, meaning in EXIT_STATUSES.items()]
    if run:
        rows = [
            "  CMD's own; 128+n if signal n ended it; 126 if it cannot be run; 127 if it is not found.",
            "  If CMD was not begun, or ended with 0 and something was wrong with the member:",
            *rows[1:],
        ]
    return "\n".join(["exit status:", *rows])


def _verb_parser(verb: str) -> Parser:
    summary, declare, more, examples = VERBS[verb]
    parser = Parser(f"grouper waitgroup {verb}", f"{summary[0].upper()}{summary[1:]}.\n\n{more}")
    parser.epilog = "\n  ".join(["examples:", *examples]) + f"\n\n{_statuses(run=verb == 'run')}"
    declare(parser)
    _common(parser, answers=verb != "run")
    return parser


def _group_parser() -> Parser:
    parser = Parser(
        "grouper waitgroup", "Wait groups: counters that programs share, in a file of this machine or in etcd.", _statuses()
    )
    _common(parser, answers=True)
    verbs = parser.add_subparsers(metavar="VERB", required=True, title="verbs", prog="grouper waitgroup")
    for verb, row in VERBS.items():
        verbs.add_parser(verb, help=row[0])
    return parser


def _top_parser() -> Parser:
    parser = Parser("grouper", "What programs share, from the command line.", "examples:\n  grouper waitgroup --help")
    version: str = sys.modules["grouper"].__version__  # the package's face is imported by none of its modules
    parser.add_argument(
        "--version", action="version", version=f"grouper {version}", help="print the version, and nothing else is done"
    )
    _common(parser, answers=True)
    groups = parser.add_subparsers(metavar="GROUP", required=True, title="groups of verbs", prog="grouper")
    groups.add_parser("waitgroup", help="counters that programs share: add to one, be done, wait until all are")
    return parser


WITH_VALUE: Final = ("--store", "-o", "--output")


def _places(words: Sequence[str]) -> list[int]:
    """Where the group and the verb are, as far as they are there, without help or version being asked for before them."""
    found: list[int] = []
    at = 0
    while at < len(words) and len(found) < 2:
        if words[at] in ("-h", "--help", "--version", "--"):
            break
        if not words[at].startswith("-"):
            found.append(at)
        at += 2 if words[at] in WITH_VALUE else 1
    return found


def parse(argv: Sequence[str]) -> Arguments:
    """What was said. Raises: UsageError; SystemExit after help or the version, which are printed."""
    words = list(argv)
    places = _places(words)
    said = [words[at] for at in places]
    for at in reversed(places):
        del words[at]
    if len(said) == 2 and said[0] == "waitgroup" and said[1] in VERBS:
        return _parse_verb(said[1], words)
    if said[:1] == ["waitgroup"]:
        _group_parser().parse_args([*said[1:], *words])
    else:
        _top_parser().parse_args(argv)
    raise AssertionError(f"{argv!r} has no verb")  # pragma: no cover (each parser wants one)


def _parse_verb(verb: str, words: list[str]) -> Arguments:
    parser = _verb_parser(verb)
    command: list[str] = []
    if verb == "run" and "--" in words:
        end = words.index("--")
        words, command = words[:end], words[end + 1 :]
    arguments, rest = parser.parse_known_args(words, Arguments(verb=verb))
    if rest:
        hint = ': put the command at the end, after "--"' if verb == "run" else ""
        parser.error(f"nothing like {rest[0]!r} is said here{hint}")
    if verb == "run" and not command:
        parser.error('there is no command to run: put it at the end, after "--"')
    arguments.command = command
    return arguments
