"""Ports. One file a transport: it has ``PREFIXES`` of addresses and ``open_address(address) -> Transport``."""

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from strop.errors import TransportError
from strop.host.transport.base import PortClosedError, Transport

__all__ = ["PortClosedError", "Transport", "transport_for"]


def _modules() -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        if hasattr(module, "PREFIXES"):
            yield module


def transport_for(address: str) -> Transport:
    """Return the transport of an address such as ``/dev/ttyACM0``, ``socket://host:port`` or ``unix:/path``.

    It is not yet opened. Raises TransportError for an address that no transport claims.
    """
    known = {prefix: module for module in _modules() for prefix in module.PREFIXES}
    claims = [prefix for prefix in known if address.startswith(prefix)]
    if not claims:
        raise TransportError(f"no transport opens {address!r}",
                             do=f"An address begins with one of: {', '.join(sorted(known))}")
    transport: Transport = known[max(claims, key=len)].open_address(address)
    return transport
