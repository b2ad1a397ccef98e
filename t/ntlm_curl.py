"""A server for t/ntlm_curl.t with NTLM as it is: pyspnego accepts users of NTLM_USER_FILE.

As Microsoft's servers do, it authenticates a connection: each later request on it is answered as that user. Its
arguments are its port, and a file that is there when it listens.
"""

import base64
import itertools
import os
import socketserver
import sys

import spnego

NUMBERS = itertools.count(1)


class Connection(socketserver.StreamRequestHandler):
    """Requests on a connection, and who has authenticated on it."""

    # Nothing waits for ever.
    timeout = 60
    disable_nagle_algorithm = True

    def handle(self) -> None:
        self.number = next(NUMBERS)
        self.context = None
        self.user = ""
        try:
            while self.request_and_response():
                pass
        except OSError:
            pass

    def request_and_response(self) -> bool:
        if not self.rfile.readline().strip():
            return False
        headers = {}
        while line := self.rfile.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        self.rfile.read(int(headers.get("content-length", "0")))

        challenge = self.authenticate(headers.get("authorization", ""))
        if self.user:
            status, more = "200 OK", f"X-User: {self.user}\r\n"
        else:
            status, more = "401 Unauthorized", f"WWW-Authenticate: {challenge}\r\n"
        body = f"{self.user or 'nobody'}\n"
        response = (
            f"HTTP/1.1 {status}\r\nX-Connection: {self.number}\r\n{more}"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        self.wfile.write(response.encode())
        return True

    def authenticate(self, authorization: str) -> str:
        """Sets who it is, and returns the challenge for who is nobody."""
        scheme, _, token = authorization.partition(" ")
        if scheme.upper() != "NTLM" or not token:
            return "NTLM"
        message = base64.b64decode(token)
        self.user = ""
        # The first message of three begins anew.
        if message[8:9] == b"\x01":
            self.context = spnego.server(protocol="ntlm")
        if self.context is None:
            return "NTLM"
        try:
            answer = self.context.step(message)
        except spnego.exceptions.SpnegoError as error:
            print(error, file=sys.stderr, flush=True)
            self.context = None
            return "NTLM"
        if self.context.complete:
            self.user = self.context.client_principal.split("\\")[-1].lower()
            self.context = None
            return ""
        return f"NTLM {base64.b64encode(answer).decode()}"


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    port, ready = int(sys.argv[1]), sys.argv[2]
    with Server(("127.0.0.1", port), Connection) as server:
        with open(ready, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        server.serve_forever()


main()
