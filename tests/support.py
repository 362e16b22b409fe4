"""What the tests share: running servers, raw connections, and the search for what a server leaves behind."""

from __future__ import annotations

import base64
import functools
import gc
import itertools
import json
import mmap
import multiprocessing
import operator
import os
import random
import select
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

from file_client_cli import Server, remote_stats
from file_protocol import END, BadCommand, Connection, ProtocolError, RequestReader
from file_server import FileServer, LegacyServer, Settings
from file_thread_pool import ThreadPoolServer

ROOT = Path(__file__).resolve().parent.parent
SLOW = os.environ.get("TESTS_SLOW") == "1"
WAIT_S = 20.0  # for what must happen at some time: far more than it takes


def upload_request(rng: random.Random, name: bytes, content: bytes) -> bytes:
    """Return an upload in one of the forms that clients send; without its last 5 bytes it is not whole."""
    text = base64.b64encode(content) or b'""'
    step = max(7, len(content) // 50)
    padded = b"".join(base64.b64encode(content[at:at + step]) for at in range(0, len(content), step)) or b'""'
    wrapped = base64.encodebytes(content).replace(b"\n", rng.choice((b"\n", b"\r\n"))).rstrip() or b'""'
    upload = b"Upload " + name
    return rng.choice((
        upload + b" " + text + END, upload + b"\n" + text + END, upload + b" \r\n" + padded + END,
        upload + b" " + wrapped + END, upload + b' "' + text.strip(b'"') + b'"',
        b"UPLOAD_RAW %s %d" % (name, len(content)) + END + content))


def wait_until(condition: Callable[[], object], what: str | Callable[[], str]) -> None:
    """Return once `condition` holds; fail if it does not in time. For states of other processes only."""
    give_up_at = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > give_up_at:
            raise AssertionError(f"waited in vain: {what() if callable(what) else what}")
        time.sleep(0.01)


def parents() -> dict[int, int]:
    """Return the parent of each living process, as far as /proc tells."""
    found = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):  # it has just ended
            text = Path("/proc", name, "stat").read_text(errors="replace")
            state, parent = text.rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(name)] = int(parent)
    return found


def children_of(pid: int) -> set[int]:
    """Return the living descendants of a process, as far as /proc tells."""
    all_parents, found = parents(), {pid}
    while fresh := {child for child, parent in all_parents.items() if parent in found} - found:
        found |= fresh
    return found - {pid}


def alive(pids: set[int]) -> set[int]:
    """Return those of `pids` that still run, as far as /proc tells."""
    return pids & parents().keys()


def usage_of(pid: int) -> tuple[int, int, int, int]:
    """Return the processes, threads, descriptors and resident bytes of a process and its descendants."""
    pids = {pid} | children_of(pid)
    threads = sum(len(os.listdir(f"/proc/{one}/task")) for one in pids)
    descriptors = sum(len(os.listdir(f"/proc/{one}/fd")) for one in pids)
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in pids)
    return len(pids), threads, descriptors, pages * mmap.PAGESIZE


class ScriptedSocket:
    """Looks like a connected socket: gives pieces, one a receive (None: silence), and then the end.

    The time-out in force at each silence, in seconds, is in `waits_s`.
    """

    def __init__(self, *pieces: bytes | None) -> None:
        self._pieces = deque(piece for piece in pieces if piece != b"")  # which would be the end
        self._timeout_s = 0.0
        self.waits_s: list[float] = []

    def setblocking(self, flag: bool) -> None:
        """Nothing here waits."""

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        """Note a time-out: both directions have the same."""
        if option == socket.SO_RCVTIMEO:
            seconds, microseconds = struct.unpack("ll", value)
            self._timeout_s = seconds + microseconds / 1e6

    def recv_into(self, view: memoryview) -> int:
        """Give as much of the next piece as fits."""
        piece = self._pieces.popleft() if self._pieces else b""
        if piece is None:
            self.waits_s.append(self._timeout_s)
            raise BlockingIOError  # as the kernel's time-out does
        count = min(len(view), len(piece))
        view[:count] = piece[:count]
        if count < len(piece):
            self._pieces.appendleft(piece[count:])
        return count

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
        except BadCommand as error:
            refusals.append(str(error))
        except ProtocolError as error:
            return Talk(requests, [*refusals, str(error)], True, sock.waits_s)


class RunningServer:
    """A server in this process, on a free port, with a folder of its own; its loop runs in a thread."""

    def __init__(self, mode: str, **settings: Any) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.directory = Path(self._folder.name)
        wanted = replace(Settings(self.directory, port=0, workers=3, grace_s=5.0), **settings)
        self.server: FileServer = LegacyServer(wanted) if mode == "legacy" else ThreadPoolServer(wanted, mode)
        self.server.__enter__()
        self.table = self.server.table
        self.stats = self.table.stats  # from inside: it counts no request
        self.host, self.port = self.server.address
        self.client = Server(self.host, self.port, timeout_s=WAIT_S)
        self._thread = threading.Thread(target=self.server.serve_forever, name="server")
        self._thread.start()

    def close(self) -> None:
        """Stop it as a signal would."""
        self.server.stop()
        self._thread.join(WAIT_S)
        self.server.__exit__(None, None, None)
        del self.server  # and with it the descriptors that its pool still refers to
        self._folder.cleanup()

    def connect(self) -> socket.socket:
        """Open a raw connection to it."""
        return socket.create_connection((self.host, self.port), WAIT_S)

    def ask(self, *pieces: bytes) -> dict[str, Any]:
        """Send bytes piece by piece on a new connection, and return the one reply."""
        with self.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
            return read_json(connection)

    def names(self) -> list[str]:
        """Return what is in its folder, hidden or not."""
        return sorted(os.listdir(self.directory))


def read_json(connection: socket.socket) -> dict[str, Any]:
    """Read the one reply on a connection, 16 bytes at a time as the course's client does, and parse it."""
    received = b""
    while not received.endswith(END):
        piece = connection.recv(16)
        assert piece, f"connection ended after {received[-200:]!r}"
        received += piece
    reply: dict[str, Any] = json.loads(received)
    return reply


def ask_all(server: Server, *pieces: bytes) -> list[dict[str, Any]]:
    """Send requests piece by piece on a new connection, half-close it, and return the replies up to the end.

    `data_file` is decoded, or what follows a reply to GET_RAW. Raises ValueError unless all are whole.
    """
    with socket.create_connection((server.host, server.port), WAIT_S) as connection:
        for piece in pieces:
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    replies = []
    while received:
        text, end, received = received.partition(END)
        reply = json.loads(text)
        if not end or reply["status"] not in ("OK", "ERROR"):
            raise ValueError(f"no whole reply: {text[-200:]!r}")
        if "data_file" in reply:
            reply["data_file"] = base64.b64decode(reply["data_file"], validate=True)
        elif "data_ukuran" in reply and "data" not in reply:  # of GET_RAW: the file follows
            reply["data_file"], received = received[:reply["data_ukuran"]], received[reply["data_ukuran"]:]
        if "data_file" in reply and len(reply["data_file"]) != reply["data_ukuran"]:
            raise ValueError(f"a file that is not whole: {text[:200]!r}")
        replies.append(reply)
    return replies


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the other side ends, or resets; return the last bytes."""
    last = b""
    with suppress(ConnectionError):
        while piece := connection.recv(1 << 20):
            last = (last + piece)[-100:]
    return last


class OtherServer(socketserver.ThreadingTCPServer):
    """A server that is not ours: `talk` has each connection, in a thread of its own."""

    request_queue_size = 100

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self._talk = talk
        self.port: int = self.server_address[1]
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Let it talk; no wait is for ever."""
        request.settimeout(WAIT_S)
        with suppress(OSError):  # a client may leave without hearing all of it
            self._talk(request)

    def close(self) -> None:
        """End it, once its connections have ended."""
        self.shutdown()
        self._thread.join(WAIT_S)
        self.server_close()


class CourseServer(OtherServer):
    """Answers as the course's server, with these habits of students' servers, or with what `reply` returns:
    fields (and an OK, unless they have another status), other JSON, or bytes that are no reply."""

    def __init__(self, *habits: str, reply: Callable[[str], object] | None = None) -> None:
        self._habits, self._reply = habits, reply or self.reply
        self.files = {"uji.bin": bytes(1000)}
        self.asked: list[str] = []  # without bodies
        super().__init__(self.converse)

    def converse(self, connection: socket.socket) -> None:
        received, small = b"", "takes 32 bytes for a request" in self._habits
        while piece := connection.recv(32 if small else 1 << 16):
            received += piece
            while END in received or (small and received):
                text, _, received = received.partition(END)
                self.asked.append(text.decode().split("\r\n")[0].strip())
                if self.asked[-1] == "STATS" and "hangs up on STATS" in self._habits:
                    return
                told = self._reply(text.decode())
                told = {"status": "OK"} | told if isinstance(told, dict) else told
                connection.sendall(told if isinstance(told, bytes) else json.dumps(told).encode() + END)
                if "closes after each reply" in self._habits:
                    return

    def reply(self, text: str) -> dict[str, Any]:
        if "lower-cases everything" in self._habits:
            text = text.lower()
        head, _, body = text.partition("\r\n")
        words = [*text.split(), ""]
        if "splits at the first line break" in self._habits:
            words = [*head.split()[:2], body]
        if "knows lower case only" not in self._habits:
            words[0] = words[0].lower()
        try:
            return self.answer(*words)
        except LookupError as error:
            status = "FAILED" if "says FAILED" in self._habits else "ERROR"
            return {"status": status, "message" if "says message" in self._habits else "data": error.args[0]}

    def answer(self, verb: str, name: str = "", body: str = "", *_: str) -> dict[str, Any]:
        if verb == "list":
            return {"data": [name for name in self.files if "." in name]}
        if verb == "get":
            return {"data_namafile": name, "data_file": base64.b64encode(self.files[name]).decode()}
        if verb == "delete":
            return {"data": f"{name} of {len(self.files.pop(name))} bytes gone"}
        if verb != "upload" or "knows no UPLOAD" in self._habits:
            raise LookupError("request tidak dikenali")
        if "stores nothing" not in self._habits:
            self.files[name] = base64.b64decode(body)
        return {"data": "stored"}


class Relay(OtherServer):
    """Passes bytes between clients and a server; `spoil` may change what the server sends (None: cut)."""

    def __init__(self, port: int, spoil: Callable[[int, int, bytes], bytes | None]) -> None:
        """`spoil` gets the number of the connection, how many bytes went before, and the bytes."""
        self._target, self._spoil, self._numbers = port, spoil, itertools.count()
        super().__init__(self._relay)

    def _relay(self, client: socket.socket) -> None:
        number, seen = next(self._numbers), 0
        with socket.create_connection(("127.0.0.1", self._target), WAIT_S) as server:
            while ready := select.select([client, server], [], [], WAIT_S)[0]:
                for source in ready:
                    data: bytes | None = source.recv(1 << 16)
                    if source is server and data:
                        seen, before = seen + len(data), seen
                        data = self._spoil(number, before, data)
                    if not data:
                        return
                    (client if source is server else server).sendall(data)


@functools.cache
def warm_up() -> None:
    """Start and stop a pool of processes once: the first leaves what stays for good, as the fork server."""
    RunningServer("process").close()


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fail unless the threads, child processes and descriptors that come up inside are gone soon after it."""
    def present() -> tuple[Any, ...]:
        gc.collect()
        # All but the shared memory that multiprocessing keeps.
        paths = [path for path in Path("/proc/self/fd").glob("*") if "/pym-" not in os.path.realpath(path)]
        return len(paths), {*threading.enumerate()}, {*multiprocessing.active_children()}

    warm_up()
    before = present()
    yield
    wait_until(lambda: all(now <= then for now, then in zip(present(), before, strict=True)),
               lambda: f"{before} before, {present()} now")


MODES = ("legacy", "thread", "process")


def at_once(case: unittest.TestCase, check: Callable[..., object], *cases: Sequence[Any]) -> None:
    """Call `check` with the arguments of each case, all at the same time."""
    with ThreadPoolExecutor(len(cases)) as pool:
        for arguments, future in [(arguments, pool.submit(check, *arguments)) for arguments in cases]:
            with case.subTest(case=arguments):
                future.result()


def for_each_model(case: unittest.TestCase, check: Callable[[RunningServer], None], **settings: Any) -> None:
    """Run `check` with a server of each model, all at once; afterwards nothing of them may be left."""
    def run(mode: str) -> None:
        with closing(RunningServer(mode, **settings)) as running:
            check(running)

    with nothing_left():
        at_once(case, run, *((mode,) for mode in MODES))


class ServerCase(unittest.TestCase):
    """A test case with one running server for all its tests; afterwards nothing of it may be left."""

    mode = "thread"
    settings: ClassVar[dict[str, Any]] = {}
    running: ClassVar[RunningServer]

    @classmethod
    def setUpClass(cls) -> None:
        stack = ExitStack()
        cls.addClassCleanup(stack.close)
        stack.enter_context(nothing_left())
        cls.running = RunningServer(cls.mode, **cls.settings)
        stack.callback(cls.running.close)

    def setUp(self) -> None:
        wait_until(lambda: not self.running.table.shared.open, "the last test's connections are closed")
        for path in self.running.directory.iterdir():
            path.unlink()
        self.random = random.Random(self.id())


def run_script(*arguments: object, timeout_s: float = 120.0,
               **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts to its end and return what it said."""
    command = [sys.executable, str(ROOT / str(arguments[0])), *map(str, arguments[1:])]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout_s, **options)


class ServerProcess:
    """A server script in a process of its own; it serves `directory`, which is in `outside`."""

    def __init__(self, *arguments: object, script: str = "file_thread_pool.py", prefix: Sequence[str] = (),
                 **options: Any) -> None:
        """`prefix` runs the command that follows it. Raises AssertionError, with the exit code and what it
        has said, unless it gets ready in time."""
        self.folder = tempfile.TemporaryDirectory()
        self.outside = Path(self.folder.name)
        self.directory = self.outside / "files"
        self.directory.mkdir()
        self.errors = tempfile.TemporaryFile("a+")
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(ROOT / script), *map(str, arguments), "--port", "0", "--files",
             str(self.directory)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors, text=True, **options)
        assert self.process.stdout
        patience = threading.Timer(WAIT_S, self.process.kill)
        patience.start()
        line = self.process.stdout.readline()
        patience.cancel()
        if not line:
            why = f"{self.process.wait(WAIT_S)} {self.stderr()}"
            self.close()
            raise AssertionError(why)
        self.ready = json.loads(line)
        self.client = Server(self.ready["host"], self.ready["port"], timeout_s=WAIT_S)

    def usage_at_rest(self, *warm: int) -> tuple[int, ...]:
        """Return usage_of() it, once no client is left and no more than when it was warm, but for memory."""
        def at_rest() -> bool:
            stats = remote_stats(self.client)  # who asks is active, too
            usage = usage_of(self.process.pid)
            return (stats["active"], stats["waiting"]) == (1, 0) and all(map(operator.le, usage[:3], warm))

        wait_until(at_rest, lambda: f"{usage_of(self.process.pid)}, not {warm} as before")
        return usage_of(self.process.pid)

    def stderr(self) -> str:
        """Return what it has written to stderr."""
        self.errors.seek(0)
        return self.errors.read()

    def stop_well(self) -> None:
        """Stop it; fail unless it ends well, having said nothing but that it was ready."""
        self.end(signal.SIGTERM)
        assert self.stderr().count("\n") == 1, self.stderr()

    def end(self, *signals: int) -> dict[str, Any]:
        """Send it signals; fail unless it ends with code 0 and no traceback; return its last counts."""
        for number in signals:
            self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=WAIT_S)
        code, said = self.process.returncode, self.stderr()
        assert code == 0 and "Traceback" not in said, f"exit code {code}: {said}"
        return dict(json.loads(out or "{}"))

    def close(self) -> None:
        """End it if it still runs."""
        self.process.kill()
        self.process.communicate(timeout=WAIT_S)
        self.errors.close()
        self.folder.cleanup()
