"""What the tests share: running servers, raw connections, and the search for what a server leaves behind."""

from __future__ import annotations

import base64
import functools
import gc
import io
import json
import multiprocessing
import os
import random
import re
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

from file_client_cli import Server, remote_get, remote_stats, remote_upload
from file_protocol import Connection, ProtocolError, RequestReader
from file_server import FileServer, LegacyServer, Settings, WorkerTable
from file_thread_pool import ThreadPoolServer

ROOT = Path(__file__).resolve().parent.parent
WAIT_S = 20.0  # for what must happen at some time: far more than it takes

# The content of a file, and what clients make of it: base64, the same in lines, in separately padded pieces.
BODY = bytes(range(0, 256, 2)) + b"\xff\xfe\xfb\xef"
BASE64 = base64.b64encode(BODY)
MIME = base64.encodebytes(BODY).replace(b"\n", b"\r\n").rstrip()
PIECES = b"".join(base64.b64encode(BODY[at:at + 7]) for at in range(0, len(BODY), 7))


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


def alive(pids: set[int]) -> set[int]:
    """Return those of `pids` that still run, as far as /proc tells."""
    found = set()
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            if stat.read().rpartition(")")[2].split()[0] != "Z":
                found.add(pid)
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


class ScriptedSocket:
    """Looks like a connected socket: gives the pieces of a script, one a receive (None: silence), then the end.

    What is sent to it is in `sent`, and the time-out in force at each silence, in seconds, in `waits_s`.
    """

    def __init__(self, *pieces: bytes | None) -> None:
        self._pieces = deque(piece for piece in pieces if piece != b"")  # which would be the end
        self._timeout_s = 0.0
        self.waits_s: list[float] = []
        self.sent = bytearray()

    def setblocking(self, flag: bool) -> None:
        """Nothing here waits."""

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        """Note a time-out for receiving."""
        if option == socket.SO_RCVTIMEO:
            seconds, microseconds = struct.unpack("ll", value)
            self._timeout_s = seconds + microseconds / 1e6

    def recv_into(self, view: memoryview) -> int:
        """Give as much of the next piece as fits."""
        if not self._pieces:
            return 0
        piece = self._pieces.popleft()
        if piece is None:
            self.waits_s.append(self._timeout_s)
            raise BlockingIOError  # as the kernel's time-out does
        count = min(len(view), len(piece))
        view[:count] = piece[:count]
        if count < len(piece):
            self._pieces.appendleft(piece[count:])
        return count

    def recv(self, count: int, flags: int) -> bytes:
        """Peek at the next piece."""
        if self._pieces and self._pieces[0] is not None:
            return self._pieces[0][:count]
        raise BlockingIOError

    def send(self, data: bytes) -> int:
        """Take all of it."""
        self.sent += data
        return len(data)

    def connection(self) -> Connection:
        """Return a Connection over it."""
        return Connection(cast(socket.socket, self), idle_s=9.0, total_s=60.0)


Understood = tuple[str, list[str], bytes]  # verb, parameters, body


class Talk(NamedTuple):
    """What a server would make of a script."""

    requests: list[Understood]
    refusals: list[str]
    is_cut: bool  # the server ended it: nothing more can be read
    waits_s: list[float]  # the time-out at each silence


def talk(*pieces: bytes | None) -> Talk:
    """Read requests as a server does: past refusals, until the end of the script or of what can be read."""
    sock = ScriptedSocket(*pieces)
    reader = RequestReader(sock.connection())
    requests: list[Understood] = []
    refusals: list[str] = []
    while True:
        try:
            request = reader.next()
            if request is None:
                return Talk(requests, refusals, False, sock.waits_s)
            body = b"".join(bytes(piece) for piece in request.body)
            requests.append((request.verb, request.parameters, body))
        except TimeoutError:
            return Talk(requests, [*refusals, "silence"], True, sock.waits_s)
        except ProtocolError as error:
            refusals.append(str(error))
            if error.framing_lost:
                return Talk(requests, refusals, True, sock.waits_s)


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

    def ask_all(self, sent: bytes) -> list[dict[str, Any]]:
        """Send requests before any reply is read, half-close, and return the replies up to the end."""
        return replies_in(answer_to(self.client, sent))

    def write(self, name: str, content: bytes) -> None:
        """Put a file into its folder."""
        (self.directory / name).write_bytes(content)

    def names(self) -> list[str]:
        """Return what is in its folder, hidden or not."""
        return sorted(os.listdir(self.directory))

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


def answer_to(server: Server, *pieces: bytes) -> bytes:
    """Send bytes piece by piece on a new connection, half-close it, and return all that comes back."""
    with socket.create_connection((server.host, server.port), WAIT_S) as connection:
        for piece in pieces:
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def replies_in(received: bytes) -> list[dict[str, Any]]:
    """Return the replies that a server sent on one connection; raise ValueError unless all are whole."""
    replies = []
    while received:
        text, end, received = received.partition(b"\r\n\r\n")
        reply = json.loads(text)
        if not end or reply["status"] not in ("OK", "ERROR"):
            raise ValueError(f"no whole reply: {text[-200:]!r}")
        if "data_ukuran" in reply and not reply.keys() & {"data", "data_file"}:  # of GET_RAW: the file follows
            if len(received) < reply["data_ukuran"]:
                raise ValueError("a file that is not whole")
            received = received[reply["data_ukuran"]:]
        replies.append(reply)
    return replies


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


class Relay:
    """Passes bytes between clients and a server; `spoil` may change what the server sends (None: cut)."""

    def __init__(self, port: int, spoil: Callable[[int, int, bytes], bytes | None]) -> None:
        """`spoil` gets the number of the connection, how many bytes went before, and the bytes."""
        self._target = port
        self._spoil = spoil
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        for number in range(1000):
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._relay, args=(number, client))
            self._threads.append(thread)
            thread.start()

    def _relay(self, number: int, client: socket.socket) -> None:
        seen = 0
        with client, socket.create_connection(("127.0.0.1", self._target)) as server, \
                selectors.DefaultSelector() as selector, suppress(ConnectionError):
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in selector.select():
                    source, target = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    data: bytes | None = source.recv(1 << 16)
                    if source is server and data:
                        before, seen = seen, seen + len(data)
                        data = self._spoil(number, before, data)
                    if not data:
                        return
                    target.sendall(data)

    def close(self) -> None:
        """End it, once its connections have ended."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(WAIT_S)


@functools.cache
def warm_up(mode: str) -> None:
    """Start and stop a server once: the first of a kind leaves what stays for good, as the fork server."""
    RunningServer(mode).stop()


MODES = ("legacy", "thread", "process")


def for_each_model(case: unittest.TestCase, check: Callable[[RunningServer], None], **settings: Any) -> None:
    """Run `check` with a server of each model, all at once; afterwards no descriptor may be left."""
    for mode in MODES:
        warm_up(mode)
    gc.collect()
    before = open_descriptors()

    def run(mode: str) -> None:
        running = RunningServer(mode, **settings)
        try:
            check(running)
        finally:
            running.stop()

    with ThreadPoolExecutor(len(MODES)) as pool:
        for mode, future in [(mode, pool.submit(run, mode)) for mode in MODES]:
            with case.subTest(mode=mode):
                future.result()
    gc.collect()
    wait_until(lambda: open_descriptors() == before, f"{before} descriptors before, {open_descriptors()} now")


class ServerCase(unittest.TestCase):
    """A test case with one running server for all its tests; afterwards nothing of it may be left."""

    mode = "thread"
    settings: ClassVar[dict[str, Any]] = {}
    running: ClassVar[RunningServer]
    _before: ClassVar[tuple[Any, ...]]

    @classmethod
    def setUpClass(cls) -> None:
        warm_up(cls.mode)
        gc.collect()
        cls._before = open_descriptors(), set(threading.enumerate()), set(multiprocessing.active_children())
        cls.running = RunningServer(cls.mode, **cls.settings)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.running.stop()
        del cls.running  # and what its pool still refers to
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

    def put(self, name: str, data: bytes, raw: bool = False) -> None:
        """Upload with our client; fails unless its answer is right."""
        with tempfile.TemporaryFile(buffering=0) as source:
            source.write(data)
            source.seek(0)
            transfer = remote_upload(self.running.client, source, name, raw)
        self.assertEqual((transfer.size_bytes, transfer.crc32), (len(data), zlib.crc32(data)))

    def get(self, name: str, raw: bool = False) -> bytes:
        """Download with our client; fails unless its answer is right."""
        got = io.BytesIO()
        transfer = remote_get(self.running.client, name, got.write, raw)
        data = got.getvalue()
        self.assertEqual((transfer.size_bytes, transfer.crc32), (len(data), zlib.crc32(data)))
        return data


def run_script(*arguments: object, timeout_s: float = 120.0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts to its end and return what it said."""
    command = [sys.executable, str(ROOT / str(arguments[0])), *map(str, arguments[1:])]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL,
                          **options)


class NoServer(AssertionError):
    """A server script has ended before it was ready: with this exit code, having said this."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(f"no server, exit code {code}: {said}")
        self.code = code
        self.said = said


class ServerProcess:
    """A server script in a process of its own, as run_for_test.py starts it. It serves `directory`, in `outside`."""

    def __init__(self, *arguments: object, script: str = "file_thread_pool.py", prefix: Sequence[str] = (),
                 patience_s: float = WAIT_S, **options: Any) -> None:
        """`prefix` is a command that runs the one that follows it. Raises NoServer, after `patience_s` at most."""
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
        patience = threading.Timer(patience_s, self.process.kill)
        patience.start()
        line = self.process.stdout.readline()
        patience.cancel()
        if not line:
            code, said = self.process.wait(WAIT_S), self.stderr()
            self.close()
            raise NoServer(code, said)
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
        self.process.kill()
        self.process.communicate()
        self.errors.close()
        self.folder.cleanup()
