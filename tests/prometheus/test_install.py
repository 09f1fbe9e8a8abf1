"""`install prometheus`: what it writes, what it leaves alone, and that Prometheus accepts it."""

import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import SimpleQueue

import pytest
from click.testing import CliRunner, Result

from supervisord_cp.cli.install_prometheus import scrape, with_item
from supervisord_cp.cli.main import program
from tests.ports import free_ports

DEBIAN = """\
# Sample config for Prometheus.
global:
  scrape_interval:     15s
rule_files:
  # - "first_rules.yml"

scrape_configs:
  # The job name is added as a label.
  - job_name: 'prometheus'
    static_configs:
      - targets: ['localhost:9090']
"""
FORMS = {
    "nothing": "",
    "Debian's": DEBIAN,
    "no rules": "scrape_configs:\n- job_name: a\n  static_configs: [{targets: ['h:1']}]\n",
    "empty lists": "rule_files: []\nscrape_configs: []\n",
    "at the end": "global: {}\nscrape_configs:",
    "null": "rule_files: null\nglobal: {scrape_interval: 5s}\n",
    "deep": "scrape_configs:\n    - job_name: a\n      static_configs: [{targets: ['h:1']}]\nglobal: {}\n",
}


def install(prefix: Path, *words: str) -> Result:
    return CliRunner().invoke(program, ["install", "prometheus", "--prefix", str(prefix), *words])


def files(prefix: Path) -> dict[str, str]:
    return {str(f.relative_to(prefix)): f.read_text() for f in prefix.rglob("*") if f.is_file()}


def check(prefix: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not here (Debian package prometheus)")
    ended = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"],
        cwd=prefix,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 rule files found" in ended.stdout


@pytest.mark.parametrize("form", FORMS)
def test_what_is_there_stays_and_prometheus_accepts_the_whole(tmp_path: Path, form: str) -> None:
    if FORMS[form]:
        (tmp_path / "prometheus.yml").write_text(FORMS[form])
    done = install(tmp_path)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "prometheus.yml").read_text()
    assert "url: http://127.0.0.1:9001/api/v1/prometheus/targets" in text
    for line in FORMS[form].splitlines():
        assert line.removesuffix("[]").removesuffix("null").rstrip() in text
    check(tmp_path)
    before = files(tmp_path)
    again = install(tmp_path)
    assert again.exit_code == 0
    assert "write " not in again.output
    assert files(tmp_path) == before


def test_a_new_address_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text(DEBIAN)
    install(tmp_path)
    install(tmp_path, "--address", "http://central:9001/")
    text = (tmp_path / "prometheus.yml").read_text()
    assert "url: http://central:9001/api/v1/prometheus/targets" in text
    assert "127.0.0.1:9001" not in text
    assert (tmp_path / "prometheus.yml.before-supervisord-cp").read_text() == DEBIAN


def test_a_dry_run_tells_and_writes_nothing(tmp_path: Path) -> None:
    done = install(tmp_path, "--dry-run")
    assert done.exit_code == 0
    assert f"write  {tmp_path}/supervisord-cp/alerts.yml" in done.output
    assert f"write  {tmp_path}/prometheus.yml" in done.output
    assert files(tmp_path) == {}


def test_a_token_is_told_to_central_and_agents_and_not_to_engines(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("operator: secret-o\nviewer: secret-v\n")
    tokens.chmod(0o600)
    config = tmp_path / "config.toml"
    config.write_text(f'[central]\ncontrol_listen = "10.0.0.1:9001"\ntokens_file = "{tokens}"\n')
    prefix = tmp_path / "etc"
    done = install(prefix, "-c", str(config))
    assert done.exit_code == 0, done.output
    assert "secret" not in done.output
    token = prefix / "supervisord-cp" / "token"
    assert token.read_text() == "secret-v\n"
    assert stat.S_IMODE(token.stat().st_mode) == 0o640
    text = (prefix / "prometheus.yml").read_text()
    assert "secret" not in text
    daemons, engines = text.split("job_name: supervisord-cp-engines")
    assert "http://10.0.0.1:9001/" in daemons
    assert daemons.count("credentials_file") == 2
    assert engines.count("credentials_file") == 1
    check(prefix)


def test_a_token_file_is_read_where_it_is(tmp_path: Path) -> None:
    mine = tmp_path / "viewer"
    mine.write_text("x")
    assert install(tmp_path / "etc", "--token-file", str(mine)).exit_code == 0
    assert f"credentials_file: {mine}" in (tmp_path / "etc" / "prometheus.yml").read_text()
    assert not (tmp_path / "etc" / "supervisord-cp" / "token").exists()


@contextmanager
def central(told: SimpleQueue[str | None]) -> Iterator[int]:
    """A port that puts down what it is told as `Authorization`."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.put(self.headers["Authorization"])
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.process
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not here")
def test_prometheus_shows_the_token_to_central(tmp_path: Path) -> None:
    mine = tmp_path / "viewer"
    mine.write_text("secret-v\n")
    told: SimpleQueue[str | None] = SimpleQueue()
    with central(told) as port:
        done = install(tmp_path, "--token-file", str(mine), "--address", f"http://127.0.0.1:{port}")
        assert done.exit_code == 0, done.output
        listen = f"--web.listen-address=127.0.0.1:{free_ports(1)}"
        with (tmp_path / "log").open("wb") as log:
            prometheus = subprocess.Popen(
                ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", listen],
                cwd=tmp_path,
                stdout=log,
                stderr=log,
            )
        try:
            assert told.get(timeout=60) == "Bearer secret-v"  # discovery, of the daemons' or the engines' job
        finally:
            prometheus.kill()
            prometheus.wait()


def test_tokens_without_a_viewer(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("operator: o\nagent: a\n")
    tokens.chmod(0o600)
    config = tmp_path / "config.toml"
    config.write_text(f'[central]\ntokens_file = "{tokens}"\n')
    done = install(tmp_path / "etc", "-c", str(config))
    assert done.exit_code == 2
    assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize("text", ["scrape_configs: [{job_name: a}]\n", "rule_files: ['a.yml']\n"])
def test_a_form_that_nothing_can_be_added_to_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "prometheus.yml").write_text(text)
    done = install(tmp_path)
    assert done.exit_code == 2
    assert "one item a line" in done.output
    assert (tmp_path / "prometheus.yml").read_text() == text


def test_items_go_where_the_list_is() -> None:
    assert with_item("a: 1\nk:\n    - x\nb: 2\n", "k", "- y\n") == (
        "a: 1\nk:\n    # supervisord-cp k: begin\n    - y\n    # supervisord-cp k: end\n    - x\nb: 2\n"
    )
    assert scrape("http://h:1", None).count("job_name") == 1
