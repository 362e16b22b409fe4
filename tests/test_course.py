"""Our servers with what others send them: junk, and web pages."""

from __future__ import annotations

import subprocess
import time
import unittest
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.picture import BROWSER, CHROMIUM
from tests.support import SLOW, WAIT_S, Relay, RunningServer, for_each_model, read_to_end, wait_until

PAGE = r"""<script>
for (const body of ["DELETE a.txt", "DELETE a.txt\r\n", "\r\nDELETE a.txt\r\n", "UPLOAD b QUJD\r\n\r\n"])
    fetch("http://127.0.0.1:PORT", {method: "POST", mode: "no-cors", body});
</script>"""


class OtherClients(unittest.TestCase):
    """What others send, to each of our servers."""

    def test_no_command_in_a_web_request_runs_however_it_is_cut_and_junk_frees_its_worker(self) -> None:
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\r\n"
        requests = [(b"DELETE a HTTP/1.1\r\n", b"\r\n"), (b"POST /%s HTTP/1.1\n" % (b"x" * 5000), b"LIST\n"),
                    (b"get / http/1.0\n\n", b"DELETE a"), (b"\x16\x03\x01\0\xa5\x01\0", b"DELETE a\r\n")]
        requests += [(head[:at], head[at:] + b"UPLOAD b QUJD\r\n\r\nDELETE a\r\n")
                     for at in (0, 4, 5, 6, 14, 16, 17, -2, len(head))]
        requests += [(junk, b"") for junk in (
            b"HELLO", b"HAPUS a.txt", b"PUT a", b"x" * 70_000, b"\x16\x03\x01\0\xa5\x01" + bytes(150),
            b"\xef\xbb\xbfLIST", bytes(10), b"\xff\xfe")]

        def check(running: RunningServer) -> None:
            (running.directory / "a").write_bytes(b"kept")
            held = [running.connect() for _ in requests]
            for part in range(2):
                time.sleep(0.3 * part)  # after 0.2 s of silence the first piece is taken for a command
                for connection, pieces in zip(held, requests, strict=True):
                    with suppress(ConnectionError):  # it may have been cut already
                        connection.sendall(pieces[part])
            wait_until(lambda: running.stats()["active"] == 0, "the workers are free, though nobody has left")
            for connection, pieces in zip(held, requests, strict=True):
                with connection:
                    said = read_to_end(connection)
                self.assertTrue(b"ERROR" in said or (pieces[1] and not said), (pieces, said))
            self.assertEqual((running.names(), (running.directory / "a").read_bytes()), (["a"], b"kept"))

        for_each_model(self, check, workers=len(requests))

    @unittest.skipUnless(CHROMIUM and SLOW, "needs Chromium, and TESTS_SLOW=1")
    def test_a_real_page_posts_commands_and_nothing_happens(self) -> None:
        running, answered = RunningServer("thread"), dict[int, bytes]()
        self.addCleanup(running.close)
        relay = Relay(running.port, lambda number, before, data: answered.setdefault(number, data))
        self.addCleanup(relay.close)
        (running.directory / "a.txt").write_bytes(b"kept")
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # the browser's children still write
            page = Path(folder, "page.html")
            page.write_text(PAGE.replace("PORT", str(relay.port)))
            command = [*BROWSER, f"--user-data-dir={folder}", page.as_uri()]
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as browser:
                try:
                    wait_until(lambda: len(answered) == 4, "what the page has posted is answered")
                finally:
                    browser.terminate()
                    browser.wait(WAIT_S)
        self.assertEqual((running.names(), (running.directory / "a.txt").read_bytes()), (["a.txt"], b"kept"))
