"""HTTP server whose answers are bytes made by a test: endless ones, slow ones, or ones that no good server sends.

    with raw_server(lambda request: itertools.repeat(b"x")) as url:
        ...

For tests only. An answer ends when the client leaves or the block ends, and at the latest after `LONGEST` seconds: a
client that would wait for ever fails its test instead of blocking it.
"""

import contextlib
import socketserver
import threading
import time

LONGEST = 20.0  # seconds


@contextlib.contextmanager
def raw_server(answer):
    """Serve on 127.0.0.1; yield the address.

    Args:
        answer: called with the head of each request; returns an iterable of bytes to send, one write each.
    """
    closing = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self):
            head = b""
            while line := self.rfile.readline():
                head += line
                if line == b"\r\n":
                    break
            end = time.monotonic() + LONGEST
            with contextlib.suppress(OSError):
                for part in answer(head.decode("latin-1")):
                    if closing.is_set() or time.monotonic() > end:
                        return
                    self.wfile.write(part)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            closing.set()
            server.shutdown()
            thread.join()


def head_of(status="200 OK", **headers):
    """Return the head of an answer; underscores in names of headers become dashes."""
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def slowly(data, seconds):
    """Yield bytes one by one, with a pause after each."""
    for value in data:
        yield bytes([value])
        time.sleep(seconds)
