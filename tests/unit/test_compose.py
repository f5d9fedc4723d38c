"""T-COMPOSE: docker-compose.yml as Compose itself reads it, with what `gateway init` writes. No engine is needed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from common.codec import loads
from common.settings import ProcessSettings, parse_duration
from ingress.app import SECTIONS as INGRESS
from ops import alive
from ops.commands.init import write
from ops.installation import OPERATOR_PASSWORD, OPTIONAL, Wanted
from workers.fetch.worker import SECTIONS as FETCH
from workers.reconcile.worker import SECTIONS as RECONCILE
from workers.relay.worker import SECTIONS as RELAY
from workers.token.worker import SECTIONS as TOKEN

CHECKOUT = Path(__file__).parents[2]
COMPOSE = Path(sys.executable).with_name("docker-compose")
SECTIONS = {"ingress": INGRESS, "token": TOKEN, "fetch": FETCH, "reconcile": RECONCILE, "relay": RELAY}
WORKERS = ("token", "fetch", "reconcile", "relay")
OURS = ("setup", "ingress", *WORKERS, "sandbox")
SERVICES = (*OURS, "rabbitmq", "postgres", "proxy", "prometheus", "grafana")
SCALABLE = ("ingress", *WORKERS)
ALIVE_SECONDS = alive.CONNECT_SECONDS + alive.ANSWER_SECONDS + alive.DUMP_SECONDS
CAPABILITIES = {
    "rabbitmq": {"CHOWN", "DAC_READ_SEARCH", "SETGID", "SETUID"},
    "postgres": {"CHOWN", "DAC_READ_SEARCH", "FOWNER", "SETGID", "SETUID"},
    "proxy": {"NET_BIND_SERVICE"},
}
NETWORKS = {
    "rabbitmq": {"back", "subscribers"},
    "postgres": {"back"},
    "setup": {"back"},
    "ingress": {"front", "back", "egress"},
    "token": {"back", "egress"},
    "fetch": {"back", "egress"},
    "reconcile": {"back"},
    "relay": {"back"},
    "proxy": {"front"},
    "sandbox": {"front", "egress"},
    "prometheus": {"back", "observe"},
    "grafana": {"observe"},
}
SECRET_NAMES = {
    "amqp_url",
    "database_url",
    "secret_keys",
    "admin_token",
    "platform_client_secret",
    "syncaroo_client_secret",
    *OPTIONAL,
}


def config(directory: Path, **environment: str) -> dict[str, Any]:
    """The model of all profiles, resolved."""
    where = ("--project-directory", directory, "-f", directory / "docker-compose.yml")
    done = subprocess.run(
        [COMPOSE, *where, "--profile", "*", "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": str(directory), **environment},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    model: dict[str, Any] = loads(done.stdout)
    return model


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped files, after `gateway init`."""
    directory = tmp_path_factory.mktemp("installed")
    shutil.copy(CHECKOUT / "docker-compose.yml", directory)
    shutil.copytree(CHECKOUT / "ops" / "compose", directory / "ops" / "compose")
    write(directory, Wanted("https://yourapp.com", client_id="platform-1", client_secret="secret-of-syncaroo"))
    return directory


@pytest.fixture(scope="module")
def model(installed: Path) -> dict[str, Any]:
    return config(installed)


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest, model: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = model["services"][request.param]
    return {"name": request.param, **found}


def test_these_are_all_services(model: dict[str, Any]) -> None:
    assert set(model["services"]) == set(SERVICES)
    assert {name: set(one.get("profiles", ())) for name, one in model["services"].items() if "profiles" in one} == {
        "sandbox": {"sandbox"},
        "prometheus": {"observability"},
        "grafana": {"observability"},
    }


def test_each_is_hardened(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert "/tmp" in service["tmpfs"]
    assert service["cap_drop"] == ["ALL"]
    assert set(service.get("cap_add", ())) == CAPABILITIES.get(service["name"], set())
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert not service.get("privileged")
    assert not service.get("network_mode")
    assert "docker.sock" not in str(service.get("volumes"))


def test_each_has_limits(service: dict[str, Any]) -> None:
    limits = service["deploy"]["resources"]["limits"]
    assert 0 < float(limits["cpus"]) <= 2
    assert 0 < int(limits["memory"]) <= 2**30
    assert 0 < int(limits["pids"]) <= 2048
    assert service["logging"]["driver"] == "json-file"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}


def test_each_restarts_and_has_the_time_to_end(service: dict[str, Any]) -> None:
    assert service["restart"] == ("on-failure:3" if service["name"] == "setup" else "unless-stopped")
    seconds = _seconds(service["stop_grace_period"])
    assert seconds > ProcessSettings.model_fields["shutdown_grace_seconds"].default + 5


def test_each_is_checked(service: dict[str, Any]) -> None:
    if service["name"] == "setup":
        assert "healthcheck" not in service, "it ends"
        return
    check = service["healthcheck"]
    assert check["test"][0] == "CMD", "no shell"
    assert _seconds(check["interval"]) <= 10
    assert _seconds(check["timeout"]) <= 10
    assert "start_period" in check
    if service["name"] in OURS:
        assert check["test"][:5] == ["CMD", "python", "-I", "-S", "/app/ops/alive.py"]
        assert alive.MEMORY in service["tmpfs"]
        assert _seconds(check["timeout"]) > ALIVE_SECONDS + 1, "what the engine gives up is not counted"
    if service["name"] in WORKERS:
        assert check["test"][-2:] == ["/app/ops/alive.py", service["environment"]["WORKER_PORT"]]
    if service["name"] == "ingress":
        assert check["test"][-2:] == ["/app/ops/alive.py", service["environment"]["OPS_PORT"]]


@pytest.mark.parametrize("service", OURS, indirect=True)
def test_each_of_ours_is_nobody(service: dict[str, Any]) -> None:
    assert re.fullmatch(r"[1-9][0-9]{4}:[1-9][0-9]{4}", service["user"])
    assert service["image"] == "syncaroo-gateway"
    assert not service.get("cap_add")
    assert not service.get("volumes")


def test_they_start_one_after_another(model: dict[str, Any]) -> None:
    waits = {
        name: {other: how["condition"] for other, how in one.get("depends_on", {}).items()}
        for name, one in model["services"].items()
    }
    assert waits["setup"] == {"rabbitmq": "service_healthy", "postgres": "service_healthy"}
    for name in SCALABLE:
        assert waits[name] == {"setup": "service_completed_successfully"}
    assert waits["proxy"] == {"ingress": "service_healthy"}


def test_networks_are_as_narrow_as_can_be(model: dict[str, Any]) -> None:
    assert {name: set(one["networks"]) for name, one in model["services"].items()} == NETWORKS
    assert model["networks"]["back"]["internal"] is True
    subnet = model["networks"]["front"]["ipam"]["config"][0]["subnet"]
    assert model["services"]["ingress"]["environment"]["TRUSTED_PROXIES"] == subnet


def test_nothing_is_published_but_on_loopback(model: dict[str, Any]) -> None:
    published = {
        (name, port["published"], port["target"], port["host_ip"])
        for name, one in model["services"].items()
        for port in one.get("ports", ())
    }
    assert published == {
        ("proxy", "80", 80, "127.0.0.1"),
        ("proxy", "443", 443, "127.0.0.1"),
        ("proxy", "9090", 9090, "127.0.0.1"),
        ("rabbitmq", "15672", 15672, "127.0.0.1"),
        ("sandbox", "8090", 8090, "127.0.0.1"),
        ("prometheus", "9091", 9090, "127.0.0.1"),
        ("grafana", "3000", 3000, "127.0.0.1"),
    }


def test_only_the_site_is_opened_to_others(installed: Path) -> None:
    model = config(installed, PUBLISH_ADDRESS="0.0.0.0")
    opened = {
        (name, port["target"])
        for name, one in model["services"].items()
        for port in one.get("ports", ())
        if port["host_ip"] != "127.0.0.1"
    }
    assert opened == {("proxy", 80), ("proxy", 443)}


def test_what_is_scaled_has_no_name_and_no_port_of_its_own(model: dict[str, Any]) -> None:
    for name in SCALABLE:
        assert not {"ports", "container_name", "hostname"} & set(model["services"][name]), name


def test_broker_and_store_keep_what_they_have(model: dict[str, Any]) -> None:
    """B11: a node's data lie under its host name."""
    rabbitmq, postgres = model["services"]["rabbitmq"], model["services"]["postgres"]
    assert rabbitmq["hostname"] == "rabbitmq"
    assert _volumes(rabbitmq)["/var/lib/rabbitmq"] == "rabbitmq"
    assert _volumes(postgres)["/var/lib/postgresql/data"] == "postgres"
    assert rabbitmq["image"] == "rabbitmq:4-management"


def test_the_brokers_limits_fit_its_container(model: dict[str, Any]) -> None:
    """B12."""
    conf = (CHECKOUT / "ops" / "compose" / "rabbitmq.conf").read_text()
    memory = re.search(r"^vm_memory_high_watermark.absolute = ([0-9]+)MiB$", conf, re.MULTILINE)
    disk = re.search(r"^disk_free_limit.absolute = ([0-9]+)GiB$", conf, re.MULTILINE)
    assert memory is not None
    assert disk is not None
    watermark = int(memory[1]) * 2**20
    limit = int(model["services"]["rabbitmq"]["deploy"]["resources"]["limits"]["memory"])
    assert watermark < 0.7 * limit
    assert int(disk[1]) * 2**30 >= watermark
    assert "load_definitions = /run/secrets/rabbitmq-definitions" in conf


@pytest.mark.parametrize("role", [*SECTIONS])
def test_a_role_gets_the_secrets_that_it_reads_and_no_others(model: dict[str, Any], role: str) -> None:
    found = model["services"][role]
    reads = {name for section in SECTIONS[role] for name in section.model_fields} & SECRET_NAMES
    wanted = {f"amqp_url_{role}" if name == "amqp_url" else name for name in reads}
    assert {one["source"] for one in found["secrets"]} == wanted
    files = {name.removesuffix("_FILE").lower(): path for name, path in _files(found).items()}
    assert set(files) == reads
    for name, path in files.items():
        assert path == f"/run/secrets/{f'amqp_url_{role}' if name == 'amqp_url' else name}"


def test_a_secret_is_in_a_file_alone(installed: Path, model: dict[str, Any]) -> None:
    values = {path.read_text().strip() for path in (installed / "secrets").iterdir() if path.suffix != ".json"} - {""}
    shown = str(model["services"])
    assert len(values) >= 15
    assert not [value for value in values if value in shown]
    mounted = {Path(one["file"]) for one in model["secrets"].values()}
    assert {path.name for path in mounted} == {path.name for path in (installed / "secrets").iterdir()} - {
        OPERATOR_PASSWORD
    }


def test_what_the_image_brings_is_what_is_run() -> None:
    said = (CHECKOUT / "Dockerfile").read_text()
    assert re.search(r"^USER 10001:10001$", said, re.MULTILINE)
    assert "syntax=" not in said
    assert "--mount" not in said
    assert "@sha256" not in said


def _files(service: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in service["environment"].items() if name.endswith("_FILE")}


def _volumes(service: Mapping[str, Any]) -> dict[str, str]:
    return {one["target"]: one.get("source", "") for one in service["volumes"]}


def _seconds(text: str) -> float:
    """`1m0s`, as Go writes it."""
    return sum(parse_duration(part).total_seconds() for part in re.findall(r"[0-9.]+[a-z]+", text))
