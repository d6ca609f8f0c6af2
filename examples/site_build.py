"""Build a small web site: a graph of jobs over files, in which only that is done again whose input has changed.

    python site_build.py new site              write a site of three pages, for a try
    python site_build.py build site public     build it; the second time there is nothing to do
    python site_build.py build site public --mermaid

The last prints the graph and does nothing. A site is `template.html`, `pages/**/*.md` and `assets/**`. The jobs:

    hash FILE                 reads a file of the site
    make PAGE.html            after the hashes of its page and of the template
    make assets/FILE          after its hash
    targets                   after all these: to what can be linked; what has no source any more is deleted
    check PAGE.html           after the targets: whether all is there that the page links to
    make index.html           after all checks, and so is sitemap.xml

What fails is told with all that is skipped because of it; the rest is built, and the status is 1. From which input things were
made is kept in `public/.built.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import html
import json
import posixpath
import re
import string
import sys
from collections.abc import Callable, Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import TypeVarTuple, Unpack
from urllib.parse import urlsplit

import attrs
import trio

import grouper
from grouper import work

Ts = TypeVarTuple("Ts")

EXAMPLE = {
    "template.html": '<!doctype html>\n<title>$title</title>\n<a href="${root}index.html">All pages</a>\n$body\n',
    "pages/start.md": "# Start\n\nThere is a [first post](posts/first.html), and a ![logo](assets/logo.svg).\n",
    "pages/about.md": "# About\n\nThis site is *small*. Back to the [start](start.html).\n",
    "pages/posts/first.md": "# The first post\n\n- See [about](../about.html).\n- See [Python](https://www.python.org/).\n",
    "assets/logo.svg": '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 2"><circle cx="1" cy="1" r="1"/></svg>\n',
}


class SiteError(Exception):
    """Something is wrong with the site; the text says what."""


def to_html(text: str) -> str:
    """Make HTML of the markup: headings, lists and paragraphs; in them links, images and emphasis."""
    parts: list[str] = []
    for block in re.split(r"\n\s*\n", html.escape(text.strip())):
        block = re.sub(r"!\[(.*?)\]\((.*?)\)", r'<img alt="\1" src="\2">', block)
        block = re.sub(r"\[(.*?)\]\((.*?)\)", r'<a href="\2">\1</a>', block)
        block = re.sub(r"\*(\S.*?)\*", r"<em>\1</em>", block)
        lines = block.splitlines()
        if heading := re.fullmatch("(#{1,6}) (.*)", block):
            parts.append(f"<h{len(heading[1])}>{heading[2]}</h{len(heading[1])}>")
        elif all(line.startswith("- ") for line in lines):
            parts.append("\n".join(["<ul>", *(f"<li>{line[2:]}</li>" for line in lines), "</ul>"]))
        else:
            parts.append(f"<p>{block}</p>")
    return "\n".join(parts)


class Links(HTMLParser):
    """What a page links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("href", "src") and value]


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def made_of(file: str) -> str:
    """What is made of a file of the site."""
    return file.removeprefix("pages/").removesuffix(".md") + ".html" if file.startswith("pages/") else file


async def in_thread(name: str, fn: Callable[[Unpack[Ts]], bool], *args: *Ts) -> bool:
    """Do a job's work in a thread, and tell if there was any."""
    is_done = await trio.to_thread.run_sync(fn, *args)
    if is_done:
        print(name, flush=True)
    return is_done


@attrs.define(eq=False)
class Site:
    """A site, and where it is built. Jobs leave here what those after them need."""

    source: Path
    public: Path
    url: str
    built: dict[str, str] = attrs.field(factory=dict[str, str], init=False)
    """By the name of a job the digest of what it was last done from."""
    contents: dict[str, bytes] = attrs.field(factory=dict[str, bytes], init=False)
    hashes: dict[str, str] = attrs.field(factory=dict[str, str], init=False)
    targets: list[str] = attrs.field(factory=list[str], init=False)

    def graph(self) -> list[tuple[str, work.JobSpec[bool]]]:
        """The jobs of a build. The value of each is whether there was something to do."""
        found = [*self.source.glob("pages/**/*.md"), *self.source.glob("assets/**/*")]
        files = sorted(path.relative_to(self.source).as_posix() for path in found if path.is_file())
        pages = [file for file in files if file.startswith("pages/")]
        makes = [f"make {made_of(file)}" for file in files]
        checks = [f"check {made_of(page)}" for page in pages]
        graph: list[tuple[str, work.JobSpec[bool]]] = []

        def add(name: str, fn: Callable[[Unpack[Ts]], bool], *args: *Ts, after: Iterable[str] = ()) -> None:
            graph.append((name, work.job(in_thread, name, functools.partial(fn, *args), after=after)))

        for file in ["template.html", *files]:
            add(f"hash {file}", self.hash, file)
        for file, name in zip(files, makes, strict=True):
            if file in pages:
                add(name, self.render, name, file, after=["hash template.html", f"hash {file}"])
            else:
                add(name, self.copy, name, file, after=[f"hash {file}"])
        add("targets", self.find_targets, files, after=makes)
        for page, name in zip(pages, checks, strict=True):
            add(name, self.check, name, page, after=["targets"])
        for name, fn in [("make index.html", self.index), ("make sitemap.xml", self.sitemap)]:
            add(name, fn, name, pages, after=checks)
        return graph

    def hash(self, file: str) -> bool:
        self.contents[file] = (self.source / file).read_bytes()
        self.hashes[file] = digest(self.contents[file])
        return False

    def render(self, job: str, page: str) -> bool:
        given = [self.hashes[page], self.hashes["template.html"]]
        return self._once(job, given, lambda: self._page(self.title(page), to_html(self.contents[page].decode()), page))

    def copy(self, job: str, asset: str) -> bool:
        return self._once(job, self.hashes[asset], lambda: self.contents[asset])

    def find_targets(self, files: list[str]) -> bool:
        self.targets = ["index.html", "sitemap.xml", *map(made_of, files)]
        gone = [job for job in self.built if job.partition(" ")[2] not in self.targets]
        for job in gone:
            del self.built[job]
            if job.startswith("make "):
                (self.public / job.removeprefix("make ")).unlink(missing_ok=True)
        return bool(gone)

    def check(self, job: str, page: str) -> bool:
        """Raises: SiteError with all links of a page that lead nowhere; other hosts are not asked."""

        def find_broken() -> None:
            here = made_of(page)
            links = map(urlsplit, Links((self.public / here).read_bytes().decode()).found)
            near = [link.path for link in links if not link.scheme and not link.netloc and link.path]
            folder = posixpath.dirname(here)
            broken = [path for path in near if posixpath.normpath(posixpath.join(folder, path)) not in self.targets]
            if broken:
                raise SiteError(f"{page} links to what is not there: {', '.join(broken)}")

        return self._once(job, [self.built[f"make {made_of(page)}"], self.targets], find_broken)

    def index(self, job: str, pages: list[str]) -> bool:
        titles = {made_of(page): self.title(page) for page in pages}
        items = [f'<li><a href="{html.escape(file)}">{html.escape(title)}</a></li>' for file, title in titles.items()]
        body = "\n".join(["<h1>All pages</h1>", "<ul>", *items, "</ul>"])
        return self._once(job, [titles, self.hashes["template.html"]], lambda: self._page("All pages", body))

    def sitemap(self, job: str, pages: list[str]) -> bool:
        urls = [f"  <url><loc>{html.escape(self.url + made_of(page))}</loc></url>" for page in pages]
        lines = ['<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">', *urls, "</urlset>\n"]
        return self._once(job, urls, lambda: "\n".join(lines).encode())

    def title(self, page: str) -> str:
        found = re.search("^# (.*)", self.contents[page].decode(), re.MULTILINE)
        return found[1].strip() if found else Path(page).stem

    def _page(self, title: str, body: str, page: str = "pages/") -> bytes:
        template = string.Template(self.contents["template.html"].decode())
        try:
            text = template.substitute(title=html.escape(title), body=body, root="../" * (page.count("/") - 1))
        except (KeyError, ValueError) as error:
            raise SiteError(f"template.html can have $title, $body and $root, and $$ for a dollar, but: {error}") from None
        return text.encode()

    def _once(self, job: str, given: object, do: Callable[[], bytes | None]) -> bool:
        """Do a job, unless it was done before from the same; what it makes is written as a whole, or not at all."""
        path = self.public / job.removeprefix("make ")
        if self.built.get(job) == digest(given) and (path.exists() or job.startswith("check ")):
            return False
        made = do()
        if made is not None:
            write(path, made)
        self.built[job] = digest(given)
        return True


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.replace(path)


async def build(jobs: work.Jobs, progress: bool) -> work.Report:
    shown: contextlib.AbstractAsyncContextManager[None] = contextlib.nullcontext()
    if progress:
        from grouper.cli.progress import show_progress

        shown = show_progress(jobs.report)
    async with shown:
        return await jobs.execute()


def main() -> int:
    parser = argparse.ArgumentParser(description="Build a small web site, and of it what has changed.")
    commands = parser.add_subparsers(dest="command", required=True)
    creating = commands.add_parser("new", help="write a site for a try")
    creating.add_argument("site", type=Path)
    building = commands.add_parser("build", help="build a site")
    building.add_argument("site", type=Path)
    building.add_argument("public", type=Path, help="the folder to build it in; it is made if it is not there")
    building.add_argument("--url", default="https://example.com/", help="where the site will be (default: %(default)s)")
    building.add_argument("--limit", type=int, default=8, help="how many files at a time (default: %(default)s)")
    building.add_argument("--mermaid", action="store_true", help="print the graph and build nothing")
    building.add_argument("--progress", action="store_true", help="show a bar meanwhile, in a terminal; needs trio-grouper[cli]")
    options = parser.parse_args()
    if options.command == "new":
        for name, text in EXAMPLE.items():
            write(options.site / name, text.encode())
        return 0
    if not options.site.is_dir():
        parser.error(f"{options.site} is not a directory: {parser.prog} new {options.site} makes one")
    site = Site(options.site, options.public, options.url)
    try:
        jobs = work.Jobs(site.graph(), limit=options.limit, on_error="continue")
    except grouper.DuplicateNames as error:
        parser.error(f"nothing was built: {error}")
    if options.mermaid:
        print(jobs.report.to_mermaid(), end="")
        return 0
    record = options.public / ".built.json"
    with contextlib.suppress(FileNotFoundError, ValueError):  # without it all is built
        site.built = json.loads(record.read_bytes())
    try:
        report = trio.run(build, jobs, options.progress)
    finally:  # also of a build that was interrupted
        write(record, json.dumps(site.built, indent=1).encode())
    if not report.ok:
        print(report.render())
        return 1
    print(f"{sum(bool(job.value) for job in report.values())} of {len(report)} jobs had something to do")
    return 0


if __name__ == "__main__":
    sys.exit(main())
