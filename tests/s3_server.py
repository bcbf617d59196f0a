"""A real S3 server (moto, over HTTP on loopback) that fails now and then: 500s, slow answers, cut connections."""

import itertools
import logging
import os
import socket
import threading
import time
from contextlib import contextmanager

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

KEYS = {"AWS_ACCESS_KEY_ID": "test-key", "AWS_SECRET_ACCESS_KEY": "test-secret-of-the-store"}


class Faults:
    """Counts requests and says what happens to each: nothing, or one of the faults in turn.

    Parameters
    ----------
    every : one request in so many meets a fault; 0: none.
    """

    def __init__(self, every=0):
        self.every, self.met, self.requests = every, 0, 0
        self.denied = False
        self._kinds, self._lock = itertools.cycle(["error", "slow", "cut"]), threading.Lock()

    def next(self):
        """The fate of a request."""
        with self._lock:
            self.requests += 1
            if self.denied:
                return "denied"
            if not self.every or self.requests % self.every:
                return None
            self.met += 1
            return next(self._kinds)


class _Faulty:
    def __init__(self, application, faults):
        self.application, self.faults = application, faults

    def __call__(self, environ, start_response):
        fate = self.faults.next()
        if fate == "denied":
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"]
        if fate == "error":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("500 Internal Server Error", [("Content-Type", "application/xml")])
            return [b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"]
        if fate == "cut":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        if fate == "slow":
            time.sleep(1.0)
        return self.application(environ, start_response)


@contextmanager
def s3_server(faults=None):
    """Serve; yields the environment that points clients here. A bucket named ``bucket`` is there."""
    application = _Faulty(DomainDispatcherApplication(create_backend_app), faults or Faults())
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.port}"
    environment = {
        **KEYS,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        _make_bucket(environment)
        yield environment
    finally:
        server.shutdown()
        server.server_close()


def _make_bucket(environment):
    import boto3

    session = boto3.session.Session(KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"])
    session.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], region_name="us-east-1").create_bucket(
        Bucket="bucket"
    )


def clean_environment():
    """This process's environment without anything that speaks of AWS or Ray."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "RAY_"))}
