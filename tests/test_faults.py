"""Faults, made on purpose: killed workers and servers, silent clients, full disks, odd surroundings."""

from __future__ import annotations

import io
import itertools
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import file_interface
import file_server
import file_thread_pool
from file_client_cli import RemoteError, Server, read_back, remote_list, remote_stats, upload
from file_interface import TEMPORARY_PREFIX, FileError, FileInterface
from file_protocol import END
from tests.support import (
    MODES, ROOT, SLOW, WAIT_S, RunningServer, ServerCase, ServerProcess, alive, at_once,
    children_of, for_each_model, read_json, read_to_end, run_script, wait_until,
)

LINUX = unittest.skipUnless(sys.platform == "linux", "needs /proc, and limits and signals as on Linux")
EVERY = [(2, mode) for mode in MODES]  # arguments of file_server.py
LIST = b"LIST\r\n\r\n"

# What Python runs before everything else: each upload hangs in the disk,
HANGING_DISK = "import file_interface, time\nfile_interface.NewFile.write = lambda *_: time.sleep(3600)\n"
# or Python is as it is built for a system without semaphores, or without fork servers.
NO_SEMAPHORES = "import _multiprocessing\ndel _multiprocessing.SemLock, _multiprocessing.sem_unlink\n"
NO_FORK_SERVER = "import multiprocessing\nmultiprocessing.get_all_start_methods = lambda: ['spawn']\n"


def setUpModule() -> None:
    logging.disable()  # that connections and folders are lost is expected here
    unittest.addModuleCleanup(logging.disable, logging.NOTSET)
    if SLOW:
        RunningServer("process", workers=50).close()  # shared memory of that size is kept for the next one


@contextmanager
def beginning_with(script: str) -> Iterator[dict[str, str]]:
    """Return an environment in which every Python runs this script first."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sitecustomize.py").write_text(script)
        yield {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}


def mounted(mount: str) -> list[str]:
    """Return a command that runs its arguments where something is mounted; "$last" is the last of them."""
    command = ["unshare", *(["-r"] if os.geteuid() else []), "-m", "sh", "-c",
               f'for last; do :; done; mount -t tmpfs -o {mount} && exec "$@"', "sh"]
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.call([*command, "ls", folder], stderr=subprocess.DEVNULL, timeout=WAIT_S):
            raise unittest.SkipTest("no right to mount anything here")
    return command


def listening(server: Server) -> bool:
    """Return whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex((server.host, server.port)) == 0


def answers(server: Server) -> bool:
    """Return whether a server answers, and is neither busy nor replacing its workers."""
    with suppress(RemoteError):
        remote_list(server)
        return True
    return False


def of_workers(name: str, stats: dict[str, Any]) -> list[int]:
    return [worker[name] for worker in stats["per_worker"]]


class ScriptCase(unittest.TestCase):
    """Servers that run as scripts, several at once."""

    def with_each(self, check: Callable[[ServerProcess], None], *cases: Sequence[Any], **start: Any) -> None:
        """Start a server with the arguments of each case, and call `check` with it."""
        at_once(self, lambda *case: check(self.start(*case, **start)), *cases)

    def start(self, *arguments: object, **options: Any) -> ServerProcess:
        """Start a server with these arguments; it ends with the test."""
        script = "file_thread_pool.py" if "--monitor" in arguments else "file_server.py"
        server = ServerProcess(*arguments, script=script, **options)
        self.addCleanup(server.close)
        return server

    def connect(self, server: ServerProcess, sent: bytes = b"") -> socket.socket:
        """Open a connection and send something."""
        connection = socket.create_connection((server.client.host, server.client.port), WAIT_S)
        self.addCleanup(connection.close)
        connection.sendall(sent)
        return connection

    def begin_upload(self, server: ServerProcess) -> socket.socket:
        """Return a connection in the middle of an upload of a."""
        connection = self.connect(server, b"UPLOAD a " + b"QUJD" * 50_000)
        wait_until(lambda: list(server.directory.glob(TEMPORARY_PREFIX + "*")), "the upload began")
        return connection


@LINUX
class Shutdown(ScriptCase):
    """Signals to a server that runs as a script."""

    def test_what_is_under_way_is_finished_and_who_waits_is_told(self) -> None:
        def check(server: ServerProcess) -> None:
            with self.begin_upload(server) as busy, self.connect(server, LIST) as waiting:
                line = "aktif 1 | antre 1 | menganggur 0 | sukses 0 | gagal 0 | "
                wait_until(lambda: server.stderr().count(line) > 3, "the monitor goes on")
                os.killpg(server.process.pid, signal.SIGINT)  # as Ctrl-C does
                wait_until(lambda: not listening(server.client), "it stopped listening")
                busy.sendall(b"QUJD" + END)
                self.assertEqual(read_json(busy)["data_ukuran"], 150_003)
                busy.close()
                self.assertIn("berhenti", read_json(waiting)["data"])
            stats = server.end()
            self.assertEqual((stats["succeeded"], stats["failed"]), (1, 0))
            self.assertEqual((server.directory / "a").read_bytes(), b"ABC" * 50_001)

        self.with_each(check, *((1, mode, "--monitor", 0.05) for mode in MODES[1:]), start_new_session=True)

    def test_the_grace_has_an_end_even_for_workers_that_hang(self) -> None:
        def check(environment: dict[str, str] | None, *arguments: object) -> None:
            server = self.start(*arguments, env=environment)
            workers = set(of_workers("pid", remote_stats(server.client)))
            self.begin_upload(server)
            self.assertEqual(remote_list(server.client), [])  # the others go on
            for pid in workers if len(workers) == 3 else ():
                os.kill(pid, signal.SIGSTOP)
            server.process.terminate()
            wait_until(lambda: not listening(server.client), "it stopped listening")
            if 600 in arguments:  # a second signal is the end of the grace
                server.process.terminate()
            server.process.wait(10)  # it takes 1.1 s; without an end it takes for ever
            stats = server.end()
            self.assertFalse(alive(workers))
            if not environment:
                self.assertEqual((stats["failed"], os.listdir(server.directory)), (1, []))

        with beginning_with(HANGING_DISK) as hanging:
            short = [(*case, "--grace", 0.1) for case in (*EVERY, (3, "process"))]
            cases = [(hanging, *case) for case in short] + [(None, *case) for case in short[:-1]]
            at_once(self, check, *cases, *((None, *case, "--grace", 600) for case in EVERY[1:]))

    def test_a_signal_to_all_processes_ends_it_even_with_clients_waiting(self) -> None:
        server = self.start(1, "process", "--grace", 1, start_new_session=True)
        clients = [self.begin_upload(server), *(self.connect(server) for _ in range(7))]
        os.killpg(server.process.pid, signal.SIGTERM)
        server.end()
        for connection in clients:
            self.assertNotIn(b"OK", read_to_end(connection))

    def test_workers_of_a_killed_server_leave_and_the_next_one_removes_its_debris(self) -> None:
        def check(start_method: str, environment: dict[str, str] | None) -> None:
            server = self.start(3, "process", env=environment)
            self.assertEqual(server.ready["start_method"], start_method)
            read_back(server.client, upload(server.client, Path(__file__), "a"))
            pids = set(of_workers("pid", remote_stats(server.client)))
            self.assertEqual(len(pids), 3)
            self.begin_upload(server)
            files = FileInterface(server.directory)
            self.assertEqual(files.remove_debris(), 0)  # somebody still writes it
            server.process.kill()
            wait_until(lambda: not alive(pids), "workers are gone")
            socket.create_server(("127.0.0.1", server.client.port)).close()
            self.assertEqual((list(files.list()), files.remove_debris()), (["a"], 1))
            self.assertEqual(os.listdir(server.directory), ["a"])
            self.assertEqual((server.directory / "a").read_bytes(), Path(__file__).read_bytes())

        with beginning_with(NO_FORK_SERVER) as spawning:
            at_once(self, check, ("forkserver", None), ("spawn", spawning))


@LINUX
class Surroundings(ScriptCase):
    """Where and how a server is started: it works, or says in one line why not."""

    def outcome(self, *arguments: object, **options: Any) -> str:
        """Start, use and end a server; return its start method, or the line by which it refused to start."""
        try:
            server = self.start(*arguments, "--grace", 500, **options)
        except AssertionError as error:
            self.assertRegex(str(error), r"\A3 galat: [^\n]+\n\Z")
            return str(error)
        workers = children_of(server.process.pid)
        with self.connect(server, LIST) as resting:
            self.assertEqual(read_json(resting)["status"], "OK")
            server.process.send_signal(signal.SIGHUP)
            self.assertEqual(resting.recv(1), b"")  # it is not waited for
        stats = server.end()
        self.assertEqual((stats["event"], stats["succeeded"], stats["active"]), ("stats", 1, 0))
        socket.create_server(("127.0.0.1", server.client.port)).close()
        wait_until(lambda: not alive(workers), "workers are gone")
        ready = {"pid": server.process.pid, "mode": arguments[1], "workers": stats["workers"]}
        self.assertLessEqual(ready.items(), server.ready.items())
        return server.ready["start_method"] or ""

    def test_what_keeps_processes_away_keeps_no_threads_away(self) -> None:
        with beginning_with(NO_SEMAPHORES) as without, beginning_with(NO_FORK_SERVER) as spawning, \
                tempfile.TemporaryDirectory() as folder:
            for name in ("socket.py", "file_server.py", "file_interface.py"):
                Path(folder, name).write_text("raise SystemExit('this is not the one')")
            long = Path(folder, "ñ " * 50)
            long.mkdir()
            safe_path = "forkserver" if sys.version_info >= (3, 11) else "galat"
            surroundings: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
                "as usual": ("forkserver", dict),
                "no semaphores": ("galat", lambda: {"env": without}),
                "no fork server": ("spawn", lambda: {"env": spawning}),
                "no shared memory": ("galat", lambda: {"prefix": mounted("ro none /dev/shm")}),
                "names like ours": (safe_path, lambda: {"cwd": folder}),
                "a long temp folder": ("forkserver", lambda: {"env": {**os.environ, "TMPDIR": str(long)}})}

            def check(where: str, mode: str) -> None:
                process, options = surroundings[where]
                monitor = () if mode == "legacy" else ("--monitor", 500)
                told = self.outcome(2, mode, *monitor, **options())
                self.assertRegex(told, process if mode == "process" else r"\A\Z")

            at_once(self, check, *itertools.product(surroundings, MODES))

    @unittest.skipIf(os.geteuid() or not shutil.which("setpriv"), "needs root and setpriv")
    def test_few_processes_or_little_memory(self) -> None:
        def check(mode: str, *prefix: str) -> None:
            self.assertTrue(self.outcome(50, mode, prefix=prefix) or "--as" in prefix[-1])

        user = 40_000 + os.getpid() % 10_000  # and the next ones: nobody else has processes of theirs
        other = "setpriv", "--clear-groups", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"
        processes = (1, "thread"), (2, "process"), (12, "process"), (40, "process")
        memory_mb = (36, "thread"), (36, "process"), (44, "process"), (52, "process")
        at_once(self, check, *((mode, *other, f"--reuid={user + count}", "prlimit", f"--nproc={count}")
                              for count, mode in processes),
                     *((mode, "prlimit", f"--as={size << 20}") for size, mode in memory_mb))

    def test_too_many_clients_are_told_so_and_the_others_served(self) -> None:
        def check(server: ServerProcess) -> None:
            outcomes: Counter[str] = Counter()
            *others, last = [self.connect(server, LIST) for _ in range(150)]
            for connection in (last, *others):  # once the last is answered, all have been accepted
                with connection:
                    outcomes[str(read_json(connection)["data"])[:12]] += 1
            self.assertEqual(outcomes.keys(), {"[]", "server sibuk"})
            self.assertGreater(min(outcomes.values()), 5)
            wait_until(lambda: answers(server.client), "all are out")
            self.assertEqual(server.stderr().count("\n"), 1, server.stderr())

        self.with_each(check, *EVERY, prefix=["prlimit", "--nofile=100"])
        self.with_each(check, (2, "legacy", "--max-waiting", 9), (2, "process", "--max-waiting", 9))
        self.assertIn("ulimit", self.outcome(50, "thread", prefix=["prlimit", "--nofile=80"]))

    def test_the_temporary_folder_is_emptied_while_it_runs(self) -> None:
        def check(used: bool) -> None:
            with tempfile.TemporaryDirectory() as folder:
                server = self.start(2, "process", env={**os.environ, "TMPDIR": folder})
                if used:
                    remote_list(server.client)
                for path in Path(folder).iterdir():
                    shutil.rmtree(path)
                self.assertRaises(RemoteError, remote_list, server.client)
                code = server.process.wait(WAIT_S)
                self.assertEqual((code, server.stderr().count("\n")), (3, 2), server.stderr())

        at_once(self, check, (False,), (True,))

    def test_the_served_folder_disappears(self) -> None:
        def check(running: RunningServer) -> None:
            running.directory.rmdir()
            self.assertRaises(RemoteError, remote_list, running.client)
            running.directory.mkdir()
            self.assertEqual(remote_list(running.client), [])

        for_each_model(self, check)

    def test_names_that_the_locale_cannot_spell(self) -> None:
        def check(may_refuse: bool, *case: object) -> None:
            ascii_only = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"} if may_refuse else {}
            server = self.start(*case, env={**os.environ, "LC_ALL": "C", **ascii_only})
            statuses = ""
            for sent in ("UPLOAD ñ文 QUJD\n\n", "GET ñ文\n", "DELETE ñ文\n", "UPLOAD a QUJD\n\n",
                         "GET a\n"):
                with self.connect(server, sent.encode()) as connection:
                    statuses += read_json(connection)["status"][0]
            self.assertIn(statuses, ["OOOOO", "EEEOO"] if may_refuse else ["OOOOO"])
            server.end(signal.SIGTERM)

        at_once(self, check, *((may_refuse, *case) for may_refuse in (False, True) for case in EVERY[1:]))

    def test_standard_streams_that_are_closed(self) -> None:
        def check(mode: str) -> None:
            with socket.create_server(("127.0.0.1", 0)) as free:
                client = Server("127.0.0.1", free.getsockname()[1], WAIT_S)
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, str(ROOT / "file_server.py"), "2", mode]
                options = ["--port", str(client.port), "--files", folder]
                process = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command, *options])
                self.addCleanup(process.kill)
                wait_until(lambda: listening(client), "it is there")
                self.assertTrue(upload(client, Path(__file__), "a").checked)
                process.terminate()
                self.assertEqual((process.wait(WAIT_S), os.listdir(folder)), (0, ["a"]))

        at_once(self, check, *((mode,) for mode in MODES))

    def test_the_readers_of_its_streams_leave_as_does_the_terminal_under_nohup(self) -> None:
        def check(redirection: str, *arguments: object) -> None:
            command = f'trap "" HUP; exec "$@" {redirection}'
            server = self.start(*arguments, prefix=["bash", "-c", command, "bash"])
            server.process.stdout.close()  # type: ignore[union-attr]
            server.process.stdout = None
            server.process.send_signal(signal.SIGHUP)
            time.sleep(0.1)  # lines of the monitor that nobody reads
            self.assertEqual(remote_list(server.client), [])
            server.end(signal.SIGTERM)

        leaves = "2> >(exec head -n 1 > /dev/null)"
        at_once(self, check, ("", *EVERY[0]), *((leaves, *case, "--monitor", 0.01) for case in EVERY[1:]))

    def test_a_terminal_is_for_people(self) -> None:
        for options, ready, end in ((["--json"], '{"event": "ready", "host": ', '{"event": "stats", '),
                                    ([], "server siap di 127.0.0.1:", "server berhenti: 0 permintaan ")):
            ours, terminal = os.openpty()
            with self.subTest(options=options), open(ours, "rb", buffering=0) as said, \
                    tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, str(ROOT / "file_thread_pool.py"), "--port=0", "--files", folder]
                with open(terminal, "wb"):
                    subprocess.run([*command, "--stop-with-stdin", *options], stdin=subprocess.DEVNULL,
                                   stdout=terminal, stderr=terminal, timeout=WAIT_S, check=True)
                text = ""
                with suppress(OSError):  # EIO: the other side is closed
                    while piece := said.read(1000):
                        text += piece.decode()
                self.assertEqual((text[:len(ready)], "{" in text), (ready, bool(options)))
                self.assertIn(end, text)

    def test_an_upload_that_does_not_fit_leaves_everything_as_it_was(self) -> None:
        def check(server: ServerProcess) -> None:
            folder = Path(f"/proc/{server.process.pid}/root", *server.directory.parts[1:])  # as it sees it
            old = b"old" * 300_000
            (folder / "a").write_bytes(old)
            for first, filled, rest in ((b"UPLOAD a " + b"QUJD" * 3_500_000, False, END),
                                        (b"UPLOAD_RAW a 10500000\r\n\r\n", False, bytes(100)),
                                        (b"UPLOAD_RAW a 2000000\r\n\r\n", True, bytes(2_000_000))):
                with self.connect(server, first) as connection:
                    if filled:  # by somebody else, once the size was found to fit
                        wait_until(lambda: list(folder.glob(TEMPORARY_PREFIX + "*")), "the upload began")
                        self.assertRaises(OSError, (folder / "other").write_bytes, bytes(1 << 22))
                    connection.sendall(rest)
                    self.assertRegex(read_json(connection)["data"], "disk penuh|ruang disk")
                self.assertLessEqual(set(os.listdir(folder)), {"a", "other"})
                self.assertEqual((folder / "a").read_bytes(), old)
                (folder / "other").unlink(missing_ok=True)
            upload(server.client, Path(__file__), "a")
            self.assertEqual((folder / "a").read_bytes(), Path(__file__).read_bytes())
            self.assertEqual(os.listdir(server.directory), [])  # as we see it: the disk is the server's alone
            server.end(signal.SIGTERM)

        self.with_each(check, *EVERY, prefix=mounted('size=4m none "$last"'))

    def test_a_name_becomes_something_else_after_it_was_looked_at(self) -> None:
        with tempfile.TemporaryDirectory() as folder, \
                mock.patch.object(file_interface, "_is_regular", return_value=True):
            files, path, secret = FileInterface(Path(folder)), Path(folder, "a"), Path(folder, "secret")
            secret.write_bytes(b"secret")
            for target in (secret, Path("nothing"), None):
                path.symlink_to(target) if target else os.mkfifo(path)
                self.assertRaisesRegex(FileError, "tidak ditemukan", files.get, "a")
                with files.upload("a") as file:
                    file.write(b"new")
                    file.commit()
                self.assertEqual((secret.read_bytes(), path.read_bytes()), (b"secret", b"new"))
                self.assertEqual((path.is_symlink(), set(os.listdir(folder))), (False, {"a", "secret"}))
                path.unlink()


@LINUX
class DeadWorkers(ServerCase):
    """kill -9 of a pool process."""

    mode, workers = "process", 50 if SLOW else 5
    settings: ClassVar[dict[str, Any]] = {"workers": workers}

    def test_in_the_middle_of_a_transfer(self) -> None:
        running = self.running
        (running.directory / "big").write_bytes(bytes(50_000_000))
        for request in (b"GET big\r\n\r\n", b"UPLOAD a QUJD") * 2:
            before = running.stats()
            victim, *waiting = clients = [running.connect() for _ in range(2 * self.workers)]
            victim.sendall(request)  # some of the others are begun but silent, and the rest wait for a worker
            wait_until(lambda: running.stats()["active"] == self.workers, "all workers are active")
            wait_until(lambda: any(of_workers("busy", running.stats())), "one is busy")
            busy, = (worker["pid"] for worker in running.stats()["per_worker"] if worker["busy"])
            os.kill(busy, signal.SIGKILL)
            self.assertFalse(read_to_end(victim).endswith(END))  # no silence, and no false end
            served = 0
            for connection in waiting:
                with suppress(OSError, AssertionError):
                    connection.sendall(LIST)
                    served += read_json(connection)["status"] == "OK"
            self.assertGreaterEqual(served, self.workers)
            for connection in clients:
                connection.close()
            self.assertEqual((remote_list(running.client), running.names()), (["big"], ["big"]))
            after = running.stats()
            self.assertEqual(after["failed"] - before["failed"], 1)
            self.assertLess(sum(of_workers("died", before)), sum(of_workers("died", after)))

    def test_idle_and_one_of_the_new_pool_as_soon_as_it_appears(self) -> None:
        running, count = self.running, self.workers

        def is_whole() -> bool:
            return answers(running.client) and len(alive({*of_workers("pid", running.stats())})) == count

        for turn in range(40 if SLOW else 8):
            wait_until(is_whole, "the pool is whole")
            before = running.stats()
            pids = of_workers("pid", before)
            os.kill(pids[0], signal.SIGKILL)
            wait_until(lambda: not alive({*pids}), "the pool ends all workers with it")
            others = children_of(os.getpid())
            with running.connect() as connection:
                connection.settimeout(5)
                connection.sendall(LIST)
                connection.shutdown(socket.SHUT_WR)
                if turn:
                    new = next(filter(None, (children_of(os.getpid()) - others for _ in range(2000))))
                    with suppress(ProcessLookupError):
                        os.kill(max(new), signal.SIGKILL)
                    wait_until(lambda: not alive({max(new)}), "it is gone")
                end = read_to_end(connection)[-4:]  # after 5 s, it raises TimeoutError
            self.assertIn(end, (b"", END))
            pairs = zip(of_workers("died", running.stats()), of_workers("died", before), strict=True)
            died = [now - then for now, then in pairs]
            self.assertTrue(turn or (end, died) == (END, [1] + [0] * (count - 1)), died)


class Clients(unittest.TestCase):
    """What clients may do to a server, of each model."""

    def test_those_that_are_silent_or_slow_lose_their_workers(self) -> None:
        def check(running: RunningServer) -> None:
            (running.directory / "big").write_bytes(bytes(30_000_000))
            silent, unended, trickling, deaf = clients = [running.connect() for _ in range(4)]
            unended.sendall(b"UPLOAD a QUJD")
            deaf.sendall(b"GET big\r\n\r\n")
            trickling.sendall(b"UPLOAD b ")
            for _ in range(6):  # longer than a request may take
                time.sleep(0.1)
                trickling.sendall(b"QUJD")
            for connection in (silent, unended, trickling):
                self.assertEqual(read_json(connection)["status"], "ERROR")
            wait_until(lambda: running.stats()["failed"] == 3, "the one that reads nothing is given up")
            last = read_to_end(deaf)  # whatever comes of it must not look whole
            self.assertTrue(last)
            self.assertNotIn(b"\r\n", last)
            for connection in clients:
                connection.close()
            self.assertEqual((remote_list(running.client), running.names()), (["big"], ["big"]))

        for_each_model(self, check, workers=4, idle_timeout_s=0.3, total_timeout_s=0.5)

    def test_those_that_rest_make_room_for_others_and_transfers_are_not_cut(self) -> None:
        def check(running: RunningServer) -> None:
            transfer, *resting = (running.connect() for _ in range(3))
            transfer.sendall(b"UPLOAD a QUJD")
            for connection in resting:
                connection.sendall(LIST)
                self.assertEqual(read_json(connection)["status"], "OK")
            for _ in range(7):  # longer than one may rest if others wait, but nobody does
                time.sleep(0.1)
                transfer.sendall(b"QUJD")
            self.assertEqual(select.select(resting, [], [], 0)[0], [])  # they are open
            others = [running.connect() for _ in range(2)]
            for connection in others:
                connection.sendall(LIST)
                self.assertEqual(read_json(connection)["status"], "OK")  # in vain, it is waited for 20 s
            if running.stats()["mode"] != "legacy":
                self.assertEqual([connection.recv(1) for connection in resting], [b"", b""])
            transfer.sendall(END)
            self.assertEqual(read_json(transfer)["status"], "OK")
            for connection in (transfer, *resting, *others):
                connection.close()

        for_each_model(self, check, workers=3)

    def test_those_that_poll_do_not_keep_others_waiting(self) -> None:
        def poll(running: RunningServer, ended: threading.Event) -> int:
            """Ask until the server ends the connection, or it is no longer wanted; return how often."""
            count, pause_s = 0, 0.2 if SLOW else 0.001
            with running.connect() as connection:
                connection.sendall(LIST)
                while count < 2000 and connection.recv(1, socket.MSG_PEEK) and not ended.wait(pause_s):
                    read_json(connection)  # whole: it is closed after the end of a reply
                    connection.sendall(LIST)
                    count += 1
            return count

        def check(running: RunningServer) -> None:
            ended = threading.Event()
            with ThreadPoolExecutor(2) as pool:
                pollers = [pool.submit(poll, running, ended) for _ in range(2)]
                wait_until(lambda: running.stats()["active"] == 2, "they have the workers")
                self.assertEqual(remote_list(running.client), [])
                ended.set()
                most = max(poller.result() for poller in pollers)
            if running.stats()["mode"] != "legacy":  # 10 s with pauses of 0.2 s, or 100 requests
                self.assertTrue(45 <= most <= 60 if SLOW else 100 <= most < 2000, most)

        for_each_model(self, check, workers=2)


class BadUsage(ScriptCase):
    """What a person may type wrongly: one clear line, and no traceback."""

    def test_wrong_arguments(self) -> None:
        wrong = ["0", "10000", "-1", "x", "5 procces", "--port 70000", "--port x", "--idle-timeout 0",
                 "--grace nan", "--max-waiting 0", "--nonsense", "5 thread 6"]
        for arguments in (*wrong, "5 legacy", "--monitor 0"):
            with redirect_stderr(io.StringIO()) as errors, self.assertRaises(SystemExit) as caught:
                (file_server if arguments in wrong else file_thread_pool).main(arguments.split())
            self.assertRegex(f"{caught.exception.code} {errors.getvalue()}",
                             r"(?s)\A2 usage: .*\n[^ ][^\n]*: error: [^\n]+\n\Z", arguments)

    def test_what_cannot_be_had(self) -> None:
        def check(*arguments: object) -> None:
            done = run_script("file_server.py", *arguments, timeout_s=WAIT_S)
            self.assertRegex(f"{done.returncode} {done.stdout}{done.stderr}", r"\A3 galat: [^\n]+\n\Z")

        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            at_once(self, check, (2, "process", "--port", port), ("--host", "999.999.999.999"),
                         ("--files", ROOT / "nowhere"), ("--files", ROOT / "README.md"))
