"""`grouper waitgroup`: what each verb does and prints, without an event loop and in trio."""

from __future__ import annotations

import time

import pytest

from grouper.cli import waitgroup
from grouper.cli.driving import Inline, Trio
from grouper.coordination import NotFound, Unavailable
from grouper.coordination.sqlite.store import InlineStore

from .conftest import Command

pytestmark = pytest.mark.real_time


def fine(text: str) -> tuple[int, str, str]:
    return 0, f"{text}\n", ""


def said(either: Command, *words: object) -> tuple[int, str, str]:
    found = either(*words)
    return found.status, found.out, found.err


# --- create


def test_create_makes_a_group(either: Command) -> None:
    """And says so."""
    assert said(either, "create", "batch") == fine("batch: created")
    assert either.counter("batch") == 0


def test_create_again_changes_nothing(either: Command) -> None:
    """It is no error, and says that it was there."""
    either("create", "batch", "--count", 2)
    assert said(either, "create", "batch") == fine("batch: was there already")
    assert either.counter("batch") == 2


def test_create_with_a_count_that_comes_too_late_says_so(either: Command) -> None:
    """What was to be counted is not."""
    either("create", "batch")
    assert said(either, "create", "batch", "--count", 3) == fine(
        "batch: was there already, so 3 were not added: use `add` for that"
    )
    assert either.counter("batch") == 0


def test_create_in_json(either: Command) -> None:
    """The group, and whether it is new."""
    group: dict[str, object] = {
        "name": "batch",
        "spec": {"ttl": "1h30m"},
        "status": {"counter": 3, "phase": "Waiting", "members": [], "lost": 0},
    }
    words = ("create", "batch", "--ttl", "90m", "--count", 3, "-o", "json")
    assert either(*words).document == {**group, "created": True}
    assert either(*words).document == {**group, "created": False}


def test_group_is_removed_after_its_ttl(either: Command) -> None:
    """Once it has been Done for so long."""
    either("create", "batch", "--ttl", "1ms")
    time.sleep(0.01)
    assert either("status", "batch").status == 3


# --- add, done


def test_add_prints_the_counter(either: Command) -> None:
    """After it."""
    either("create", "batch")
    assert said(either, "add", "batch") == fine("batch: 1")
    assert said(either, "add", "batch", "--delta", 9) == fine("batch: 10")


def test_add_with_tickets_prints_their_ids_alone(either: Command) -> None:
    """One in a line, for a shell to read."""
    either("create", "batch")
    found = either("add", "batch", "--delta", 2, "--tickets")
    first, second = found.out.splitlines()
    assert said(either, "done", "batch", "--ticket", first) == fine("batch: 1")
    assert said(either, "done", "batch", "--ticket", second) == fine("batch: 0")


def test_add_in_json_has_the_tickets(either: Command) -> None:
    """Beside the group."""
    either("create", "batch")
    document = either("add", "batch", "--delta", 2, "-o", "json").document
    assert document["status"]["counter"] == 2
    assert len(set(document["tickets"])) == 2
    assert either("done", "batch", "--ticket", document["tickets"][1], "-o", "json").document["changed"] is True


def test_add_of_more_than_there_are_tickets_for_in_json(either: Command) -> None:
    """They are added without."""
    either("create", "batch")
    document = either("add", "batch", "--delta", 51, "-o", "json").document
    assert (document["status"]["counter"], document["tickets"]) == (51, [])


def test_add_for_a_time_is_lost_after_it(either: Command) -> None:
    """It is no longer counted."""
    either("create", "batch")
    either("add", "batch", "--delta", 3, "--for", "1ms")
    time.sleep(0.01)
    assert either("status", "batch", "-o", "json").document["status"] == {"counter": 0, "phase": "Done", "members": [], "lost": 3}


def test_done_prints_the_counter(either: Command) -> None:
    """After it."""
    either("create", "batch", "--count", 10)
    assert said(either, "done", "batch") == fine("batch: 9")
    assert said(either, "done", "batch", "--delta", 4) == fine("batch: 5")


def test_done_with_a_ticket_that_is_settled_says_so(either: Command) -> None:
    """It is no error, and nothing is changed."""
    either("create", "batch", "--count", 1)
    ticket = either("add", "batch", "--tickets").out.strip()
    either("done", "batch", "--ticket", ticket)
    assert said(either, "done", "batch", "--ticket", ticket) == fine(
        "batch: 1 (as before: that ticket is settled, or ran out of time)"
    )
    assert either("done", "batch", "--ticket", ticket, "-o", "json").document["changed"] is False


@pytest.mark.parametrize("output", ["text", "json"])
def test_token_makes_a_call_once(either: Command, output: str) -> None:
    """However often it is repeated; the tickets are the same."""
    either("create", "batch")
    words = ("add", "batch", "--token", "t/1", "-o", output)
    assert either(*words).out == either(*words).out
    assert either.counter("batch") == 1
    words = ("done", "batch", "--token", "t/2", "-o", output)
    assert either(*words).out == either(*words).out
    assert either.counter("batch") == 0


@pytest.mark.parametrize(
    ("error", "status", "out", "told"),
    [
        (NotFound("gone"), 0, "batch: deleted since\n", ""),
        (Unavailable("the store is away"), 0, "batch: not known\n", "grouper: the store is away\n"),
    ],
)
def test_change_that_was_made_is_no_failure(
    either: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, out: str, told: str
) -> None:
    """Whatever happens before its count is read: a script that repeats what has failed would count twice."""

    async def counter(driver: object, name: str) -> int:
        raise error

    either("create", "batch")
    with monkeypatch.context() as patched:
        patched.setattr(Inline, "counter", counter)
        patched.setattr(Trio, "counter", counter)
        found = either("add", "batch")
    assert (found.status, found.out, found.err) == (status, out, told)
    assert either.counter("batch") == 1


@pytest.mark.parametrize(
    ("error", "told"), [(NotFound("gone"), ""), (Unavailable("the store is away"), "grouper: the store is away\n")]
)
def test_change_that_was_made_is_no_failure_in_json(
    either: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    """There are still the tickets."""

    def document(*arguments: object, **more: object) -> None:
        raise error

    either("create", "batch")
    with monkeypatch.context() as patched:
        patched.setattr(waitgroup, "document", document)
        found = either("add", "batch", "-o", "json")
    assert (found.status, found.err) == (0, told)
    assert found.document == {"name": "batch", "spec": None, "status": None, "tickets": found.document["tickets"]}
    assert len(found.document["tickets"]) == 1


def test_store_that_cannot_be_closed_does_not_undo_a_change(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is told, and is no failure of the verb."""

    async def away(store: object) -> None:
        raise Unavailable("the store is away")

    command("create", "batch")
    with monkeypatch.context() as patched:
        patched.setattr(InlineStore, "aclose", away)
        found = command("add", "batch")
    assert (found.status, found.out, found.err) == (0, "batch: 1\n", "grouper: the store is away\n")


# --- status, list, delete


def test_status_for_a_person(either: Command) -> None:
    """What there is to know, in lines."""
    either("create", "batch", "--ttl", "1h", "--count", 9)
    found = either("status", "batch")
    rows = dict(line.split(maxsplit=1) for line in found.out.splitlines())
    assert rows.pop("age")[-1] == "s"
    assert rows == {"name": "batch", "phase": "Waiting", "counter": "9", "lost": "0", "ttl": "1h"}


def test_status_in_json_has_konductors_shape(either: Command) -> None:
    """Beside members and lost, which konductor does not know."""
    either("create", "batch", "--count", 9)
    assert either("status", "batch", "-o", "json").document == {
        "name": "batch",
        "spec": {"ttl": None},
        "status": {"counter": 9, "phase": "Waiting", "members": [], "lost": 0},
    }


def test_new_group_is_done(either: Command) -> None:
    """As in konductor: nothing is left to do."""
    either("create", "batch")
    assert either("status", "batch", "-o", "json").document["status"]["phase"] == "Done"


def test_list_is_a_table(either: Command) -> None:
    """By name."""
    either("create", "b", "--count", 10)
    either("create", "a")
    assert said(either, "list") == fine(
        "NAME  COUNTER  PHASE    LOST  MEMBERS\n"
        "a     0        Done     0     0\n"
        "b     10       Waiting  0     0"
    )  # fmt: skip


def test_list_in_json_is_an_array_of_what_status_prints(either: Command) -> None:
    """Of those whose names begin so, if that is said."""
    for name in ("night-1", "night-2", "day"):
        either("create", name)
    assert [group["name"] for group in either("list", "-o", "json").document] == ["day", "night-1", "night-2"]
    assert either("list", "night-2", "-o", "json").document == [either("status", "night-2", "-o", "json").document]
    assert either("list", "none", "-o", "json").document == []


def test_delete_removes_whatever_is_counted(either: Command) -> None:
    """And is no error when there is nothing to remove."""
    either("create", "batch", "--count", 3)
    assert said(either, "delete", "batch") == fine("batch: deleted")
    assert said(either, "delete", "batch") == fine("batch: was not there")
    assert either("status", "batch").status == 3


def test_delete_in_json(either: Command) -> None:
    """Whether there was one."""
    either("create", "batch")
    assert either("delete", "batch", "-o", "json").document == {"name": "batch", "deleted": True}
    assert either("delete", "batch", "-o", "json").document == {"name": "batch", "deleted": False}


# --- wait, where nobody else is needed


def test_wait_returns_at_once_if_it_is_done(either: Command) -> None:
    """Also a new group."""
    either("create", "batch")
    assert said(either, "wait", "batch") == fine("batch: Done")


def test_wait_in_json(either: Command) -> None:
    """The group as it was when it was Done."""
    either("create", "batch")
    assert either("wait", "batch", "-o", "json").document == either("status", "batch", "-o", "json").document


@pytest.mark.parametrize("timeout", ["0", "50ms"])
def test_wait_ends_when_its_time_is_over(either: Command, timeout: str) -> None:
    """It says what is left, and how to find out why."""
    either("create", "batch", "--count", 2)
    before = time.monotonic()
    found = either("wait", "batch", "--timeout", timeout)
    assert (found.status, found.out) == (4, "")
    assert found.err == (
        f"grouper: wait group 'batch': it still counts 2, after {'0s' if timeout == '0' else timeout}: "
        "`grouper waitgroup status` tells who is a member\n"
    )
    assert time.monotonic() - before >= (0.05 if timeout == "50ms" else 0)


def test_wait_with_no_time_finds_what_is_done(either: Command) -> None:
    """It looks once."""
    either("create", "batch")
    assert either("wait", "batch", "--timeout", "0").status == 0


def test_wait_for_the_start_does_not_take_a_new_group_for_done(either: Command) -> None:
    """Nothing was added yet."""
    either("create", "batch")
    found = either("wait", "batch", "--started", "--timeout", "10ms")
    assert found.status == 4
    assert "nothing was added yet, after 10ms" in found.err


def test_wait_for_the_start_takes_a_group_that_counted_for_done(either: Command) -> None:
    """Its round may be over."""
    either("create", "batch", "--count", 1)
    either("done", "batch")
    assert either("wait", "batch", "--started", "--timeout", "0").status == 0


def test_wait_ends_when_what_is_left_is_lost(either: Command) -> None:
    """Without anybody doing anything: the time of a ticket runs out."""
    either("create", "batch")
    either("add", "batch", "--delta", 2, "--for", "50ms")
    found = either("wait", "batch")
    assert (found.status, found.out) == (5, "batch: Done, 2 lost\n")
    assert found.err == (
        "grouper: wait group 'batch': lost 2, whose process died or whose time ran out: do that work again, or say --allow-lost\n"
    )


def test_wait_that_allows_losses_is_fine(either: Command) -> None:
    """They are still told."""
    either("create", "batch")
    either("add", "batch", "--for", "1ms")
    time.sleep(0.01)
    assert said(either, "wait", "batch", "--allow-lost") == fine("batch: Done, 1 lost")


def test_wait_in_json_has_the_lost(either: Command) -> None:
    """And the status is the same as in text."""
    either("create", "batch")
    either("add", "batch", "--for", "1ms")
    time.sleep(0.01)
    found = either("wait", "batch", "-o", "json")
    assert (found.status, found.document["status"]["lost"]) == (5, 1)
