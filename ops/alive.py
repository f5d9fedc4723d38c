"""`python -I -S ops/alive.py PORT [PATH]`: exit code 0 when `/healthz` there says 200, for docker-compose.yml.

It imports nothing but sockets, as a dozen containers run it every few seconds: 0.03 s of a processor, where a library
for HTTP takes 0.2 s to load.
"""

import socket
import sys

SECONDS = 8


def main(port: int, path: str = "/healthz") -> int:
    """The exit code."""
    try:
        with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            return 0 if connection.recv(64).split(b" ")[1:2] == [b"200"] else 1
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
