"""Which engine the Compose tests take, and which images they need, without either."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.compose.engine import Machine, NoEngine, Way, way
from tests.compose.images import NoImage, StandIn, bases, stand_in
from tests.compose.project import ROOT

BARE = Machine(answers=False, docker_host="", foreign=False, linux=True, root=True, installed=False, apt=True)


@pytest.mark.parametrize(
    ("machine", "found"),
    [
        (replace(BARE, answers=True), Way.THERE),
        (replace(BARE, answers=True, foreign=True, root=False), Way.THERE),
        (replace(BARE, answers=True, docker_host="tcp://10.0.0.1:2375"), Way.THERE),
        (BARE, Way.INSTALL),
        (replace(BARE, installed=True), Way.START),
        (replace(BARE, installed=True, apt=False), Way.START),
    ],
)
def test_ways_to_an_engine(machine: Machine, found: Way) -> None:
    assert way(machine) is found


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (replace(BARE, docker_host="unix:///nowhere"), "unset DOCKER_HOST"),
        (replace(BARE, foreign=True, installed=True), "set DOCKER_HOST to its socket"),
        (replace(BARE, root=False, installed=True), "as root"),
        (replace(BARE, linux=False, installed=True), "start one"),
        (replace(BARE, apt=False), "no apt-get"),
    ],
)
def test_without_a_way_one_sentence_says_what_to_do(machine: Machine, says: str) -> None:
    """T-COMPOSE: above all no second engine beside one that runs already."""
    with pytest.raises(NoEngine, match=says):
        way(machine)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("python:3.11-slim-bookworm", StandIn("python", "bookworm")),
        ("rabbitmq:3.10-management", StandIn("rabbitmq", "bookworm")),
        ("rabbitmq:3.13-management", StandIn("rabbitmq", "bookworm")),
        ("rabbitmq:4-management", StandIn("rabbitmq", "trixie")),
        ("docker.io/library/rabbitmq:4.1-management", StandIn("rabbitmq", "trixie")),
        ("postgres:16", StandIn("postgres", "bookworm")),
        ("postgres:17-alpine", StandIn("postgres", "trixie")),
        ("caddy:2", StandIn("caddy", "bookworm")),
    ],
)
def test_what_stands_in_for_an_image(image: str, found: StandIn) -> None:
    assert stand_in(image) == found


@pytest.mark.parametrize("image", ["python:3.14-slim", "grafana/grafana:12.1.0", "nginx"])
def test_for_most_images_nothing_stands_in(image: str) -> None:
    with pytest.raises(NoImage, match=image):
        stand_in(image)


def test_the_images_that_a_dockerfile_is_built_from() -> None:
    text = "FROM a:1 AS build\nRUN true\nFROM --platform=linux/amd64 b:2\nCOPY --from=build /x /x\nfrom build as more\n"
    assert bases(text) == ["a:1", "b:2"]
    assert bases((ROOT / "Dockerfile").read_text()) == ["python:3.11-slim-bookworm"]
