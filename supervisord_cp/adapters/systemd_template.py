"""The installed template of engine units: whom it runs engines as."""

import pwd
from collections.abc import Callable
from typing import Final

from supervisord_cp.adapters.systemd_unit import show, unit_of
from supervisord_cp.errors import UsageError

INSTALL: Final = "run `supervisord-cp install systemd` as root"
PROBE: Final = unit_of("any")

Show = Callable[..., dict[str, str]]


def engine_account(engine_user: str, ask: Show = show) -> pwd.struct_passwd:
    """The account that engines run as. `engine_user` is who it has to be, "": whom the template names.

    Raises:
        UsageError: the template is missing, or says otherwise, or there is no such user.
    """
    try:
        found = ask(PROBE, "LoadState", "User")
    except OSError as error:
        raise UsageError(f'[agent] backend = "systemd": {error}') from error
    if found["LoadState"] != "loaded":
        raise UsageError(
            f'[agent] backend = "systemd": the unit {unit_of("")} is {found["LoadState"]}; {INSTALL}'
        )
    user = found["User"]
    if engine_user and user != engine_user:
        raise UsageError(
            f'[agent] engine_user = "{engine_user}", but {unit_of("")} has User={user or "root"}; {INSTALL}'
        )
    if not user:
        raise UsageError(f"{unit_of('')} runs engines as root: it has no User=; {INSTALL}")
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise UsageError(f"{unit_of('')} has User={user}, and there is no such user; {INSTALL}") from None
