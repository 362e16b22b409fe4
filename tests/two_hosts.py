"""By hand, on Linux: python3 -m tests.two_hosts

The server on one host and the stress client on another, for which two network namespaces, joined by a cable
(veth), stand in: once as it is, and once with 20 ms delay each way and 1 % loss, where the kernel has netem. Every
client must succeed, and the server's columns must have come over the network. Says in one line why not if it cannot.

The namespaces have no names, only processes: this one and the server, which ends with its stdin. So nothing is left
of them however this ends.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support import ROOT, wait_until

SERVER, CLIENT = "10.213.77.1", "10.213.77.2"  # seen by nobody but the two
ROWS = ("upload", "download", "list")
WORKERS, CLIENTS, VOLUME_MB = 4, 10, 1
NETEM = ("delay", "20ms", "loss", "1%")


def run(*command: str) -> str:
    """Run one of the system's tools; return "", or why it refused."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return " ".join(done.stderr.split()) or f"{command[0]}: {done.returncode}" if done.returncode else ""


def join(pid: int) -> str:
    """Lay the cable from this namespace to that of process `pid`; return "", or why that cannot be."""
    there = ("nsenter", "--target", str(pid), "--net")
    return (run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(pid))
            or run("ip", "address", "add", f"{CLIENT}/24", "dev", "cable") or run("ip", "link", "set", "cable", "up")
            or run(*there, "ip", "address", "add", f"{SERVER}/24", "dev", "cable")
            or run(*there, "ip", "link", "set", "cable", "up"))


def worsen(pid: int) -> str:
    """Make the cable slow and lossy, both ways; return "", or why that cannot be."""
    netem = ("tc", "qdisc", "add", "dev", "cable", "root", "netem", *NETEM)
    return run(*netem) or run("nsenter", "--target", str(pid), "--net", *netem)


def measure(what: str, port: int) -> int:
    """Measure the rows, print their figures, and return how many failed."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.csv")
        for operation in ROWS:
            done = subprocess.run(
                [sys.executable, str(ROOT / "file_client_stress_test.py"), "--host", SERVER, "--port", str(port),
                 "--operation", operation, "--volume", str(VOLUME_MB), "--clients", str(CLIENTS), "--timeout", "120",
                 "--executor", "process", "--output", str(path)], stdout=subprocess.DEVNULL, check=False)
            failed += done.returncode != 0
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    for row in rows:
        good = (row["client_sukses"], row["server_gagal"], row["permintaan_sukses"], row["server_worker_pool"]) == (
            str(CLIENTS), "0", str(CLIENTS), str(WORKERS))
        failed += not good
        print(f"{what:<20} {row['operasi']:<8} {'all succeeded' if good else 'FAILED: ' + row['galat']:<13} "
              f"total {row['waktu_total_per_client_s']} s, connecting {row['koneksi_rata_s'] or '-'} s, "
              f"waiting {row['antre_rata_s'] or '-'} s, server CPU {row['cpu_server_s']} s {row['catatan']}")
    return failed + len(ROWS) - len(rows)


def inside() -> int:
    """Be the client's host: start the other one, join them, measure."""
    with tempfile.TemporaryDirectory() as directory, subprocess.Popen(
            ["unshare", "--net", "sh", "-c", 'read joined; exec "$@"', "sh", sys.executable,
             str(ROOT / "file_thread_pool.py"), str(WORKERS), "process", "--host", SERVER, "--port", "0", "--files",
             directory, "--stop-with-stdin"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdin and server.stdout
        here = os.readlink("/proc/self/ns/net")
        wait_until(lambda: os.readlink(f"/proc/{server.pid}/ns/net") != here, "the server is elsewhere")
        if why := join(server.pid):
            print(f"skipped: the two hosts cannot be joined ({why})")
            return 0
        server.stdin.write("joined\n")
        server.stdin.flush()
        port = json.loads(server.stdout.readline())["port"]
        failed = measure("as it is", port)
        if why := worsen(server.pid):
            print(f"skipped: {' '.join(NETEM)} ({why})")
        else:
            failed += measure(" ".join(NETEM), port)
    return 1 if failed else 0


def main() -> int:
    """Go on in a network namespace; return the exit code: 0 all succeeded or cannot be done here, 1 otherwise."""
    if sys.argv[1:] == ["inside"]:
        return inside()
    unshare = ("unshare", "--net", *(["--map-root-user"] if os.geteuid() else []))
    if why := run(*unshare, "ip", "link"):
        print(f"skipped: no network namespaces here ({why})")
        return 0
    return subprocess.call([*unshare, sys.executable, "-m", "tests.two_hosts", "inside"], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
