"""Scrape configuration and rules for a Prometheus: what an installation of them does."""

import grp
import os
import re
import shutil
from pathlib import Path
from typing import Final

from supervisord_cp.cli.client import DEFAULT_ADDRESS
from supervisord_cp.cli.connect import reachable
from supervisord_cp.cli.install_steps import Put, Run, Step
from supervisord_cp.errors import UsageError

GROUP: Final = "prometheus"
TARGETS: Final = "/api/v1/prometheus/targets"
NEXT: Final = """\

Next: `systemctl reload prometheus`, for it to read its configuration again. Then its page Status -> Targets
shows central, agents and engines, and its page Alerts the alerts."""

_ITEM: Final = re.compile(r"^( *)- ")
_JOB: Final = """\
- job_name: {name}
  http_sd_configs:
    - url: {url}
      refresh_interval: 10s
"""
# The type is written out: for discovery, Prometheus 2.42 (Debian 12) does not fall back to Bearer.
_DISCOVERY_AUTH: Final = "      authorization: {{ type: Bearer, credentials_file: {token} }}\n"
_AUTH: Final = "  authorization: {{ type: Bearer, credentials_file: {token} }}\n"
_ONLY: Final = "  relabel_configs:\n    - {{ source_labels: [job], regex: '{jobs}', action: keep }}\n"


def central_of(config: Path | None) -> tuple[str, str]:
    """Central's address, and the token that a viewer needs there; "" for none.

    Raises:
        UsageError: the configuration is wrong, or has no viewer's token.
    """
    if config is None:
        return DEFAULT_ADDRESS, ""
    from supervisord_cp.adapters.tokens import read_token
    from supervisord_cp.config.load import load

    central = load(config).central
    address = reachable(central.control_listen.host, central.control_listen.port)
    return address, "" if central.tokens_file is None else read_token(central.tokens_file, "viewer")


def plan(folder: Path, prefix: Path, address: str, token: str, token_file: Path | None) -> tuple[Step, ...]:
    """What is done in Prometheus' folder `prefix` with the rules of `folder`, for the central at `address`.

    `token` is copied for Prometheus to read ("": none is needed), unless it reads `token_file` itself.

    Raises:
        UsageError: the configuration that is there cannot be added to.
    """
    own, main = prefix / "supervisord-cp", prefix / "prometheus.yml"
    steps: list[Step] = [
        Put(path=own / name, text=(folder / name).read_text(encoding="utf-8"))
        for name in ("recording.yml", "alerts.yml")
    ]
    if token and token_file is None:
        token_file = own / "token"
        steps.append(Put(path=token_file, text=token + "\n", mode=0o640, group=_group()))
    text = main.read_text(encoding="utf-8") if main.exists() else _NEW
    if main.exists() and _marker("scrape_configs", "begin") not in text:
        steps.append(Put(path=prefix / "prometheus.yml.before-supervisord-cp", text=text, keep=True))
    try:
        text = with_item(text, "rule_files", f"- {own}/*.yml\n")
        text = with_item(text, "scrape_configs", scrape(address, token_file))
    except ValueError as error:
        raise UsageError(f"{main}: {error}") from None
    steps.append(Put(path=main, text=text))
    if shutil.which("promtool"):
        steps.append(Run(argv=("promtool", "check", "config", str(main))))
    return tuple(steps)


def scrape(address: str, token_file: Path | None) -> str:
    """The jobs. With a token there are two of them, so that engines, which ask for none, are not told it."""
    url = address.rstrip("/") + TARGETS
    if token_file is None:
        return _JOB.format(name="supervisord-cp", url=url)
    token = {"token": token_file}
    discovery = _DISCOVERY_AUTH.format(**token)
    daemons = _JOB.format(name="supervisord-cp", url=url) + discovery + _AUTH.format(**token)
    engines = _JOB.format(name="supervisord-cp-engines", url=url) + discovery
    return daemons + _ONLY.format(jobs="supervisord-cp-.*") + engines + _ONLY.format(jobs="vllm")


def with_item(text: str, key: str, item: str) -> str:
    """A YAML text with items of ours in the list of a top-level key, in place of those that were there.

    Raises:
        ValueError: the list is written in a form that nothing can be put into line by line.
    """
    begin, end = _marker(key, "begin"), _marker(key, "end")
    text = re.sub(rf"(?ms)^ *{re.escape(begin)}\n.*?^ *{re.escape(end)}\n", "", text)
    text = re.sub(rf"(?m)^{key}: *(\[ *\]|null|~) *$", f"{key}:", text)
    head = re.search(rf"(?m)^{key}:(.*)$", text)
    if head is None:
        gap = "" if not text or text.endswith("\n\n") else "\n" if text.endswith("\n") else "\n\n"
        return f"{text}{gap}{key}:\n{_block(begin, item, end, '  ')}"
    if head[1].strip() and not head[1].strip().startswith("#"):
        raise ValueError(f"write {key} with one item a line, or add this to it yourself:\n{item}")
    before, after = text[: head.end() + 1], text[head.end() + 1 :]
    before += "" if before.endswith("\n") else "\n"
    return before + _block(begin, item, end, _indent(after)) + after


def _indent(after: str) -> str:
    """What the items that follow are indented by."""
    for line in after.splitlines():
        if (found := _ITEM.match(line)) is not None:
            return found[1]
        if line and not line.startswith((" ", "#")):
            break
    return "  "


def _block(begin: str, item: str, end: str, indent: str) -> str:
    return "".join(f"{indent}{line}\n" for line in (begin, *item.splitlines(), end))


def _marker(key: str, word: str) -> str:
    return f"# supervisord-cp {key}: {word}"


def _group() -> str:
    """Prometheus' group, where there is one and we may give files to it."""
    try:
        return grp.getgrnam(GROUP).gr_name if os.geteuid() == 0 else ""
    except KeyError:
        return ""


_NEW: Final = """\
global:
  scrape_interval: 5s
  evaluation_interval: 5s
"""
