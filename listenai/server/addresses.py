"""Who is at the other end: the address that counts, and proxies that may speak for others."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import attrs

from listenai.errors import ConfigurationError
from listenai.server.head import Head

IPV6_SUBSCRIBER_BITS = 64  # what one household or machine is given (RFC 6177)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def subscriber(host: str) -> str:
    """The address as far as it tells who is there: of IPv6 the /64, of anything else all."""
    address = _parse(host)
    if not isinstance(address, ipaddress.IPv6Address):
        return host if address is None else str(address)
    return str(ipaddress.ip_network((address, IPV6_SUBSCRIBER_BITS), strict=False))


class TrustedProxies:
    """Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        """networks: addresses or networks ("10.0.0.0/8"); raises ConfigurationError for others."""
        self._networks: list[_Network] = []
        problems = []
        for network in networks:
            try:
                self._networks.append(ipaddress.ip_network(network.strip()))
            except ValueError as error:
                problems.append(
                    f"CLOUD_TRUSTED_PROXIES: {error}; give IP addresses or networks such as "
                    "10.0.0.0/8, with commas between them"
                )
        if problems:
            raise ConfigurationError(problems)

    def original(self, head: Head) -> Head:
        """The head as the client sent it: with its address and scheme, where a proxy tells.

        Each proxy appends the address that it saw, so the client is the last one in
        `X-Forwarded-For` that is no proxy of ours; what stands before it anyone may have written.
        """
        if not self._trusts(head.peer[0]):
            return head
        forwarded = ",".join(head.values("x-forwarded-for")).split(",")
        client: _Address | None = None
        for hop in reversed(forwarded):
            client = _parse(hop.strip())
            if client is None or not self._trusts(str(client)):
                break
        protocols = ",".join(head.values("x-forwarded-proto")).split(",")
        return attrs.evolve(
            head,
            peer=(str(client), 0) if client else head.peer,  # its port is not told
            secure=head.secure or protocols[-1].strip().lower() in ("https", "wss"),
        )

    def _trusts(self, host: str) -> bool:
        address = _parse(host)
        return address is not None and any(address in network for network in self._networks)


def _parse(host: str) -> _Address | None:
    """The address; one of IPv4 that came in over IPv6 as what it is; None for anything else."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
