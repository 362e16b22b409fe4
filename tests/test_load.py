"""A thousand clients at once: each is served, or told that the server is busy; and nothing of them stays behind."""

from __future__ import annotations

import operator
import os
import random
import socket
import threading
import unittest
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from file_client_cli import RemoteError, Server, remote_get, remote_stats, remote_upload
from file_server import raise_descriptor_limit
from tests.support import ServerProcess, usage_of, wait_until

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

CLIENTS = 1000
WORKERS = 50
FILE_BYTES = 1024 * 1024
STACK_BYTES = 512 * 1024  # of a client thread
PATIENCE_S = 120.0  # of a client, for a machine that does other things as well
MARGIN_BYTES = (16 + WORKERS) * 1024 * 1024  # that the server's memory may have grown by since it was warm: the
# allocator may keep the buffers of each worker, half a megabyte, but nothing for each client
BUSY = "ditolak: server sibuk, coba lagi nanti"


@contextmanager
def meeting(count: int) -> Iterator[None]:
    """Have `count` connections be open before any of them says a word."""
    connect, barrier = socket.create_connection, threading.Barrier(count)

    def connect_and_wait(*arguments: Any) -> socket.socket:
        connection = connect(*arguments)
        barrier.wait(PATIENCE_S)
        return connection

    with mock.patch.object(socket, "create_connection", connect_and_wait):
        yield


@unittest.skipIf(os.environ.get("TESTS_ONCE") == "0", "TESTS_ONCE=0")
@unittest.skipUnless(os.path.isdir("/proc/self/fd"), "no /proc to look into here")
class Thousand(unittest.TestCase):
    """Downloads and uploads, raw and base64, from 1,000 clients to 50 workers."""

    def setUp(self) -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        if raise_descriptor_limit() < 2 * CLIENTS + 200:
            self.skipTest(f"too few descriptors for {CLIENTS} clients (see: ulimit -n)")
        self.addCleanup(threading.stack_size, threading.stack_size(STACK_BYTES))
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.source = Path(folder.name, "source")
        self.content = random.Random(5).randbytes(FILE_BYTES)
        self.source.write_bytes(self.content)

    def one_client(self, server: Server, number: int) -> str:
        raw = number % 20 < 18  # base64 as well, but a thousand megabytes of it would take long
        crc32 = zlib.crc32(self.content)
        try:
            if number % 2:
                with open(self.source, "rb", buffering=0) as file:
                    transfer = remote_upload(server, file, f"up-{number}", raw, crc32 if raw else None)
            else:
                transfer = remote_get(server, "source", lambda piece: None, raw)
        except RemoteError as error:
            return f"{error.cause}: {error}"
        return "OK" if transfer.crc32 == crc32 else "other content"

    def run_clients(self, server: ServerProcess, count: int) -> Counter[str]:
        """Return how many clients ended how."""
        patient = replace(server.client, timeout_s=PATIENCE_S)
        outcomes: list[str] = []
        threads = [threading.Thread(target=lambda number=number: outcomes.append(self.one_client(patient, number)))
                   for number in range(count)]
        with meeting(count):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return Counter(outcomes)

    def overload(self, mode: str, max_waiting: int) -> int:
        """Return how many of the clients were refused, having checked that the others were served."""
        server = ServerProcess(WORKERS, mode, "--max-waiting", max_waiting, script="file_server.py")
        try:
            (server.directory / "source").write_bytes(self.content)
            self.assertEqual(self.run_clients(server, 2 * WORKERS), {"OK": 2 * WORKERS})
            server.wait_until_clients_left()
            warm = usage_of(server.process.pid)
            outcomes = self.run_clients(server, CLIENTS)
            refused = outcomes[BUSY]
            self.assertEqual(outcomes, Counter({"OK": CLIENTS - refused}) + Counter({BUSY: refused}))
            server.wait_until_clients_left()
            stats = remote_stats(server.client)
            self.assertEqual((stats["refused"], stats["failed"]), (refused, 0))
            for path in server.directory.iterdir():
                self.assertRegex(path.name, "^(source|up-[0-9]+)$")
                self.assertTrue(path.read_bytes() == self.content, path)
            wait_until(lambda: all(map(operator.le, usage_of(server.process.pid)[:3], warm)),
                       f"processes, threads and descriptors are no more than in {warm}")
            grown_bytes = usage_of(server.process.pid).rss_bytes - warm.rss_bytes
            self.assertLess(grown_bytes, MARGIN_BYTES)
            self.assertEqual(server.stderr().count("\n"), 1, server.stderr())
        finally:
            server.close()
        return refused

    def test_all_wait_and_all_are_served(self) -> None:
        self.assertEqual(self.overload("process", 1024), 0)

    def test_some_are_refused_and_all_others_served(self) -> None:
        refused = self.overload("thread", 100)
        self.assertGreater(refused, 0)
        self.assertLessEqual(refused, CLIENTS - WORKERS - 100)


if __name__ == "__main__":
    unittest.main()
