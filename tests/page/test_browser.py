"""The page in a real Chromium, over a live fleet with one engine that fails.

SUPERVISORD_CP_SCREENSHOTS names a folder for pictures of it, to be looked at.
"""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.local import Up, running
from tests.page.browser import Tab, browsing, chromium
from tests.ports import free_ports

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(180),
    pytest.mark.skipif(chromium() is None, reason="chromium is not here (Debian package chromium)"),
]
LOOKS = {
    "wide-light": (1400, 1000, "light"),
    "wide-dark": (1400, 1000, "dark"),
    "narrow-light": (390, 844, "light"),
    "narrow-dark": (390, 844, "dark"),
}
CONTRAST = """
(() => {
  const channel = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = parts(getComputedStyle(one).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("header *, main *")]
    .filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .filter((one) => one.checkVisibility() && !one.matches(".quiet"))
    .map((one) => {
      const [a, b] = [light(parts(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), one.textContent.slice(0, 40)];
    })
    .filter(([ratio]) => ratio < 4.5);
})()
"""
"""Texts whose contrast is below what WCAG 2.2 AA wants."""
UNNAMED = """
[...document.querySelectorAll("button, input, a, dialog, [role=img]")]
  .filter((one) => !(one.textContent.trim() || one.getAttribute("aria-label") || one.labels?.length
    || one.getAttribute("aria-labelledby")))
  .map((one) => one.outerHTML)
"""


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with running(tmp_path, "--replicas", "2") as one:
        one.ready()
        yield one


async def load(up: Up, requests: int) -> None:
    body = {"model": "fake-llama", "prompt": "x", "max_tokens": 20}
    async with aiohttp.ClientSession() as session:
        for _ in range(requests):
            async with session.post(f"{up.api}/v1/completions", json=body) as answer:
                assert answer.status == 200


async def picture(tab: Tab, name: str) -> None:
    if folder := os.environ.get("SUPERVISORD_CP_SCREENSHOTS"):
        content = await tab.picture()
        await asyncio.to_thread((Path(folder) / f"{name}.png").write_bytes, content)


async def pictures(tab: Tab, state: str) -> None:
    for name, (width, height, scheme) in LOOKS.items():
        await tab.look(width, height, scheme)
        assert await tab.run(CONTRAST) == [], (state, name)
        over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await tab.run(over) <= 0, f"{name}: the page scrolls sideways"
        await picture(tab, f"{state}-{name}")
    await tab.look(*LOOKS["wide-light"])


def text(selector: str) -> str:
    return f"(document.querySelector({json.dumps(selector)})?.innerText ?? '')"


@pytest.mark.asyncio
async def test_a_fleet_is_watched_operated_and_looked_into(up: Up) -> None:
    async with browsing() as tab:
        await tab.look(*LOOKS["wide-light"])
        await tab.open(up.control + "/")
        await tab.until(f"{text('#health')} === 'healthy'")
        await tab.until(f"{text('#deployments tbody')}.includes('2 of 2')")
        assert await tab.run(UNNAMED) == []
        await pictures(tab, "idle")

        await load(up, 10)
        await tab.until(f"parseFloat({text('#figures .figure strong')}) > 0")
        await pictures(tab, "load")

        os.kill(up.instances()["fake-llama-1"]["pid"], signal.SIGKILL)
        await tab.until(f"{text('#instances tbody')}.includes('signal 9')")
        await pictures(tab, "failing")

        # Its name opens what is known of it; Escape closes that.
        row = "#instances tbody tr:nth-child(2)"
        await tab.run(f"document.querySelector('{row} button.link').focus()")
        await tab.key("Enter", 13)
        await tab.until(f"{text('#detail-crash')}.includes('killed')")
        await tab.until(f"{text('#detail-log')}.length > 20")
        await picture(tab, "detail")
        await tab.key("Escape", 27)
        await tab.until("!document.querySelector('#detail').open")

        # Scaling by hand, by keyboard alone.
        await tab.run("document.querySelector('#deployments [data-does=scale]').focus()")
        await tab.key("Enter", 13)
        await tab.until("document.querySelector('#ask').open")
        await tab.run("document.querySelector('#ask input').value = '1'")
        await tab.key("Enter", 13)
        await tab.until(f"{text('#deployments tbody')}.includes('1 of 1')")
        await tab.until(f"{text('#events ol')}.includes('scale fake-llama (replicas=1) by anybody')")

        # A node that is there is not to be forgotten; one that is gone is.
        offered = "nodeCard('gpu-z', [{{ state: '{}', devices: {{}} }}, {}]).innerHTML.includes('forget')"
        states = [("connected", "true"), ("lost", "true"), ("lost", "false")]
        assert [await tab.run(offered.format(*one)) for one in states] == [False, True, False]

        # The slash key leads to the filter.
        await tab.key("/", 191)
        assert await tab.run("document.activeElement.id") == "filter"
        await tab.run("document.activeElement.value = 'nowhere'")
        await tab.run("document.activeElement.dispatchEvent(new Event('input')) && 1")
        await tab.until("document.querySelectorAll('#instances tbody tr').length === 0")
        assert tab.complaints == []


@pytest.mark.asyncio
async def test_names_and_logs_are_text_and_never_markup(up: Up) -> None:
    async with browsing() as tab:
        await tab.open(up.control + "/")
        await tab.until(f"{text('#health')} === 'healthy'")
        evil = "<img src=x onerror=document.title='run'>"
        await tab.run(f"page.state.problems = [{json.dumps(evil)}]; showHealth()")
        assert await tab.run("document.querySelectorAll('main img').length") == 0
        assert await tab.run("document.querySelector('#problems').textContent") == evil


@pytest.mark.asyncio
async def test_a_login_shows_what_was_hidden(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("operator: operator-0123456789\nagent: agent-0123456789\n")
    tokens.chmod(0o600)
    token = tmp_path / "agent-token"
    token.write_text("agent-0123456789\n")
    token.chmod(0o600)
    first = free_ports(4)
    central = f"http://127.0.0.1:{first + 1}"
    (tmp_path / "config.toml").write_text(
        f'[central]\ncontrol_listen = "127.0.0.1:{first + 1}"\ntokens_file = "tokens"\n'
        f'[router]\napi_listen = "127.0.0.1:{first}"\ncentral = "{central}"\ntoken_file = "agent-token"\n'
        f'[agent]\ncentral = "{central}"\nlisten = "127.0.0.1:{first + 2}"\ntoken_file = "agent-token"\n'
        f'ports = "{first + 3}-{first + 3}"\ndevice = "cpu"\n'
        '[deployments.chat]\nengine = "fake"\nmodel = "m"\nreplicas = 1\n'
    )
    up = Up(tmp_path, ("-c", str(tmp_path / "config.toml")))
    try:
        async with browsing() as tab:
            await tab.open(central + "/")
            await tab.until("document.querySelector('#who')?.open")
            await tab.run("document.querySelector('#token').focus()")
            await tab.run("document.querySelector('#token').value = 'wrong'")
            await tab.key("Enter", 13)
            await tab.until(f"{text('#who-error')}.includes('no token')")
            await tab.run("document.querySelector('#token').value = 'operator-0123456789'")
            await tab.key("Enter", 13)
            await tab.until(f"{text('#deployments tbody')}.includes('chat')")
            assert await tab.run("document.cookie") == "", "scripts cannot read it"
            await tab.run("document.querySelector('#logout').click()")
            await tab.until("document.querySelector('#who')?.open")
    finally:
        up.stop()
