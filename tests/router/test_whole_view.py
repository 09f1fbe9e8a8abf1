"""When a router asks for a whole view again."""

from supervisord_cp.router.whole_view import WholeView


def test_the_waits_for_a_whole_view_grow_until_it_comes() -> None:
    whole = WholeView()
    assert not whole.due(0.0)
    asked = []
    for tick in range(300):
        whole.miss(float(tick))
        if whole.due(float(tick)):
            asked.append(tick)
    assert asked == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
    whole.came()
    assert not whole.due(1000.0)
    whole.miss(1000.0)
    assert [whole.due(1000.0), whole.due(1000.9), whole.due(1001.0)] == [True, False, True]
