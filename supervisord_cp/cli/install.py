"""Putting in place what operators need: units for systemd, scrape configuration and rules for Prometheus."""

import grp
import os
import pwd
import sys
from pathlib import Path
from typing import Final

import click

import supervisord_cp
from supervisord_cp.cli.install_steps import perform
from supervisord_cp.cli.install_systemd import CONFIG, EngineUser, Installation, closed_folder, plan
from supervisord_cp.cli.options import config_option
from supervisord_cp.cli.package_data import packaged
from supervisord_cp.errors import UsageError

ROOT: Final = Path("/")
BOOTED: Final = Path("/run/systemd/system")
POLKIT: Final = (Path("/usr/lib/polkit-1/polkitd"), Path("/usr/libexec/polkitd"), Path("/usr/lib/polkit-1"))
"""Where distributions have the daemon."""
ELSEWHERE: Final = (
    "Install supervisord_cp where they can: "
    "python3 -m venv /opt/supervisord-cp && /opt/supervisord-cp/bin/pip install supervisord-cp"
)
NEXT: Final = """\

Next: edit /etc/supervisord-cp/config.toml, and check it with `supervisord-cp config check`. Then
  systemctl enable --now supervisord-cp-central supervisord-cp-router   on the host that runs central
  systemctl enable --now supervisord-cp-agent                           on every GPU host
After an upgrade: systemctl restart supervisord-cp-agent supervisord-cp-central; engines run on."""


@click.group()
def install() -> None:
    """Put units, scrape configuration and rules in place."""


@install.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def systemd(dry_run: bool) -> None:
    """Install systemd units for this installation of supervisord_cp.

    Writes units, users, folders and a polkit rule below /etc, and a first configuration if there is none.
    Starts nothing. Doing it again brings everything up to date.
    """
    if os.geteuid() != 0 and not dry_run:
        raise UsageError("install systemd writes to /etc: run it as root, or with --dry-run")
    here = Installation(python=Path(sys.executable), package=Path(supervisord_cp.__file__).parent)
    user = _engine_user()
    booted = BOOTED.is_dir()
    steps = plan(packaged("systemd"), here, engine_user=user, booted=booted)
    closed = _closed(here)
    if closed and not dry_run:
        raise UsageError(closed)
    perform(steps, dry_run=dry_run)
    for warning in (closed, *_warnings(user, booted=booted)):
        if warning:
            click.echo(f"warning: {warning}", err=True)
    if not dry_run:
        click.echo(NEXT)


@install.command()
@config_option(required=False)
@click.option("--address", metavar="URL", help="Central, as Prometheus reaches it.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
    metavar="FILE",
    help="A viewer's token, which Prometheus reads itself.",
)
@click.option(
    "--prefix",
    type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
    default=Path("/etc/prometheus"),
    show_default=True,
    metavar="DIR",
    help="Prometheus' folder.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def prometheus(
    config: Path | None, address: str | None, token_file: Path | None, prefix: Path, dry_run: bool
) -> None:
    """Install scrape configuration, recording rules and alerts.

    Adds central's list of targets and the rules to prometheus.yml, or writes one where there is none; what
    else is in it stays. Doing it again brings everything up to date.
    """
    from supervisord_cp.cli import install_prometheus as ours

    found, token = ours.central_of(config) if address is None else (address, "")
    steps = ours.plan(packaged("prometheus"), prefix, found, token, token_file)
    perform(steps, dry_run=dry_run)
    if not dry_run:
        click.echo(ours.NEXT)


@install.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--prometheus", metavar="URL", help="The fleet's Prometheus; else [prometheus] url.")
@config_option(required=False)
@click.option(
    "--root",
    type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
    metavar="DIR",
    help="Write below DIR in place of /, for an image or a look at the files.",
)
def grafana(dry_run: bool, prometheus: str | None, config: Path | None, root: Path | None) -> None:
    """Install dashboards and a datasource into Grafana's folders.

    Writes below /etc/grafana/provisioning and /var/lib/grafana/dashboards. Doing it again brings everything
    up to date.
    """
    from supervisord_cp.cli import install_grafana

    if not dry_run and root is None and not (ROOT / install_grafana.PROVISIONING).is_dir():
        raise UsageError(
            f"there is no {ROOT / install_grafana.PROVISIONING}: install Grafana on this host first, "
            "or write its files elsewhere with --root DIR, to import the dashboards by hand"
        )
    url = prometheus or _prometheus_of(config) or install_grafana.PACKAGED_PROMETHEUS
    perform(install_grafana.plan(packaged("grafana"), url, root=root or ROOT), dry_run=dry_run)
    if not dry_run and root is None:
        click.echo("\nNext: systemctl restart grafana-server; the dashboards are in the folder `vLLM fleet`.")


def _prometheus_of(config: Path | None) -> str:
    """The address that the configuration names, "" when it names none."""
    if config is None:
        return ""
    from supervisord_cp.config.load import load

    return load(config).prometheus.url


def _engine_user() -> EngineUser | None:
    """Whom the configuration names.

    Raises:
        UsageError: the configuration is wrong, or there is no such user.
    """
    path = ROOT / CONFIG
    if not path.exists():
        return None
    from supervisord_cp.config.load import load

    name = load(path).agent.engine_user
    if not name:
        return None
    try:
        account = pwd.getpwnam(name)
        group = grp.getgrgid(account.pw_gid).gr_name
    except KeyError:
        raise UsageError(f'{path}: [agent] engine_user = "{name}": there is no such user') from None
    return EngineUser(name=name, group=group, home=Path(account.pw_dir))


def _closed(here: Installation) -> str:
    """Why the units' users could not run this installation, "" when they can."""
    for path in (here.python, here.package / "__init__.py"):
        if (folder := closed_folder(path)) is not None:
            return f"other users cannot run {path}, since {folder} is closed to them. {ELSEWHERE}"
    return ""


def _warnings(user: EngineUser | None, *, booted: bool) -> list[str]:
    found = []
    if not any(path.exists() for path in POLKIT):
        found.append("polkit is not installed, and without it the agent may not start engines")
    if user is not None and (folder := closed_folder(user.home / "x")) is not None:
        found.append(
            f"the agent cannot look for programs of engines in {user.home}: "
            f"setfacl -m u:supervisord-cp:x {folder}"
        )
    if not booted:
        found.append("systemd does not run here: nothing was told to it")
    return found
