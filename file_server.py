"""The server: listening, accepting, handing a connection to a worker, serving it, shutting down.

``LegacyServer`` starts a thread for each client, as the course's server does. ``PoolServer`` hands each
client to a worker of a pool. A worker is a thread or a process: EXECUTORS is the one place where the
difference is made. What a worker does with its connection, serve_connection(), is the same everywhere.

    accept  ->  hand_over()  ->  serve_connection()  ->  the future is done  ->  close

The accepting process keeps its own handle on each connection until the worker is done with it. (Pickling
duplicates it later, in another thread: to close it after submit() would be too soon.) Its last act may be to
read on for a moment after the last reply, so that the client sees that reply and not a reset.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import itertools
import json
import logging
import multiprocessing
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import resource_sharer
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

from file_interface import FileInterface
from file_protocol import (
    DEFAULT_HOST, DEFAULT_PORT, SWITCH_INTERVAL_S, CommandLine, FileProtocol, ProtocolError, Request, RequestReader,
    Wire, default_start_method, depend_on_parent, error_reply, forget_main_file, one_of, peak_rss_bytes, reason,
    seconds, whole_number,
)

log = logging.getLogger("server")

DEFAULT_DIRECTORY = Path(__file__).resolve().parent / "files"
BACKLOG = 1024  # a burst of clients waits here until the accept loop comes round; the kernel may allow less
MAX_WORKERS = 61 if sys.platform == "win32" else 1000  # Windows cannot wait for more processes than that
START_ATTEMPTS = 3
START_TIMEOUT_S = 60.0  # for the whole pool to come up
WANTED_DESCRIPTORS = 10240
OTHER_DESCRIPTORS = 64  # for all that is not a client
LINGER_S = 2.0  # how long the end of a refused client is waited for
BUSY = "server sibuk, coba lagi nanti"
STOPPING = "server sedang berhenti"


class ServerError(Exception):
    """The server cannot start or go on; the text is for people, in Indonesian."""


@dataclass(frozen=True)
class Settings:
    """What a server is told; workers in other processes get a copy."""

    directory: Path = DEFAULT_DIRECTORY
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT  # 0 picks a free one
    workers: int = 5
    start_method: str | None = None  # of processes; None chooses
    idle_timeout_s: float = 30.0  # without a byte from the client, or to it
    total_timeout_s: float = 600.0  # for one request, however it trickles
    max_waiting: int = 1024  # connections that may wait for a worker; further ones are told to come back
    grace_s: float = 10.0  # for the requests under way when the server is told to stop


# ---- the pool: the one place where a thread becomes a process


def thread_pool(settings: Settings, *initializer: Any) -> Executor:
    """Return a pool of threads; `initializer` is a function for each new worker to call, and its arguments."""
    return ThreadPoolExecutor(settings.workers, "worker", initializer[0], initializer[1:])


def process_pool(settings: Settings, *initializer: Any) -> Executor:
    """Return a pool of processes; `initializer` is a function for each new worker to call, and its arguments."""
    context = multiprocessing.get_context(settings.start_method)
    context.set_forkserver_preload(["file_server"])  # imported once and not by each process (found from its folder)
    return ProcessPoolExecutor(settings.workers, context, initializer[0], initializer[1:])


EXECUTORS = {"thread": thread_pool, "process": process_pool}


# ---- what the workers count


class _Slot(ctypes.Structure):
    """One worker's counts, written by that worker alone."""

    _fields_ = [
        ("pid", ctypes.c_int64),
        ("connection", ctypes.c_int64),  # the number of the connection last begun
        ("active", ctypes.c_int64),  # 1 while it has a connection
        ("busy", ctypes.c_int64),  # 1 while it answers a request
        ("succeeded", ctypes.c_int64),
        ("failed", ctypes.c_int64),
        ("died", ctypes.c_int64),
        ("file_bytes", ctypes.c_int64),
        ("cpu_us", ctypes.c_int64),
    ]


class _Shared(ctypes.Structure):
    """What the accepting process tells the workers."""

    _fields_ = [
        ("pid", ctypes.c_int64),
        ("open", ctypes.c_int64),  # connections accepted and not yet done
        ("refused", ctypes.c_int64),
        ("stopping", ctypes.c_int64),
        ("cpu_us", ctypes.c_int64),
        ("started_at", ctypes.c_double),  # time.monotonic(), one clock for all processes of a machine
    ]


class WorkerTable:
    """The counts of all workers, in memory that threads and processes share alike.

    Each number has one writer, so nothing is locked; sums may be a moment old, never wrong for good.
    """

    def __init__(self, mode: str, workers: int, slots: int, start_method: str | None) -> None:
        self.mode = mode
        self.workers = workers
        self.start_method = start_method
        context = multiprocessing.get_context(start_method)
        self.slots = context.RawArray(_Slot, slots)
        self.shared = context.RawValue(_Shared)
        self.shared.pid = os.getpid()
        self.shared.started_at = time.monotonic()

    def stats(self) -> dict[str, Any]:
        """Return the counts as a dict that JSON can carry; see ThreadPoolServer.get_worker_stats()."""
        used = [slot for slot in self.slots if slot.pid]
        shared = self.shared
        active = sum(slot.active for slot in used)
        succeeded = sum(slot.succeeded for slot in used)
        failed = sum(slot.failed for slot in used)
        file_bytes = sum(slot.file_bytes for slot in used)
        uptime_s = time.monotonic() - shared.started_at
        processes = {slot.pid: slot.cpu_us for slot in used} | {shared.pid: shared.cpu_us}
        if os.getpid() in processes:
            processes[os.getpid()] = int(time.process_time() * 1e6)
        return {
            "mode": self.mode,
            "workers": self.workers,
            "start_method": self.start_method,
            "active": active,
            "waiting": max(0, shared.open - active),
            "idle": max(0, self.workers - active),
            "succeeded": succeeded,
            "failed": failed,
            "total": succeeded + failed,
            "refused": shared.refused,
            "file_bytes": file_bytes,
            "throughput_byte_per_s": round(file_bytes / uptime_s),
            "uptime_s": round(uptime_s, 3),
            "cpu_s": round(sum(processes.values()) / 1e6, 3),
            "peak_rss_bytes": peak_rss_bytes(processes),
            "per_worker": [
                {"pid": slot.pid, "succeeded": slot.succeeded, "failed": slot.failed, "died": slot.died}
                for slot in used
            ],
        }


# ---- the worker: the same for a thread and a process


class Worker:
    """Serves one connection after another; knows which files, which limits, and where to count."""

    def __init__(self, settings: Settings, table: WorkerTable, index: int) -> None:
        self.settings = settings
        self.table = table
        self.slot = table.slots[index]
        self.slot.pid = os.getpid()
        self.slot.cpu_us = int(time.process_time() * 1e6)  # what starting has cost is no request's
        self.protocol = FileProtocol(FileInterface(settings.directory), table.stats, self._moved)

    def _moved(self, count: int) -> None:
        self.slot.file_bytes += count

    def serve(self, connection: socket.socket, number: int, accepted_at: float) -> bool:
        """Answer the requests of one client until it ends; see serve_connection()."""
        self.slot.connection = number
        self.slot.active = 1
        waited_s = time.monotonic() - accepted_at
        wire = Wire(connection, self.settings.idle_timeout_s, self.settings.total_timeout_s)
        reader = RequestReader(wire)
        shared = self.table.shared
        try:
            if shared.stopping:  # it has waited in vain
                wire.send(error_reply(STOPPING))
                return True
            while True:
                wire.restart_deadline()
                try:
                    request = reader.next()
                    if request is None:
                        return False
                    if request.guessed and shared.stopping:  # the end was ours: there may be more of the name
                        wire.send(error_reply(STOPPING))
                        return True
                    if self._answer(request, wire, waited_s):
                        return True
                except ProtocolError as error:
                    wire.send(error_reply(str(error)))
                    if error.framing_lost:
                        return True
                if shared.stopping:
                    return True
        except TimeoutError:
            if wire.first_byte_at is None or reader.begun:  # not when it just keeps a served connection open
                wire.restart_deadline()
                with suppress(OSError):
                    wire.send(error_reply("waktu tunggu habis"))
            log.info("koneksi %d: waktu habis", number)
            return True
        except ConnectionError as error:
            log.info("koneksi %d: terputus (%s)", number, error)
            return False
        finally:
            self.slot.active = 0
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)  # ends the conversation even if another copy stays open
            if self.table.mode == "process":
                connection.close()  # pickling made this copy; a thread has the very socket that the server keeps

    def _answer(self, request: Request, wire: Wire, waited_s: float) -> bool:
        """Answer one request, and count it before the last bytes of the reply leave; return whether to end."""
        slot = self.slot
        counted = request.verb != "STATS"
        ok = None
        slot.busy = counted
        try:
            reply = self.protocol.answer(request, wire, waited_s)
            ok = reply.ok
            slot.busy = 0  # from here on it is counted as what it is, even if this worker is killed
            slot.succeeded += counted and ok
            slot.failed += counted and not ok
            wire.restart_deadline()  # a reply that says "too late" must still go out
            wire.send(reply.tail)
            return reply.framing_lost
        except BaseException as error:
            slot.succeeded -= counted and ok is True
            slot.failed += counted and ok is not False
            if not isinstance(error, OSError):
                raise
            expected = isinstance(error, (ConnectionError, TimeoutError))
            log.log(logging.INFO if expected else logging.ERROR, "%s %s: %s", request.verb,
                    " ".join(request.parameters), reason(error))
            return True  # without the end of the reply: so the client sees that it is not whole
        finally:
            slot.cpu_us = int(time.process_time() * 1e6)
            slot.busy = 0


_this_worker = threading.local()  # .worker: set once in each worker, read by the function that the pool calls


def _prepare_worker(settings: Settings, table: WorkerTable, barrier: Any) -> None:
    """Run first in every new worker of a pool."""
    _this_worker.make = partial(Worker, settings, table)
    _this_worker.barrier = barrier
    if table.mode == "process":
        configure_logging()
        depend_on_parent()


def _enter_pool(index: int) -> None:
    """Take place number `index`; no worker is let go before all are here, so each takes exactly one."""
    _this_worker.worker = _this_worker.make(index)
    _this_worker.barrier.wait(START_TIMEOUT_S)


def serve_connection(connection: socket.socket, number: int, accepted_at: float) -> bool:
    """Serve one client. This is what runs in a worker, thread or process.

    `number` is the connection's, counted by the server; `accepted_at` is time.monotonic(). Returns whether
    the client may still be sending, so that the server should read on for a while before it closes.
    """
    worker: Worker = _this_worker.worker
    return worker.serve(connection, number, accepted_at)


# ---- the accepting process


def raise_descriptor_limit() -> int:
    """Allow this process more descriptors where the usual limit is low; return how many it may have."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return WANTED_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < WANTED_DESCRIPTORS:
        soft = WANTED_DESCRIPTORS if hard < 0 else max(soft, min(WANTED_DESCRIPTORS, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft if soft >= 0 else sys.maxsize


class FileServer:
    """Accepts connections and sees each to its end; how one is handed over is left to the subclasses.

    Use it as a context manager: inside, it is listening; serve_forever() then runs until stop(). All its
    state belongs to the thread that runs serve_forever(); others leave it a message and wake it.
    """

    mode: str

    def __init__(self, settings: Settings, slots: int, max_waiting: int) -> None:
        """`slots` connections may be in service at once, `max_waiting` more may wait. Raises ServerError."""
        self.settings = settings
        try:
            self.files = FileInterface(settings.directory)
            self.files.remove_debris()
        except OSError as error:
            raise ServerError(f"folder tidak dapat dipakai: {settings.directory} ({reason(error)})") from None
        start_method = settings.start_method if self.mode == "process" else None
        self.table = WorkerTable(self.mode, settings.workers, slots, start_method)
        reserved = 2 * slots + OTHER_DESCRIPTORS  # with the files in work and the copies for processes
        self._capacity = min(slots + max_waiting, raise_descriptor_limit() - reserved)
        if self._capacity < slots:
            raise ServerError(f"batas jumlah file terbuka terlalu kecil untuk {slots} worker (lihat: ulimit -n)")
        self._numbers = itertools.count(1)
        self._open: dict[int, _Open] = {}  # accepted and not done
        self._done: deque[int] = deque()  # their numbers, once done; filled by other threads
        self._lingering: dict[socket.socket, float] = {}  # until which moment, in ascending order
        self._spare = open(os.devnull, "rb")
        self._selector = selectors.DefaultSelector()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self._selector.register(self._wake_receiver, selectors.EVENT_READ, self._woken)

    # ---- what subclasses do differently

    def start_workers(self) -> None:
        """Make all workers ready to serve; raises ServerError."""

    def hand_over(self, connection: socket.socket, number: int, accepted_at: float) -> Future[bool]:
        """Have a worker run serve_connection() with these arguments."""
        raise NotImplementedError

    def stop_workers(self) -> None:
        """Return once all workers are gone."""

    def count_dead_workers(self) -> None:
        """Count what was lost with the workers of a broken pool, none of which lives any more."""

    # ---- listening

    def __enter__(self) -> FileServer:
        self.start_workers()  # before listening, so that no worker inherits a client and no client waits for it
        host, port = self.settings.host, self.settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            self.stop_workers()
            raise ServerError(f"tidak dapat memakai {host}:{port} ({reason(error)})") from None
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self.table.shared.started_at = time.monotonic()
        return self

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port to connect to."""
        host, port = self._listener.getsockname()[:2]
        return host, port

    def serve_forever(self) -> None:
        """Accept connections and hand them over, until stop(). Raises ServerError if no worker can be started."""
        while not self.table.shared.stopping:
            self._turn()

    def stop(self) -> None:
        """Make serve_forever() return; may be called from any thread and from a signal handler."""
        self.table.shared.stopping = 1
        self._wake()

    def abort(self) -> None:
        """Break the connections in service, so that their workers give up at once; callable like stop()."""
        for client in list(self._open.values()):
            with suppress(OSError):
                client.connection.shutdown(socket.SHUT_RDWR)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Let the requests under way finish, for `grace_s` at most, and end everything."""
        self.table.shared.stopping = 1
        self._selector.unregister(self._listener)
        self._listener.close()
        clients = list(self._open.values())
        resting = {slot.connection for slot in self.table.slots if slot.active and not slot.busy}
        for client in clients:
            if client.number in resting:
                with suppress(OSError):
                    client.connection.shutdown(socket.SHUT_RD)  # kept open between two requests: it ends here
        futures = [client.future for client in clients]
        wait(futures, self.settings.grace_s)
        self._settle(rescue=False)
        self.abort()
        wait(futures)
        self.stop_workers()
        self._settle(rescue=False)
        while self._lingering:
            self._turn()
        for end in (self._selector, self._spare, self._wake_receiver, self._wake_sender):
            end.close()

    # ---- one turn of the loop

    def _turn(self) -> None:
        first = next(iter(self._lingering.values()), None)
        timeout_s = None if first is None else max(0.0, first - time.monotonic())
        for key, _ in self._selector.select(timeout_s):
            key.data(key.fileobj)
        self._settle()
        while self._lingering and next(iter(self._lingering.values())) <= time.monotonic():
            self._close(next(iter(self._lingering)))

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it left before we came
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                log.warning("koneksi tidak dapat diterima: %s", reason(error))
                return
            self._spare.close()  # the system itself has no descriptor left but this one: it serves to say so
            with suppress(OSError), listener.accept()[0] as connection:
                connection.setblocking(False)
                connection.send(error_reply(BUSY))
                connection.recv(1 << 16)
            self._spare = open(os.devnull, "rb")
            return
        connection.setblocking(True)
        with suppress(OSError):  # macOS refuses when the client has left already
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self._open) < self._capacity:
            self._dispatch(connection, next(self._numbers), time.monotonic())
        else:
            self.table.shared.refused += 1
            self._refuse(connection, BUSY)

    def _dispatch(self, connection: socket.socket, number: int, accepted_at: float) -> None:
        try:
            future = self.hand_over(connection, number, accepted_at)
        except RuntimeError as error:  # as BrokenExecutor: a worker has just died
            future = Future()
            future.set_exception(error)
        self._open[number] = _Open(number, connection, accepted_at, future)
        self.table.shared.open = len(self._open)
        self.table.shared.cpu_us = int(time.process_time() * 1e6)
        future.add_done_callback(lambda _: self._tell(number))

    def _tell(self, number: int) -> None:
        """Leave word that a connection is done; called in whatever thread ended it."""
        self._done.append(number)
        self._wake()

    def _settle(self, rescue: bool = True) -> None:
        """Close the connections that are done, each as its outcome wants; replace the workers if they died."""
        orphans = []
        while self._done:
            client = self._open.pop(self._done.popleft())
            error = client.future.exception()
            if isinstance(error, BrokenExecutor):
                orphans.append(client)
                self.stop_workers()  # what else was broken with it is in _done now
            elif error:
                log.error("koneksi %d: galat yang tidak terduga", client.number, exc_info=error)
                client.connection.close()
            elif client.future.result():
                self._linger(client.connection)
            else:
                client.connection.close()
        if orphans:
            self.count_dead_workers()
            self.files.remove_debris()
            if rescue:
                self.start_workers()
            begun = {slot.connection for slot in self.table.slots}
            for client in orphans:
                if rescue and client.number not in begun:
                    self._dispatch(client.connection, client.number, client.accepted_at)
                else:
                    log.warning("koneksi %d: worker-nya mati", client.number)
                    with suppress(OSError):
                        client.connection.shutdown(socket.SHUT_RDWR)
                    client.connection.close()
        self.table.shared.open = len(self._open)

    # ---- the end of a connection

    def _refuse(self, connection: socket.socket, message: str) -> None:
        connection.setblocking(False)
        with suppress(OSError):
            connection.send(error_reply(message))  # the first bytes of a connection always find room
            connection.shutdown(socket.SHUT_WR)
        self._linger(connection)

    def _linger(self, connection: socket.socket) -> None:
        """Read on and drop what comes until the client ends, for a while: closing on unread bytes would
        reset the connection, and the client might never see the reply."""
        connection.setblocking(False)
        while self._lingering and len(self._open) + len(self._lingering) >= self._capacity:
            self._close(next(iter(self._lingering)))
        self._lingering[connection] = time.monotonic() + LINGER_S
        self._selector.register(connection, selectors.EVENT_READ, self._discard)

    def _discard(self, connection: socket.socket) -> None:
        if connection not in self._lingering:
            return  # closed a moment ago, to make room
        try:
            ended = not connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        del self._lingering[connection]
        self._selector.unregister(connection)
        connection.close()

    # ---- waking the loop

    def _wake(self) -> None:
        with suppress(OSError):  # full: it wakes anyway; closed: nobody is there to wake
            self._wake_sender.send(b"w")

    def wake_on_signals(self) -> None:
        """Have every signal wake the loop; on Windows nothing else interrupts its waiting."""
        signal.set_wakeup_fd(self._wake_sender.fileno(), warn_on_full_buffer=False)

    def _woken(self, receiver: socket.socket) -> None:
        receiver.recv(4096)


class _Open(NamedTuple):
    """A connection in the hands of a worker, or on its way there."""

    number: int
    connection: socket.socket
    accepted_at: float
    future: Future[bool]


class LegacyServer(FileServer):
    """A thread for each client, started when it connects: the model of the course's own server."""

    mode = "legacy"

    def __init__(self, settings: Settings) -> None:
        settings = replace(settings, workers=0, start_method=None)
        slots = min(settings.max_waiting, (raise_descriptor_limit() - OTHER_DESCRIPTORS) // 3)
        super().__init__(settings, slots, max_waiting=0)
        self._places = list(reversed(range(slots)))  # of the table, that no thread has

    def hand_over(self, connection: socket.socket, number: int, accepted_at: float) -> Future[bool]:
        future: Future[bool] = Future()
        place = self._places.pop()
        future.add_done_callback(lambda _: self._places.append(place))

        def run() -> None:
            try:
                _this_worker.worker = Worker(self.settings, self.table, place)
                future.set_result(serve_connection(connection, number, accepted_at))
            except BaseException as error:
                future.set_exception(error)

        try:
            threading.Thread(target=run, name=f"client-{number}").start()
        except RuntimeError as error:  # the system has no more threads to give
            future.set_exception(error)
        return future


class PoolServer(FileServer):
    """A pool of exactly `workers` threads or processes; clients beyond that wait for the next free worker."""

    def __init__(self, settings: Settings, mode: str) -> None:
        """`mode` is a name in EXECUTORS. Raises ServerError."""
        self.mode = mode
        if mode == "process" and settings.start_method is None:
            settings = replace(settings, start_method=default_start_method())
        self._children: list[multiprocessing.process.BaseProcess] = []
        self._exit_codes: dict[int | None, int | None] = {}
        super().__init__(settings, slots=settings.workers, max_waiting=settings.max_waiting)

    def start_workers(self) -> None:
        for _ in range(START_ATTEMPTS):
            try:
                self._start_pool()
                return
            except (OSError, RuntimeError) as error:  # BrokenExecutor and BrokenBarrierError are RuntimeErrors
                self.stop_workers()
                failure = error
        raise ServerError(f"pool {self.settings.workers} {self.mode} tidak dapat dibuat ({failure})")

    def _start_pool(self) -> None:
        count = self.settings.workers
        context: Any = multiprocessing.get_context(self.settings.start_method) if self.mode == "process" else threading
        self._executor = EXECUTORS[self.mode](
            self.settings, _prepare_worker, self.settings, self.table, context.Barrier(count))
        # A pool grows only as work comes. This is work that needs all of it at once.
        for future in [self._executor.submit(_enter_pool, index) for index in range(count)]:
            future.result()
        self._children = multiprocessing.active_children()

    def hand_over(self, connection: socket.socket, number: int, accepted_at: float) -> Future[bool]:
        return self._executor.submit(serve_connection, connection, number, accepted_at)

    def count_dead_workers(self) -> None:
        for slot in self.table.slots:
            ended_alone = self._exit_codes.get(slot.pid, 0) not in (0, -signal.SIGTERM)  # the pool ends the others
            slot.died += slot.active or ended_alone
            slot.failed += slot.busy
            slot.active = slot.busy = 0

    def stop_workers(self) -> None:
        self._executor.shutdown(wait=True)
        self._exit_codes |= {child.pid: child.exitcode for child in self._children}
        self._children.clear()
        if self.mode == "process":
            resource_sharer.stop()  # drops the copies of connections that no worker came to fetch


# ---- the command line


def configure_logging() -> None:
    """Send warnings and errors to stderr, a line each."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)


def server_command_line(description: str, modes: list[str], example: str) -> CommandLine:
    """Return a parser of the options that all servers have."""
    parser = CommandLine(description=description, epilog=f"contoh: python3 {example}")
    parser.add_argument("workers", nargs="?", default=5, type=whole_number(1, MAX_WORKERS),
                        help="jumlah worker dalam pool (bawaan: 5)")
    parser.add_argument("mode", nargs="?", default="thread", type=one_of(modes),
                        help=f"{' | '.join(modes)} (bawaan: thread)")
    parser.add_address(DEFAULT_PORT, "server menerima unggahan dan penghapusan dari siapa pun yang dapat terhubung")
    parser.add_argument("--files", type=Path, default=DEFAULT_DIRECTORY, metavar="FOLDER",
                        help="folder yang dilayani (bawaan: files/ di samping skrip ini)")
    parser.add_argument("--start-method", type=one_of(["forkserver", "spawn"]), metavar="CARA",
                        help="cara memulai proses: forkserver | spawn")
    parser.add_argument("--idle-timeout", type=seconds, default=Settings.idle_timeout_s, metavar="DETIK",
                        help="batas menunggu client yang diam (bawaan: %(default)g)")
    parser.add_argument("--total-timeout", type=seconds, default=Settings.total_timeout_s, metavar="DETIK",
                        help="batas waktu satu request (bawaan: %(default)g)")
    parser.add_argument("--max-waiting", type=whole_number(1, 100_000), default=Settings.max_waiting, metavar="N",
                        help="koneksi yang boleh antre; selebihnya ditolak (bawaan: %(default)d)")
    parser.add_argument("--grace", type=seconds, default=Settings.grace_s, metavar="DETIK",
                        help="waktu bagi transfer yang sedang berjalan saat server dihentikan (bawaan: %(default)g)")
    return parser


def settings_from(options: argparse.Namespace) -> Settings:
    """Return the settings that a parsed command line asks for."""
    return Settings(options.files.absolute(), options.host, options.port, options.workers, options.start_method,
                    options.idle_timeout, options.total_timeout, options.max_waiting, options.grace)


def run(make_server: Callable[[], FileServer]) -> int:
    """Listen, say so on stdout, serve until a signal comes, and leave the final counts on stdout.

    Return the exit code: 0, or 3 with one line on stderr if the server cannot start or go on.
    """
    configure_logging()
    try:
        server = make_server()
        if server.mode == "process":
            forget_main_file()
        else:  # with processes, a few threads pass each connection on to a worker, one to the next
            sys.setswitchinterval(SWITCH_INTERVAL_S)
        signals = itertools.count(1)

        def on_signal(number: int, frame: FrameType | None) -> None:
            count = next(signals)
            server.stop()
            if count == 2:
                server.abort()
            if count > 2:  # something hangs: the workers leave with us
                os._exit(1)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, on_signal)
        server.wake_on_signals()
        with server:
            host, port = server.address
            table = server.table
            _tell("ready", {"host": host, "port": port, "mode": table.mode, "workers": table.workers,
                            "start_method": table.start_method, "pid": os.getpid()})
            print(f"server siap di {host}:{port} ({table.mode}, {table.workers or 'tak terbatas'} worker); "
                  "Ctrl-C untuk berhenti", file=sys.stderr)
            server.serve_forever()
        signal.set_wakeup_fd(-1)
    except ServerError as error:
        print(f"galat: {error}", file=sys.stderr)
        return 3
    _tell("stats", table.stats())
    return 0


def _tell(event: str, fields: dict[str, Any]) -> None:
    print(json.dumps({"event": event} | fields), flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run a server; return the exit code: 0 stopped by a signal, 2 wrong usage, 3 cannot start."""
    parser = server_command_line("Server file: pool thread, pool proses, atau satu thread per client.",
                                 [*EXECUTORS, "legacy"], "file_server.py 5 process --port 46666 --files files")
    options = parser.parse_args(argv)
    settings = settings_from(options)
    return run(lambda: LegacyServer(settings) if options.mode == "legacy" else PoolServer(settings, options.mode))


if __name__ == "__main__":
    import file_server  # what is sent to a worker process must be this module's, not __main__'s

    sys.exit(file_server.main())
