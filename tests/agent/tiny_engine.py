"""An engine for `engine = "command"`: answers /health, has a child that outlives it. Standard library only.

Arguments: HOST PORT FOLDER. The folder steers it: a file `crash` makes it end at once with status 3,
`sick` makes /health answer 503, `slow` keeps it from listening, `deaf` makes it ignore SIGTERM.
"""

import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def main(host: str, port: int, folder: Path) -> None:
    print(f"tiny engine {os.getpid()} on {host}:{port}", flush=True)
    if (folder / "crash").exists():
        print("RuntimeError: told to crash", flush=True)
        sys.exit(3)
    if (folder / "deaf").exists():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    while (folder / "slow").exists():
        time.sleep(0.02)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = self.path == "/health"
            self.send_response(503 if (folder / "sick").exists() else 200 if found else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((host, port), Handler)
    print("serving", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
