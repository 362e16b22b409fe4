"""Faults, made on purpose: killed workers and servers, silent clients, too many clients, full disks, signals."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import file_interface
from file_client_cli import RemoteError, Server, remote_get, remote_list, remote_stats, upload
from file_interface import TEMPORARY_PREFIX, FileError, FileInterface
from file_protocol import END
from tests.support import (
    ROOT, WAIT_S, RunningServer, ServerCase, ServerProcess, children_of, open_descriptors, read_json, read_to_end,
    run_script, wait_until,
)

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

POSIX = unittest.skipUnless(os.name == "posix", "signals as on POSIX")


def free_port_works(port: int) -> None:
    """Fail unless a server can listen on `port` at once."""
    socket.create_server(("127.0.0.1", port)).close()


@POSIX
class Shutdown(unittest.TestCase):
    """Signals to a server that runs as a script."""

    def start(self, *arguments: object, script: str = "file_thread_pool.py", **options: Any) -> ServerProcess:
        server = ServerProcess(*arguments, script=script, **options)
        self.addCleanup(server.close)
        return server

    def test_each_model_ends_cleanly_on_each_signal(self) -> None:
        for script, mode in (("file_server.py", "legacy"), ("file_server.py", "thread"),
                             ("file_thread_pool.py", "thread"), ("file_thread_pool.py", "process")):
            for number in (signal.SIGTERM, signal.SIGINT):
                with self.subTest(script=script, mode=mode, signal=number):
                    server = self.start(2, mode, script=script)
                    self.assertEqual(server.ready["event"], "ready")
                    self.assertEqual(server.ready["mode"], mode)
                    self.assertEqual(server.ready["pid"], server.process.pid)
                    self.assertEqual(server.ready["start_method"] is not None, mode == "process")
                    remote_list(server.client)
                    children = children_of(server.process.pid)
                    server.process.send_signal(number)
                    code, stats = server.end()
                    self.assertEqual(code, 0, server.stderr())
                    self.assertEqual((stats["event"], stats["succeeded"], stats["active"]), ("stats", 1, 0))
                    wait_until(lambda: not alive(children), "workers are gone")
                    free_port_works(server.client.port)
                    self.assertNotIn("Traceback", server.stderr())

    def test_the_monitor_goes_on_when_every_worker_is_busy(self) -> None:
        for mode in ("thread", "process"):
            with self.subTest(mode=mode):
                server = self.start(1, mode, "--monitor", "0.05")
                clients = [socket.create_connection((server.client.host, server.client.port), WAIT_S)
                           for _ in range(3)]
                clients[0].sendall(b"UPLOAD a " + b"QUJD" * 100_000)
                busy = "aktif 1 | antre 2 | menganggur 0 | sukses 0 | gagal 0 | "
                wait_until(lambda: server.stderr().count(busy) > 3, "it says so again and again")
                clients[0].sendall(b"\r\n\r\n")
                self.assertEqual(read_json(clients[0])["data_ukuran"], 300_000)
                for connection in clients:
                    connection.close()
                wait_until(lambda: "aktif 0 | antre 0 | menganggur 1 | sukses 1 | gagal 0 | " in server.stderr(), "end")
                server.process.terminate()
                self.assertEqual(server.end()[0], 0)

    def test_a_transfer_under_way_is_finished(self) -> None:
        for mode in ("thread", "process"):
            with self.subTest(mode=mode):
                server = self.start(2, mode)
                with socket.create_connection((server.client.host, server.client.port), WAIT_S) as connection:
                    connection.sendall(b"UPLOAD a QUJD")
                    wait_until(lambda: list(server.directory.glob(TEMPORARY_PREFIX + "*")), "it began")
                    server.process.terminate()
                    wait_until(lambda: not listening(server.client), "it stopped listening")
                    connection.sendall(b"QUJD\r\n\r\n")
                    self.assertEqual(read_json(connection)["data_ukuran"], 6)
                code, stats = server.end()
                self.assertEqual((code, stats["succeeded"], stats["failed"]), (0, 1, 0))
                self.assertEqual((server.directory / "a").read_bytes(), b"ABCABC")

    def test_grace_has_an_end_and_a_second_signal_is_the_end(self) -> None:
        for grace, signals in (("0.3", 1), ("600", 2)):
            with self.subTest(grace=grace):
                server = self.start(2, "process", "--grace", grace)
                with socket.create_connection((server.client.host, server.client.port), WAIT_S) as connection:
                    connection.sendall(b"UPLOAD a QUJD")
                    wait_until(lambda: list(server.directory.glob(TEMPORARY_PREFIX + "*")), "it began")
                    server.process.terminate()
                    wait_until(lambda: not listening(server.client), "it stopped listening")
                    if signals == 2:
                        server.process.terminate()
                    code, stats = server.end()
                self.assertEqual((code, stats["failed"]), (0, 1))
                self.assertEqual(os.listdir(server.directory), [])

    def test_a_signal_to_all_processes_ends_it_even_with_clients_waiting(self) -> None:
        server = self.start(1, "process", "--grace", "1", start_new_session=True)
        clients = [socket.create_connection((server.client.host, server.client.port), WAIT_S) for _ in range(8)]
        clients[0].sendall(b"UPLOAD a QUJD")
        wait_until(lambda: list(server.directory.glob(TEMPORARY_PREFIX + "*")), "it began")
        os.killpg(server.process.pid, signal.SIGTERM)
        self.assertEqual(server.end()[0], 0)
        for connection in clients:
            self.assertNotIn(b"OK", read_to_end(connection))
            connection.close()

    def test_who_waits_in_vain_is_told(self) -> None:
        for mode in ("thread", "process"):
            with self.subTest(mode=mode):
                server = self.start(1, mode)
                busy, waiting = (socket.create_connection((server.client.host, server.client.port), WAIT_S)
                                 for _ in range(2))
                busy.sendall(b"UPLOAD a QUJD")
                wait_until(lambda: list(server.directory.glob(TEMPORARY_PREFIX + "*")), "it began")
                waiting.sendall(b"LIST\r\n\r\n")
                wait_until(lambda: remote_waits(server), "the other waits")
                server.process.terminate()
                wait_until(lambda: not listening(server.client), "it stopped listening")
                busy.sendall(b"\r\n\r\n")
                self.assertEqual(read_json(busy)["status"], "OK")
                self.assertIn("berhenti", read_json(waiting)["data"])
                busy.close()
                waiting.close()
                self.assertEqual(server.end()[0], 0)

    def test_an_idle_connection_does_not_hold_the_server_up(self) -> None:
        server = self.start(2, "thread", "--grace", "600")
        with socket.create_connection((server.client.host, server.client.port), WAIT_S) as connection:
            connection.sendall(b"LIST\r\n\r\n")
            read_json(connection)
            server.process.terminate()
            self.assertEqual(server.end()[0], 0)

    def test_workers_of_a_killed_server_leave(self) -> None:
        for method in ("forkserver", "spawn"):
            with self.subTest(method=method):
                server = self.start(3, "process", "--start-method", method)
                pids = {worker["pid"] for worker in remote_stats(server.client)["per_worker"]}
                self.assertEqual(len(pids), 3)
                server.process.kill()
                killed_at = time.monotonic()
                wait_until(lambda: not alive(pids), "workers are gone")
                self.assertLess(time.monotonic() - killed_at, 10)
                free_port_works(server.client.port)

    def test_debris_of_a_killed_server_is_removed_by_the_next(self) -> None:
        server = self.start(2, "process")
        (server.directory / "a").write_bytes(b"old")
        with socket.create_connection((server.client.host, server.client.port), WAIT_S) as connection:
            connection.sendall(b"UPLOAD a QUJD")
            wait_until(lambda: list(server.directory.glob(TEMPORARY_PREFIX + "*")), "it began")
            pids = children_of(server.process.pid)
            server.process.kill()
            wait_until(lambda: not alive(pids), "workers are gone")
        self.assertEqual(len(os.listdir(server.directory)), 2)
        self.assertEqual(list(FileInterface(server.directory).sizes()), ["a"])
        self.assertEqual(FileInterface(server.directory).remove_debris(), 1)
        self.assertEqual(os.listdir(server.directory), ["a"])
        self.assertEqual((server.directory / "a").read_bytes(), b"old")

    def test_debris_is_not_what_another_server_still_writes(self) -> None:
        server = self.start(2, "thread")
        with socket.create_connection((server.client.host, server.client.port), WAIT_S) as connection:
            connection.sendall(b"UPLOAD a QUJD")
            wait_until(lambda: list(server.directory.glob(TEMPORARY_PREFIX + "*")), "it began")
            self.assertEqual(FileInterface(server.directory).remove_debris(), 0)
            connection.sendall(b"\r\n\r\n")
            self.assertEqual(read_json(connection)["status"], "OK")


def remote_waits(server: ServerProcess) -> bool:
    """Whether all that was sent to a server has arrived in its process, as far as the kernel tells."""
    port = f":{server.client.port:04X}"
    connections = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(fields[1].endswith(port) and fields[3] == "01" for fields in connections[1:]) == 2


def alive(pids: set[int]) -> set[int]:
    """Return those of `pids` that still run."""
    found = set()
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
                if stat.read().rpartition(")")[2].split()[0] != "Z":
                    found.add(pid)
        except OSError:
            pass
    return found


def listening(server: Server) -> bool:
    """Whether somebody accepts connections there."""
    try:
        socket.create_connection((server.host, server.port), 1).close()
        return True
    except OSError:
        return False


@POSIX
class DeadWorkers(ServerCase):
    """kill -9 of a pool process in the middle of a transfer."""

    mode = "process"

    def setUp(self) -> None:
        super().setUp()
        logging.getLogger("server").setLevel(logging.ERROR)  # that connections are lost is expected here
        self.addCleanup(logging.getLogger("server").setLevel, logging.NOTSET)

    def test_ten_times_in_a_row(self) -> None:
        self.running.write("big", bytes(100_000_000))
        descriptors = open_descriptors()
        for turn in range(10):
            with self.subTest(turn=turn):
                before = self.running.stats()
                victim, *waiting = (self.running.connect() for _ in range(6))
                victim.sendall(b"GET big\r\n\r\n")
                victim.recv(10)
                wait_until(lambda: any(slot.busy for slot in self.running.table.slots), "one is busy")
                for connection in waiting:  # two are begun and say nothing yet; the others wait for a worker
                    connection.sendall(b"LIS")
                wait_until(lambda: self.running.stats()["active"] == 3, "all workers are active")
                busy = next(slot for slot in self.running.table.slots if slot.busy)
                os.kill(busy.pid, signal.SIGKILL)
                self.assertFalse(read_to_end(victim).endswith(b"\r\n\r\n"))  # no silence, and no false end
                served = 0
                for connection in waiting:
                    try:
                        connection.sendall(b"T\r\n\r\n")
                        served += read_json(connection)["status"] == "OK"
                    except (OSError, AssertionError):
                        pass
                self.assertGreaterEqual(served, 3)
                for connection in (victim, *waiting):
                    connection.close()
                self.assertEqual(remote_list(self.running.client), ["big"])
                after = self.running.stats()
                self.assertEqual(after["failed"] - before["failed"], 1)
                self.assertGreaterEqual(sum(worker["died"] for worker in after["per_worker"]), turn + 1)
        wait_until(lambda: self.running.stats()["active"] == 0, "all is quiet")
        wait_until(lambda: open_descriptors() == descriptors,
                   f"descriptors: {descriptors} before, {open_descriptors()} now")

    def test_the_debris_of_a_killed_worker_goes_with_it(self) -> None:
        with self.running.connect() as connection:
            connection.sendall(b"UPLOAD a QUJD")
            wait_until(lambda: list(self.running.directory.glob(TEMPORARY_PREFIX + "*")), "it began")
            os.kill(next(slot for slot in self.running.table.slots if slot.busy).pid, signal.SIGKILL)
            self.assertEqual(read_to_end(connection), b"")
        self.assertEqual(remote_list(self.running.client), [])
        self.assertEqual(os.listdir(self.running.directory), [])

    def test_an_idle_worker_that_dies_is_replaced(self) -> None:
        before = self.running.stats()["per_worker"]
        os.kill(before[0]["pid"], signal.SIGKILL)
        wait_until(lambda: not alive({worker["pid"] for worker in before}), "the pool ends all workers with it")
        self.assertEqual(remote_list(self.running.client), [])
        workers = self.running.stats()["per_worker"]
        pids = {worker["pid"] for worker in workers}
        self.assertEqual(alive(pids), pids)
        self.assertEqual([now["died"] - then["died"] for now, then in zip(workers, before, strict=True)], [1, 0, 0])


class GoneFolder(unittest.TestCase):
    """The served folder disappears under a running server."""

    def test_clients_hear_so_and_the_server_can_still_be_stopped(self) -> None:
        for mode in ("legacy", "thread", "process"):
            with self.subTest(mode=mode):
                running = RunningServer(mode)
                if mode == "legacy":  # its threads look at the folder when they start
                    with self.assertLogs("server", "ERROR"):
                        running.directory.rmdir()
                        with self.assertRaises(RemoteError):
                            remote_list(running.client)
                        running.directory.mkdir()
                else:
                    running.directory.rmdir()
                    with self.assertRaises(RemoteError) as caught:
                        remote_list(running.client)
                    self.assertEqual(caught.exception.cause, "server")
                    running.directory.mkdir()
                self.assertEqual(remote_list(running.client), [])
                running.stop()


class Deadlines:
    """Hides the suite from discovery."""

    class Suite(ServerCase):
        """Clients that hold a worker lose it."""

        settings: ClassVar[dict[str, Any]] = {"workers": 2, "idle_timeout_s": 0.4, "total_timeout_s": 0.9}

        def test_silent_clients_lose_their_workers(self) -> None:
            silent = [self.running.connect() for _ in range(2)]
            wait_until(lambda: self.running.stats()["active"] == 2, "both workers are taken")
            self.assertEqual(remote_list(self.running.client), [])
            for connection in silent:
                self.assertEqual(read_json(connection)["status"], "ERROR")
                connection.close()

        def test_an_upload_that_is_never_ended_stores_nothing(self) -> None:
            reply = self.running.ask(b"UPLOAD a QUJD")
            self.assertEqual(reply["status"], "ERROR")
            self.assertEqual(os.listdir(self.running.directory), [])

        def test_a_trickling_client_meets_the_total_deadline(self) -> None:
            with self.running.connect() as connection:
                connection.settimeout(0.1)
                received = b""
                for byte in b"UPLOAD a " + b"QUJD" * 1000:
                    try:
                        connection.sendall(bytes([byte]))
                        received = connection.recv(1000)
                        break
                    except TimeoutError:
                        pass
                self.assertIn(b"ERROR", received)
            self.assertEqual(os.listdir(self.running.directory), [])

        def test_a_client_that_never_reads_loses_its_worker(self) -> None:
            self.running.write("big", bytes(100_000_000))
            failed = self.running.stats()["failed"]
            with self.running.connect() as connection:
                connection.sendall(b"GET big\r\n\r\n")
                wait_until(lambda: self.running.stats()["failed"] == failed + 1, "it is given up")
                last = read_to_end(connection)  # whatever comes of it must not look whole
                self.assertTrue(last)
                self.assertNotIn(b"\r\n", last)
            self.assertEqual(remote_list(self.running.client), ["big"])


class DeadlinesLegacy(Deadlines.Suite):
    """A thread for each client."""

    mode = "legacy"


class DeadlinesThread(Deadlines.Suite):
    """A pool of threads."""

    mode = "thread"


class DeadlinesProcess(Deadlines.Suite):
    """A pool of processes."""

    mode = "process"


class Overload(unittest.TestCase):
    """More clients than places."""

    def test_too_many_are_told_so_and_the_others_served(self) -> None:
        for mode in ("legacy", "thread", "process"):
            with self.subTest(mode=mode):
                running = RunningServer(mode, workers=2, max_waiting=3)
                try:
                    places = 3 if mode == "legacy" else 5
                    held = [running.connect() for _ in range(places)]
                    wait_until(lambda: running.table.shared.open == places, "all are in")
                    source = ROOT / "README.md"
                    for ask in (lambda: remote_list(running.client), lambda: upload(running.client, source),
                                lambda: upload(running.client, source, raw=True)):
                        with self.assertRaises(RemoteError) as caught:
                            ask()
                        self.assertEqual(caught.exception.cause, "ditolak")
                        self.assertIn("sibuk", str(caught.exception))
                    for connection in held:
                        connection.sendall(b"LIST\r\n\r\n")
                    for connection in held:
                        self.assertEqual(read_json(connection)["status"], "OK")
                        connection.close()
                    wait_until(lambda: running.table.shared.open == 0, "all are out")
                    self.assertEqual(remote_list(running.client), [])
                    self.assertEqual(running.stats()["refused"], 3)
                finally:
                    running.stop()

    def test_a_burst_of_clients_is_served_to_the_last(self) -> None:
        for mode in ("thread", "process"):
            with self.subTest(mode=mode):
                running = RunningServer(mode, workers=5)
                try:
                    running.write("a", b"x" * 100_000)
                    with ThreadPoolExecutor(100) as pool:
                        results = list(pool.map(
                            lambda _: remote_get(running.client, "a", lambda piece: None).size_bytes,
                            range(300)))
                    self.assertEqual(results, [100_000] * 300)
                    self.assertEqual(running.stats()["succeeded"], 300)
                finally:
                    running.stop()


    @unittest.skipUnless(sys.platform == "linux", "limits as on Linux")
    def test_a_low_limit_of_descriptors_is_respected(self) -> None:
        for mode, limit in (("thread", 80), ("process", 100)):
            with self.subTest(mode=mode):
                server = ServerProcess(2, mode, preexec_fn=lambda: resource.setrlimit(
                    resource.RLIMIT_NOFILE, (limit, limit)))
                self.addCleanup(server.close)
                clients = [socket.create_connection((server.client.host, server.client.port), WAIT_S)
                           for _ in range(150)]
                outcomes: Counter[str] = Counter()
                for connection in clients:
                    with connection:
                        connection.sendall(b"LIST\r\n\r\n")
                        outcomes[read_json(connection)["status"]] += 1
                self.assertGreater(outcomes["OK"], 5)
                self.assertGreater(outcomes["ERROR"], 5)
                self.assertEqual(remote_list(server.client), [])
                self.assertEqual(server.stderr().count("\n"), 1, server.stderr())
        with self.assertRaisesRegex(AssertionError, "ulimit"):
            ServerProcess(50, "thread", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80)))


@unittest.skipUnless(os.path.exists("/dev/full"), "no full device here")
class FullDisk(unittest.TestCase):
    """A disk that takes nothing more."""

    def test_the_client_hears_of_it_and_the_server_goes_on(self) -> None:
        running = RunningServer("thread")
        try:
            source = running.directory / "source"
            source.write_bytes(bytes(1_000_000))
            protocol_files = FileInterface.create

            def create_on_full_disk(self: FileInterface, name: str, size_bytes: int = 0) -> Any:
                new = protocol_files(self, name, size_bytes)
                new._file.close()
                new._file = open("/dev/full", "wb")
                new.write = new._file.write
                return new

            FileInterface.create = create_on_full_disk  # type: ignore[method-assign]
            try:
                with self.assertRaises(RemoteError) as caught:
                    upload(running.client, source, "a")
            finally:
                FileInterface.create = protocol_files  # type: ignore[method-assign]
            self.assertEqual(caught.exception.cause, "server")
            self.assertIn("disk penuh", str(caught.exception))
            self.assertEqual(os.listdir(running.directory), ["source"])
            upload(running.client, source, "a")
            self.assertEqual(remote_list(running.client), ["a", "source"])
        finally:
            running.stop()


# Run what follows with its last argument, a folder, on a disk of 4 MB; it is gone with the process, however that ends.
SMALL_DISK = ["unshare", *([] if os.name == "posix" and os.geteuid() == 0 else ["-r"]), "-m", "sh", "-c",
              'for last; do :; done; mount -t tmpfs -o size=4m none "$last" && exec "$@"', "sh"]


def small_disk_works() -> bool:
    """Whether this system lets us have such a disk."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            return subprocess.run([*SMALL_DISK, "ls", folder], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


class SmallDisk(unittest.TestCase):
    """A disk that is full before the upload is at its end."""

    def setUp(self) -> None:
        if not small_disk_works():
            self.skipTest("no right to mount a small disk here")

    def test_an_upload_that_does_not_fit_leaves_everything_as_it_was(self) -> None:
        old, small = b"old" * 300_000, b"new" * 500_000
        base64_10_mb = b"QUJD" * 3_500_000
        for mode in ("legacy", "thread", "process"):
            server = ServerProcess(2, mode, script="file_server.py", prefix=SMALL_DISK)
            self.addCleanup(server.close)
            folder = Path(f"/proc/{server.process.pid}/root", *server.directory.parts[1:])  # as the server sees it
            (folder / "a").write_bytes(old)

            def filled_up(folder: Path = folder) -> bool:  # by somebody else, once the size was found to fit
                if not list(folder.glob(TEMPORARY_PREFIX + "*")):
                    return False
                with suppress(OSError), open(folder / "other", "wb", buffering=0) as other:
                    while other.write(bytes(1 << 16)):
                        pass
                return True

            for name, first, rest in (
                ("base64", b"UPLOAD a " + base64_10_mb, END),
                ("raw", b"UPLOAD_RAW a 10500000\r\n\r\n", bytes(100)),
                ("raw, filled meanwhile", b"UPLOAD_RAW a 2000000\r\n\r\n", bytes(2_000_000)),
                ("raw, a few bytes, filled meanwhile", b"UPLOAD_RAW a 100\r\n\r\n", bytes(100)),
            ):
                with self.subTest(mode=mode, upload=name):
                    with socket.create_connection((server.client.host, server.client.port), WAIT_S) as connection:
                        connection.sendall(first)
                        if "meanwhile" in name:
                            wait_until(filled_up, "the upload began")
                        connection.sendall(rest)
                        reply = read_json(connection)
                    self.assertEqual(reply["status"], "ERROR")
                    self.assertRegex(reply["data"], "disk penuh|ruang disk")
                    self.assertLessEqual(set(os.listdir(folder)), {"a", "other"})
                    self.assertEqual((folder / "a").read_bytes(), old)
                    (folder / "other").unlink(missing_ok=True)
            for raw in (False, True):
                source = server.outside / "source"
                source.write_bytes(small)
                upload(server.client, source, "a", raw)
                self.assertEqual((folder / "a").read_bytes(), small)
            self.assertEqual(remote_list(server.client), ["a"])
            self.assertEqual(os.listdir(server.directory), [])  # as we see it: the disk is the server's alone
            server.process.terminate()
            self.assertEqual(server.end()[0], 0, server.stderr())
            self.assertNotIn("Traceback", server.stderr())


@POSIX
class SwappedNames(unittest.TestCase):
    """A name that becomes a link, or worse, after it was looked at and before it is used."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.secret = Path(folder.name, "secret")
        self.secret.write_bytes(b"secret")
        directory = Path(folder.name, "files")
        directory.mkdir()
        self.path = directory / "a"
        self.files = FileInterface(directory)

    def swap(self, make: Callable[[Path], object]) -> None:
        """Put something else into the place of the name, in one step."""
        other = self.path.with_name("b")
        make(other)
        os.replace(other, self.path)

    def read(self) -> bytes:
        with self.files.open("a")[0] as file:
            return file.read()

    def write(self) -> None:
        with self.files.create("a") as file:
            file.write(b"new")
            file.commit()

    def test_between_the_look_and_the_use(self) -> None:
        swaps: dict[str, Callable[[Path], object]] = {
            "link": lambda path: path.symlink_to(self.secret), "broken link": lambda path: path.symlink_to("nothing"),
            "fifo": os.mkfifo,
        }
        look = file_interface._is_regular
        for name, make in swaps.items():

            def look_and_swap(path: Path, make: Callable[[Path], object] = make) -> bool:
                found = look(path)
                self.swap(make)
                return found

            for use in (self.read, self.write, lambda: self.files.delete("a")):
                with self.subTest(swapped=name, use=use):
                    self.path.unlink(missing_ok=True)
                    self.path.write_bytes(b"old")
                    with mock.patch.object(file_interface, "_is_regular", look_and_swap):
                        if use == self.read:
                            with self.assertRaisesRegex(FileError, "tidak ditemukan"):
                                use()
                        else:
                            use()
                    if use == self.write:
                        self.assertFalse(self.path.is_symlink())
                        self.assertEqual(self.path.read_bytes(), b"new")
                    self.assertEqual(self.secret.read_bytes(), b"secret")
                    self.assertFalse((self.secret.parent / "nothing").exists())
                    self.assertLessEqual(set(os.listdir(self.path.parent)), {"a"})

    def test_while_it_is_written(self) -> None:
        with self.files.create("a") as file:
            file.write(b"new")
            self.swap(lambda path: path.symlink_to(self.secret))
            file.commit()
        self.assertEqual((self.read(), self.secret.read_bytes()), (b"new", b"secret"))

    def test_again_and_again_at_any_moment(self) -> None:
        ended = threading.Event()

        def keep_swapping() -> None:
            while not ended.is_set():
                self.swap(lambda path: path.symlink_to(self.secret))
                self.swap(lambda path: path.write_bytes(b"old"))

        swapper = threading.Thread(target=keep_swapping)
        swapper.start()
        done: Counter[bytes] = Counter()
        try:
            for turn in range(500_000):
                if turn >= 5000 and done:  # at least one reading has met the file
                    break
                with suppress(FileError, OSError):
                    if turn % 3 == 0:
                        self.write()
                    elif turn % 3 == 1:
                        done[self.read()] += 1
                    else:
                        self.files.delete("a")
        finally:
            ended.set()
            swapper.join()
        self.assertTrue(done)
        self.assertLessEqual(set(done), {b"old", b"new"})
        self.assertEqual(self.secret.read_bytes(), b"secret")
        self.assertLessEqual(set(os.listdir(self.path.parent)), {"a"})


class BadUsage(unittest.TestCase):
    """What a person may type wrongly: one clear line, and no traceback."""

    def assert_refused(self, *cases: tuple[object, ...]) -> None:
        """Check cases of an exit code and a command; two run at a time."""
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda case: run_script(*case[1:]), cases))
        for (code, *arguments), result in zip(cases, results, strict=True):
            with self.subTest(arguments=arguments):
                self.assertEqual(result.returncode, code, result.stderr)
                self.assertNotIn("Traceback", result.stderr)
                self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)
                self.assertTrue(result.stderr.startswith(("galat", "gagal")), result.stderr)

    def test_servers(self) -> None:
        one, other = "file_server.py", "file_thread_pool.py"
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.assert_refused(
                *((2, one, *arguments) for arguments in (
                    ["0"], ["10000"], ["-1"], ["x"], ["5", "procces"], ["5", "thread", "--port", "70000"],
                    ["5", "thread", "--port", "x"], ["5", "thread", "--idle-timeout", "0"],
                    ["5", "thread", "--nonsense"])),
                (2, other, "0"), (2, other, "5", "legacy"), (2, other, "--monitor", "0"),
                *((3, script, "--files", ROOT / name) for script in (one, other) for name in ("nowhere", "README.md")),
                (3, one, "--host", "999.999.999.999"),
                *((3, script, "2", mode, "--port", port) for script in (one, other) for mode in ("thread", "process")))

    def test_clients(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.assert_refused(
            (1, "file_client_cli.py", "--port", port, "list"),
            (2, "file_client_cli.py", "--port", 0, "list"),
            (2, "file_client_cli.py", "nonsense"),
            (1, "file_client_cli.py", "--port", port, "get", ""),
            (1, "file_client_cli.py", "--port", port, "--host", "a..b", "list"),
            (1, "file_client_cli.py", "--port", port, "get", "\udcff"),
            (2, "file_client_stress_test.py", "--port", port, "--operation", "list", "--output", "/no/x"),
            (1, "file_client_cli.py", "--port", port, "upload", ROOT / "nowhere"),
            (3, "file_client_stress_test.py", "--port", port, "--operation", "list"),
            (2, "file_client_stress_test.py", "--port", port, "--operation", "delete"),
            (2, "file_client_stress_test.py", "--port", port),
            (2, "run_for_test.py", "--volumes", "0"),
            (2, "run_for_test.py", "--server-models", "fork"),
            (2, "run_for_test.py", "--output", ROOT / "README.md"),
            (2, "run_for_test.py", "--output", "/tmp/never", "--volumes", "100000",
             "--client-workers", "1000"),
        )


if sys.platform != "linux":
    del DeadWorkers, Shutdown  # they look into /proc

if __name__ == "__main__":
    unittest.main()
