"""Very many clients at once: each is served, or told that the server is busy; nothing of them stays behind.

A hundred of them, with TESTS_SLOW=1 a thousand.
"""

from __future__ import annotations

import random
import socket
import sys
import threading
import unittest
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from unittest import mock

from file_client_cli import RemoteError, remote_get, remote_stats, remote_upload
from file_server import raise_descriptor_limit
from tests.support import SLOW, ServerProcess

CLIENTS, WORKERS, FILE_BYTES = (1000, 50, 1 << 20) if SLOW else (100, 8, 1 << 17)
PATIENCE_S = 120.0  # of a client, for a machine that does other things as well
# What the server's memory may have grown by since it was warm: the allocator may keep each worker's buffers.
MARGIN_BYTES = (16 + WORKERS) << 20
BUSY = "ditolak: server sibuk, coba lagi nanti"
CONTENT = random.Random(5).randbytes(FILE_BYTES)
CRC32 = zlib.crc32(CONTENT)


def run_clients(server: ServerProcess, count: int) -> Counter[str]:
    """Have clients connect, all before any of them says a word, and return how many ended how."""
    patient = replace(server.client, timeout_s=PATIENCE_S)
    connect, barrier = socket.create_connection, threading.Barrier(count)

    def connect_and_wait(*arguments: Any) -> socket.socket:
        connection = connect(*arguments)
        barrier.wait(PATIENCE_S)
        return connection

    def run_client(number: int) -> str:
        raw = number % 20 < 18  # base64 as well, but a thousand megabytes of it would take long
        try:
            if number % 2:
                with open(server.directory / "source", "rb", buffering=0) as file:
                    transfer = remote_upload(patient, file, f"up-{number}", raw, CRC32 if raw else None)
            else:
                transfer = remote_get(patient, "source", lambda piece: None, raw)
        except RemoteError as error:
            return f"{error.cause}: {error}"
        return "OK" if transfer.crc32 == CRC32 else "other content"

    with mock.patch("socket.create_connection", connect_and_wait), ThreadPoolExecutor(count) as pool:
        return Counter(pool.map(run_client, range(count)))


@unittest.skipUnless(sys.platform == "linux", "no /proc to look into here")
class ManyClients(unittest.TestCase):
    """Downloads and uploads, raw and base64."""

    def overload(self, mode: str, max_waiting: int) -> int:
        """Return how many of the clients were refused, having checked that the others were served."""
        if raise_descriptor_limit() < 2 * CLIENTS + 200:
            self.skipTest(f"too few descriptors for {CLIENTS} clients (see: ulimit -n)")
        self.addCleanup(threading.stack_size, threading.stack_size(512 * 1024))
        server = ServerProcess(WORKERS, mode, "--max-waiting", max_waiting, script="file_server.py")
        self.addCleanup(server.close)
        (server.directory / "source").write_bytes(CONTENT)
        self.assertEqual(run_clients(server, 2 * WORKERS), {"OK": 2 * WORKERS})
        warm = server.usage_at_rest()
        outcomes = run_clients(server, CLIENTS)
        refused = outcomes[BUSY]
        self.assertEqual(outcomes, Counter({"OK": CLIENTS - refused}) + Counter({BUSY: refused}))
        self.assertLess(server.usage_at_rest(*warm)[3], warm[3] + MARGIN_BYTES)
        stats = remote_stats(server.client)
        self.assertEqual((stats["refused"], stats["failed"]), (refused, 0))
        for path in server.directory.iterdir():
            self.assertRegex(path.name, "^(source|up-[0-9]+)$")
            self.assertTrue(path.read_bytes() == CONTENT, path)
        server.stop_well()
        return refused

    def test_all_wait_and_all_are_served(self) -> None:
        self.assertEqual(self.overload("process", 1024), 0)

    def test_some_are_refused_and_all_others_served(self) -> None:
        refused = self.overload("thread", 2 * WORKERS)
        self.assertTrue(0 < refused <= CLIENTS - WORKERS - 2 * WORKERS, refused)
