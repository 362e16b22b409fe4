"""The tests: ``python3 -m unittest`` from the repository's root."""

import faulthandler
import multiprocessing
import os
import signal
import sys

if not multiprocessing.parent_process():  # workers that import a test have none of this
    if "unittest" in sys.argv[0]:
        # What hangs would hang for ever: after this time, before a CI gives up and says nothing of where,
        # every thread's stack is printed, and it ends.
        faulthandler.dump_traceback_later(840 if os.environ.get("TESTS_SLOW") == "1" else 540, exit=True)
    # Hundreds of programs are started: to compile our scripts anew for each of them would take seconds.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # A CI, or nohup, may have signals ignored. Programs that we start would inherit that, and not hear them.
    for signal_ in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(signal_) is signal.SIG_IGN:
            signal.signal(signal_, signal.default_int_handler if signal_ == signal.SIGINT else signal.SIG_DFL)
