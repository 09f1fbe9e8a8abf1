"""The certificate of the api listener: read again when its files change."""

import logging
import ssl
from pathlib import Path

from supervisord_cp.config.schema import RouterConfig
from supervisord_cp.errors import UsageError

log = logging.getLogger(__name__)


class Certificate:
    """A chain and its key. Connections that are open keep what they began with."""

    def __init__(self, chain: Path, key: Path) -> None:
        """
        Raises:
            UsageError: the files cannot be read, or do not belong together.
        """
        self._chain = chain
        self._key = key
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.set_alpn_protocols(["http/1.1"])
        try:
            self._version = self._look()
            self.context.load_cert_chain(chain, key)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"router.tls_cert: {chain}: {error}") from error

    def refresh(self) -> None:
        """Take over what the files have become. While they cannot be used, or one of them is still the old
        one, what was read before stays."""
        try:
            version = self._look()
            if version == self._version:
                return
            self._version = version
            # A chain that does not fit its key spoils the context that it is loaded into.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._chain, self._key)
            self.context.load_cert_chain(self._chain, self._key)
        except (OSError, ssl.SSLError) as error:
            if self._version:
                log.error("the certificate stays as it was: %s: %s", self._chain, error)
            self._version = ()
        else:
            log.info("read the certificate again from %s", self._chain)

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        found = [path.stat() for path in (self._chain, self._key)]
        return tuple((one.st_mtime_ns, one.st_size, one.st_ino) for one in found)


def certificate_of(config: RouterConfig) -> Certificate | None:
    """What the configuration names; None: the listener speaks plain HTTP.

    Raises:
        UsageError: it cannot be used.
    """
    if config.tls_cert is None and config.tls_key is None:
        return None
    if config.tls_cert is None or config.tls_key is None:
        raise UsageError("router.tls_cert and router.tls_key belong together")
    return Certificate(config.tls_cert, config.tls_key)
