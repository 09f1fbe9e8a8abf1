"""The benchmark's table: verdicts are what the figures say."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def relays(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("relays.report")


def test_each_target_with_its_verdict(relays: ModuleType) -> None:
    peers, measure = importlib.import_module("relays.peers"), importlib.import_module("relays.measure")
    figures = {
        peers.DIRECT: {measure.P50: [0.1]},
        peers.OURS: {measure.REQUEST: [9.0, 30.0, 40.0], measure.CHUNK: [14.0], measure.P50: [0.3]},
        peers.PLAIN: {measure.REQUEST: [120.0]},
        peers.BARE: {measure.CHUNK: [10.0]},
    }
    targets = [peers.Target(name, 1, 1, (), columns) for name, columns in figures.items()]
    rows = [line.split(" | ")[1:] for line in relays.targets_met(targets)[2:]]
    assert rows == [
        ["0.25", "0.25", "met |"],
        ["1.40", "1.3", "**not met** |"],
        ["0.20 ms", "0.5 ms", "met |"],
    ]
    page = relays.page(targets, 3, 1.0, "nothing else ran")
    assert "| supervisord-cp |  | 30.0 | 14.0 |" in page


@pytest.mark.parametrize("name", ["nginx", "haproxy", "ours", "plain", "bare"])
def test_how_each_relay_is_started(relays: ModuleType, name: str, tmp_path: Path) -> None:
    argv = getattr(importlib.import_module("relays.peers"), name)(tmp_path, 8000, [8001, 8002])
    told = " ".join([*argv, *(path.read_text() for path in tmp_path.rglob("*") if path.is_file())])
    for port in ("8000", "127.0.0.1:8001", "127.0.0.1:8002"):
        assert port in told


def test_what_is_compiled_is_what_is_measured(relays: ModuleType, tmp_path: Path) -> None:
    peers = importlib.import_module("relays.peers")
    for name, package in ((peers.OURS, peers.COMPILED), (peers.INTERPRETED, peers.REPOSITORY)):
        folder = tmp_path / name
        folder.mkdir()
        assert f"PYTHONPATH={package}" in peers.RELAYS[name](folder, 8000, [8001])


def test_the_interpreted_one_is_judged_where_it_is_the_only_one(relays: ModuleType) -> None:
    peers, measure = importlib.import_module("relays.peers"), importlib.import_module("relays.measure")
    targets = [peers.Target(peers.INTERPRETED, 1, 1, (), {measure.LEFT: [5.0]})]
    assert relays.targets_met(targets)[-1].endswith("| 5.00 ms | 100 ms | met |")
