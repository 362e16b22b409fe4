"""The pool server that watches itself: what run_for_test.py starts for each row.

``ThreadPoolServer`` is a PoolServer (of threads or of processes) with get_worker_stats() and, if asked, a
live line about its workers. The line is written by a thread of its own, so it goes on when every worker is busy.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType
from typing import Any

from file_protocol import seconds
from file_server import EXECUTORS, PoolServer, Settings, run, server_command_line, settings_from


class ThreadPoolServer(PoolServer):
    """A pool server whose workers can be watched while it runs."""

    def __init__(self, settings: Settings, mode: str, monitor_s: float | None = None) -> None:
        """Write a line about the workers to stderr every `monitor_s` seconds, if given. Raises ServerError."""
        super().__init__(settings, mode)
        self._monitor_s = monitor_s
        self._ended = threading.Event()
        self._monitor = threading.Thread(target=self._watch, name="monitor")

    def get_worker_stats(self) -> dict[str, Any]:
        """Return what the workers do and have done; the wire's STATS returns the same.

        mode, workers, start_method: the pool. active, waiting, idle: workers with a connection, connections
        without a worker, workers without a connection, now. succeeded, failed, total: requests answered
        with OK, the others, and both (STATS itself is not counted). refused: connections turned away.
        file_bytes: bytes of files moved either way. uptime_s; throughput_byte_per_s: file_bytes / uptime_s.
        cpu_s: CPU seconds of the server and its workers. peak_rss_bytes: their largest resident memories
        added up (None where the system does not tell). per_worker: pid, succeeded, failed, died of each.
        """
        return self.table.stats()

    def __enter__(self) -> ThreadPoolServer:
        super().__enter__()
        if self._monitor_s:
            self._monitor.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._ended.set()
        if self._monitor_s:
            self._monitor.join()
        super().__exit__(kind, error, trace)

    def _watch(self) -> None:
        before_bytes, before_s = 0, time.monotonic()
        while not self._ended.wait(self._monitor_s):
            stats, now_s = self.get_worker_stats(), time.monotonic()
            rate = (stats["file_bytes"] - before_bytes) / (now_s - before_s)
            before_bytes, before_s = stats["file_bytes"], now_s
            line = (f"aktif {stats['active']} | antre {stats['waiting']} | menganggur {stats['idle']} | "
                    f"sukses {stats['succeeded']} | gagal {stats['failed']} | {rate:,.0f} byte/s")
            print(line, file=sys.stderr, flush=True)


def _stop_with_stdin(server: ThreadPoolServer) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    server.stop()


def main(argv: list[str] | None = None) -> int:
    """Run the pool server; return the exit code: 0 stopped by a signal, 2 wrong usage, 3 cannot start."""
    parser = server_command_line("Server file dengan pool thread atau pool proses, yang dapat dipantau.",
                                 list(EXECUTORS), "file_thread_pool.py 50 process --monitor 1")
    parser.add_argument("--monitor", type=seconds, metavar="DETIK",
                        help="tulis keadaan worker ke stderr setiap sekian detik")
    parser.add_argument("--stop-with-stdin", action="store_true",
                        help="berhenti bila stdin berakhir, jadi bersama program yang memulainya")
    options = parser.parse_args(argv)

    def make_server() -> ThreadPoolServer:
        server = ThreadPoolServer(settings_from(options), options.mode, options.monitor)
        if options.stop_with_stdin:
            threading.Thread(target=_stop_with_stdin, args=(server,), daemon=True).start()
        return server

    return run(make_server)


if __name__ == "__main__":
    sys.exit(main())
