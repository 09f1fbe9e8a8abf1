"""What there is: our own policies, files, packages, and files that are none."""

from pathlib import Path

import pytest

from supervisord_cp.plugin_host import catalog
from supervisord_cp.plugin_host.catalog import LARGEST_FILE, Origin, survey
from tests.plugins.files import likes, write


def named(paths: list[Path]) -> dict[str, catalog.Offer]:
    return {offer.name: offer for offer in survey(paths) if offer.name}


def refused(paths: list[Path]) -> list[str]:
    return [str(offer.problem) for offer in survey(paths) if not offer.name]


def test_our_own_policies_are_all_there() -> None:
    routing = "load_balanced round_robin weighted_round_robin random power_of_two affinity locality"
    scheduling = "fifo priority slo_aware cost_optimized adaptive"
    more = "topology_aware prefix least_loaded kv_aware hpa kpa queue_slo schedule fixed spread"
    assert set(f"{routing} {scheduling} {more}".split()) <= set(named([]))
    assert all(offer.summary.endswith(".") for offer in survey([])), "each says what it does"


def test_files_are_offered_by_what_they_declare(tmp_path: Path) -> None:
    path = write(tmp_path, "some_file.py", likes("mine", 0))
    offer = named([tmp_path])["mine"]
    assert (offer.origin, offer.where, offer.kind) == (Origin.FILE, str(path), "scorer")
    before = offer.digest
    write(tmp_path, "some_file.py", likes("mine", 1))
    assert named([tmp_path])["mine"].digest != before


def test_some_files_are_no_policies(tmp_path: Path) -> None:
    for name in ("_part.py", "test_mine.py", "conftest.py", "notes.txt"):
        write(tmp_path, name, likes("mine", 0))
    (tmp_path / "tests").mkdir()
    write(tmp_path / "tests", "mine.py", likes("mine", 0))
    assert "mine" not in named([tmp_path])
    assert refused([tmp_path]) == []


def test_a_folder_that_is_not_there_offers_nothing(tmp_path: Path) -> None:
    assert named([tmp_path / "nope"]).keys() == named([]).keys()


def test_of_two_of_one_name_the_first_has_it(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    path = write(first, "x.py", likes("mine", 0))
    write(second, "y.py", likes("mine", 1))
    write(second, "z.py", likes("load_balanced", 1))
    write(second, "zz.py", likes("prefix", 1))
    assert named([first, second])["mine"].where == str(path)
    advice = "  (give it another name)"
    assert refused([first, second]) == [
        f'{second / "y.py"}: the name "mine" is taken: {path}{advice}',
        f'{second / "z.py"}: the name "load_balanced" is taken: a built-in policy has it{advice}',
        f'{second / "zz.py"}: the name "prefix" is taken: a built-in policy has it{advice}',
    ]


def test_what_everybody_may_write_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "x.py", likes("mine", 0))
    path.chmod(0o666)
    assert refused([tmp_path]) == [f"{path}: may be written by everybody: chmod o-w"]
    path.chmod(0o664)
    assert "mine" in named([tmp_path])
    tmp_path.chmod(0o777)
    assert refused([tmp_path]) == [f"{tmp_path}: may be written by everybody: chmod o-w"]
    tmp_path.chmod(0o1777)
    assert "mine" in named([tmp_path])


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "loop.py").symlink_to(tmp_path / "loop.py")
    (tmp_path / "folder.py").mkdir()
    write(tmp_path, "large.py", "#" * (LARGEST_FILE + 1))
    told = refused([tmp_path])
    assert len(told) == 3
    assert any("is larger than" in text for text in told)


def test_packages_are_offered_without_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        value = "package.module:policy"

    monkeypatch.setattr(catalog, "entry_points", lambda: {"theirs": Point(), "random": Point()})
    offer = named([])["theirs"]
    assert (offer.origin, offer.kind, offer.where) == (Origin.PACKAGE, None, "package.module:policy")
    assert named([])["random"].origin is Origin.BUILTIN


def test_our_own_policies_stay_while_an_upgrade_replaces_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(named([]))
    for package in (catalog.routers, catalog.schedulers, catalog.scalers, catalog.placers):
        monkeypatch.setattr(package, "__path__", [])
    assert set(named([])) == before
    assert set(catalog.builtin_specs()) <= before
