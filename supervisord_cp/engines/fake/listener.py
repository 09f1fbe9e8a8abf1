"""Where an engine listens."""

import socket

from supervisord_cp.engines.fake.options import Options


def bind(options: Options) -> socket.socket:
    """The socket to listen on, bound but not listening: a client is refused until the engine is ready.

    Raises:
        OSError: the address is taken or not ours.
    """
    if options.uds:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(options.uds)
        return listener
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((options.host, options.port))
    return listener


def address_of(options: Options) -> str:
    """Where clients find the server."""
    if options.uds:
        return f"unix:{options.uds}"
    host = f"[{options.host}]" if ":" in options.host else options.host or "0.0.0.0"
    return f"http://{host}:{options.port}"
