"""A graph of jobs over files, in which only that is done again whose input has changed."""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from .program import started

pytestmark = pytest.mark.real_time

site_build: Any = importlib.import_module("examples.site_build")

Run: TypeAlias = Callable[..., list[str]]

ALL = [
    "check about.html",
    "check posts/first.html",
    "check start.html",
    "make about.html",
    "make assets/logo.svg",
    "make index.html",
    "make posts/first.html",
    "make sitemap.xml",
    "make start.html",
]


@pytest.fixture
def public(tmp_path: Path) -> Path:
    return tmp_path / "public"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the program's `main()` with arguments; what it prints, by lines, if its status is as expected."""

    def main(*arguments: object, status: int = 0) -> list[str]:
        monkeypatch.setattr("sys.argv", ["site_build.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            sys.exit(site_build.main())
        assert ended.value.code == status
        captured = capsys.readouterr()
        return [*captured.out.splitlines(), *captured.err.splitlines()]

    return main


@pytest.fixture
def build(run: Run, site: Path, public: Path) -> Run:
    return functools.partial(run, "build", site, public)


@pytest.fixture
def site(tmp_path: Path, run: Run) -> Path:
    """The site that the program itself writes for a try."""
    run("new", tmp_path / "site")
    return tmp_path / "site"


def told(lines: list[str], pattern: str) -> list[str]:
    return [match[1] for line in lines if (match := re.search(pattern, line))]


def done(lines: list[str]) -> list[str]:
    """The jobs that had something to do, by name."""
    return sorted(told(lines, "^((?:make|check) .*)"))


def text(public: Path, name: str) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return (public / name).read_text()
    return None


def add(site: Path, name: str, markup: str) -> None:
    """Append to a file, which may be new."""
    with (site / name).open("a") as file:
        file.write(markup)


def test_all_is_built_the_first_time(public: Path, build: Run) -> None:
    """Pages in the template, assets, an index and a sitemap."""
    lines = build("--url", "https://here.example/")
    assert done(lines) == ALL
    start = text(public, "start.html")
    assert start is not None
    assert "<title>Start</title>" in start
    assert '<a href="posts/first.html">first post</a>, and a <img alt="logo" src="assets/logo.svg">' in start
    assert '<a href="../index.html">' in (text(public, "posts/first.html") or "")
    assert '<li><a href="posts/first.html">The first post</a></li>' in (text(public, "index.html") or "")
    assert "<loc>https://here.example/posts/first.html</loc>" in (text(public, "sitemap.xml") or "")


def test_nothing_is_done_the_second_time(build: Run) -> None:
    """No job has anything to do."""
    build()
    lines = build()
    assert lines == ["0 of 15 jobs had something to do"]


@pytest.mark.parametrize(
    ("name", "markup", "again"),
    [
        ("pages/about.md", "\nMore.\n", ["check about.html", "make about.html"]),
        ("pages/posts/first.md", "\n# Another title?\n", ["check posts/first.html", "make posts/first.html"]),
        ("assets/logo.svg", "<!-- more -->", ["make assets/logo.svg"]),
        ("template.html", "<hr>", [name for name in ALL if name not in ("make assets/logo.svg", "make sitemap.xml")]),
        ("pages/new.md", "# New\n", [*(name for name in ALL if "check" in name), "check new.html"]),
    ],
)
def test_only_what_depends_on_a_change_is_done_again(name: str, markup: str, again: list[str], site: Path, build: Run) -> None:
    """A page's own; all pages for the template; for a new page also all checks, as there is more to link to."""
    build()
    add(site, name, markup)
    if name == "pages/new.md":
        again = [*again, "make new.html", "make index.html", "make sitemap.xml"]
    assert done(build()) == sorted(again)
    assert done(build()) == []


def test_what_was_made_and_is_gone_is_made_again(public: Path, build: Run) -> None:
    """Nothing else is."""
    build()
    (public / "about.html").unlink()
    assert done(build()) == ["make about.html"]
    assert "About" in (text(public, "about.html") or "")


def test_broken_links_are_told_with_page_and_target(site: Path, public: Path, build: Run) -> None:
    """The check of the page fails, all of them are named, index and sitemap are skipped because of it; the rest is built."""
    add(site, "pages/posts/first.md", "\n[no](../nothing.html) ![no](no.png) [no](/start.html) [yes](../start.html#top)\n")
    lines = build(status=1)
    broken = told(lines, "^failed .* check posts/first.html .* SiteError: (.*)")
    assert broken == ["pages/posts/first.md links to what is not there: ../nothing.html, no.png, /start.html"]
    assert told(lines, r"^skipped +(make .*?) .* because of check posts/first\.html$") == ["make index.html", "make sitemap.xml"]
    assert lines[-1] == "15 jobs: 12 success, 1 failed, 2 skipped"
    assert text(public, "index.html") is None
    assert text(public, "posts/first.html") is not None


def test_a_broken_link_fails_until_it_is_mended(site: Path, build: Run) -> None:
    """A check that failed has not been done."""
    build()
    add(site, "pages/about.md", "\n[soon](soon.html)\n")
    build(status=1)
    assert done(build(status=1)) == []
    add(site, "pages/soon.md", "# Soon\n")
    lines = build()
    assert {"make soon.html", "check about.html", "make index.html"} <= set(done(lines))


def test_a_page_that_is_gone_is_deleted_and_missed(site: Path, public: Path, build: Run) -> None:
    """What links to it is found, though it has not changed."""
    build()
    (site / "pages/about.md").unlink()
    lines = build(status=1)
    assert told(lines, "SiteError: (.*about.html)") == ["pages/posts/first.md links to what is not there: ../about.html"]
    assert text(public, "about.html") is None


def test_a_template_that_is_not_there_is_blamed_for_all(site: Path, public: Path, build: Run) -> None:
    """All pages are skipped because of it; assets are copied."""
    (site / "template.html").unlink()
    lines = build(status=1)
    assert told(lines, "^failed .*?(hash .*?) .*FileNotFoundError") == ["hash template.html"]
    assert set(told(lines, "^skipped .* because of (.*)")) == {"hash template.html"}
    assert text(public, "assets/logo.svg") is not None


def test_a_name_that_the_template_has_and_nobody_knows_is_told(site: Path, build: Run) -> None:
    """With those that are known."""
    add(site, "template.html", "$date")
    lines = build(status=1)
    assert any("template.html can have $title" in line and "'date'" in line for line in lines)


def test_a_page_in_the_place_of_the_index_is_refused(site: Path, public: Path, build: Run) -> None:
    """Before anything is built; status 2."""
    add(site, "pages/index.md", "# Mine\n")
    lines = build(status=2)
    assert "nothing was built" in lines[-1]
    assert "'make index.html'" in lines[-1]
    assert text(public, ".built.json") is None


def test_the_graph_is_printed(public: Path, build: Run) -> None:
    """As a Mermaid flowchart, and nothing is built."""
    lines = build("--mermaid")
    assert lines[0] == "flowchart TD"
    names = {match[2]: match[1] for line in lines if (match := re.search(r'(n\d+)\["(.*?)<br/>waiting"\]', line))}
    assert len(names) == 15
    assert f"    {names['hash template#46;html']} --> {names['make about#46;html']}" in lines
    assert f"    {names['check start#46;html']} --> {names['make sitemap#46;xml']}" in lines
    assert text(public, ".built.json") is None


def test_progress_is_not_in_the_way_without_a_terminal(build: Run) -> None:
    """What is printed is the same."""
    pytest.importorskip("rich")
    assert done(build("--progress")) == ALL


async def test_it_is_a_program(tmp_path: Path, public: Path) -> None:
    """With arguments, lines that are whole though threads do the work, and a status."""
    site = tmp_path / "site"
    async with started("site_build.py", "new", site) as program:
        assert await program.end() == 0
    async with started("site_build.py", "build", site, public) as program:
        assert await program.end() == 0
    assert sorted(program.lines) == ["9 of 15 jobs had something to do", *ALL]
    add(site, "pages/about.md", "[no](nothing.html)")
    async with started("site_build.py", "build", site, public) as program:
        assert await program.end() == 1
