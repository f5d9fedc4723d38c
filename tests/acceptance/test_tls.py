"""The whole gateway with a broker that talks TLS, and a certificate of an authority that only `AMQP_URL` names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from yarl import URL

from ops.broker import PrivateNode
from ops.children import free_port
from tests.acceptance.world import world

CONNECTION = 99


@pytest.fixture
def amqps(tmp_path: Path) -> Iterator[URL]:
    """The address of a broker whose certificate nobody knows yet."""
    certificate, key, port = tmp_path / "certificate.pem", tmp_path / "key.pem", free_port()
    _certify(certificate, key)
    conf = (
        f"listeners.ssl.default = 127.0.0.1:{port}\n"
        f"ssl_options.cacertfile = {certificate}\nssl_options.certfile = {certificate}\nssl_options.keyfile = {key}\n"
    )
    with PrivateNode(conf=conf) as node:
        vhost = node.broker().vhost("gateway-test")
        yield URL(vhost.url).with_scheme("amqps").with_port(port)


def _certify(certificate: Path, key: Path) -> None:
    """A certificate for 127.0.0.1 that is its own authority."""
    private, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a broker")])
    made = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, SHA256())
    )
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


async def test_over_tls_webhooks_become_events(amqps: URL, tmp_path: Path) -> None:
    """T-BRK-START. Whoever does not know the authority hears that it is the certificate."""
    known = str(amqps.update_query(cafile=str(tmp_path / "certificate.pem")))
    async with world(tmp_path, amqp_url=known, database_url=f"sqlite+aiosqlite:///{tmp_path}/gateway.db") as made:
        await made.onboard(CONNECTION)
        await made.ledger(20)
        doctor = await made.stack.run("-m", "ops", "doctor", settings={"AMQP_URL": str(amqps)})
    assert made.events
    assert doctor.code != 0
    assert "the broker's certificate" in doctor.output
