"""Very many clients at once: each is served, or told that the server is busy; nothing of them stays behind.

A hundred of them, with TESTS_SLOW=1 a thousand.
"""

from __future__ import annotations

import operator
import os
import random
import socket
import sys
import threading
import unittest
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from file_client_cli import RemoteError, Server, remote_get, remote_stats, remote_upload
from file_server import raise_descriptor_limit
from tests.support import ServerProcess, usage_of, wait_until

SLOW = os.environ.get("TESTS_SLOW") == "1"
CLIENTS, WORKERS, FILE_BYTES = (1000, 50, 1 << 20) if SLOW else (100, 8, 1 << 17)
PATIENCE_S = 120.0  # of a client, for a machine that does other things as well
# What the server's memory may have grown by since it was warm: the allocator may keep each worker's buffers.
MARGIN_BYTES = (16 + WORKERS) << 20
BUSY = "ditolak: server sibuk, coba lagi nanti"


@unittest.skipUnless(sys.platform == "linux", "no /proc to look into here")
class ManyClients(unittest.TestCase):
    """Downloads and uploads, raw and base64, all connected before any of them says a word."""

    def setUp(self) -> None:
        if raise_descriptor_limit() < 2 * CLIENTS + 200:
            self.skipTest(f"too few descriptors for {CLIENTS} clients (see: ulimit -n)")
        self.addCleanup(threading.stack_size, threading.stack_size(512 * 1024))
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.source = Path(folder.name, "source")
        self.content = random.Random(5).randbytes(FILE_BYTES)
        self.source.write_bytes(self.content)

    def one_client(self, server: Server, number: int) -> str:
        """Return "OK", or what went wrong."""
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
        connect, barrier = socket.create_connection, threading.Barrier(count)

        def connect_and_wait(*arguments: Any) -> socket.socket:
            connection = connect(*arguments)
            barrier.wait(PATIENCE_S)
            return connection

        with mock.patch("socket.create_connection", connect_and_wait), ThreadPoolExecutor(count) as pool:
            return Counter(pool.map(lambda number: self.one_client(patient, number), range(count)))

    def overload(self, mode: str, max_waiting: int) -> int:
        """Return how many of the clients were refused, having checked that the others were served."""
        server = ServerProcess(WORKERS, mode, "--max-waiting", max_waiting, script="file_server.py")
        self.addCleanup(server.close)
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
        self.assertLess(usage_of(server.process.pid).rss_bytes - warm.rss_bytes, MARGIN_BYTES)
        self.assertEqual(server.stderr().count("\n"), 1, server.stderr())
        return refused

    def test_all_wait_and_all_are_served(self) -> None:
        self.assertEqual(self.overload("process", 1024), 0)

    def test_some_are_refused_and_all_others_served(self) -> None:
        waiting = 2 * WORKERS
        refused = self.overload("thread", waiting)
        self.assertGreater(refused, 0)
        self.assertLessEqual(refused, CLIENTS - WORKERS - waiting)


if __name__ == "__main__":
    unittest.main()
