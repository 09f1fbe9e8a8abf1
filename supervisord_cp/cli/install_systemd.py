"""What `install systemd` puts in place: the packaged files, adapted to this installation."""

import stat
from pathlib import Path
from typing import Final

from supervisord_cp.cli.install_steps import Put, Remove, Run, Step
from supervisord_cp.errors import UsageError
from supervisord_cp.model.base import Value

PACKAGED_PYTHON: Final = "/usr/bin/python3"
PACKAGED_PACKAGE: Final = "/usr/lib/python3/dist-packages/supervisord_cp"
"""What the packaged units name: where a distribution's package would have it."""
CONFIG: Final = Path("etc/supervisord-cp/config.toml")
UNITS: Final = Path("etc/systemd/system")
ENGINE_USER: Final = UNITS / "supervisord-cp-engine@.service.d" / "50-engine-user.conf"
GROUP: Final = "supervisord-cp"


class Installation(Value, frozen=True, kw_only=True):
    """What the units run."""

    python: Path
    """The interpreter that has the package."""
    package: Path
    """The folder of the package."""


class EngineUser(Value, frozen=True, kw_only=True):
    """Whom engines run as, when it is not the packaged user."""

    name: str
    group: str
    """The user's own; units run with that of the engines, and need this one for the user's files."""
    home: Path


def plan(
    source: Path,
    installation: Installation,
    *,
    root: Path = Path("/"),
    engine_user: EngineUser | None = None,
    booted: bool = True,
) -> tuple[Step, ...]:
    """The steps, in order. `source`: the packaged files; `booted`: systemd runs here and has to be told.

    Raises:
        UsageError: units cannot name this installation.
    """
    python, package = quoted(installation.python), quoted(installation.package)
    steps: list[Step] = [
        Put(path=root / UNITS / unit.name, text=adapted(unit.read_text(encoding="utf-8"), python, package))
        for unit in sorted(source.iterdir())
        if unit.suffix in (".service", ".slice")
    ]
    if engine_user is not None:
        steps.append(Put(path=root / ENGINE_USER, text=drop_in(engine_user)))
    elif (root / ENGINE_USER).exists():
        steps.append(Remove(path=root / ENGINE_USER))
    rules = "etc/polkit-1/rules.d"
    for folder, target in (
        ("rules.d", rules),
        ("sysusers.d", "etc/sysusers.d"),
        ("tmpfiles.d", "etc/tmpfiles.d"),
    ):
        steps += [
            Put(path=root / target / file.name, text=file.read_text(encoding="utf-8"))
            for file in sorted((source / folder).iterdir())
        ]
    steps += [
        Run(argv=("systemd-sysusers", str(root / "etc/sysusers.d/supervisord-cp.conf"))),
        Run(argv=("systemd-tmpfiles", "--create", str(root / "etc/tmpfiles.d/supervisord-cp.conf"))),
        Put(
            path=root / CONFIG,
            text=(source / CONFIG.name).read_text(encoding="utf-8"),
            mode=0o640,
            group=GROUP,
            keep=True,
        ),
    ]
    if booted:
        steps.append(Run(argv=("systemctl", "daemon-reload")))
    return tuple(steps)


def adapted(unit: str, python: str, package: str) -> str:
    """A packaged unit that runs this installation."""
    return unit.replace(PACKAGED_PACKAGE, package).replace(PACKAGED_PYTHON, python)


def quoted(path: Path) -> str:
    """A path as a command line in a unit has it.

    Raises:
        UsageError: it has characters that no unit should have to bear.
    """
    text = str(path)
    if not text.isprintable() or any(character in text for character in "\"'\\$; "):
        raise UsageError(f"a unit cannot name {text!r}; install supervisord_cp in a folder with a plain name")
    return text.replace("%", "%%")


def drop_in(user: EngineUser) -> str:
    """What makes the packaged template another user's."""
    return (
        "# Written by `supervisord-cp install systemd`, from [agent] engine_user.\n"
        "[Service]\n"
        f"User={user.name}\n"
        f"SupplementaryGroups={user.group}\n"
        f"ReadWritePaths={quoted(user.home)}\n"
    )


def closed_folder(path: Path) -> Path | None:
    """The first folder on the way to a path that other users cannot pass; None when they can."""
    for place in (path.absolute(), path.resolve()):
        for folder in reversed(place.parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                return folder
    return None
