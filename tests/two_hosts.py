"""By hand, on Linux: python3 -m tests.two_hosts

The server on one host and the stress client on another, for which two network namespaces, joined by a cable
(veth), stand in: once as it is, and once with delay and loss, where the kernel has netem. Every client must
succeed, and the server's columns must have come over the network. Says in one line why not if it cannot. The
namespaces have no names, only processes, so nothing is left of them.
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
CLIENTS = 10
NETEM = "tc qdisc add dev cable root netem delay 20ms loss 1%"


def run(command: str) -> str:
    """Run one of the system's tools; return "", or why it refused."""
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    return " ".join(done.stderr.split()) or f"{command}: {done.returncode}" if done.returncode else ""


def measure(what: str, port: int) -> int:
    """Measure three rows, print their figures, and return how many failed."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.csv")
        for operation in ("upload", "download", "list"):
            failed += subprocess.call(
                [sys.executable, str(ROOT / "file_client_stress_test.py"), "--host", SERVER, "--port",
                 str(port), "--operation", operation, "--volume", "1", "--clients", str(CLIENTS),
                 "--executor", "process", "--output", str(path)], stdout=subprocess.DEVNULL) != 0
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    for row in rows:
        told = [row[key] for key in ("client_sukses", "permintaan_sukses", "server_gagal")]
        good = told == [str(CLIENTS), str(CLIENTS), "0"]
        failed += not good
        print(f"{what:<14} {row['operasi']:<8} {'all succeeded' if good else 'FAILED: ' + row['galat']:<13} "
              f"total {row['waktu_total_per_client_s']} s, connecting {row['koneksi_rata_s']} s, "
              f"waiting {row['antre_rata_s']} s, server CPU {row['cpu_server_s']} s {row['catatan']}")
    return failed + 3 - len(rows)


def inside() -> int:
    """Be the client's host: start the other one, join them, measure; return the exit code."""
    with tempfile.TemporaryDirectory() as directory, subprocess.Popen(
            ["unshare", "--net", "sh", "-c", 'read joined; exec "$@"', "sh", sys.executable,
             str(ROOT / "file_thread_pool.py"), "4", "process", "--host", SERVER, "--port", "0",
             "--files", directory, "--stop-with-stdin"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdin and server.stdout
        here, there = os.readlink("/proc/self/ns/net"), f"nsenter --target {server.pid} --net "
        wait_until(lambda: os.readlink(f"/proc/{server.pid}/ns/net") != here, "the server is elsewhere")
        if why := run(f"ip link add cable type veth peer name cable netns {server.pid} && "
                      f"ip address add {CLIENT}/24 dev cable && ip link set cable up && "
                      f"{there} ip address add {SERVER}/24 dev cable && {there} ip link set cable up"):
            print(f"skipped: the two hosts cannot be joined ({why})")
            return 0
        print("joined", file=server.stdin, flush=True)
        port = json.loads(server.stdout.readline())["port"]
        failed = measure("as it is", port)
        if why := run(f"{NETEM} && {there} {NETEM}"):
            print(f"skipped: delay and loss ({why})")
        else:
            failed += measure("delay and loss", port)
    return 1 if failed else 0


def main() -> int:
    """Go on in a network namespace; return 0 if all succeeded or it cannot be done, 1 otherwise."""
    if sys.argv[1:] == ["inside"]:
        return inside()
    unshare = ["unshare", "--net", *(["--map-root-user"] if os.geteuid() else [])]
    if why := run(" ".join([*unshare, "ip link"])):
        print(f"skipped: no network namespaces here ({why})")
        return 0
    return subprocess.call([*unshare, sys.executable, "-m", "tests.two_hosts", "inside"], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
