"""A long mixed load, by hand: ``python3 -m tests.soak [SECONDS]``. Not part of the tests.

Clients ask for everything in every form of request, and leave in the middle of some, for SECONDS against a
pool of threads and as long against one of processes. What a client reads must be what was last acknowledged;
in the end the server has all of that, and no more of anything else than after a warm-up.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

from file_client_cli import remote_list
from file_protocol import END
from tests.support import ServerProcess, ask_all, upload_request

WORKERS, CLIENTS, OWN = 4, 8, 4  # and how many names each client has for itself
MARGIN_BYTES = (16 + 2 * WORKERS) << 20  # that the server's memory may have grown by since it was warm
NO_FILE = -1


class Client:
    """One client: one connection after the other."""

    def __init__(self, server: ServerProcess, number: int, shared: dict[str, set[int]]) -> None:
        self.server = server
        self.random = random.Random(number)
        self.own = {f"own {number}-{turn}": NO_FILE for turn in range(OWN)}  # CRC-32 of what must be there
        self.shared = shared  # the CRC-32s of what may be there: all that anybody sent
        self.done = 0  # requests

    def run(self, ends_s: float) -> None:
        """Do this and that until then; raises AssertionError, OSError, ValueError if something is wrong."""
        while time.monotonic() < ends_s:
            if self.random.random() < 0.3:
                self.leave(self.random.choice([*self.own, *self.shared]))
            else:
                changed = self.random.sample([*self.own], self.random.randint(0, 3))
                self.converse(changed, self.random.sample([*self.own, *self.shared], 2))

    def command(self, verb: str, name: str = "") -> bytes:
        """Return a command with one of its ends."""
        return f"{verb} '{name}'".encode().removesuffix(b" ''") + self.random.choice((END, b"\n", b"\r\n"))

    def upload(self, name: str) -> tuple[bytes, int]:
        """Return an upload, and the CRC-32 of what is in it."""
        largest = self.random.choice((0, 1, 100, 10_000, 100_000, 2_000_000))
        content = self.random.randbytes(self.random.randint(0, largest))
        return upload_request(self.random, f'"{name}"'.encode(), content), zlib.crc32(content)

    def converse(self, changed: list[str], asked: list[str]) -> None:
        """Change some files, look at others and at the rest, all on one connection; check each reply."""
        sent = b""
        expected: list[tuple[str, str | None]] = []
        for name in changed:
            if self.random.random() < 0.8:
                request, self.own[name] = self.upload(name)
                expected.append(("OK", f"{self.own[name]:08x}"))
            else:
                request = self.command("DELETE", name)
                expected.append(("ERROR" if self.own[name] == NO_FILE else "OK", None))
                self.own[name] = NO_FILE
            sent += request
        sent += b"".join(self.command(self.random.choice(("GET", "GET", "GET_RAW")), name) for name in asked)
        sent += self.command("LIST") + self.command("STATS")
        at = self.random.randint(0, len(sent))
        *replies, names, stats = ask_all(self.server.client, sent[:at], sent[at:])
        self.done += len(replies) + 2
        assert [(reply["status"], reply.get("data_crc32")) for reply in replies[:len(changed)]] == expected
        for name, reply in zip(asked, replies[len(changed):], strict=True):
            assert reply["status"] == "OK" or "tidak ditemukan" in reply["data"], reply
            found = zlib.crc32(reply["data_file"]) if reply["status"] == "OK" else NO_FILE
            assert found in self.shared.get(name, {self.own.get(name)}), f"{name}: other content"
        assert all((name in names["data"]) == (crc32 != NO_FILE) for name, crc32 in self.own.items()), names
        assert stats["data"]["active"] <= WORKERS and stats["data"]["refused"] == 0, stats

    def leave(self, name: str) -> None:
        """Begin something and go, in one way or another."""
        sent, crc32 = self.upload(name)
        address = self.server.client.host, self.server.client.port
        with socket.create_connection(address, 60.0) as connection, suppress(ConnectionError):
            if self.random.random() < 0.3:  # it will be a reset
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            if name in self.shared and self.random.random() < 0.3:
                self.shared[name].add(crc32)  # it may be stored, whenever its turn comes
                connection.sendall(sent)
            elif self.random.random() < 0.5:
                connection.sendall(sent[:self.random.randrange(len(sent) - 4)])  # it must never show
            else:
                connection.sendall(self.command("GET", name).rstrip())  # whole after the server's silence
                connection.recv(self.random.randint(1, 1000))


def soak(mode: str, duration_s: float) -> None:
    """Load one server for that long and say what happened. Raises an exception if something was wrong."""
    def load(duration_s: float, *warm: int) -> tuple[int, ...]:
        ends_s = time.monotonic() + duration_s
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda client: client.run(ends_s), clients))
        return server.usage_at_rest(*warm)

    with closing(ServerProcess(WORKERS, mode, script="file_server.py")) as server:
        shared = {f"shared-{number}": {NO_FILE} for number in range(3)}
        clients = [Client(server, number, shared) for number in range(CLIENTS)]
        warm = load(0.15 * duration_s)
        after = load(0.85 * duration_s, *warm)
        for client in clients:
            client.converse([], [*client.own, *shared])
        names = [*shared, *(name for client in clients for name in client.own)]
        assert set(os.listdir(server.directory)) == set(remote_list(server.client)) <= set(names)
        assert after[3] <= warm[3] + MARGIN_BYTES, f"the memory has grown: {warm} before, {after} now"
        server.stop_well()
    print(f"{mode}: {sum(client.done for client in clients)} requests in {duration_s:g} s\n  processes, "
          f"threads, descriptors and bytes of memory: {warm} before, {after} after", flush=True)


if __name__ == "__main__":
    for mode in ("thread", "process"):
        soak(mode, float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
    print("all is well")
