"""A long mixed load, by hand: ``python3 -m tests.soak [SECONDS] [--seed N]``. Not part of the tests.

Clients ask for everything in every form of request, and leave in the middle of some, for SECONDS against a
pool of threads and as long against one of processes. What a client reads must be what was last acknowledged;
in the end the server has all of that, and no more of anything else than after a warm-up.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import socket
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from file_client_cli import remote_list
from file_protocol import END
from tests.support import ServerProcess, usage_of, wait_until

WORKERS, CLIENTS, OWN = 4, 8, 4  # and how many names each client has for itself
MARGIN_BYTES = (16 + 2 * WORKERS) << 20  # that the server's memory may have grown by since it was warm
NO_FILE = -1


class Client:
    """One client: one thing after the other, over one connection as long as it likes."""

    def __init__(self, server: ServerProcess, number: int, seed: int, shared: dict[str, set[int]]) -> None:
        self.server = server
        self.random = random.Random(f"{seed} {number}")
        self.own = {f"own {number}-{turn}": NO_FILE for turn in range(OWN)}  # CRC-32 of what must be there
        self.shared = shared  # the CRC-32s of what may be there: all that anybody sent
        self.connection: socket.socket | None = None
        self.done: Counter[str] = Counter()

    def run(self, ends_s: float) -> None:
        """Do this and that until then; raises AssertionError, OSError, ValueError if something is wrong."""
        operations = [self.upload] * 8 + [self.get] * 6 + [self.leave] * 3 + [self.delete, self.look]
        while time.monotonic() < ends_s:
            operation = self.random.choice(operations)
            own = operation in (self.upload, self.delete)
            operation(self.random.choice([*self.own, *({} if own else self.shared)]))
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
        """Send bytes, in two pieces sometimes."""
        address = self.server.client.host, self.server.client.port
        self.connection = self.connection or socket.create_connection(address, 60.0)
        at = self.random.randint(0, len(sent)) if self.random.random() < 0.3 else len(sent)
        for piece in (sent[:at], sent[at:]):
            self.connection.sendall(piece)
        return self.connection

    def ask(self, sent: bytes, raw: bool = False) -> tuple[dict[str, Any], bytes]:
        """Send a request; return the reply, and the bytes after it if `raw`."""
        with self.send(sent).makefile("rb") as replies:
            line = replies.readline()
            assert line.endswith(b"\r\n") and replies.readline() == b"\r\n", f"cut: {line[-100:]!r}"
            reply = json.loads(line)
            rest = replies.read(reply["data_ukuran"]) if raw and reply["status"] == "OK" else b""
        if reply["status"] != "OK":
            self.hang_up()  # it may be the last on this connection
        return reply, rest

    def upload_request(self, name: str) -> tuple[bytes, int, bytes]:
        """Return an upload in one of its forms, how much of it a server needs, and the content."""
        size_bytes = self.random.choice((0, 1, 100, 10_000, 100_000, 2_000_000))
        content = self.random.randbytes(self.random.randint(0, size_bytes))
        text, quoted = base64.b64encode(content), f'"{name}"'.encode()
        if self.random.random() < 0.4:
            sent = b"UPLOAD_RAW %s %d" % (quoted, len(content)) + END + content
        elif not content or self.random.random() < 0.2:
            sent = b'UPLOAD %s "%s"' % (quoted, text)
        else:
            padded = b"".join(base64.b64encode(content[at:at + 1000]) for at in range(0, len(content), 1000))
            body = self.random.choice((text, padded, base64.encodebytes(content).rstrip()))
            sent = b"UPLOAD " + quoted + self.random.choice((b" ", b"\r\n", b" \r\n")) + body
            return sent + END, len(sent) + 4, content
        return sent, len(sent), content

    def upload(self, name: str) -> None:
        sent, _, content = self.upload_request(name)
        self.own[name] = zlib.crc32(content)
        reply, _ = self.ask(sent)
        assert (reply["status"], reply["data_ukuran"]) == ("OK", len(content)), reply

    def command(self, text: str) -> bytes:
        """Return a command with one of its ends; with none sometimes, which takes the server's silence."""
        ends = [b"", *(END, b"\n", b"\r\n") * 10]
        return text.encode() + self.random.choice(ends)

    def get(self, name: str) -> None:
        raw = self.random.random() < 0.4
        reply, content = self.ask(self.command(f"GET{'_RAW' * raw} '{name}'"), raw)
        if reply["status"] == "OK":
            found = zlib.crc32(content if raw else base64.b64decode(reply["data_file"], validate=True))
        else:
            assert "tidak ditemukan" in reply["data"], reply
            found = NO_FILE
        assert found in self.shared.get(name, {self.own.get(name)}), f"{name}: other content"

    def delete(self, name: str) -> None:
        reply, _ = self.ask(self.command(f"DELETE '{name}'"))
        assert (reply["status"] == "OK") == (self.own[name] != NO_FILE), f"{name}: {reply}"
        self.own[name] = NO_FILE

    def look(self, name: str) -> None:
        names = self.ask(self.command("LIST"))[0]["data"]
        assert [own for own in self.own if (own in names) != (self.own[own] != NO_FILE)] == [], names
        stats = self.ask(self.command("STATS"))[0]["data"]
        assert stats["active"] <= WORKERS and stats["refused"] == 0, stats

    def leave(self, name: str) -> None:
        """Begin something and go, in one way or another."""
        sent, needed, content = self.upload_request(name)
        whole = name in self.shared and self.random.random() < 0.3
        with suppress(ConnectionError):
            if whole:  # it may be stored, whenever its turn comes
                self.shared[name].add(zlib.crc32(content))
                self.send(sent)
            elif self.random.random() < 0.5:
                self.send(sent[:self.random.randrange(needed)])  # it must never show
            else:
                self.send(b"GET '%s'\n" % name.encode()).recv(self.random.randint(1, 1000))
        if self.connection and self.random.random() < 0.3:
            reset = b"\1\0\0\0\0\0\0\0"
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        self.hang_up()


def soak(mode: str, duration_s: float, seed: int) -> None:
    """Load one server for that long and say what happened. Raises an exception if something was wrong."""
    server = ServerProcess(WORKERS, mode, script="file_server.py")
    shared = {f"shared-{number}": {NO_FILE} for number in range(3)}
    clients = [Client(server, number, seed, shared) for number in range(CLIENTS)]

    def load(duration_s: float) -> None:
        ends_s = time.monotonic() + duration_s
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda client: client.run(ends_s), clients))
        server.wait_until_clients_left()

    try:
        load(0.15 * duration_s)
        warm = usage_of(server.process.pid)
        load(0.85 * duration_s)
        wait_until(lambda: usage_of(server.process.pid)[:3] == warm[:3], "nothing is left open")
        after = usage_of(server.process.pid)
        for client in clients:
            for name in [*client.own, *shared]:
                client.get(name)
            client.hang_up()
        names = [*shared, *(name for client in clients for name in client.own)]
        assert set(os.listdir(server.directory)) == set(remote_list(server.client)) <= set(names)
        assert after.rss_bytes <= warm.rss_bytes + MARGIN_BYTES, "the memory has grown"
        server.process.terminate()
        assert server.end()[0] == 0 and server.stderr().count("\n") == 1, server.stderr()
    finally:
        server.close()
    done = sum((client.done for client in clients), Counter[str]())
    print(f"{mode}: {done.total()} operations in {duration_s:g} s ({dict(sorted(done.items()))})\n"
          f"  memory {warm.rss_bytes >> 20} MiB before, {after.rss_bytes >> 20} MiB after; before and after "
          f"{warm[:3]} processes, threads, descriptors", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=60.0, help="for each server (default: 60)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for mode in ("thread", "process"):
        soak(mode, options.seconds, options.seed)
    print("all is well")
