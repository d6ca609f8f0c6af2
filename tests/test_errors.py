"""The errors of the tree: what they hold, and what they say."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest

from grouper import errors

GRAPH_ERRORS: dict[str, tuple[errors.GraphError, str]] = {
    "duplicates": (
        errors.DuplicateNames(["db", "web"]),
        "more than one member is called 'db', 'web': names are unique in a group",
    ),
    "unknown": (
        errors.UnknownDependency([("web", "db"), ("web", "cache")]),
        "'web' is after 'db', 'web' is after 'cache', which no member of the group is called: correct `after` or add the member",
    ),
    "circle": (
        errors.CycleError(["db", "web", "db"]),
        "members are after each other in a circle: 'db' -> 'web' -> 'db' (each is after the next): remove one `after`",
    ),
}


@pytest.mark.parametrize(("error", "text"), GRAPH_ERRORS.values(), ids=GRAPH_ERRORS)
def test_graph_error_names_the_members_and_the_fix(error: errors.GraphError, text: str) -> None:
    """Its text is enough to correct the program."""
    assert str(error) == text


@pytest.mark.parametrize(("error", "text"), GRAPH_ERRORS.values(), ids=GRAPH_ERRORS)
def test_graph_error_is_a_value_error(error: errors.GraphError, text: str) -> None:
    """A wrong description is a wrong value."""
    assert isinstance(error, ValueError)


def test_duplicate_names_keeps_the_names() -> None:
    """`names` is a tuple, whatever was given."""
    assert errors.DuplicateNames(iter(["db", "web"])).names == ("db", "web")


def test_unknown_dependency_keeps_the_pairs() -> None:
    """`pairs` is (member, unknown name)."""
    assert errors.UnknownDependency(iter([("web", "db")])).pairs == (("web", "db"),)


def test_cycle_error_keeps_the_path() -> None:
    """`path` begins and ends with the same name."""
    assert errors.CycleError(iter(["a", "b", "a"])).path == ("a", "b", "a")


def pickled(error: Exception) -> Exception:
    loaded = pickle.loads(pickle.dumps(error))
    assert isinstance(loaded, Exception)
    return loaded


OTHERS = [
    errors.ExitedBeforeReady("member 'db' returned"),
    errors.ReadyTimeout("late"),
    errors.StopTimeout("late"),
    errors.MemberKilled("killed"),
    errors.GroupClosed("closed"),
]


@pytest.mark.parametrize("way", [pickled, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
@pytest.mark.parametrize("error", [*(error for error, _ in GRAPH_ERRORS.values()), *OTHERS], ids=lambda error: type(error).__name__)
def test_error_can_be_copied(error: Exception, way: Callable[[Exception], Exception]) -> None:
    """A copy, and what comes out of another process, says and holds the same."""
    other = way(error)
    assert (type(other), str(other), vars(other)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: type(error).__name__)
def test_end_of_a_member_is_no_graph_error(error: Exception) -> None:
    """`except GraphError` around a construction catches nothing that happened to a member, nor does `except ValueError`."""
    assert isinstance(error, Exception)
    assert not isinstance(error, errors.GraphError | ValueError | OSError)


def test_all_is_every_error() -> None:
    """Every exception of the module is public."""
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert set(errors.__all__) == defined
