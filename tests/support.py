"""What the tests share: running servers, raw connections, and the search for what a server leaves behind."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from file_client_cli import Server, remote_stats
from file_server import FileServer, LegacyServer, Settings, WorkerTable
from file_thread_pool import ThreadPoolServer

ROOT = Path(__file__).resolve().parent.parent
WAIT_S = 20.0  # for what must happen at some time: far more than it takes


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return once `condition` holds; fail if it does not in time. For states of other processes only."""
    give_up_at = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > give_up_at:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.01)


def open_descriptors() -> int | None:
    """Return how many descriptors this process has, or None where one cannot tell."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None


def children_of(pid: int) -> set[int]:
    """Return the living descendants of a process, as far as /proc tells."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(entry.name)] = int(fields[1])
    found: set[int] = set()
    fresh = {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


class Usage(NamedTuple):
    """What a process and its descendants have now."""

    processes: int
    threads: int
    descriptors: int
    rss_bytes: int


def usage_of(pid: int) -> Usage:
    """Return what a process and its descendants have, as /proc tells."""
    pids = {pid} | children_of(pid)
    status = "".join(Path(f"/proc/{one}/status").read_text() for one in pids)
    total = {key: sum(map(int, re.findall(rf"^{key}:\s+(\d+)", status, re.MULTILINE))) for key in ("Threads", "VmRSS")}
    descriptors = sum(len(os.listdir(f"/proc/{one}/fd")) for one in pids)
    return Usage(len(pids), total["Threads"], descriptors, total["VmRSS"] * 1024)


class RunningServer:
    """A server in this process, on a free port, with a folder of its own; its loop runs in a thread."""

    def __init__(self, mode: str, **settings: Any) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.directory = Path(self.folder.name)
        wanted = replace(Settings(self.directory, port=0, workers=3, grace_s=5.0), **settings)
        self.server: FileServer = (
            LegacyServer(wanted) if mode == "legacy" else ThreadPoolServer(wanted, mode))
        self.server.__enter__()
        self.host, self.port = self.server.address
        self.client = Server(self.host, self.port, timeout_s=WAIT_S)
        self._thread = threading.Thread(target=self.server.serve_forever, name="server")
        self._thread.start()

    def stop(self) -> None:
        """Stop it as a signal would."""
        self.server.stop()
        self._thread.join()
        self.server.__exit__(None, None, None)
        self.folder.cleanup()

    def connect(self) -> socket.socket:
        """Open a raw connection to it."""
        return socket.create_connection((self.host, self.port), WAIT_S)

    @property
    def table(self) -> WorkerTable:
        """Its counters."""
        return self.server.table

    def stats(self) -> dict[str, Any]:
        """Return its counts, from inside."""
        return self.table.stats()

    def ask(self, *pieces: bytes, end: bool = False) -> dict[str, Any]:
        """Send bytes piece by piece on a new connection, half-close it if `end`; return the one reply."""
        with self.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
            if end:
                connection.shutdown(socket.SHUT_WR)
            return read_json(connection)

    def write(self, name: str, content: bytes) -> None:
        """Put a file into its folder."""
        (self.directory / name).write_bytes(content)

    def read(self, name: str) -> bytes:
        """Return a file in its folder."""
        return (self.directory / name).read_bytes()


def read_json(connection: socket.socket) -> dict[str, Any]:
    """Read the one reply on a connection, 16 bytes at a time as the course's client does, and parse it."""
    received = bytearray()
    while not received.endswith(b"\r\n\r\n"):
        piece = connection.recv(16)
        if not piece:
            raise AssertionError(f"connection ended after {bytes(received[-200:])!r}")
        received += piece
    result = json.loads(received)
    assert isinstance(result, dict)
    return result


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the other side ends, or resets; return the last bytes."""
    last = b""
    try:
        while piece := connection.recv(1 << 20):
            last = (last + piece)[-100:]
    except ConnectionError:
        pass
    return last


class OtherServer:
    """A server that is not ours: `talk` has each connection, one after the other."""

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        self._talk = talk
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.client = Server("127.0.0.1", self.port, WAIT_S)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(ConnectionError):  # a client may leave without hearing all of it
                self._talk(connection)

    def close(self) -> None:
        """End it."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(WAIT_S)


class ServerCase(unittest.TestCase):
    """A test case with one running server for all its tests; afterwards nothing of it may be left."""

    mode = "thread"
    settings: ClassVar[dict[str, Any]] = {}
    running: ClassVar[RunningServer]
    _before: ClassVar[tuple[Any, ...]]

    @classmethod
    def setUpClass(cls) -> None:
        # The first server of a kind leaves what stays for good: shared memory's file, the fork server.
        RunningServer(cls.mode, **cls.settings).stop()
        gc.collect()
        cls._before = open_descriptors(), set(threading.enumerate()), set(multiprocessing.active_children())
        cls.running = RunningServer(cls.mode, **cls.settings)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.running.stop()
        wait_until(lambda: set(multiprocessing.active_children()) <= cls._before[2], "children left")
        wait_until(lambda: set(threading.enumerate()) <= cls._before[1], f"threads left: {threading.enumerate()}")
        gc.collect()
        wait_until(lambda: open_descriptors() == cls._before[0],
                   f"descriptors left: {cls._before[0]} before, {open_descriptors()} now")

    def setUp(self) -> None:
        wait_until(lambda: not self.running.table.shared.open, "the last test's connections are closed")
        for path in self.running.directory.iterdir():
            path.unlink()
        self.random = random.Random(self.id())


def run_script(*arguments: object, timeout_s: float = 120.0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts to its end and return what it said."""
    command = [sys.executable, str(ROOT / str(arguments[0])), *map(str, arguments[1:])]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL,
                          **options)


class ServerProcess:
    """A server script in a process of its own, as run_for_test.py starts it. It serves `directory`, in `outside`."""

    def __init__(self, *arguments: object, script: str = "file_thread_pool.py", prefix: Sequence[str] = (),
                 **options: Any) -> None:
        """`prefix` is a command that runs the one that follows it."""
        self.folder = tempfile.TemporaryDirectory()
        self.outside = Path(self.folder.name)
        self.directory = self.outside / "files"
        self.directory.mkdir()
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(ROOT / script), *map(str, arguments), "--port", "0", "--files",
             str(self.directory)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors, text=True, **options)
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            said = self.stderr()
            self.close()
            raise AssertionError(f"no server: {said}")
        self.ready = json.loads(line)
        self.client = Server(self.ready["host"], self.ready["port"], timeout_s=WAIT_S)

    def wait_until_clients_left(self) -> None:
        """Wait until the connections of all clients are closed; the one who asks has one as well."""
        def alone() -> bool:
            stats = remote_stats(self.client)
            return (stats["active"], stats["waiting"]) == (1, 0)

        wait_until(alone, "all clients left")

    def stderr(self) -> str:
        """Return what it has written to stderr."""
        self.errors.seek(0)
        return self.errors.read()

    def end(self) -> tuple[int, dict[str, Any]]:
        """Wait for its end; return the exit code and the final counts ({} if it left none)."""
        out, _ = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, json.loads(out) if out else {}

    def close(self) -> None:
        """End it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.errors.close()
        self.folder.cleanup()
