"""By hand, on Linux: python3 -m tests.two_hosts

The server on one host and the stress client on another, for which two network namespaces, joined by a cable
(veth), stand in: once as it is, and once with delay and loss, where the kernel has netem. Every client must
succeed, and the server's counts, which come over the network, must agree. Says in one line why not if it
cannot. The namespaces have no names, only processes, so nothing is left of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing

from tests.support import ROOT, ServerProcess, run_script

SERVER, CLIENT = "10.213.77.1", "10.213.77.2"  # seen by nobody but the two
NETEM = "tc qdisc add dev cable root netem delay 20ms loss 1%"


def run(command: str) -> str:
    """Run one of the system's tools; return "", or why it refused."""
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    return " ".join(done.stderr.split()) or f"{command}: {done.returncode}" if done.returncode else ""


def measure(what: str, port: int) -> int:
    """Measure three rows, print their results, and return how many failed."""
    failed = 0
    for operation in ("upload", "download", "list"):
        done = run_script("file_client_stress_test.py", "--host", SERVER, "--port", port, "--operation",
                          operation, "--volume", 1, "--clients", 10, "--executor", "process")
        failed += done.returncode != 0 or "server_sukses" not in done.stdout or "hitungan" in done.stdout
        print(f"{what}, {operation}: {done.stdout}{done.stderr}", end="", flush=True)
    return failed


def inside() -> int:
    """Be the client's host: start the other one, join them, measure; return the exit code."""
    with closing(ServerProcess(4, "process", "--host", "0.0.0.0", prefix=["unshare", "--net"])) as server:
        pid, port = server.process.pid, server.client.port
        there = f"nsenter --target {pid} --net "
        if why := run(f"ip link add cable type veth peer name cable netns {pid} && "
                      f"ip address add {CLIENT}/24 dev cable && ip link set cable up && "
                      f"{there} ip address add {SERVER}/24 dev cable && {there} ip link set cable up"):
            print(f"skipped: the two hosts cannot be joined ({why})")
            return 0
        failed = measure("as it is", port)
        if why := run(f"{NETEM} && {there} {NETEM}"):
            print(f"skipped: delay and loss ({why})")
        else:
            failed += measure("delay and loss", port)
        return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["inside"]:
        sys.exit(inside())
    unshare = ["unshare", "--net", *(["--map-root-user"] if os.geteuid() else [])]
    if why := run(" ".join([*unshare, "ip link"])):
        print(f"skipped: no network namespaces here ({why})")
        sys.exit(0)
    sys.exit(subprocess.call([*unshare, sys.executable, "-m", "tests.two_hosts", "inside"], cwd=ROOT))
