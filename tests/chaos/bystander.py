"""A process of somebody else, which looks much like an engine and writes down every signal that it gets."""

import signal
import sys
import time
from pathlib import Path


def main(notes: Path) -> None:
    def note(number: int, _: object) -> None:
        with notes.open("a") as file:
            file.write(f"{signal.Signals(number).name}\n")

    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, note)
    notes.touch()
    while True:
        time.sleep(600)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
