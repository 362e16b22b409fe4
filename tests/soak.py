"""A long mixed load, by hand: ``python3 tests/soak.py [SECONDS] [--seed N]``. Not part of the tests.

Client threads ask for everything in every form of request, and leave in the middle of some, for SECONDS against
a pool of threads and as long against one of processes. What a client reads must be what was last acknowledged;
in the end the server must have all that was acknowledged, and no more of anything else than after a warm-up.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from file_client_cli import remote_list
from file_protocol import END
from tests.support import ServerProcess, usage_of, wait_until

WORKERS = 4
CLIENTS = 8
PATIENCE_S = 60.0
WARM_UP = 0.15  # of the whole time
MIB = 1024 * 1024
MARGIN_BYTES = 16 * MIB  # that the server's memory may have grown by since it was warm,
PROCESS_MARGIN_BYTES = 2 * MIB  # and each of its processes
OWN, SHARED = range(4), [f"shared-{number}" for number in range(3)]


def digest(content: bytes | None) -> str:
    """Return what stands for a content, or for none."""
    return "no file" if content is None else f"{len(content)} bytes, {hashlib.sha256(content).hexdigest()[:16]}"


@dataclass(eq=False)
class Write:
    """Something that was stored under a name, or deleted: `ended_s` is when that was acknowledged, if ever."""

    what: str
    begun_s: float
    ended_s: float = math.inf


@dataclass
class Name:
    """A name and all that was written there, by whoever."""

    name: str
    writes: list[Write] = field(default_factory=lambda: [Write(digest(None), 0.0, 0.0)])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, content: bytes | None) -> Write:
        """Note that a write begins."""
        with self.lock:
            self.writes.append(Write(digest(content), time.monotonic()))
            return self.writes[-1]

    def void(self, write: Write) -> None:
        """Note that a write did not happen."""
        with self.lock:
            self.writes.remove(write)

    def allowed(self, begun_s: float) -> set[str]:
        """Return what one may find who began to look then and found it now: all but what was overwritten before."""
        with self.lock:
            certain_s = max(write.begun_s for write in self.writes if write.ended_s <= begun_s)
            return {write.what for write in self.writes if write.ended_s >= certain_s}


class Client:
    """One client: one thing after the other, over one connection as long as it likes."""

    def __init__(self, server: ServerProcess, number: int, seed: int, shared: list[Name]) -> None:
        self.address = server.client.host, server.client.port
        self.random = random.Random(f"{seed} {number}")
        self.shared = shared
        self.own = [Name(f"own {number}-{turn}") for turn in OWN]
        self.connection: socket.socket | None = None
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []

    def run(self, ends_s: float) -> None:
        """Do this and that until then, or until something is wrong."""
        operations = [self.upload] * 8 + [self.get] * 6 + [self.leave] * 3
        operations += [self.delete, self.list, self.stats, self.bad]
        while time.monotonic() < ends_s and not self.problems:
            operation = self.random.choice(operations)
            try:
                operation()
            except (OSError, ValueError, KeyError) as error:
                self.problems.append(f"{operation.__name__}: {error!r}")
            self.done[operation.__name__] += 1
            if self.random.random() < 0.4:
                self.hang_up()
        self.hang_up()

    def hang_up(self) -> None:
        """End the connection, if there is one."""
        if self.connection:
            self.connection.close()
        self.connection = None

    def send(self, sent: bytes) -> socket.socket:
        """Send bytes, in pieces sometimes."""
        if not self.connection:
            self.connection = socket.create_connection(self.address, PATIENCE_S)
        at = self.random.randint(0, len(sent)) if self.random.random() < 0.3 else len(sent)
        for piece in filter(None, (sent[:at], sent[at:])):
            self.connection.sendall(piece)
        return self.connection

    def ask(self, sent: bytes, raw: bool = False) -> tuple[dict[str, Any], bytes]:
        """Send a request; return the reply, and the bytes after it if `raw`."""
        connection = self.send(sent)
        received = bytearray()
        while END not in received:
            self.receive(connection, received)
        text, _, rest = received.partition(END)
        reply = json.loads(text)
        if reply["status"] == "OK" and raw:
            while len(rest) < reply["data_ukuran"]:
                self.receive(connection, rest)
        if rest and not raw:
            raise ValueError(f"more than a reply: {bytes(rest[:100])!r}")
        if reply["status"] != "OK":
            self.hang_up()  # it may be the last on this connection
        return reply, bytes(rest)

    @staticmethod
    def receive(connection: socket.socket, received: bytearray) -> None:
        piece = connection.recv(1 << 16)
        if not piece:
            raise ConnectionError(f"ended after {bytes(received[-100:])!r}")
        received += piece

    def check(self, right: bool, what: object) -> None:
        if not right:
            self.problems.append(str(what))

    def name(self) -> Name:
        return self.random.choice(self.shared if self.random.random() < 0.2 else self.own)

    def upload_request(self, name: str) -> tuple[bytes, int, bytes]:
        """Return an upload in one of its forms, how much of it a server needs, and the content."""
        content = self.random.randbytes(int(self.random.choice((0, 1, 100, 1e4, 1e5, 1e5, 2e6)) * self.random.random()))
        text, quoted = base64.b64encode(content), f'"{name}"'.encode()
        if self.random.random() < 0.4:
            sent = b"UPLOAD_RAW %s %d" % (quoted, len(content)) + END + content
            return sent, len(sent), content
        if not content or self.random.random() < 0.2:
            sent = b'UPLOAD %s "%s"' % (quoted, text)
            return sent + self.random.choice((b"", END)), len(sent), content
        padded = b"".join(base64.b64encode(content[at:at + 1000]) for at in range(0, len(content), 1000))
        wrapped = base64.encodebytes(content).rstrip()
        body = self.random.choice((text, padded, wrapped, wrapped.replace(b"\n", b"\r\n")))
        sent = b"UPLOAD " + quoted + self.random.choice((b" ", b"\r\n")) + body + END
        return sent, len(sent), content

    def upload(self) -> None:
        name = self.name()
        sent, _, content = self.upload_request(name.name)
        write = name.begin(content)
        reply, _ = self.ask(sent)
        self.check(reply["status"] == "OK" and reply["data_ukuran"] == len(content), reply)
        write.ended_s = time.monotonic()

    def command(self, text: str) -> bytes:
        """Return a command with one of its ends; with none sometimes, which takes the server's silence."""
        return text.encode() + (b"" if self.random.random() < 0.03 else self.random.choice((END, b"\n", b"\r\n")))

    def get(self) -> None:
        name, raw = self.name(), self.random.random() < 0.4
        begun_s = time.monotonic()
        reply, content = self.ask(self.command(f"GET{'_RAW' * raw} '{name.name}'"), raw)
        if reply["status"] == "OK":
            found = digest(content if raw else base64.b64decode(reply["data_file"], validate=True))
        else:
            self.check("tidak ditemukan" in reply["data"], reply)
            found = digest(None)
        allowed = name.allowed(begun_s)
        self.check(found in allowed, f"{name.name}: found {found}, expected one of {allowed}")

    def delete(self) -> None:
        name = self.name()
        write = name.begin(None)
        reply, _ = self.ask(self.command(f"DELETE '{name.name}'"))
        if reply["status"] == "OK":
            write.ended_s = time.monotonic()
        else:
            name.void(write)
            self.check("tidak ditemukan" in reply["data"], reply)
            self.check(digest(None) in name.allowed(write.begun_s), f"{name.name}: there is no file, but should be")

    def list(self) -> None:
        names = self.ask(self.command("LIST"))[0]["data"]
        for name in self.own:
            there = name.allowed(time.monotonic()) != {digest(None)}
            self.check((name.name in names) == there, f"{name.name} in the list: {not there}")

    def stats(self) -> None:
        stats = self.ask(self.command("STATS"))[0]["data"]
        self.check(stats["active"] <= WORKERS and stats["refused"] == 0, stats)

    def bad(self) -> None:
        sent = self.random.choice((b"HELLO\r\n", b"GET ../a\n", b"GET\n", b"UPLOAD a Q!==\r\n\r\n",
                                   b"UPLOAD .a QUJD\r\n\r\n", b"UPLOAD_RAW a x\r\n\r\n", b"GET 'a\n", b"\xff\n",
                                   b"DELETE a b\n"))
        self.check(self.ask(sent)[0]["status"] == "ERROR", sent)

    def leave(self) -> None:
        """Begin something and go, in one way or another."""
        kind = self.random.randrange(4)
        connection = self.send(b"")
        with suppress(ConnectionError):
            if kind == 0:  # an upload that must never show
                sent, needed, _ = self.upload_request(self.name().name)
                self.send(sent[:self.random.randrange(needed)])
            elif kind == 1:  # one that may, whenever its turn comes
                name = self.random.choice(self.shared)
                sent, _, content = self.upload_request(name.name)
                name.begin(content)
                self.send(sent)
            elif kind == 2:
                self.send(b"GET '%s'\n" % self.name().name.encode())
                connection.recv(self.random.randint(1, 1000))
            else:
                self.send(self.random.choice((b"", b"LI", b"LIST\n")))
        if self.random.random() < 0.3:
            connection.shutdown(socket.SHUT_WR)
        elif self.random.random() < 0.3:  # not an end but a reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.hang_up()


def soak(mode: str, duration_s: float, seed: int) -> list[str]:
    """Load one server for that long; say what happened, and return what was wrong."""
    server = ServerProcess(WORKERS, mode, script="file_server.py")
    try:
        shared = [Name(name) for name in SHARED]
        clients = [Client(server, number, seed, shared) for number in range(CLIENTS)]

        def load(duration_s: float) -> None:
            ends_s = time.monotonic() + duration_s
            threads = [threading.Thread(target=client.run, args=(ends_s,)) for client in clients]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            server.wait_until_clients_left()

        load(WARM_UP * duration_s)
        warm = usage_of(server.process.pid)
        load((1 - WARM_UP) * duration_s)
        with suppress(AssertionError):
            wait_until(lambda: usage_of(server.process.pid)[:3] == warm[:3], "nothing is left open")
        after = usage_of(server.process.pid)

        problems = [problem for client in clients for problem in client.problems]
        names = [*shared, *(name for client in clients for name in client.own)]
        for name in names:
            path = server.directory / name.name
            found, allowed = digest(path.read_bytes() if path.exists() else None), name.allowed(time.monotonic())
            if found not in allowed:
                problems.append(f"{name.name}: found {found} in the end, expected one of {allowed}")
        files = set(os.listdir(server.directory))
        if not files <= {name.name for name in names} or sorted(files) != remote_list(server.client):
            problems.append(f"files that nobody put there, or not listed: {sorted(files)}")
        if after[:3] != warm[:3]:
            problems.append("processes, threads or descriptors were left")
        if after.rss_bytes > warm.rss_bytes + MARGIN_BYTES + PROCESS_MARGIN_BYTES * warm.processes:
            problems.append("the memory has grown")
        server.process.terminate()
        code, _ = server.end()
        if code or server.stderr().count("\n") != 1:
            problems.append(f"the server ended with {code} and said:\n{server.stderr()}")
    finally:
        server.close()
    done = sum((client.done for client in clients), Counter[str]())
    print(f"{mode}: {done.total()} operations in {duration_s:g} s ({dict(sorted(done.items()))}), "
          f"{done['leave']} disconnects\n"
          f"  memory {warm.rss_bytes / MIB:.1f} MiB before, {after.rss_bytes / MIB:.1f} MiB after; processes, threads, "
          f"descriptors {warm[:3]} before, {after[:3]} after", flush=True)
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=60.0, help="for each server (default: 60)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    problems = [f"{mode}: {problem}" for mode in ("thread", "process")
                for problem in soak(mode, options.seconds, options.seed)]
    print("\n".join(problems) or "all is well")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
