"""Small programs that play the engine. Each prints `ready` when it is what it is named for."""

import sys
from typing import Final

Argv = tuple[str, ...]


def python(source: str, *arguments: str) -> Argv:
    """`python -c`, without site-packages: it starts quickly."""
    return (sys.executable, "-I", "-S", "-c", source, *arguments)


def exits_with(code: int) -> Argv:
    return python(f"import os; os._exit({code})")


SLEEPER: Final = python("import time\nprint('ready', flush=True)\ntime.sleep(600)")

POLITE: Final = python(
    """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
print("ready", flush=True)
time.sleep(600)
"""
)

DEAF: Final = python(
    """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    time.sleep(600)
"""
)

EXITS_ON_USR1: Final = python(
    """
import os, signal, time
signal.signal(signal.SIGUSR1, lambda *_: os._exit(7))
print("ready", flush=True)
while True:
    time.sleep(600)
"""
)

COUNTS: Final = python(
    """
import os, signal, time
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGUSR1, lambda *_: os._exit(7))
print("ready", flush=True)
number = 0
while True:
    print(number, flush=True)
    number += 1
    time.sleep(0.001)
"""
)
"""Writes numbers, and would die of a pipe that nobody reads."""

ESCAPEES: Final = python(
    """
import os, signal, sys, time

def daemon():
    # Forks twice, leads a session of its own, is deaf to SIGTERM, and its environment is another.
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(write, str(os.getpid()).encode())
        if sys.argv[1] == "clean":
            os.execve(sys.executable, ["x", "-I", "-S", "-c", "import time; time.sleep(600)"], {})
        time.sleep(600)
        os._exit(0)
    os.wait()
    return os.read(read, 32).decode()

pids = daemon(), daemon()
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
signal.signal(signal.SIGUSR1, lambda *_: os._exit(5))
print("ready", *pids, flush=True)
while True:
    time.sleep(600)
"""
)
"""Argument `keep` or `clean`: whether the daemons keep the environment. Prints their pids."""

SESSION_MATES: Final = python(
    """
import os, sys, time
pids = []
for environment in (os.environ, {}):
    pid = os.fork()
    if pid == 0:
        os.execve(sys.executable, ["x", "-I", "-S", "-c", "import time; time.sleep(600)"], environment)
    pids.append(pid)
print("ready", *pids, flush=True)
time.sleep(600)
"""
)
"""Two children in its session: one with the environment, one without. Prints their pids."""

FORK_CHAIN: Final = python(
    """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
if os.fork():
    time.sleep(600)
    os._exit(0)
for generation in range(500):
    if generation % 20 == 0 and os.fork() == 0:
        os.setsid()
        time.sleep(600)
        os._exit(0)
    time.sleep(0.02)
    if os.fork():
        os._exit(0)
"""
)
"""The main process stays. A descendant lives for a moment, forks the next one and ends, 500 in sequence;
every 20th leaves a child in a session of its own. Some 30 are alive at once, whatever the keeper does."""

FORK_BOMB: Final = python(
    """
import os, time
print("ready", flush=True)
for generation in range(6):
    time.sleep(0.01)
    os.fork()
time.sleep(600)
"""
)
"""Doubles until there are 64 processes."""

TITLED: Final = (
    sys.executable,
    "-c",
    """
import os, time
import setproctitle
if os.fork() == 0:
    os.setsid()
    setproctitle.setproctitle("VLLM::EngineCore")
    print("ready", os.getpid(), flush=True)
    time.sleep(600)
    os._exit(0)
setproctitle.setproctitle("VLLM::APIServer")
time.sleep(600)
""",
)
"""A child in a session of its own that changed its title, as vLLM's do. Prints its pid."""

THREAD_OUTLIVES_MAIN: Final = python(
    """
import ctypes, os, threading, time
def work():
    time.sleep(0.05)
    print("ready", os.getpid(), flush=True)
    time.sleep(600)
threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
"""
)


def counts_to(lines: int) -> Argv:
    """Prints numbered lines as fast as it can, then exits with 0."""
    return python(
        f"""
import sys
for number in range({lines}):
    sys.stdout.write("line %06d\\n" % number)
"""
    )


SHOWS_ITSELF: Final = python(
    """
import os, signal, json, sys
fds = sorted(os.readlink(f"/proc/self/fd/{fd}").split(":")[0] for fd in os.listdir("/proc/self/fd")
             if os.path.exists(f"/proc/self/fd/{fd}"))
with open("/proc/self/status") as status:
    masks = {line.split(":")[0]: line.split()[1] for line in status if line.startswith("Sig")}
with open("/proc/self/oom_score_adj") as score:
    score = int(score.read())
umask = os.umask(0)
print(json.dumps({
    "argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "umask": umask, "fds": fds,
    "blocked": masks["SigBlk"], "ignored": masks["SigIgn"], "session": os.getsid(0) == os.getpid(),
    "oom_score_adj": score,
}))
"""
)

FLOOD: Final = python("import os\nwhile True: os.write(1, b'x' * 79 + b'\\n')")

FLOODS_ON_USR1: Final = python(
    """
import os, signal, time
def flood(*_):
    for _ in range(100):
        os.write(1, b"x" * 65535 + b"\\n")
    os._exit(4)
signal.signal(signal.SIGUSR1, flood)
print("ready", flush=True)
time.sleep(600)
"""
)
