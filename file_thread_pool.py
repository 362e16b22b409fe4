"""The pool server that watches itself: what run_for_test.py starts for each row.

A thread of its own writes a line about the workers now and then, also when all of them are busy.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

from file_protocol import prepare_streams
from file_server import PoolServer, Settings, run, server_parser, tell


class ThreadPoolServer(PoolServer):
    """A pool server, of threads or processes, whose workers can be watched while it runs."""

    def __init__(self, settings: Settings, mode: str, monitor_s: float | None = None) -> None:
        """Write a line about the workers every `monitor_s` seconds, if given. Raises ServerError."""
        if monitor_s is not None and not monitor_s > 0:
            raise ValueError("--monitor harus lebih dari 0 detik")
        super().__init__(settings, mode)
        self._monitor_s = monitor_s

    def get_worker_stats(self) -> dict[str, Any]:
        """Return what the workers do and have done, as the wire's STATS does.

        active, waiting, idle: workers with a connection, connections without a worker, workers without one.
        succeeded, failed, total: requests but STATS; refused: connections. file_bytes: moved either way.
        cpu_s: of server and workers. memory_bytes: the sum of their Pss, or None. per_worker: of each.
        """
        return self.table.stats()

    def __enter__(self) -> ThreadPoolServer:
        super().__enter__()
        if self._monitor_s:
            threading.Thread(target=self._watch, args=(self._monitor_s,), daemon=True).start()
        return self

    def _watch(self, period_s: float) -> None:
        stats = self.get_worker_stats()
        while not self.table.shared.stopping:
            time.sleep(period_s)
            before, stats = stats, self.get_worker_stats()
            mb = (stats["file_bytes"] - before["file_bytes"]) / 2**20
            rate = f"{mb / max(stats['uptime_s'] - before['uptime_s'], 0.001):.1f}".replace(".", ",")
            tell(f"aktif {stats['active']} | antre {stats['waiting']} | menganggur {stats['idle']} | "
                 f"sukses {stats['succeeded']} | gagal {stats['failed']} | {rate} MB/detik")


def _stop_with_stdin(server: ThreadPoolServer) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    server.stop()


def main(argv: list[str] | None = None) -> int:
    """Run the pool server; return the exit code: 0 stopped by a signal, 2 wrong usage, 3 cannot start."""
    prepare_streams()
    parser = server_parser("Server file dengan pool thread atau pool proses, yang dapat dipantau.",
                           ["thread", "process"], "file_thread_pool.py 50 process --monitor 1")
    parser.add_argument("--monitor", type=float, metavar="DETIK", help="tulis keadaan setiap sekian detik")
    parser.add_argument("--stop-with-stdin", action="store_true", help="berhenti bila stdin berakhir")
    options = parser.parse_args(argv)

    def make_server(settings: Settings, mode: str) -> ThreadPoolServer:
        server = ThreadPoolServer(settings, mode, options.monitor)
        if options.stop_with_stdin:
            threading.Thread(target=_stop_with_stdin, args=(server,), daemon=True).start()
        return server

    return run(parser, make_server, options)


if __name__ == "__main__":
    sys.exit(main())
