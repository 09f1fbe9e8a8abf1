"""Signals as values."""

import os
import signal

from supervisord_cp.cli.up_signals import caught


def test_signals_are_values() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with caught() as signals:
        assert signals.wait(0.0) == []
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert sorted(signals.wait(5.0)) == sorted([signal.SIGTERM, signal.SIGHUP])
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.asked_to_stop(5.0) == 1
        os.kill(os.getpid(), signal.SIGCHLD)
        assert signals.asked_to_stop(5.0) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with caught() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.wait(5.0) == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)
