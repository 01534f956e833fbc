"""Every code block of the README and of the documentation runs, and prints what the page shows.

The blocks of a page run in order, in one process and one folder that is empty at first. The kind of a fence says what
happens to it:

* with `title="NAME"`: a file of that name is written.
* `python`: the code runs.
* `console`: each line that begins with `$ ` runs. The other lines are what it prints. If there are none, it may print
  anything. It must exit with 0, unless a line that is shown begins with "hybridsearch: ".
* `text` or `json` right after one of these: what it prints.
* `sh`: commands that install, start or fetch something. They do not run here.

A path between two lines `--8<--` stands for the file of the repository that is there.

`...` in an output stands for any text. Models come from folders under their names on the hub. A page that names a
server (`localhost:9200` OpenSearch, `localhost:9201` Elasticsearch, `localhost:6333` Qdrant) uses the server of the
tests, and skips if there is none. A page that asks `127.0.0.1:8000/v1` gets a service of the collection `helpdesk`. A
page that speaks of the collection `examples/helpdesk` finds it
in its folder, under this name and as `helpdesk`.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import pytest
from servers import address_of, call, server_of
from warm import Warm

import hybridsearch as hs

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HAVE_OWN_TESTS: Final = {"processes.md"}
FENCE: Final = re.compile(r"^```(?P<kind>\w+)(?P<options>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPET: Final = re.compile(r"^--8<--\n(.+)\n--8<--\n", re.MULTILINE)
TITLE: Final = re.compile(r'title="([^"]+)"')
SETS_UP: Final = re.compile(
    r"(\$ )?(pip|make|hybridsearch serve|docker|git|cd|python3? -m (venv|pip)|source|\. |export|eval|cp|#|$"
    r"|ray start|hybridsearch index .* --cluster )"
)
SERVERS: Final = {"localhost:9200": "opensearch", "localhost:9201": "elasticsearch", "localhost:6333": "qdrant"}
SERVICE: Final = "127.0.0.1:8000"
MARK: Final = "\x1e"
PRELUDE: Final = f"""\
import subprocess as _subprocess
def _console(command):
    done = _subprocess.run(["bash", "-c", command], stdout=_subprocess.PIPE, stderr=_subprocess.STDOUT, text=True)
    print(done.stdout, end="")
    print(f"{MARK}exit {{done.returncode}}")
"""


@dataclass
class Block:
    """One fence of a page, with the output that the page shows for it."""

    kind: str
    title: str | None
    body: str
    line: int
    shown: str | None = None

    def commands(self) -> Iterator[tuple[str, str | None]]:
        """The commands of a `console` block, each with the output that is shown."""
        for part in re.split(r"^\$ ", self.body, flags=re.MULTILINE)[1:]:
            command, _, output = re.sub(r"\\\n\s*", "", part).partition("\n")
            yield command, output if output.strip() else None


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    text = SNIPPET.sub(lambda match: (ROOT / match[1]).read_text(encoding="utf-8"), text)
    found: list[Block] = []
    end = 0
    for match in FENCE.finditer(text):
        title = TITLE.search(match["options"])
        if found and match["kind"] in ("text", "json") and title is None and not text[end : match.start()].strip():
            found[-1].shown = match["body"]
        else:
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(match["kind"], title[1] if title else None, match["body"], line))
        end = match.end()
    return found


def program_of(blocks: list[Block]) -> tuple[str, list[tuple[str, str | None]]]:
    """Python code that runs the blocks, and for each part of what it prints where it is from and what is shown."""
    code, expected = [PRELUDE], list[tuple[str, str | None]]()
    for block in blocks:
        where = f"the block at line {block.line}"
        if block.title is not None:
            code.append(
                f"from pathlib import Path as _Path\n_Path({block.title!r}).parent.mkdir(parents=True, exist_ok=True)\n"
                f"_Path({block.title!r}).write_text({block.body!r}, encoding='utf-8')"
            )
        elif block.kind == "python":
            code.append(block.body)
        elif block.kind == "console":
            *before, last = block.commands()
            for command, shown in [*before, (last[0], block.shown or last[1])]:
                code.append(f"_console({command!r})")
                expected.append((f"`{command}` in {where}", shown))
                code.append(f"print({MARK + MARK!r}, flush=True)")
            continue
        elif block.kind == "sh":
            continue
        else:
            pytest.fail(f"{where} is of a kind that this test does not know: {block.kind}")
        expected.append((where, block.shown))
        code.append(f"print({MARK + MARK!r}, flush=True)")
    return "\n".join(code), expected


def same(printed: str, shown: str) -> bool:
    """Whether an output is the one that a page shows, where `...` stands for any text."""
    pattern = ".*".join(re.escape(part) for part in "\n".join(trimmed(shown)).split("..."))
    return re.fullmatch(pattern, "\n".join(trimmed(printed)), re.DOTALL) is not None


def trimmed(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]


@pytest.fixture
def addresses(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The addresses of servers that the page names, with those of the tests. Indexes of the page are deleted."""
    text = request.param.read_text(encoding="utf-8")
    named = {name: engine for name, engine in SERVERS.items() if name in text}
    found = {name: server_of(engine).partition("://")[2] for name, engine in named.items()}
    indexes = {
        name: set(re.findall(rf"{name}/([a-z][\w-]*)", text)) | set(re.findall(r"publish \S+ ([a-z][\w-]*)", text))
        for name in named
        if named[name] != "qdrant"
    }
    for name, wanted in indexes.items():
        there = set(call(address_of(f"{named[name]}://{found[name]}/x"), "GET", "/_aliases"))
        assert not there & wanted, f"the test server has {there & wanted} already: delete them first"
    if f"{SERVICE}/v1" in text:
        found[SERVICE] = request.getfixturevalue("service")
    yield found
    for name, wanted in indexes.items():
        address = address_of(f"{named[name]}://{found[name]}/x")
        for index, aliases in call(address, "GET", "/_aliases").items():
            if index in wanted or wanted & set(aliases["aliases"]):
                call(address, "DELETE", f"/{index}", allowed=(404,))


@pytest.fixture
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service of the collection `helpdesk`, to which clients may write."""
    pytest.importorskip("fastapi", reason="pip install 'hybridsearch[serve]'")
    folder = str(tmp_path_factory.mktemp("service") / "helpdesk")
    with hs.HybridSearch({"bm25": hs.BM25()}, folder) as search:
        search.index(ROOT / "examples" / "helpdesk", show_progress_bar=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    program = str(Path(sys.executable).with_name("hybridsearch"))
    process = subprocess.Popen(
        [program, "serve", folder, "--allow-write", "--port", address.partition(":")[2]], stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            with suppress(OSError), urlopen(f"http://{address}/ready") as answer:
                if answer.status == 200:
                    break
            time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("page", "addresses"),
    [pytest.param(page, page, id=str(page.relative_to(ROOT))) for page in PAGES if page.name not in HAVE_OWN_TESTS],
    indirect=["addresses"],
)
def test_the_blocks_of_a_page_run_and_print_what_it_shows(
    page: Path,
    addresses: dict[str, str],
    hub: dict[str, str],
    warm: Warm,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    blocks = blocks_of(page)
    if not [block for block in blocks if block.kind in ("python", "console")]:
        return
    if "naver/splade-v3" in page.read_text(encoding="utf-8"):
        request.getfixturevalue("splade")  # skips without it
    if "helpdesk" in page.read_text(encoding="utf-8"):
        for name in ("helpdesk", "examples/helpdesk"):
            shutil.copytree(ROOT / "examples" / "helpdesk", tmp_path / name)
    code, expected = program_of(blocks)
    for name, address in addresses.items():
        code = code.replace(name, address)
    path = f"{warm.folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    script = tmp_path.parent / f"{tmp_path.name}.py"
    script.write_text(code, encoding="utf-8")

    ours = {"COLUMNS": "100", "PATH": path, "PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment = outside | hub | ours
    done = warm.run(script, cwd=tmp_path, env=environment)

    printed = done.stdout
    for name, address in addresses.items():
        printed = printed.replace(address, name)
    parts = printed.split(f"{MARK}{MARK}\n")
    for (where, shown), part in zip(expected, parts, strict=False):
        output, _, code_of_exit = part.partition(f"{MARK}exit ")
        if shown is not None:
            assert same(output, shown), f"{page.name}, {where}, printed:\n{output}"
        if code_of_exit.strip() not in ("", "0"):
            assert re.search(r"^hybridsearch: ", shown or "", re.MULTILINE), f"{page.name}, {where}:\n{output}"
    assert done.returncode == 0, f"{page.name}, after {expected[len(parts) - 1][0]}:\n{parts[-1]}"
    assert len(parts) == len(expected) + 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_block_of_a_page_escapes_the_test(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = blocks_of(page)
    shown = sum(block.shown is not None for block in blocks)
    assert len(re.findall("^ *```", text, re.MULTILINE)) == 2 * (len(blocks) + shown), "a fence that is indented"
    for block in blocks:
        if block.kind == "sh" and block.title is None:
            stray = [line for line in re.sub(r"\\\n", "", block.body).splitlines() if not SETS_UP.match(line)]
            assert stray == [], f"{page.name}, line {block.line}: `sh` is for commands that set something up"


def test_every_public_name_is_in_the_reference() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    shown = set(re.findall(r"^::: hybridsearch\.([\w.]+)$", pages, re.MULTILINE))
    homes = {name: getattr(hs, name).__module__ for name in hs.__all__ if name != "__version__"}
    missing = {n for n, home in homes.items() if n not in shown and home.removeprefix("hybridsearch.") not in shown}
    assert missing == set()
