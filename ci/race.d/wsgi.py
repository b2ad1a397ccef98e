"""The application of gunicorn's own workers for ci/race."""

import time


def app(environ, start_response):
    environ["wsgi.input"].read()
    time.sleep(0.002)
    body = b"x" * 1000
    headers = [("Content-Length", str(len(body))), ("X-Peer", environ["REMOTE_ADDR"])]
    start_response("200 OK", headers)
    return [body]
