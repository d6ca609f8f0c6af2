"""How a graph of jobs is drawn: as lines of text and as a Mermaid flowchart, whatever its jobs are called."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper.work import Backoff, Job, Jobs, NotReady, job, run_jobs
from grouper.work.drawing import as_mermaid, as_text

NASTY = (
    'say "hi"',
    "a[0] (b) {c} |d| <e>",
    "#35; &amp; <b>bold</b>",
    "; end",
    "end",
    "1. first",
    "- point",
    "www.example.com",
    "_private_ and __init__",
    "`code` *bold* $$x$$",
    "style: x#y;",
    "%%{init: {}}%%",
    "a@{ shape: x }",
    "fa:fa-car",
    "  two  spaces  ",
    "ünï çødé 🐛",
    "",
)


async def fine() -> None:
    await trio.sleep(1)


async def not_yet() -> None:
    raise NotReady("no leader yet")


def fails(error: BaseException) -> Callable[[], Awaitable[None]]:
    async def body() -> None:
        await trio.sleep(0.5)
        raise error

    return body


def never(after: Sequence[Job[Any]]) -> bool:
    return False


async def line_of(body: Callable[[], Awaitable[Any]], **more: Any) -> str:
    """What is drawn of one job."""
    return (await run_jobs({"a": job(body, **more)}, on_error="continue")).render().splitlines()[0]


class Silent(Exception):  # noqa: N818 (it has a bug)
    def __str__(self) -> str:
        raise RuntimeError("a bug in a user's class")


# Text


async def test_a_line_says_how_the_job_ended_how_long_it_took_what_it_is_after_and_why() -> None:
    """In columns, and the counts at the end."""
    report = await run_jobs(
        {
            "fetch": fine,
            "build": job(fails(ValueError("no compiler")), after="fetch"),
            "test": job(fine, after=["fetch", "build"]),
            "leader": not_yet,
            "deploy": job(fine, after="leader"),
        },
        on_error="continue",
    )
    assert report.render() == textwrap.dedent(
        """\
        success    1.0 s  fetch
        failed     0.5 s  build   after fetch; ValueError: no compiler
        skipped           test    after fetch, build; because of build
        not ready  0.0 s  leader  no leader yet
        skipped           deploy  after leader; because of leader
        5 jobs: 1 success, 1 failed, 1 not ready, 2 skipped"""
    )


async def test_an_empty_graph_has_its_counts() -> None:
    """One line."""
    assert (await run_jobs({})).render() == "0 jobs"


async def test_one_job_is_counted_in_the_singular() -> None:
    """As it is read."""
    assert (await run_jobs({"a": fine})).render() == "success  1.0 s  a\n1 job: 1 success"


async def test_before_the_run_there_are_no_times() -> None:
    """And no empty column for them."""
    assert Jobs({"a": fine, "b": job(fine, after="a")}).report.render() == "waiting  a\nwaiting  b  after a\n2 jobs: 2 waiting"


async def test_while_it_runs_it_is_drawn_as_it_is() -> None:
    """What runs has no duration yet."""
    jobs = Jobs({"a": fine, "b": job(fine, after="a")})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(jobs.execute)
        await wait_all_tasks_blocked()
        assert jobs.report.render() == "running  a\nwaiting  b  after a\n2 jobs: 1 running, 1 waiting"


async def test_each_job_is_below_those_that_it_is_after() -> None:
    """Else in the order in which they were given."""
    report = await run_jobs({"d": job(fine, after=["c", "b"]), "a": fine, "b": job(fine, after="a"), "c": fine, "e": fine})
    assert drawn_order(report.render()) == ["c", "a", "b", "d", "e"]


async def test_what_was_given_in_an_order_that_works_stays_in_it() -> None:
    """Nothing is moved without need."""
    report = await run_jobs({"z": fine, "a": fine, "m": job(fine, after="a"), "b": job(fine, after="z"), "c": fine})
    assert drawn_order(report.render()) == ["z", "a", "m", "b", "c"]


def drawn_order(text: str) -> list[str]:
    return [line.split()[3] for line in text.splitlines()[:-1]]


async def test_attempts_are_told_if_there_was_more_than_one() -> None:
    """With the last error of what failed."""
    line = await line_of(fails(OSError("no network")), retry=Backoff(0.0, attempts=3))
    assert line == "failed  1.5 s  a  3 attempts; OSError: no network"


async def test_what_succeeded_at_last_has_no_error_in_its_line() -> None:
    """Only how often it was tried."""
    errors = [OSError("no network")]

    async def flaky() -> None:
        if errors:
            raise errors.pop()

    assert await line_of(flaky, retry=Backoff(0.0)) == "success  0.0 s  a  2 attempts"


async def test_what_is_to_be_tried_again_has_the_error_of_its_last_try() -> None:
    """It may yet succeed."""
    jobs = Jobs({"a": job(fails(OSError("no network")), retry=Backoff(10, attempts=2))}, on_error="continue")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(jobs.execute)
        await trio.sleep(1)
        assert jobs.report.render().splitlines()[0] == "trying again  a  last try: OSError: no network"


async def test_what_its_when_refused_has_no_other_job_to_blame() -> None:
    """The line says so."""
    assert await line_of(fine, when=never) == "skipped  a  its `when` said no"


async def test_what_was_cut_short_and_what_was_never_reached_differ() -> None:
    """Cancelled, with the time that it had; unknown."""
    report = await run_jobs({"a": fails(ValueError("wrong")), "b": fine, "c": job(fine, after="b")})
    assert report.render().splitlines()[1:3] == ["cancelled  0.5 s  b", "unknown           c  after b"]


async def test_a_run_that_timed_out_says_so() -> None:
    """Behind the counts."""
    assert (await run_jobs({"a": fine}, timeout=0.5)).render().splitlines()[-1] == "1 job: 1 cancelled; timed out"


@pytest.mark.parametrize(
    ("seconds", "drawn"),
    [
        (0.04, "0.0 s"),
        (99.9, "99.9 s"),
        (100, "1 min 40 s"),
        (3599, "59 min 59 s"),
        (3599.7, "1 h 00 min"),
        (90_000, "25 h 00 min"),
    ],
)
async def test_durations_are_in_the_units_of_their_size(seconds: float, drawn: str) -> None:
    """Seconds, minutes, hours."""

    async def body() -> None:
        await trio.sleep(seconds)

    assert await line_of(body) == f"success  {drawn}  a"


async def test_no_line_ends_in_spaces() -> None:
    """Also where names of many lengths make columns."""
    report = await run_jobs({"a": fine, "a long name": job(not_yet, after="a"), "b": job(fine, after="a long name"), "": fine})
    assert all(line == line.rstrip() for line in report.render().splitlines())


async def test_a_very_long_name_does_not_move_the_others() -> None:
    """What follows a name is aligned up to 32 characters."""
    report = await run_jobs({"n" * 100: fine, "a": job(fine, after="n" * 100)})
    assert report.render().splitlines()[1].startswith(f"success  1.0 s  a{' ' * 31}  after nnn")


async def test_of_many_that_a_job_is_after_some_are_named() -> None:
    """Eight, and how many more."""
    graph = {f"j{n}": job(fine) for n in range(20)}
    report = await run_jobs({**graph, "all": job(fine, after=graph)}, limit=20)
    assert report.render().splitlines()[-2] == "success  1.0 s  all  after j0, j1, j2, j3, j4, j5, j6, j7 and 12 more"


@pytest.mark.parametrize("name", ["a\nb", "a\r\x1b[2Jb", "a\u2028b", "a\u202eb", "a\tb", "a\x00b", "\ud800"])
async def test_a_name_cannot_break_the_layout(name: str) -> None:
    """What is not printable is escaped as in Python: in its own line and in those of others."""
    report = await run_jobs({name: not_yet, "c": job(fine, after=name)})
    text = report.render()
    assert len(text.splitlines()) == 3
    assert text.replace("\n", "").isprintable()
    escaped = ascii(name)[1:-1]
    assert text.splitlines()[1].endswith(f"after {escaped}; because of {escaped}")


async def test_an_error_is_told_in_one_line() -> None:
    """Without what would control a terminal."""
    assert await line_of(fails(ValueError("one\n  two\x1b[2J"))) == r"failed  0.5 s  a  ValueError: one two\x1b[2J"


async def test_an_error_without_a_text_is_its_class() -> None:
    """There is nothing else to tell."""
    assert await line_of(fails(ValueError())) == "failed  0.5 s  a  ValueError"


async def test_an_error_without_end_is_cut() -> None:
    """To 200 characters."""
    line = await line_of(fails(ValueError("x" * 1_000_000)))
    assert line == f"failed  0.5 s  a  ValueError: {'x' * 197}..."


async def test_an_error_that_cannot_be_told_is_its_class() -> None:
    """The bug of a user's class does not keep the others from being seen."""
    assert await line_of(fails(Silent())) == "failed  0.5 s  a  Silent"


async def test_drawing_changes_nothing() -> None:
    """Twice the same, of either kind."""
    report = await run_jobs({"a": fine, "b": job(not_yet, after="a")})
    assert report.render() == report.render()
    assert report.to_mermaid() == report.to_mermaid()


# Mermaid


async def test_a_flowchart_has_a_box_for_each_job_arrows_and_colours() -> None:
    """By generated names, in the order in which the jobs were given."""
    report = await run_jobs({"b": job(not_yet, after="a"), "a": fine, "c": job(fine, after=["a", "b"])})
    assert report.to_mermaid() == textwrap.dedent(
        """\
        flowchart TD
            n0["b<br/>not ready"]
            n1["a<br/>success"]
            n2["c<br/>skipped"]
            n1 --> n0
            n1 --> n2
            n0 --> n2
            classDef success fill:#c8e6c9,stroke:#2e7d32,color:#212121
            class n1 success
            classDef notReady fill:#ffe0b2,stroke:#ef6c00,color:#212121
            class n0 notReady
            classDef skipped fill:#fff9c4,stroke:#9e9d24,color:#212121
            class n2 skipped
        """
    )


async def test_the_flowchart_of_an_empty_graph_is_one() -> None:
    """Its first line, which ends."""
    assert (await run_jobs({})).to_mermaid() == "flowchart TD\n"


async def test_each_state_has_its_colour_and_each_box_one() -> None:
    """Among them those that are only there while it runs."""
    go = trio.Event()
    jobs = Jobs(
        {
            "ok": fine,
            "bad": fails(ValueError("wrong")),
            "later": not_yet,
            "after later": job(fine, after="later"),
            "again": job(not_yet, retry=Backoff(100, attempts=2)),
            "runs": go.wait,
            "waits": job(fine, after="runs"),
        },
        on_error="continue",
        limit=10,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(jobs.execute)
        await trio.sleep(2)
        text = jobs.report.to_mermaid()
        go.set()
    classes = re.findall(r"^    class (\S+) (\w+)$", text, re.MULTILINE)
    assert classes == [
        ("n0", "success"),
        ("n5", "running"),
        ("n4", "tryingAgain"),
        ("n6", "waiting"),
        ("n1", "failed"),
        ("n2", "notReady"),
        ("n3", "skipped"),
    ]
    assert re.findall(r"^    classDef (\w+) ", text, re.MULTILINE) == [style for _, style in classes]


async def test_a_label_says_the_name_whatever_is_in_it() -> None:
    """Mermaid's entities are HTML's with another first letter; what they stand for is the name, and nothing else is special."""
    report = await run_jobs(dict.fromkeys(NASTY, fine))
    assert labels(report.to_mermaid()) == [f"{name}<br/>success" for name in NASTY]


@pytest.mark.parametrize("name", NASTY)
async def test_a_label_has_nothing_that_means_something(name: str) -> None:
    """Neither to the flowchart, nor to its entities, Markdown or HTML."""
    label = (await run_jobs({name: fine})).to_mermaid().splitlines()[1].removeprefix('    n0["').removesuffix('<br/>success"]')
    rest = re.sub(r"#\d+;", "", label)
    assert not set(rest) & set("\"'#;&<>[](){}|`*$%@:\\.")
    assert label == label.strip()
    assert not re.search(r"(?<!\w)[_-]|[_-](?!\w)", re.sub(r"#\d+;", " ", label))


async def test_names_as_most_are_stay_readable() -> None:
    """Words, spaces between them, `_`, `-` and `/` inside of them."""
    report = await run_jobs({"build linux_x86-64/static": fine})
    assert 'n0["build linux_x86-64/static<br/>success"]' in report.to_mermaid()


@pytest.mark.parametrize("name", ["a\nb", "a\r\n\x1bb", "a\u2028b", "\ud800"])
async def test_a_label_is_one_line(name: str) -> None:
    """What is not printable is escaped as in Python."""
    text = (await run_jobs({name: fine})).to_mermaid()
    assert labels(text) == [f"{ascii(name)[1:-1]}<br/>success"]
    assert len(text.splitlines()) == 4


def labels(text: str) -> list[str]:
    """What Mermaid shows in its boxes: it makes `#35;` an entity of HTML."""
    found: Sequence[str] = re.findall(r'^    n\d+\["(.*)"\]$', text, re.MULTILINE)
    return [html.unescape(re.sub(r"#(\d+);", r"&#\1;", label)) for label in found]


# Size


async def test_a_long_chain_is_drawn_without_recursion() -> None:
    """10,000 jobs, given in the order in which none of them can run."""
    names = [f"j{n}" for n in range(10_000)]
    graph = [(name, job(fine, after=names[place - 1] if place else ())) for place, name in enumerate(names)]
    report = Jobs(reversed(graph)).report
    lines = report.render().splitlines()
    assert lines[0] == "waiting  j0"
    assert lines[-2] == "waiting  j9999  after j9998"
    assert lines[-1] == "10000 jobs: 10000 waiting"
    assert report.to_mermaid().count(" --> ") == 9_999


async def test_each_job_is_read_once() -> None:
    """So its line has one state and the counts have the same, although another thread may end it meanwhile."""
    report = Jobs({"a": fine, "b": job(fine, after="a")}).report
    asked: list[str] = []

    class Counted:
        timed_out = False

        def __iter__(self) -> Any:
            return iter(report)

        def __getitem__(self, name: str, /) -> Job[Any]:
            asked.append(name)
            return report[name]

        def after(self, name: str, /) -> tuple[str, ...]:
            return report.after(name)

    drawn = Counted()
    as_text(drawn)
    assert asked == ["a", "b"]
    as_mermaid(drawn)
    assert asked == ["a", "b", "a", "b"]
