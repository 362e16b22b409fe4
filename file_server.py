"""The server: accepting, handing a connection to a worker, serving it, shutting down.

``LegacyServer`` starts a thread for each client, ``PoolServer`` hands each to a worker of a pool; both do the
same with it: serve_connection(). make_pool() is the one place where a thread becomes a process.

    accept  ->  submit  ->  serve_connection()  ->  the future is done  ->  close

The accepting process keeps its handle on each connection until the end: submit() pickles later, in a thread.
"""

from __future__ import annotations

import argparse
import atexit
import ctypes
import gc
import itertools
import json
import logging
import mmap
import multiprocessing
import multiprocessing.connection
import os
import queue
import select
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from multiprocessing import resource_sharer, util
from pathlib import Path
from typing import Any, TextIO

from file_interface import FileInterface
from file_protocol import (
    DEFAULT_HOST, DEFAULT_PORT, UPLOADS, BadCommand, Connection, FileProtocol, ProtocolError, Request,
    RequestReader, encode_reply, os_error_text, prepare_streams, say,
)

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

log = logging.getLogger("server")
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"

HERE = Path(__file__).resolve().parent
BACKLOG = 1024  # a burst of clients waits here until it is accepted; the kernel may allow less
START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
START_PAUSES_S = (0.0, 0.02, 0.1, 0.3)  # before each try: a failed fork server needs a moment to end
START_TIMEOUT_S = 60.0  # for all processes of a pool to come up
WATCH_S = 0.1  # how often a starting pool looks whether one of its processes has died
SOCKET_FOLDER_LIMIT_BYTES = 70  # an AF_UNIX path may have 103 bytes on macOS, and multiprocessing adds 32
WANTED_DESCRIPTORS = 10240
THREAD_BYTES = 8 << 20  # of addresses: its stack, where `ulimit -s` is as usual
OWN_THREADS = 4  # of an executor of processes, and of what hands connections over to them
OTHER_DESCRIPTORS = 64  # for all that is not a client
MAX_LINGERING = 32  # connections that were refused and may still hear so
REST_S = 0.5  # between two requests while others wait; with LINGER_S a worker is free after 1 s
TURN_S = 10.0  # one that keeps asking may keep its worker while others wait,
TURN_REQUESTS = 100  # or for so many requests
STOP_TIMEOUT_S = 1.0  # for processes to end when they are asked to
LINGER_S = 0.5  # how long the end of a client that was told goodbye is waited for
ABORT_S = 0.5  # for workers to give up once their connections are broken


class ServerError(RuntimeError):
    """A pool or a server cannot start or go on; the text is for people, in Indonesian."""


OPTIONS: dict[str, tuple[str, float, float, str]] = {  # fields of Settings: option, range, help
    "workers": ("workers", 1, 1000, "worker dalam pool"),
    "host": ("--host", 0, 0, "alamat; siapa pun yang dapat terhubung dapat mengunggah dan menghapus"),
    "port": ("--port", 0, 65535, "port; 0 memilih yang bebas"),
    "directory": ("--files", 0, 0, "folder yang dilayani"),
    "idle_timeout_s": ("--idle-timeout", 0.001, 1_000_000, "detik menunggu client yang diam"),
    "total_timeout_s": ("--total-timeout", 0.001, 1_000_000, "detik bagi satu request"),
    "max_waiting": ("--max-waiting", 1, 100_000, "koneksi yang boleh antre; selebihnya ditolak"),
    "grace_s": ("--grace", 0.001, 1_000_000, "detik bagi transfer yang berjalan saat server dihentikan"),
}


@dataclass(frozen=True)
class Settings:
    """What a server is told; workers in other processes get a copy. Raises ValueError if out of range."""

    directory: Path = HERE / "files"
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT  # 0 picks a free one
    workers: int = 5
    idle_timeout_s: float = 30.0  # without a byte from the client, or to it
    total_timeout_s: float = 600.0  # for one request, however it trickles
    max_waiting: int = 1024  # connections that may wait for a worker; further ones are told to come back
    grace_s: float = 10.0  # for the requests under way when the server is told to stop

    def __post_init__(self) -> None:
        for name, (option, least, most, _) in OPTIONS.items():
            if most and not least <= getattr(self, name) <= most:
                raise ValueError(f"{option} harus {least} sampai {most}")


class Pool(Executor):
    """What pools have in common. Each is made with (workers, initializer, its arguments)."""

    children: Iterable[multiprocessing.process.BaseProcess] = ()
    share: Callable[[Any], Any] = staticmethod(lambda kind: kind())  # a zeroed ctypes object for all workers
    start_method: str | None = None  # of processes

    def start(self) -> None:
        """Return when all workers are there, which executors start lazily; raises what keeps one from it."""

    def stop(self, hurry: bool = False) -> None:
        """End all workers; `hurry` gives up a start, and does not wait for those that hang."""

    def check(self) -> None:
        """Raise ServerError if the pool can never work again."""

    def memory(self) -> tuple[int | None, int | None]:
        """Return memory_of() this process and its workers."""
        return memory_of([os.getpid(), *(child.pid or 0 for child in self.children)])


class ThreadPerClient(Pool):
    """A new thread for each task, as in the course's own server; at most `workers` at a time."""

    def __init__(self, workers: int, *begin: Any) -> None:
        self._initializer, self._begin_args = begin
        self._free = list(range(workers))  # the indexes that no thread has

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        executor = ThreadPoolExecutor(1, "client")
        future = executor.submit(self._run, function, *args, **options)
        executor.shutdown(wait=False)  # its thread ends with the task
        return future

    def _run(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        index = self._free.pop()
        try:
            self._initializer(index, *self._begin_args)
            return function(*args, **options)
        finally:
            self._free.append(index)


class ThreadPool(Pool, ThreadPoolExecutor):
    """Workers that are threads of this process."""

    def __init__(self, workers: int, *begin: Any) -> None:
        self._barrier = threading.Barrier(workers)
        super().__init__(workers, "worker", _begin_worker, (self._barrier, *begin))

    def start(self) -> None:
        _require_memory(self._max_workers)
        for future in [self.submit(os.getpid) for _ in range(self._max_workers)]:
            future.result()

    def stop(self, hurry: bool = False) -> None:
        self._barrier.abort()  # nobody is there, unless the start was given up
        self.shutdown(wait=not hurry, cancel_futures=hurry)


class ProcessPool(Pool, ProcessPoolExecutor):
    """Workers that are processes of their own."""

    share = staticmethod(multiprocessing.RawValue)
    start_method = START_METHOD

    def __init__(self, workers: int, *begin: Any) -> None:
        if len(os.fsencode(tempfile.gettempdir())) > SOCKET_FOLDER_LIMIT_BYTES:
            tempfile.tempdir = next(filter(os.path.isdir, ("/tmp", "/var/tmp")), None)
        context: Any = multiprocessing.get_context(self.start_method)
        # Our scripts that are in use here are imported once, by the fork server, and not by each process.
        context.set_forkserver_preload([path.stem for path in HERE.glob("*.py") if path.stem in sys.modules])
        # Processes are started without our stderr (see _worker_environment); a Connection can be sent.
        stderr = None if os.name == "nt" else multiprocessing.connection.Connection(os.dup(2), readable=False)
        with _worker_environment():  # what counts the semaphores is a process as well
            self._barrier = context.Barrier(workers, timeout=START_TIMEOUT_S)
        super().__init__(workers, context, _begin_process, (stderr, self._barrier, *begin))
        # All are to be started before the executor's own thread begins: it iterates over them if one dies.
        self._safe_to_dynamically_spawn_children = False

    def start(self) -> None:
        _require_memory(OWN_THREADS)
        try:
            with _worker_environment():
                futures = [self.submit(os.getpid) for _ in range(self._barrier.parties)]
        except EOFError:
            raise ServerError("sistem tidak memberi cukup proses") from None
        finally:
            self.children = list((self._processes or {}).values())
        while wait(futures, WATCH_S).not_done:
            if multiprocessing.connection.wait([child.sentinel for child in self.children], 0):
                raise ServerError("sebuah proses mati saat dimulai")
        if self._barrier.broken:
            raise ServerError(f"tidak siap dalam {START_TIMEOUT_S:g} detik")
        for future in futures:
            future.result()

    def kill(self) -> None:
        """End the workers at once, whatever they do."""
        for child in self.children:
            child.kill()

    def stop(self, hurry: bool = False) -> None:
        force = threading.Timer(STOP_TIMEOUT_S, self.kill)  # for those that do not end when they are asked to
        force.daemon = True
        if hurry:
            self.kill()
        else:
            with suppress(OSError, RuntimeError):  # no thread is to be had
                _require_memory(OWN_THREADS)
                force.start()
        with suppress(RuntimeError):  # the executor's own thread could not be started
            self.shutdown(cancel_futures=hurry)
        force.cancel()
        with suppress(OSError):  # the temporary folder is gone
            resource_sharer.stop(STOP_TIMEOUT_S)  # drops copies of connections that no worker has fetched

    def check(self) -> None:
        folder = util.get_temp_dir()  # of the sockets by which connections are handed over
        if not os.path.isdir(folder):
            # At its exit multiprocessing would complain of what it can no longer remove.
            atexit.register(setattr, sys, "stderr", open(os.devnull, "w"))
            raise ServerError(f"folder sementara {folder} hilang; jalankan server lagi")


POOLS: dict[str, type[Any]] = {"thread": ThreadPool, "process": ProcessPool, "legacy": ThreadPerClient}


def make_pool(kind: str, workers: int, initializer: Callable[..., object] | None = None, *args: Any) -> Pool:
    """Return a new pool of `workers` workers of a `kind` in POOLS, all of them alive.

    Each worker has run ``initializer(index, *args)`` with an index of its own, from 0. Raises ServerError.
    """
    raise_descriptor_limit()
    failure = ""
    for pause_s in START_PAUSES_S:
        time.sleep(pause_s)
        with ExitStack() as undo:
            try:
                pool: Pool = POOLS[kind](workers, initializer, args)
                undo.callback(pool.stop, hurry=True)
                pool.start()
                undo.pop_all()
                return pool
            except (OSError, RuntimeError, ValueError, ImportError, MemoryError) as error:
                failure = os_error_text(error)
    raise ServerError(f"pool {workers} {kind} tidak dapat dibuat ({failure})")


@contextmanager
def _worker_environment() -> Iterator[None]:
    """Have processes that are started inside import from this folder, never from the current one, not run the
    main script again, and not write to our stderr: a fork server that cannot fork ends in a traceback.

    Raises ServerError where Python cannot be told so. Not for two threads at once.
    """
    if sys.version_info < (3, 11) and Path.cwd() != HERE:
        for path in Path.cwd().glob("*.py"):
            if path.stem in sys.stdlib_module_names or (HERE / path.name).exists():
                raise ServerError(f"Python 3.10 di proses worker akan memakai {path}: pindah ke folder lain")
    before, main, stderr = dict(os.environ), vars(sys.modules["__main__"]), os.dup(2)
    main_file = {"__file__": main.pop("__file__")} if "__file__" in main else {}
    places = [str(HERE), *filter(None, [before.get("PYTHONPATH")])]
    os.environ |= {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(places)}
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        main.update(main_file)
        os.environ.clear()
        os.environ |= before


def _begin_worker(barrier: Any, initializer: Callable[..., object] | None, args: tuple[Any, ...]) -> None:
    """Bind a new worker to one index; the barrier keeps any from working before all are there."""
    with suppress(threading.BrokenBarrierError):  # the start was given up
        index = barrier.wait()
        if initializer:
            initializer(index, *args)
        barrier.wait()


def _begin_process(stderr: Any, *begin: Any) -> None:
    """Begin a worker process: it leaves Ctrl-C to its parent, and ends when that is gone, even if killed."""
    def watch() -> None:
        multiprocessing.parent_process().join()  # type: ignore[union-attr]
        os._exit(1)

    if stderr:
        os.dup2(stderr.fileno(), 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(format=LOG_FORMAT)
    try:
        threading.Thread(target=watch, daemon=True).start()
        _begin_worker(*begin)
    except (OSError, RuntimeError, MemoryError):  # the system has no more: the parent sees us end
        os._exit(1)


def raise_descriptor_limit() -> int:
    """Allow this process more descriptors where the usual limit is low; return how many it may have."""
    if resource is None:
        return WANTED_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < WANTED_DESCRIPTORS:
        soft = WANTED_DESCRIPTORS if hard < 0 else max(soft, min(WANTED_DESCRIPTORS, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft if soft >= 0 else sys.maxsize


def _require_memory(threads: int) -> None:
    """Raise OSError unless so many threads find room: one that has none while it begins hangs its starter."""
    if resource:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        mmap.mmap(-1, threads * THREAD_BYTES, flags, mmap.PROT_READ).close()  # addresses only


def memory_of(pids: Iterable[int]) -> tuple[int | None, int | None]:
    """Return the memory of processes now (the sum of their Pss: shared pages count once) and the largest peak
    of one of them, in bytes, or None where the system does not tell."""
    found: dict[str, list[int]] = {"smaps_rollup": [], "status": []}
    for pid in set(pids):
        for name, key in (("smaps_rollup", b"Pss:"), ("status", b"VmHWM:")):
            with suppress(OSError, StopIteration), open(f"/proc/{pid}/{name}", "rb") as file:
                found[name].append(1024 * int(next(line for line in file if line.startswith(key)).split()[1]))
    return sum(found["smaps_rollup"]) or None, max(found["status"], default=None)


class _Slot(ctypes.Structure):
    """Counts, each with one writer. Of a worker: the connection that it began last, whether it has one and
    answers a request, what came of all requests; its pid and CPU. Of the accepting process: the last five."""

    _fields_ = [(name, ctypes.c_int64) for name in (
        "connection", "active", "busy", "succeeded", "failed", "died", "file_bytes",
        "pid", "cpu_us", "open", "refused", "stopping")]


class WorkerTable:
    """The counts of all workers, in memory that threads or processes share.

    Each number has one writer, so nothing is locked; sums may be a moment old, never wrong for good.
    """

    def __init__(self, mode: str, workers: int, slots: int) -> None:
        """Count in `slots` for the pool `mode` of `workers` (0: no limit). Raises OSError."""
        pool = POOLS[mode]
        self.mode, self.workers = mode, workers
        self.start_method = pool.start_method
        self.slots, self.shared = pool.share(_Slot * slots), pool.share(_Slot)
        self.shared.pid = os.getpid()
        self._started_at = time.monotonic()  # one clock for all processes

    def waiting(self) -> int:
        """Return how many connections have no worker."""
        return max(0, int(self.shared.open) - sum(int(slot.active) for slot in self.slots))

    def stats(self) -> dict[str, Any]:
        """Return the counts as a dict that JSON can carry; see ThreadPoolServer.get_worker_stats()."""
        used, told = [slot for slot in self.slots if slot.pid], ("pid", "succeeded", "failed", "died", "busy")
        total = {name: sum(getattr(slot, name) for slot in used)
                 for name in ("active", "succeeded", "failed", "file_bytes")}
        uptime_s = time.monotonic() - self._started_at
        cpu_us = {slot.pid: slot.cpu_us for slot in [*used, self.shared]}
        cpu_us[os.getpid()] = int(time.process_time() * 1e6)
        memory_bytes, peak_bytes = memory_of(cpu_us)
        return total | {
            "mode": self.mode, "workers": self.workers, "start_method": self.start_method,
            "waiting": self.waiting(), "idle": max(0, self.workers - total["active"]),
            "total": total["succeeded"] + total["failed"], "refused": self.shared.refused,
            "uptime_s": round(uptime_s, 3), "cpu_s": round(sum(cpu_us.values()) / 1e6, 3),
            "memory_bytes": memory_bytes, "peak_memory_bytes": peak_bytes,
            "per_worker": [{name: getattr(slot, name) for name in told} for slot in used]}


Client = tuple[socket.socket, int, float]  # a connection, its number, and when it was accepted
_this_worker = threading.local()  # .worker: set once in each worker, read by the function that the pool calls


class Worker:
    """Serves one connection after another; knows which files, which limits, and where to count."""

    def __init__(self, index: int, settings: Settings, table: WorkerTable) -> None:
        """Make this thread the worker that counts in slot `index`. Raises OSError if the folder is gone."""
        self._settings, self._table, self._slot = settings, table, table.slots[index]
        self._slot.pid = os.getpid()
        self._slot.cpu_us = int(time.process_time() * 1e6)  # what starting has cost is no request's
        self._protocol = FileProtocol(FileInterface(settings.directory), table.stats, self._count_bytes)
        _this_worker.worker = self

    def _count_bytes(self, count: int) -> None:
        self._slot.file_bytes += count

    def serve(self, sock: socket.socket, number: int, accepted_at: float) -> None:
        """Answer the requests of one client until it ends; see serve_connection()."""
        self._slot.connection = number
        self._slot.active = 1
        connection = Connection(sock, self._settings.idle_timeout_s, self._settings.total_timeout_s)
        try:
            with suppress(OSError):  # the client has left, or the disk has failed under a reply
                self._converse(connection, time.monotonic() - accepted_at)
        finally:
            end_conversation(sock)
            self._slot.active = 0
            if os.getpid() != self._table.shared.pid:
                sock.close()  # a copy, by pickling; in a thread it is the very socket that the server keeps

    def _converse(self, connection: Connection, waited_s: float) -> None:
        """Answer one request after the other, until nothing more can be read or this worker is needed."""
        reader, begun_at = RequestReader(connection), time.monotonic()
        for count in itertools.count(1):
            may_stay = count <= TURN_REQUESTS and time.monotonic() - begun_at < TURN_S
            try:
                request = reader.next() if self._next_comes(connection, reader, may_stay) else None
            except (ProtocolError, TimeoutError) as error:
                connection.restart_deadline()
                connection.send(encode_reply("ERROR", str(error)))
                if isinstance(error, BadCommand):
                    continue
                return
            if not request or not self._answer(request, connection, waited_s if count == 1 else None):
                return

    def _next_comes(self, connection: Connection, reader: RequestReader, may_stay: bool) -> bool:
        """Return True when a request has begun, False if none comes or others need this worker, as they do
        after a rest of REST_S. Raises TimeoutError for a client that has never said anything."""
        rests_from, idle_s, shared = time.monotonic(), self._settings.idle_timeout_s, self._table.shared
        while not shared.stopping and (may_stay or not self._table.waiting()):
            connection.restart_deadline()
            if reader.has_partial_request:
                return True
            rested_s = time.monotonic() - rests_from
            if rested_s >= idle_s:
                break
            may_stay = may_stay and (rested_s < REST_S or connection.first_byte_at is None)
            with suppress(TimeoutError):
                if not connection.receive(min(REST_S / 4, idle_s)):
                    return False
        if connection.first_byte_at is None:
            raise TimeoutError("server sedang berhenti" if shared.stopping else "waktu tunggu habis")
        return False

    def _answer(self, request: Request, connection: Connection, waited_s: float | None) -> bool:
        """Answer one request, counting it before the end of the reply leaves; return whether to go on."""
        slot, counted, ok = self._slot, request.verb != "STATS", None
        slot.busy = counted
        try:
            tail, ok = self._protocol.answer(request, connection, waited_s)
            slot.busy = 0  # from here on it is counted as what it is, even if this worker is killed
            slot.succeeded += counted and ok
            slot.failed += counted and not ok
            connection.restart_deadline()  # a reply that says "too late" must still go out
            connection.send(tail)
            return ok or request.verb not in UPLOADS
        except BaseException as error:  # no end of a reply: so the client sees that it is not whole
            slot.succeeded -= counted and ok is True
            slot.failed += counted and ok is not False
            if isinstance(error, OSError) and not isinstance(error, (ConnectionError, TimeoutError)):
                log.error("%s %s: %s", request.verb, " ".join(request.parameters), os_error_text(error))
            raise
        finally:
            slot.cpu_us = int(time.process_time() * 1e6)
            slot.busy = 0


def serve_connection(sock: socket.socket, number: int, accepted_at: float) -> None:
    """Serve client `number`, accepted at time.monotonic(). This runs in a worker, thread or process."""
    _this_worker.worker.serve(sock, number, accepted_at)


def end_conversation(sock: socket.socket) -> None:
    """Send no more, and drain the socket until the peer ends, for LINGER_S at most (lingering close).

    To close it with unread bytes would reset the connection, and the peer might miss the last reply.
    """
    with suppress(OSError):  # the peer has left, or time is up
        sock.shutdown(socket.SHUT_WR)
        give_up_at = time.monotonic() + LINGER_S
        sock.settimeout(LINGER_S)
        while sock.recv(1 << 16) and time.monotonic() < give_up_at:
            pass


def end_at_once(sock: socket.socket) -> None:
    """Break a connection, whoever else has a copy of it."""
    with suppress(OSError):  # the peer may have ended it
        sock.shutdown(socket.SHUT_RDWR)


class FileServer:
    """Accepts connections and sees each to its end; the subclasses choose the pool that serves them.

    Inside its context it is listening; serve_forever() then runs until stop(). All state belongs to the
    thread that runs this; others queue what they have to say, and wake it.
    """

    def __init__(self, settings: Settings, mode: str, workers: int, slots: int, max_waiting: int) -> None:
        """Have `workers` (0: no limit) serve `slots` connections at a time, while `max_waiting` more wait."""
        self.settings = settings
        reserved = 2 * slots + OTHER_DESCRIPTORS  # with the files in work and the copies for processes
        self._capacity = min(slots + max_waiting, raise_descriptor_limit() - reserved)
        if self._capacity < slots or slots < 1:
            raise ServerError(f"terlalu sedikit file boleh terbuka untuk {slots} worker (lihat: ulimit -n)")
        try:
            self.files = FileInterface(settings.directory)
            self.files.remove_debris()
            self.table = WorkerTable(mode, workers, slots)
        except OSError as error:
            place = error.filename or settings.directory  # or where shared memory is kept
            raise ServerError(f"{place} tidak dapat dipakai ({os_error_text(error)})") from None
        self._numbers = itertools.count(1)
        self._open: dict[Future[None], Client] = {}  # accepted and not done
        self._done: queue.SimpleQueue[Future[None]] = queue.SimpleQueue()  # of these; any thread puts
        self._refused: list[tuple[float, socket.socket]] = []  # and when to close them
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_sender.setblocking(False)

    def __enter__(self) -> FileServer:
        self._start_workers()  # before listening: no worker inherits a client, and no client waits for it
        host, port = self.settings.host, self.settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            self._pool.stop()
            raise ServerError(f"tidak dapat memakai {host}:{port} ({os_error_text(error)})") from None
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]  # to connect to
        return self

    def serve_forever(self) -> None:
        """Accept connections and hand them over, until stop(). Raises ServerError if that cannot go on."""
        while not self.table.shared.stopping:
            ready, _, _ = select.select([self._listener, self._wake_receiver], [], [], 1.0)
            self._pool.check()
            if self._wake_receiver in ready:
                self._wake_receiver.recv(4096)
            if self._listener in ready:
                self._accept()
            self._reap()

    def stop(self) -> None:
        """Make serve_forever() return; may be called from any thread and from a signal handler."""
        self.table.shared.stopping = 1
        self._wake()

    def abort(self) -> None:
        """Break the connections in service, so that their workers give up at once; callable like stop()."""
        for sock, _, _ in list(self._open.values()):
            end_at_once(sock)

    def __exit__(self, *error: object) -> None:
        """Let the requests under way finish, for `grace_s` at most, and end everything."""
        self.table.shared.stopping = 1
        self._listener.close()
        if wait(self._open, self.settings.grace_s).not_done:
            self.abort()
        self._pool.stop(hurry=bool(wait(self._open, ABORT_S).not_done))
        self._reap()
        for sock in (self._wake_receiver, self._wake_sender, *(sock for _, sock in self._refused)):
            sock.close()

    def _start_workers(self) -> None:
        self._pool = make_pool(self.table.mode, len(self.table.slots), Worker, self.settings, self.table)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it left before we came
        except OSError as error:  # the system has no descriptor left: wait for a connection to end
            log.warning("koneksi tidak dapat diterima: %s", os_error_text(error))
            select.select([self._wake_receiver], [], [], 1.0)
            return
        if len(self._open) < self._capacity:
            with suppress(RuntimeError):  # the system has no more threads
                self._dispatch((sock, next(self._numbers), time.monotonic()))
                return
        self.table.shared.refused += 1
        with suppress(OSError):  # the first bytes of a connection always find room
            sock.send(encode_reply("ERROR", "server sibuk, coba lagi nanti"))
            sock.shutdown(socket.SHUT_WR)
        self._refused.append((time.monotonic() + LINGER_S, sock))

    def _dispatch(self, client: Client) -> None:
        try:
            future = self._pool.submit(serve_connection, *client)
        except BrokenExecutor as error:  # a worker has just died
            future = Future()
            future.set_exception(error)
        self._open[future] = client
        future.add_done_callback(self._done.put)  # for the main loop,
        future.add_done_callback(self._wake)  # which sees it then

    def _wake(self, _: object = None) -> None:
        with suppress(OSError):  # full: it wakes anyway; closed: nobody is there to wake
            self._wake_sender.send(b"w")

    def _reap(self) -> None:
        """Close the connections that are done; replace the workers if they died."""
        now = time.monotonic()
        while self._refused and (self._refused[0][0] < now or len(self._refused) > MAX_LINGERING):
            self._refused.pop(0)[1].close()
        orphans: list[Client] = []
        while not self._done.empty():
            future = self._done.get()
            client, error = self._open.pop(future), future.exception()
            if isinstance(error, BrokenExecutor):
                if not orphans:
                    self._pool.stop()  # what else was broken with it is in _done now
                orphans.append(client)
                continue
            if error:
                log.error("koneksi %d: galat yang tidak terduga", client[1], exc_info=error)
                end_at_once(client[0])
            client[0].close()
        if orphans:
            self._rescue(orphans)
        self.table.shared.open = len(self._open)
        self.table.shared.cpu_us = int(time.process_time() * 1e6)

    def _rescue(self, orphans: list[Client]) -> None:
        """Count what was lost with a broken pool; start another for those that it had not begun."""
        self.files.remove_debris()
        slots, stopping = self.table.slots, self.table.shared.stopping
        begun = {slot.connection for slot in slots}
        died = {child.pid for child in self._pool.children if child.exitcode not in (0, -signal.SIGTERM)}
        for slot in slots:
            slot.died += slot.active or slot.pid in died
            slot.failed += slot.busy
            slot.active = slot.busy = 0
        if not stopping:
            self._start_workers()
            gc.collect()  # cycles keep the descriptors of the broken pool
        for sock, number, accepted_at in orphans:
            if number not in begun and not stopping:
                self._dispatch((sock, number, accepted_at))
            else:
                log.warning("koneksi %d: worker-nya mati", number)
                end_at_once(sock)
                sock.close()


class LegacyServer(FileServer):
    """A thread for each client, started when it connects: the model of the course's own server."""

    def __init__(self, settings: Settings) -> None:
        """Raises ServerError."""
        slots = min(settings.max_waiting, (raise_descriptor_limit() - OTHER_DESCRIPTORS) // 3)
        super().__init__(settings, "legacy", 0, slots, max_waiting=0)


class PoolServer(FileServer):
    """A pool of exactly `workers` threads or processes; clients beyond that wait for the next free worker."""

    def __init__(self, settings: Settings, mode: str) -> None:
        """`mode` is "thread" or "process". Raises ServerError."""
        super().__init__(settings, mode, settings.workers, settings.workers, settings.max_waiting)


def server_parser(description: str, modes: list[str], example: str) -> argparse.ArgumentParser:
    """Return a parser of the options that all servers have."""
    parser = argparse.ArgumentParser(description=description, epilog=f"contoh: python3 {example}")
    for name, (option, _, _, text) in OPTIONS.items():
        default: Any = getattr(Settings, name)
        more: dict[str, Any] = {"nargs": "?"} if option == name else {"dest": name, "metavar": "NILAI"}
        parser.add_argument(option, type=type(default), default=default, help=f"{text} (bawaan: %(default)s)",
                            **more)
    parser.add_argument("mode", nargs="?", default="thread", choices=modes, help="model (bawaan: thread)")
    parser.add_argument("--json", action="store_true", help="tulis keadaan sebagai JSON, juga di terminal")
    return parser


def run(parser: argparse.ArgumentParser, make_server: Callable[[Settings, str], FileServer],
        options: argparse.Namespace) -> int:
    """Listen, say so, serve until a signal comes, and tell the final counts.

    Return the exit code: 0, or 3 with one line on stderr if the server cannot start or go on.
    """
    logging.basicConfig(format=LOG_FORMAT)
    sys.excepthook = lambda kind, error, trace: log.error(  # multiprocessing calls it when a worker has died
        "worker mati, atau galat yang tidak terduga: %s", os_error_text(error),
        exc_info=None if isinstance(error, (ConnectionError, EOFError)) else error)
    as_json = options.json or not sys.stdout.isatty()
    try:
        try:
            settings = Settings(**{field.name: getattr(options, field.name) for field in fields(Settings)})
            server = make_server(settings, options.mode)
        except ValueError as error:
            parser.error(str(error))
        _stop_on_signals(server)
        with server:
            host, port = server.address
            table = server.table
            if as_json:
                tell(json.dumps({
                    "event": "ready", "host": host, "port": port, "mode": table.mode, "pid": os.getpid(),
                    "workers": table.workers, "start_method": table.start_method}), sys.stdout)
            tell(f"server siap di {host}:{port} ({table.mode}, {table.workers or 'tak terbatas'} worker); "
                 "Ctrl-C untuk berhenti")
            server.serve_forever()
            if busy := sum(slot.busy for slot in table.slots):
                tell(f"berhenti setelah {busy} transfer selesai, paling lama {settings.grace_s:g} detik lagi "
                     "(Ctrl-C sekali lagi: sekarang juga)")
    except ServerError as error:
        tell(f"galat: {error}")
        return 3
    stats = table.stats()
    if as_json:
        tell(json.dumps({"event": "stats"} | stats), sys.stdout)
    else:
        tell(f"server berhenti: {stats['succeeded']} permintaan sukses, {stats['failed']} gagal")
    if table.shared.open:
        os._exit(0)  # a thread hangs in the disk: Python would wait for it
    return 0


def _stop_on_signals(server: FileServer) -> None:
    """Have a first signal stop the server, a second one break the transfers under way, a third one end it."""
    actions: Iterator[Callable[[], object]] = itertools.chain(
        [server.stop, server.abort], itertools.repeat(lambda: os._exit(1)))
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) is not signal.SIG_IGN:  # nohup wants it ignored
            signal.signal(number, lambda *_: next(actions)())


def tell(text: str, stream: TextIO | None = None) -> None:
    """Print to `stream` (sys.stderr); a server goes on when nobody reads it any more."""
    with suppress(KeyboardInterrupt):
        say(text, stream)


def main(argv: list[str] | None = None) -> int:
    """Run a server; return the exit code: 0 stopped by a signal, 2 wrong usage, 3 cannot start."""
    prepare_streams()
    parser = server_parser("Server file: pool thread, pool proses, atau satu thread per client.",
                           [*POOLS], "file_server.py 5 process --port 46666 --files files")
    return run(parser, lambda settings, mode: LegacyServer(settings) if mode == "legacy" else
               PoolServer(settings, mode), parser.parse_args(argv))


if __name__ == "__main__":
    import file_server  # what is sent to a worker process must be this module's, not __main__'s

    sys.exit(file_server.main())
