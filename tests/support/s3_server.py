"""S3 server on this machine, by moto, in a separate process that killed tests and forked workers do not affect.

As a program it prints its address, and serves until its standard input is closed.
"""

import contextlib
import logging
import os
import subprocess
import sys
import uuid

import requests

BUCKET = "scenes"


@contextlib.contextmanager
def s3_server():
    """Start a server, yield its address, and stop it."""
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def environment(address):
    """Return the environment variables that select a server and its keys."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "anybody",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_REGION": "us-east-1",
    }


def new_bucket(address):
    """Create a bucket and return its URL."""
    name = f"{BUCKET}-{uuid.uuid4().hex[:12]}"
    requests.put(f"{address}/{name}", timeout=60).raise_for_status()
    return f"s3://{name}"


if __name__ == "__main__":
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    sys.stdin.read()
    os._exit(0)
