"""The internet of the lab: a web server with one recognisable page.

Holds its namespaces like ``lab.holder`` does, and serves while it holds.
Run as ``python -m lab.web WORD CONTROL``.
"""

import http.server
import socket
import sys
import threading

from lab.holder import hold

PAGE = b"hello from the internet\n"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer every path with the page."""
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: nobody reads it."""


def main() -> None:
    """Serve on port 80 of this network namespace until the lab ends."""
    server = http.server.ThreadingHTTPServer(("", 80), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hold(socket.socket(fileno=int(sys.argv[2])), None)


if __name__ == "__main__":
    main()
