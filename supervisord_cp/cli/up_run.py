"""From what was asked of `up` to a configuration that runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from supervisord_cp.cli import up_lock
from supervisord_cp.cli.connect import reachable
from supervisord_cp.cli.up_file import write_config
from supervisord_cp.cli.up_fleet import LocalFleet, api_url, say
from supervisord_cp.cli.up_host import engine_ports, look_at_host, metrics_listen, require_free, settled
from supervisord_cp.cli.up_plan import Places, Wish, choose, tables
from supervisord_cp.config.load import load
from supervisord_cp.config.schema import Listen
from supervisord_cp.errors import SupervisordError


def run_wish(wish: Wish, api: Listen, control: Listen, state_dir: Path) -> int:
    """`up` as the command line says it; returns the exit status once everything has ended.

    Raises:
        SupervisordError: it cannot be, or it runs already.
    """
    with _held(state_dir) as lock:
        api, control = settled(api), settled(control)
        require_free(api, "--api")
        require_free(control, "--control")
        choice = choose(wish, look_at_host(wish))
        agent = metrics_listen(control, api)
        wanted = {listen.port for listen in (api, control, agent) if listen}
        places = Places(
            api=api, control=control, agent=agent, ports=engine_ports(wanted), state_dir=state_dir
        )
        path = state_dir / "up.toml"
        write_config(path, tables(choice, places))
        say(choice.note)
        return _run(path, state_dir, lock)


def run_file(path: Path, state_dir: Path) -> int:
    """`up -c FILE`.

    Raises:
        SupervisordError: the file is wrong, or it runs already.
    """
    config = load(path)
    with _held(state_dir) as lock:
        require_free(config.router.api_listen, "[router] api_listen =")
        require_free(config.central.control_listen, "[central] control_listen =")
        return _run(path.resolve(), state_dir, lock)


def _run(path: Path, state_dir: Path, lock: up_lock.UpLock) -> int:
    config = load(path)
    control = config.central.control_listen
    address = reachable(control.host, control.port)
    lock.write({"pid": os.getpid(), "api": api_url(config), "control": address, "config": str(path)})
    return LocalFleet(path, config, state_dir, lock.descriptor).run()


@contextmanager
def _held(state_dir: Path) -> Iterator[up_lock.UpLock]:
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        (state_dir / "logs").mkdir(exist_ok=True)
    except OSError as error:
        raise SupervisordError(f"cannot write to {state_dir}: {error.strerror}; see --state-dir") from error
    lock = up_lock.acquire(state_dir, say=say)
    try:
        lock.write({"pid": os.getpid()})
        yield lock
    finally:
        lock.release()
