"""Starts nodes for tests that kill, freeze and fill them, with the script that SEARCH_SERVERS names.

The script is a Python file that can be imported, with

* `start(engine, nodes, secure, heap)`, which starts nodes with empty data and returns when they answer,
* `pids(name)`, the process id of each running node by its number as text; `name` is the name of the engine, followed by
  "-secure" for nodes with TLS and passwords,
* `unpack(part)` and `java_home(engine)`, the folders of programs, and `command(engine, base, java, run, heap)`, the
  arguments and the environment that start a node whose files are in the folder `run`,
* HOME, below which each node has the folder `run/<name>/<number>`; PORTS, the first port by name; USER, who runs nodes,
  or None; PASSWORD, of the users "elastic" and "reader" of secure nodes.

It is imported under another name, with another HOME and other PORTS, so that other nodes are not touched.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import pwd
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

VARIABLE = "SEARCH_SERVERS"
HEAP = "512m"
PATIENCE = 120  # seconds for a node to answer

Command = Callable[..., tuple[list[str], dict[str, str]]]


class Nodes:
    """A running cluster of one node or several, numbered from 1."""

    def __init__(self, script: ModuleType, engine: str, secure: bool) -> None:
        self.engine, self.secure = engine, secure
        self._script = script
        self._name = f"{engine}-secure" if secure else engine
        self.folder = Path(script.HOME) / "run" / self._name
        self.numbers = sorted(int(number) for number in script.pids(self._name))
        self.hosts = [f"{'localhost' if secure else '127.0.0.1'}:{self._port + n - 1}" for n in self.numbers]

    def location(self, index: str, **userinfo: str) -> str:
        """The URL of an index that names all nodes; `user` and `password` are put into it."""
        scheme = f"{self.engine}+https" if self.secure else self.engine
        who = f"{userinfo['user']}:{userinfo['password']}@" if userinfo else ""
        return f"{scheme}://{who}{','.join(self.hosts)}/{index}"

    @property
    def password(self) -> str:
        return str(self._script.PASSWORD)

    @property
    def ca_file(self) -> Path:
        return self.folder / "1" / "config" / "ca.crt"

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of a backend that may do everything on these nodes."""
        return {"user": "elastic", "password": self.password, "ca_file": self.ca_file} if self.secure else {}

    def ask(self, method: str, path: str, body: Any = None, number: int = 1) -> Any:
        """The answer of one node to a request, which uses the standard library only."""
        url = f"{'https' if self.secure else 'http'}://{self.hosts[number - 1]}{path}"
        request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), method=method)  # noqa: S310
        request.add_header("Content-Type", "application/json")
        if self.secure:
            pair = b64encode(f"elastic:{self.password}".encode()).decode()
            request.add_header("Authorization", f"Basic {pair}")
        context = ssl.create_default_context(cafile=str(self.ca_file)) if self.secure else None
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
            raise

    def grant(self, role: str, user: str) -> None:
        """Give a user one of the roles of Elasticsearch. The node notices it some seconds later."""
        with (self.folder / "1" / "config" / "users_roles").open("a") as roles:
            roles.write(f"{role}:{user}\n")

    def kill(self, number: int = 1) -> None:
        """Kill a node without warning, like a power cut."""
        pid = self._running(number)
        os.killpg(pid, signal.SIGKILL)
        while str(number) in self._script.pids(self._name):
            time.sleep(0.02)

    def freeze(self, number: int = 1) -> None:
        """Freeze a node: its connections stay open, and it does not answer."""
        os.killpg(self._running(number), signal.SIGSTOP)

    def thaw(self, number: int = 1) -> None:
        os.killpg(self._running(number), signal.SIGCONT)

    def restart(self, number: int = 1) -> None:
        """Start a killed node with its old data. Returns when all nodes answer."""
        script, run = self._script, self.folder / str(number)
        argv, env = script.command(self.engine, script.unpack(self.engine), script.java_home(self.engine), run, HEAP)
        user = {} if script.USER is None else {"user": script.USER, "extra_groups": []}
        group = {} if script.USER is None else {"group": pwd.getpwnam(script.USER).pw_gid}
        with (run / "logs" / "console.log").open("ab") as log, _careless():
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=run, env=env,
                **user, **group,
            )  # fmt: skip
            (run / "pid").write_text(str(process.pid))
            del process
        self.wait(len(self.numbers), number=number)

    def wait(self, nodes: int, status: str = "yellow", number: int = 1) -> None:
        """Wait for this number of nodes in the cluster, and for all shards ("yellow") and replicas ("green")."""
        deadline = time.monotonic() + PATIENCE
        health: Any = None
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, urllib.error.URLError, ValueError):
                health = self.ask("GET", "/_cluster/health", number=number)
                if health["number_of_nodes"] == nodes and health["status"] in (status, "green"):
                    return
            time.sleep(0.2)
        log = self.folder / str(number) / "logs" / "console.log"
        pytest.fail(f"no cluster of {nodes} nodes: {health}\n{log.read_text()[-2000:]}")

    def end(self) -> None:
        """Kill all nodes, because nobody needs the data."""
        for pid in self._script.pids(self._name).values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        while self._script.pids(self._name):
            time.sleep(0.02)

    @property
    def _port(self) -> int:
        return int(self._script.PORTS[self._name])

    def _running(self, number: int) -> int:
        return int(self._script.pids(self._name)[str(number)])


@contextlib.contextmanager
def start_nodes(engine: str, nodes: int = 1, *, secure: bool = False) -> Iterator[Nodes]:
    """New nodes, which end with the block. Skips the test if there is no script."""
    path = os.environ.get(VARIABLE, "")
    if not Path(path).is_file():
        pytest.skip(f"no nodes to kill: set {VARIABLE} to a script that starts some, as tests/adapters/nodes.py says")
    script = _load(Path(path))
    programs, java = script.unpack(engine), script.java_home(engine)
    home = Path(tempfile.mkdtemp(prefix="own-", dir=script.HOME))
    home.chmod(0o755)  # nodes may run as another user
    script.HOME = home
    script.unpack, script.java_home = lambda part: programs, lambda part: java
    script.command = _quickly(script.command)
    name = f"{engine}-secure" if secure else engine
    script.PORTS = {name: _free_port(nodes)}
    try:
        with _careless():
            try:
                script.start(engine, nodes, secure, HEAP)
            except SystemExit as error:
                pytest.fail(str(error))
        yield Nodes(script, engine, secure)
    finally:
        with _careless():
            Nodes(script, engine, secure).end()
        shutil.rmtree(home, ignore_errors=True)


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("own_search_servers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _quickly(command: Command) -> Command:
    """Start Java without its second compiler, which takes nearly half of the processor time of a short-lived node."""

    def quick(*arguments: Any) -> tuple[list[str], dict[str, str]]:
        argv, env = command(*arguments)
        name = "ES_JAVA_OPTS" if "ES_JAVA_OPTS" in env else "JDK_JAVA_OPTIONS"
        return argv, env | {name: f"{env.get(name, '')} -XX:TieredStopAtLevel=1"}

    return quick


def _free_port(nodes: int) -> int:
    """The first of some free ports in a row. The ports 100 above are free too, for connections between nodes."""
    while True:
        first = random.randrange(20_000, 30_000)
        with contextlib.ExitStack() as taken, contextlib.suppress(OSError):
            for port in (first + far + n for far in (0, 100) for n in range(nodes)):
                taken.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


@contextlib.contextmanager
def _careless() -> Iterator[None]:
    """Ignore the warnings of Python about forgotten processes, and about answers and sockets that stay open.

    Processes are known by their ids here. If a connection is reset before its TLS handshake, as by a killed node, the
    module `ssl` leaves the socket open.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            yield
        finally:
            gc.collect()
