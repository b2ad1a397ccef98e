"""A backend for the tables that count instructions: answers each request with
the address it was sent to, keeps every connection, and listens on all of
127.0.0.0/8, but on no other interface."""

import select
import socket
import sys


# What nginx sends.
HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n"
)


def answer(connection):
    body = connection.getsockname()[0].encode()
    return HEAD % len(body) + body


def main():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    listener.bind(("0.0.0.0", 0))
    listener.listen(1024)
    print(listener.getsockname()[1], flush=True)

    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    connections = {}
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[connection.fileno()] = connection, answer(connection)
                epoll.register(connection, select.EPOLLIN)
                continue
            connection, response = connections[fd]
            request = connection.recv(65536)
            if request:
                connection.sendall(response)
            else:
                epoll.unregister(fd)
                del connections[fd]
                connection.close()


if __name__ == "__main__":
    sys.exit(main())
