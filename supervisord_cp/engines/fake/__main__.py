"""`python -m supervisord_cp.engines.fake serve MODEL [flags]`."""

import os
import signal
import sys
import traceback
from typing import Final, NoReturn

from supervisord_cp.engines.fake.knobs import Knobs
from supervisord_cp.engines.fake.listener import bind
from supervisord_cp.engines.fake.options import Options, parse
from supervisord_cp.engines.fake.processes import TreeShape, spawn_engine_core
from supervisord_cp.engines.fake.startup import StartFailed, Startup

_STOP: Final = (signal.SIGTERM, signal.SIGINT)


def main() -> NoReturn:
    """Run one engine; ends the process."""
    options, knobs = parse(sys.argv[1:], os.environ)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        code = _run(options, knobs)
    except StartFailed as failed:
        code = failed.code
    except OSError:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    if code < 0:
        _die_of(signal.Signals(-code))
    os._exit(code)


def _die_of(number: signal.Signals) -> None:
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)


def _run(options: Options, knobs: Knobs) -> int:
    startup = Startup(options, knobs, os.getpid())
    startup.announce()
    listener = bind(options)
    startup.configure()
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)  # until there are handlers: nobody may be left behind
    engine_pid = spawn_engine_core(
        TreeShape(
            prefix=os.environ.get("VLLM_PROCESS_NAME_PREFIX") or "VLLM",
            workers=options.workers,
            tensor_parallel=options.tensor_parallel,
            ignore_sigterm=knobs.ignore_sigterm,
            escape=knobs.escape,
        )
    )
    import asyncio  # after the fork, so that the children stay small

    from supervisord_cp.engines.fake.server import Server

    async def serve() -> int:
        return await Server(options, knobs, listener, engine_pid).run(startup)

    return asyncio.run(serve())


if __name__ == "__main__":
    main()
