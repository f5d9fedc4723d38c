"""ops.children: the ports that servers of ours get."""

import subprocess
import sys
from subprocess import PIPE

from ops.children import free_ports


def test_ports_differ_and_are_not_those_of_outgoing_connections() -> None:
    ports = free_ports(20)

    assert len(set(ports)) == 20
    assert max(ports) < 32768


def test_a_port_is_given_to_one_process_only() -> None:
    """Its server listens seconds later, and not while it is restarted."""
    program = "from ops.children import free_ports; print(*free_ports(500), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=PIPE, stdout=PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = set(map(int, other.stdout.readline().split()))
        ours = free_ports(500)
        other.communicate("end\n")
    assert len(theirs) == len(set(ours)) == 500
    assert theirs.isdisjoint(ours)
