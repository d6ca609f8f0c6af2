"""What can be said to `grouper waitgroup`, and what is answered to what cannot."""

from __future__ import annotations

import argparse
import sys

import pytest

import grouper
from grouper.cli import main
from grouper.cli.arguments import VERBS, parse
from grouper.cli.exit_status import EXIT_STATUSES, UsageError
from grouper.cli.values import age, duration, from_one, from_zero, lasting, lifetime, url, word

DURATIONS = [
    ("250ms", 0.25),
    ("30s", 30.0),
    ("5m", 300.0),
    ("1h30m", 5400.0),
    ("2d3h", 183600.0),
    ("1m30.5s", 90.5),
    ("1h0.5s", 3600.5),
]


@pytest.mark.parametrize(("text", "seconds"), [*DURATIONS, ("90", 90.0), ("1.5", 1.5), (".5", 0.5), ("1.5h", 5400.0), ("0", 0.0)])
def test_duration(text: str, seconds: float) -> None:
    """As in Go, and plain seconds."""
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "h", "-5s", "5 m", "5x", "1h30", "inf", "nan", "1e3", "\u0663s", "5s!", ".", "1,5s"])
def test_no_duration(text: str) -> None:
    """It is refused, with what to write."""
    with pytest.raises(argparse.ArgumentTypeError, match="is no duration: write 30s, 5m, 1h30m, 250ms, or seconds"):
        duration(text)


@pytest.mark.parametrize("text", ["10000000000", "9" * 400, "200000d"])
def test_duration_that_is_too_long(text: str) -> None:
    """For a store; no arithmetic goes wrong with it."""
    with pytest.raises(argparse.ArgumentTypeError, match="longer than a store can keep"):
        duration(text)


@pytest.mark.parametrize("text", ["0", "0s", "0h0m"])
def test_lifetime_is_not_zero(text: str) -> None:
    """What would be over at once is a mistake."""
    with pytest.raises(argparse.ArgumentTypeError, match="no time at all"):
        lifetime(text)


@pytest.mark.parametrize(("text", "seconds"), [*DURATIONS, ("0s", 0.0), ("1ms", 0.001), ("0.5ms", 0.0005)])
def test_duration_in_words(text: str, seconds: float) -> None:
    """They are read back as the same."""
    assert lasting(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3.0, "0s"), (0.9, "0s"), (59.9, "59s"), (312.0, "5m12s"), (7265.0, "2h1m"), (183665.0, "2d3h")]
)
def test_age_has_two_units_at_most(seconds: float, text: str) -> None:
    """Nobody asks for the seconds of yesterday; a clock that was set back is no age."""
    assert age(seconds) == text


@pytest.mark.parametrize("text", ["", "x", "1.5", "-1", "1_000", "\uff19", "0x10"])
def test_no_whole_number(text: str) -> None:
    """Of 0 or more."""
    with pytest.raises(argparse.ArgumentTypeError, match="is no whole number of 0 or more"):
        from_zero(text)


def test_whole_numbers() -> None:
    """Zero is one where that makes sense; there is no largest, which is the store's to refuse."""
    assert (from_zero("0"), from_one("+7"), from_one("9" * 20)) == (0, 7, 10**20 - 1)
    with pytest.raises(argparse.ArgumentTypeError, match="'0' is no whole number of 1 or more"):
        from_one("0")


@pytest.mark.parametrize("text", ["", "x" * 254, "a\nb", "\udcff"])
def test_no_token(text: str) -> None:
    """A store could not keep it."""
    with pytest.raises(argparse.ArgumentTypeError, match="1 to 253 characters that print"):
        word(text)


def test_url_is_not_empty() -> None:
    """As from a variable that is not set: it is not taken for the default."""
    assert url("sqlite:x") == "sqlite:x"
    with pytest.raises(argparse.ArgumentTypeError, match="it is empty: write sqlite:PATH or etcd"):
        url("")


# --- where what can be said


@pytest.mark.parametrize(
    "words",
    [
        ["--store", "sqlite:x", "-o", "json", "waitgroup", "add", "batch"],
        ["waitgroup", "--store", "sqlite:x", "-o", "json", "add", "batch"],
        ["waitgroup", "add", "--store", "sqlite:x", "-o", "json", "batch"],
        ["waitgroup", "add", "batch", "--store=sqlite:x", "-ojson"],
        ["--store", "sqlite:x", "waitgroup", "--output=json", "add", "batch"],
    ],
)
def test_common_flags_stand_anywhere(words: list[str]) -> None:
    """Before the verb and after it."""
    found = parse(words)
    assert (found.verb, found.name, found.store, found.output) == ("add", "batch", "sqlite:x", "json")


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - {"list", "run"}))
def test_names_may_be_those_of_verbs(verb: str) -> None:
    """The verb is where it belongs."""
    found = parse(["--store", "run", "waitgroup", verb, "list"])
    assert (found.store, found.verb, found.name) == ("run", verb, "list")


def test_name_that_begins_with_a_dash_comes_after_two() -> None:
    """As everywhere."""
    assert parse(["waitgroup", "add", "--delta", "2", "--", "-x"]).name == "-x"


def test_konductors_command_lines_are_understood() -> None:
    """Its verbs have the same names and flags."""
    assert parse(["waitgroup", "create", "batch", "--ttl", "1h"]).ttl == 3600.0
    assert parse(["waitgroup", "add", "batch", "--delta", "10"]).delta == 10
    assert parse(["waitgroup", "done", "batch"]).delta == 1
    assert parse(["waitgroup", "wait", "batch", "--timeout", "30m"]).timeout == 1800.0
    assert parse(["waitgroup", "list"]).prefix == ""
    assert parse(["waitgroup", "delete", "batch"]).name == "batch"


def test_wait_without_a_timeout_has_none() -> None:
    """It waits for ever."""
    assert parse(["waitgroup", "wait", "batch"]).timeout is None


def test_command_is_taken_as_it_stands() -> None:
    """With its own flags, and its own two dashes; those of `run` come before."""
    found = parse(["waitgroup", "run", "--id", "w1", "batch", "--", "env", "--", "-o", "--help"])
    assert (found.name, found.id, list(found.command)) == ("batch", "w1", ["env", "--", "-o", "--help"])


# --- what is wrong

WRONG = [
    ("", "the following arguments are required: GROUP: see `grouper --help`"),
    ("--frob", "the following arguments are required: GROUP: see `grouper --help`"),
    ("frob", "GROUP: invalid choice: 'frob' (choose from 'waitgroup'): see `grouper --help`"),
    ("waitgroup", "waitgroup: the following arguments are required: VERB: see `grouper waitgroup --help`"),
    ("waitgroup frob", f"waitgroup: VERB: invalid choice: 'frob' (choose from {', '.join(map(repr, VERBS))}): see "),
    ("waitgroup add", "waitgroup add: the following arguments are required: NAME: see `grouper waitgroup add --help`"),
    ("waitgroup add b --frob", "waitgroup add: nothing like '--frob' is said here: see "),
    ("waitgroup add b --del 3", "waitgroup add: nothing like '--del' is said here: see "),
    ("waitgroup add b c", "waitgroup add: nothing like 'c' is said here: see "),
    ("waitgroup add b --delta", "waitgroup add: --delta: expected one argument: see "),
    ("waitgroup add b --delta 0", "waitgroup add: --delta: '0' is no whole number of 1 or more: see "),
    ("waitgroup add b --delta -1", "waitgroup add: --delta: '-1' is no whole number of 1 or more: see "),
    ("waitgroup add b --for 0", "waitgroup add: --for: '0' is no time at all"),
    ("waitgroup create b --ttl 1y", "waitgroup create: --ttl: '1y' is no duration"),
    ("waitgroup create b --count x", "waitgroup create: --count: 'x' is no whole number of 0 or more: see "),
    ("waitgroup done b --ticket x --delta 2", "waitgroup done: --delta: not allowed with argument --ticket: see "),
    ("waitgroup wait b --timeout soon", "waitgroup wait: --timeout: 'soon' is no duration"),
    ("waitgroup list -o yaml", "waitgroup list: -o/--output: invalid choice: 'yaml' (choose from 'text', 'json'): see "),
    ("waitgroup run b", 'waitgroup run: there is no command to run: put it at the end, after "--": see '),
    ("waitgroup run b --", 'waitgroup run: there is no command to run: put it at the end, after "--": see '),
    ("waitgroup run b make all", "waitgroup run: nothing like 'make' is said here: put the command at the end, after \"--\": see "),
    ("waitgroup run -- make", "waitgroup run: the following arguments are required: NAME: see "),
]


@pytest.mark.parametrize(("words", "text"), WRONG)
def test_what_is_wrong_is_told(words: str, text: str) -> None:
    """In one line, which says where there is more."""
    with pytest.raises(UsageError) as caught:
        parse(words.split())
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


def test_wrong_command_line_has_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    """And its error on standard error."""
    assert main(["waitgroup", "add"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (
        captured.err == "grouper: waitgroup add: the following arguments are required: NAME: see `grouper waitgroup add --help`\n"
    )


# --- help


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The package's."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"grouper {grouper.__version__}\n"


def test_command_line_is_the_processs_by_default(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a console script."""
    monkeypatch.setattr(sys, "argv", ["grouper", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("grouper ")


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["waitgroup", "--help"], *(["waitgroup", verb, "-h"] for verb in VERBS)])
def test_help_is_readable(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Lines of a common width, in ASCII, on standard output; nothing is left to be filled in."""
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith("usage: grouper")
    assert captured.out.isascii()
    assert max(map(len, captured.out.splitlines())) <= 120
    assert "%" not in captured.out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_has_its_examples_and_the_statuses(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them."""
    main(["waitgroup", verb, "--help"])
    text = capsys.readouterr().out
    for example in VERBS[verb][3]:
        assert f"\n  {example}\n" in text
    for status, meaning in EXIT_STATUSES.items():
        assert f"{status}     {meaning}" in text or (verb == "run" and not status)


@pytest.mark.parametrize("verb", VERBS)
def test_examples_of_help_are_understood(verb: str) -> None:
    """What is shown can be said."""
    for example in VERBS[verb][3]:
        line = example.partition("#")[0].partition("|")[0].replace("ticket=$(", "").replace(")", "").replace('"', "")
        assert parse(line.split()[1:]).verb == verb


def test_help_of_the_group_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    """With what each does."""
    main(["waitgroup", "--help"])
    text = capsys.readouterr().out
    assert all(row[0] in text for row in VERBS.values())
