"""A Python that has imported what its forks need: ``preloaded_main.py SOCKET HOW MODULE...``.

It forks for each request that comes through the socket, and the fork becomes the program that the
request asks for, as ``__main__`` and to its last step: the interpreter ends as it always does. It
ends, and its forks with it, when the other end of the socket is closed.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
from typing import Any


def serve(requests: socket.socket) -> dict[str, Any]:
    """Fork for each request; return the request in the fork."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    statuses: dict[int, int] = {}
    while True:
        ready = select.select([requests.fileno(), woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            report_ended(statuses)
        if requests.fileno() not in ready:
            continue
        message, descriptors, *_ = socket.recv_fds(requests, 2**20, 4)
        if not message:
            for pid in statuses:
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        *streams, status = descriptors
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            requests.close()
            for descriptor in (woken, wake, status, *statuses.values()):
                os.close(descriptor)
            request: dict[str, Any] = json.loads(message)
            become(request, streams)
            return request
        for descriptor in streams:
            os.close(descriptor)
        statuses[pid] = status
        os.write(status, struct.pack("i", pid))


def report_ended(statuses: dict[int, int]) -> None:
    """Write the wait status of each fork that has ended to whoever started it."""
    for pid, status in list(statuses.items()):
        ended, code = os.waitpid(pid, os.WNOHANG)
        if ended:
            with contextlib.suppress(BrokenPipeError):  # the test does not wait for it
                os.write(status, struct.pack("i", code))
            os.close(statuses.pop(pid))


def become(request: dict[str, Any], streams: list[int]) -> None:
    """Take over what a new process is given: session, directory, environment, streams, signals."""
    os.setsid()
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


if __name__ == "__main__":
    for _module in sys.argv[3:]:
        importlib.import_module(_module)
    if sys.argv[2] == "frozen":
        gc.freeze()
    _request = serve(socket.socket(fileno=int(sys.argv[1])))
    sys.argv = _request["argv"]
    if _request["file"] is None:
        sys.path[0] = ""
        del __file__
    else:
        __file__ = _request["file"]
        sys.path[0] = __file__.rpartition("/")[0]
    globals()["__doc__"] = None
    exec(compile(_request["code"], _request["file"] or "<string>", "exec", dont_inherit=True))
