"""A real S3 server on this machine, by moto, in a process of its own: killed tests and forked workers leave it alone.

As a program it serves until its standard input ends, and prints its address first.
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
    """The address of a server that ends with the block."""
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
    """The variables by which S3's users name a server and their keys."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "anybody",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_REGION": "us-east-1",
    }


def new_bucket(address):
    """The URL of an empty bucket."""
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
