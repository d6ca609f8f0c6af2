"""How a process ended, and the trace of a group that failed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import attrs
import pytest

from grouper import ErrorTrace, Exit


def ended(path: str, error: BaseException | None = None, at: float = 1.0) -> Exit:
    return Exit(path=path, error=error, was_ready=True, killed=False, started_at=0.0, ended_at=at)


def trace(*exits: Exit, path: str = "", message: str = "it failed") -> ErrorTrace:
    """The trace of a group whose members ended so, in this order."""
    errors = [exit.error for exit in exits if isinstance(exit.error, Exception)]
    return ErrorTrace(message, errors, path=path, exits=exits)


def text(error: BaseException) -> list[str]:
    return str(error).split("\n")


# Exit


def test_exit_without_an_error_is_ok() -> None:
    """`ok` tells that there was no error, and then there is nothing to raise."""
    exit = ended("db")
    assert exit.ok
    exit.raise_for_error()


@pytest.mark.parametrize("error", [OSError("gone"), SystemExit(3)], ids=repr)
def test_exit_raises_its_error(error: BaseException) -> None:
    """`raise_for_error()` raises the very object, whatever kind of exception it is."""
    exit = ended("db", error)
    assert not exit.ok
    with pytest.raises(type(error)) as caught:
        exit.raise_for_error()
    assert caught.value is error


def test_exit_cannot_be_changed() -> None:
    """How a process ended is a fact."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        ended("db").path = "web"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def test_exits_are_equal_by_value() -> None:
    """Two exits that say the same are the same."""
    assert ended("db") == ended("db") != ended("web")


# ErrorTrace, as an exception group


def test_trace_holds_errors_exits_and_path() -> None:
    """The errors are the group's exceptions; exits are kept in the order given, those without an error too."""
    failed, fine = ended("web/api", OSError("gone")), ended("web/db")
    error = ErrorTrace("1 of 2 members failed", [OSError("gone")], path="web", exits=iter([failed, fine]))
    assert (error.exits, error.path, error.message, len(error.exceptions)) == ((failed, fine), "web", "1 of 2 members failed", 1)


def test_trace_of_no_error_is_refused() -> None:
    """A group that did not fail has no trace."""
    with pytest.raises(ValueError, match="non-empty"):
        ErrorTrace("it failed", [])


def test_trace_is_an_exception_group() -> None:
    """So `except Exception` catches it, and `except*` opens it."""
    assert isinstance(trace(ended("db", OSError())), ExceptionGroup)


def test_split_makes_traces() -> None:
    """Both parts have the exits and the path of the whole."""
    whole = trace(ended("web/a", OSError()), ended("web/b", KeyError()), path="web")
    for part in whole.split(KeyError):
        assert isinstance(part, ErrorTrace)
        assert (part.exits, part.path, part.message, len(part.exceptions)) == (whole.exits, "web", whole.message, 1)


def test_except_star_takes_what_it_names() -> None:
    """`except*` finds errors in nested traces, and lets the rest go on as a trace."""
    inner = trace(ended("web/a", OSError()), ended("web/b", KeyError()), path="web")
    seen: list[BaseException] = []

    def take_key_errors() -> None:
        try:
            raise trace(ended("web", inner))
        except* KeyError as part:
            seen.append(part)

    with pytest.raises(ErrorTrace) as caught:
        take_key_errors()
    assert isinstance(seen[0], ErrorTrace)
    (rest,) = caught.value.exceptions
    assert isinstance(rest, ErrorTrace)
    assert [type(error) for error in rest.exceptions] == [OSError]


def test_part_keeps_notes_and_cause() -> None:
    """What was told of the whole is told of the part."""
    whole = trace(ended("a", OSError()), ended("b", KeyError()))
    whole.add_note("in member 'web'")
    whole.__cause__ = cause = OSError("first")
    part = whole.subgroup(KeyError)
    assert part is not None
    assert (part.__notes__, part.__cause__) == (["in member 'web'"], cause)


def pickled(error: ErrorTrace) -> ErrorTrace:
    loaded = pickle.loads(pickle.dumps(error))
    assert isinstance(loaded, ErrorTrace)
    return loaded


@pytest.mark.parametrize("way", [pickled, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_trace_can_be_copied(way: Callable[[ErrorTrace], ErrorTrace]) -> None:
    """A copy, and what comes out of another process, has the same text, path and paths of exits."""
    inner = trace(ended("web/a", OSError("gone")), ended("web/b", KeyError("k")), path="web")
    whole = trace(ended("web", inner, 2.0), ended("db"))
    other = way(whole)
    assert (str(other), other.path, [exit.path for exit in other.exits]) == (str(whole), "", ["web", "db"])


# ErrorTrace, as text


def test_text_names_the_members_and_the_first_cause() -> None:
    """One line for each failure, in the order of the errors; the one that was first in time is marked."""
    error = trace(
        ended("db", OSError("gone"), 2.0), ended("fine"), ended("web", KeyError("k"), 1.0), message="2 of 3 members failed"
    )
    assert text(error) == ["2 of 3 members failed:", "  db: OSError: gone", "  web: KeyError: 'k'  <- first"]


def test_of_two_failures_at_one_time_the_first_seen_is_first() -> None:
    """Where the clock cannot tell, the order of the exits does, and not that of the errors."""
    a, b = OSError(), KeyError()
    error = ErrorTrace("it failed", [a, b], exits=[ended("b", b), ended("a", a)])
    assert text(error)[1:] == ["  a: OSError", "  b: KeyError  <- first"]


def test_groups_are_indented() -> None:
    """The failures of a group stand beneath its name."""
    inner = trace(ended("web/a", OSError("1"), 1.0), ended("web/b", OSError("2"), 2.0), path="web")
    error = trace(ended("web", inner, 3.0), ended("db", KeyError("k"), 4.0))
    assert text(error)[1:] == [
        "  web",
        "    a: OSError: 1  <- first",
        "    b: OSError: 2",
        "  db: KeyError: 'k'",
    ]


def test_chain_of_single_failures_is_one_path() -> None:
    """Groups with one failure each are collapsed into one line."""
    inner = trace(ended("web/api/db", OSError("gone")), path="web/api")
    middle = trace(ended("web/api", inner, 2.0), path="web")
    assert text(trace(ended("web", middle, 3.0)))[1:] == ["  web/api/db: OSError: gone  <- first"]


def test_chain_ends_where_two_have_failed() -> None:
    """A collapsed path leads to the first group in which there is a choice."""
    inner = trace(ended("web/api/a", OSError("1")), ended("web/api/b", OSError("2"), 2.0), path="web/api")
    middle = trace(ended("web/api", inner, 3.0), path="web")
    assert text(trace(ended("web", middle, 4.0)))[1:] == ["  web/api", "    a: OSError: 1  <- first", "    b: OSError: 2"]


def test_first_in_a_group_beats_a_later_one_outside() -> None:
    """The time of a failure counts, and not that of the groups that it brought down."""
    inner = trace(ended("web/a", OSError("1"), 1.0), path="web")
    error = trace(ended("db", KeyError("k"), 2.0), ended("web", inner, 3.0))
    assert text(error)[1:] == ["  db: KeyError: 'k'", "  web/a: OSError: 1  <- first"]


def test_exception_group_of_a_member_is_opened() -> None:
    """What a member's nursery raised stands beneath it, a line for each."""
    group = ExceptionGroup("tasks failed", [OSError("1"), ExceptionGroup("more", [OSError("2")])])
    assert text(trace(ended("db", group)))[1:] == [
        "  db: ExceptionGroup: tasks failed  <- first",
        "    -: OSError: 1",
        "    -: ExceptionGroup: more",
        "      -: OSError: 2",
    ]


def test_trace_in_an_exception_group_keeps_its_names() -> None:
    """A group that a member runs in its own nursery is a tree in the tree."""
    inner = trace(ended("x", OSError("1")), ended("y", OSError("2")))
    assert text(trace(ended("db", ExceptionGroup("tasks failed", [inner]))))[2:] == [
        "    -",
        "      x: OSError: 1",
        "      y: OSError: 2",
    ]


def test_cause_is_told() -> None:
    """`raise ... from` shows on the line."""
    error = OSError("gone")
    error.__cause__ = KeyError("k")
    assert text(trace(ended("db", error)))[1:] == ["  db: OSError: gone (from KeyError: 'k')  <- first"]


def test_text_of_several_lines_stays_on_one() -> None:
    """The tree is not broken by what an exception says."""
    assert text(trace(ended("db", OSError("one\ntwo"))))[1:] == ["  db: OSError: one two  <- first"]


def test_error_without_an_exit_is_named_by_its_class() -> None:
    """An error that no exit tells of is listed too, and is never first."""
    error = ErrorTrace("it failed", [OSError("1"), KeyError("k")])
    assert text(error)[1:] == ["  OSError: OSError: 1", "  KeyError: KeyError: 'k'"]


def test_text_of_a_part_leaves_the_rest_out() -> None:
    """The text of a split trace tells of its own errors only."""
    part = trace(ended("a", OSError("1"), 1.0), ended("b", KeyError("k"), 2.0)).subgroup(KeyError)
    assert part is not None
    assert text(part)[1:] == ["  b: KeyError: 'k'  <- first"]


def test_text_of_a_deep_chain() -> None:
    """The text of a tree 500 deep is made without recursion."""
    error = trace(ended("leaf", OSError("gone")))
    for _ in range(500):
        error = trace(ended("group", error, 2.0))
    assert text(error)[1:] == ["  " + "group/" * 500 + "leaf: OSError: gone  <- first"]


def test_text_of_a_deep_tree() -> None:
    """Five hundred levels with two failures each have a line each."""
    error = trace(ended("leaf", OSError("gone")), ended("other", OSError("2"), 2.0))
    for _ in range(500):
        error = trace(ended("group", error, 3.0), ended("other", OSError("3"), 3.0))
    lines = text(error)
    assert len(lines) == 1003
    assert lines[501] == "  " * 501 + "leaf: OSError: gone  <- first"
