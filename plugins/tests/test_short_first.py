"""Run with `supervisord-cp policy test plugins/short_first.py`."""

from short_first import Params, short_first

from supervisord_cp.policy.testing import assert_conforms, queue_context, waiting

CONTEXT = queue_context(Params(tokens_per_s=100.0))


def test_of_two_that_came_together_the_short_one_goes_first() -> None:
    short, long = waiting("a", prompt_tokens=10), waiting("b", prompt_tokens=10_000)
    assert short_first(short, CONTEXT) < short_first(long, CONTEXT)


def test_a_long_one_is_not_overtaken_for_ever() -> None:
    long = waiting("long", arrived=0.0, prompt_tokens=1000, decode_tokens=0)
    late = waiting("late", arrived=11.0, prompt_tokens=0, decode_tokens=0)
    assert short_first(long, CONTEXT) < short_first(late, CONTEXT)


def test_it_conforms() -> None:
    assert_conforms(short_first, {"tokens_per_s": 1.0})
