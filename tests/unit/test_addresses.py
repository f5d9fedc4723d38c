"""workers.fetch.addresses: what is public, however it is written."""

import pytest

from common.errors import ForbiddenHost
from workers.fetch.addresses import is_public, refuse_private, refuse_private_literal

PUBLIC = [
    "93.184.216.34",
    "2606:2800:220:1:248:1893:25c8:1946",
    "::ffff:93.184.216.34",
    "64:ff9b::93.184.216.34",
    "2002:5db8:d822::1",
]
INSIDE = [
    # this machine, this network, the cloud's metadata, carriers' networks
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1",
    "169.254.169.254", "100.64.0.1", "100.127.255.254", "100.100.100.200",
    # reserved, for documentation, for many
    "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250",
    "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "100::1",
    "2001:db8::1", "2001::1",
    # IPv4 addresses in IPv6 clothes: mapped, compatible, NAT64, 6to4
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:7f00:1", "::ffff:100.64.0.1", "::10.0.0.1",
    "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:a00:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1",
    # no addresses
    "", "localhost", "1.2.3", "0x7f.1", "93.184.216.34/32",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", INSIDE)
def test_names_that_lead_inside_are_refused(address: str) -> None:
    """T-URL-REBIND: one such address among good ones is enough."""
    assert not is_public(address)
    with pytest.raises(ForbiddenHost) as refused:
        refuse_private(["93.184.216.34", address])
    assert not address or address not in str(refused.value)


def test_an_address_in_a_url_is_judged_like_one_of_a_name() -> None:
    """Nobody resolves it, so the resolver does not see it."""
    for host in ("10.0.0.1", "::1", "::ffff:10.0.0.1"):
        with pytest.raises(ForbiddenHost):
            refuse_private_literal(host)
    for host in ("93.184.216.34", "api.syncaroo.com", "127.1", ""):
        refuse_private_literal(host)
