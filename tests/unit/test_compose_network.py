"""What a private engine of the Compose tests leaves in the network is taken back, and nothing else."""

from __future__ import annotations

from tests.compose.network import undone

BEFORE = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [7:420]
:MINE - [0:0]
-A FORWARD -j MINE
-A MINE -i eth0 -j ACCEPT
COMMIT
"""
AFTER = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [9:540]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
:MINE - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -j MINE
-A FORWARD -i veth1 -j ACCEPT
-A MINE -i eth0 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
COMMIT
"""


def test_what_an_engine_adds_is_taken_back_rules_before_chains() -> None:
    """Calls first, then chains are emptied and removed; a rule that somebody else made meanwhile stays."""
    assert undone(BEFORE, AFTER) == [
        "-t filter -D FORWARD -j DOCKER-USER",
        "-t filter -D FORWARD -o docker0 -j DOCKER",
        "-t filter -F DOCKER",
        "-t filter -F DOCKER-USER",
        "-t filter -X DOCKER",
        "-t filter -X DOCKER-USER",
        "-t filter -P FORWARD ACCEPT",
        "-t nat -D POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        "-t nat -F DOCKER",
        "-t nat -X DOCKER",
    ]


def test_what_was_there_before_stays() -> None:
    """Also Docker's own, on a machine where an engine has run."""
    assert undone(AFTER, AFTER) == []
