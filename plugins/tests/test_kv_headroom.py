"""Run with `supervisord-cp policy test plugins/kv_headroom.py`."""

from kv_headroom import Params, kv_headroom

from supervisord_cp.policy.testing import assert_conforms, candidate, context, load, request


def test_more_room_scores_higher() -> None:
    full = candidate(0, load=load(kv_cache_usage=0.9))
    empty = candidate(1, load=load(kv_cache_usage=0.1))
    low, high = kv_headroom(request(), [full, empty], context(Params()))
    assert high > low


def test_an_old_report_is_as_good_as_none() -> None:
    old, silent = candidate(0, load=load(kv_cache_usage=0.9, age_ms=60_000)), candidate(1)
    assert kv_headroom(request(), [old, silent], context(Params(unknown=0.3))) == [0.3, 0.3]


def test_it_conforms() -> None:
    assert_conforms(kv_headroom)
