"""ops.broker: the order of choices, what each gives back, and a private node that is stopped, killed and frozen."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import aio_pika
import pytest

from ops.broker import Broker, NoBroker, NotHere, PrivateNode, Say, Vhost, VhostRefused, find
from ops.broker import install as installing
from ops.broker.broker import on_vhost, without_password
from ops.broker.node import scripts
from ops.broker.probe import let_in
from ops.children import free_port
from tests.waiting import until, within

PLUGINS = ("rabbitmq_management",)

_A_PARENT_THAT_IS_KILLED = """
import os, pathlib, signal, threading
from ops.broker import PrivateNode

node = PrivateNode()

def end():
    while node.pid is None or "beam" not in pathlib.Path(f"/proc/{node.pid}/comm").read_text():
        pass
    print(node.pid, node._epmd.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=end).start()
node.start()
"""


class FakeChoice:
    """One way to a broker that is open or not; refuses to be asked twice or without what find() promises."""

    def __init__(self, origin: str, reason: str = "") -> None:
        self.origin, self.reason = origin, reason
        self.asked = self.closed = 0

    def __call__(self, name: str, environment: Mapping[str, str], say: Say, plugins: Sequence[str]) -> Broker:
        assert not self.asked, "asked twice"
        assert name == "gateway-x"
        assert plugins == PLUGINS
        assert "AMQP_URL" not in environment
        self.asked += 1
        say(f"trying {self.origin}")
        if self.reason:
            raise NotHere(self.reason)
        return Broker(f"amqp://{self.origin}/x", self.origin, f"it is {self.origin}", on_close=[self.close])

    def close(self) -> None:
        self.closed += 1


def search(*choices: FakeChoice, environment: Mapping[str, str] | None = None) -> tuple[Broker, list[str]]:
    said: list[str] = []
    found = find(said.append, name="gateway-x", environment=environment or {}, plugins=PLUGINS, choices=choices)
    return found, said


def test_the_first_open_choice_wins_and_the_rest_is_not_asked() -> None:
    first, second, third = FakeChoice("localhost", "nothing listens"), FakeChoice("docker"), FakeChoice("node")

    found, said = search(first, second, third)

    assert found.origin == "docker"
    assert (first.asked, second.asked, third.asked) == (1, 1, 0)
    assert said == ["trying localhost", "Broker: nothing listens", "trying docker", "it is docker"]


def test_closing_gives_back_once() -> None:
    choice = FakeChoice("docker")
    found, _ = search(choice)

    with found:
        pass
    found.close()

    assert choice.closed == 1


def test_nothing_to_be_had_is_one_sentence_with_every_reason() -> None:
    with pytest.raises(NoBroker) as caught:
        search(FakeChoice("localhost", "nothing listens"), FakeChoice("node", "install it (sudo apt-get install x)"))

    text = str(caught.value)
    assert "Set AMQP_URL" in text
    assert "nothing listens" in text
    assert "sudo apt-get install x" in text
    assert "\n" not in text


def test_amqp_url_is_final() -> None:
    never = FakeChoice("localhost")
    url = f"amqp://someone:hidden@127.0.0.1:{free_port()}/x"

    with pytest.raises(NoBroker, match="AMQP_URL is set, but") as caught:
        search(never, environment={"AMQP_URL": url})

    assert not never.asked
    assert "hidden" not in str(caught.value)


def test_an_amqp_url_that_names_a_virtual_host_is_used_as_it_is(vhost: Vhost) -> None:
    found, _ = search(environment={"AMQP_URL": vhost.url})

    with found:
        assert (found.url, found.origin) == (vhost.url, "AMQP_URL")


def test_amqp_url_may_stand_in_a_file(vhost: Vhost, tmp_path: object) -> None:
    file = f"{tmp_path}/amqp"
    with open(file, "w") as out:
        out.write(vhost.url + "\n")

    found, _ = search(environment={"AMQP_URL_FILE": file})

    with found:
        assert found.url == vhost.url


def test_an_amqp_url_of_the_default_virtual_host_gets_one_of_its_own(private_node: PrivateNode) -> None:
    assert private_node.management
    environment = {"AMQP_URL": private_node.url, "AMQP_MANAGEMENT_URL": private_node.management}

    found, said = search(environment=environment)

    with found:
        assert found.url.startswith(private_node.url.removesuffix("%2F") + "gateway-x-")
        let_in(found.url)
    with pytest.raises(NotHere):
        let_in(found.url)
    assert "own" in said[-1]
    assert not any(private_node.url in line for line in said)


def test_an_amqp_url_without_management_is_used_as_it_is(private_node: PrivateNode) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"

    found, said = search(environment={"AMQP_URL": private_node.url, "AMQP_MANAGEMENT_URL": nobody})

    assert found.url == private_node.url
    assert "used as it is" in said[0]
    with pytest.raises(VhostRefused):
        found.vhost()


def test_virtual_hosts_are_apart_and_go_when_closed(broker: Broker) -> None:
    one, two = broker.vhosts(2, "gateway-test")
    with two, one:
        let_in(one.url)
        let_in(two.url)
        assert one.url != two.url
        one.close()
        with pytest.raises(NotHere):
            let_in(one.url)
        let_in(two.url)
        broker.discard([two])
        with pytest.raises(NotHere):
            let_in(two.url)


def test_a_node_without_management_makes_virtual_hosts_by_rabbitmqctl_and_keeps_them_over_a_stop() -> None:
    with PrivateNode() as node, node.broker() as broker:
        vhosts = broker.vhosts(3)
        broker.discard(vhosts[:2])
        before = node.pid

        node.restart()

        assert node.pid not in (None, before)
        assert node.ctl("list_vhosts", "name").split()[1:] in (["/", vhosts[2].name], [vhosts[2].name, "/"])
        let_in(vhosts[2].url)
        vhosts[2].close()
        with pytest.raises(NotHere):
            let_in(vhosts[2].url)


def test_what_is_no_broker_is_told_apart() -> None:
    with pytest.raises(NotHere, match="does not let us in"):
        let_in(f"amqp://guest:guest@127.0.0.1:{free_port()}/", timeout=1)


def test_a_wrong_password_is_told_apart(private_node: PrivateNode) -> None:
    with pytest.raises(NotHere, match="refuses user and password"):
        let_in(f"amqp://gateway:wrong@127.0.0.1:{private_node.port}/")


async def test_a_kill_loses_nothing_that_was_confirmed_after_settling(
    private_node: PrivateNode, private_vhost: Vhost
) -> None:
    connection = await aio_pika.connect(private_vhost.url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
        await asyncio.to_thread(private_node.settle)
        for n in range(20):
            message = aio_pika.Message(b"%d" % n, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, queue.name)
        private_node.kill()
    assert not private_node.answers()
    private_node.start()

    connection = await aio_pika.connect(private_vhost.url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.get_queue("kept", ensure=False)
        bodies = []
        for _ in range(20):
            message_back = await until(lambda: queue.get(fail=False))
            assert message_back is not None
            bodies.append(message_back.body)
            await message_back.ack()
    assert bodies == [b"%d" % n for n in range(20)]


def test_a_node_outlives_the_thread_that_started_it(private_node: PrivateNode) -> None:
    """As an event loop's threads end with the test that restarted the node, and the next test wants it."""
    private_node.kill()
    thread = threading.Thread(target=private_node.start)
    thread.start()
    thread.join()
    private_node.ctl("await_startup")
    assert private_node.pid is not None
    let_in(private_node.url)


def test_a_frozen_node_is_there_but_does_not_answer(private_node: PrivateNode) -> None:
    private_node.freeze()
    with pytest.raises(NotHere, match="no AMQP answer"):
        let_in(private_node.url, timeout=1)
    assert private_node.pid is not None

    private_node.resume()
    let_in(private_node.url)


async def test_a_starved_node_blocks_publishers(private_node: PrivateNode, private_vhost: Vhost) -> None:
    connection = await aio_pika.connect(private_vhost.url)
    async with connection:
        channel = await connection.channel()
        await asyncio.to_thread(private_node.starve)
        try:
            publish = channel.default_exchange.publish(aio_pika.Message(b"x"), "nowhere", mandatory=False)
            publishing = asyncio.create_task(publish)
            await until(lambda: _is_blocked(private_node, private_vhost), what="the broker to stop reading", pace=1)
            assert not publishing.done()
        finally:
            await asyncio.to_thread(private_node.feed)
        async with within(10):
            await publishing


async def _is_blocked(node: PrivateNode, vhost: Vhost) -> bool:
    """Whether a connection to this virtual host has published under an alarm: nothing more is read from it."""
    connections = await asyncio.to_thread(node.ctl, "list_connections", "vhost", "state")
    return [vhost.name, "blocked"] in [line.split() for line in connections.splitlines()]


async def test_no_node_outlives_a_killed_parent() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells children of their parent's death")
    program = _A_PARENT_THAT_IS_KILLED
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid, epmd = map(int, (await parent.stdout.readline()).split())

    assert await parent.wait() == -signal.SIGKILL

    await until(lambda: not _lives(pid) and not _lives(epmd), what="the end of node and epmd")


def test_nothing_is_installed_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(installing, "_run", lambda *words, **more: pytest.fail("ran a command"))

    with pytest.raises(NotHere, match=r"sudo apt-get install rabbitmq-server.*ALLOW_INSTALL=1"):
        installing.install("rabbitmq-server", {}, print)


def test_addresses() -> None:
    assert on_vhost("amqp://u:p@h:5/%2F?heartbeat=10", "a/b") == "amqp://u:p@h:5/a%2Fb?heartbeat=10"
    assert without_password("amqps://u:p@h:5/v?x=1") == "amqps://h:5/v"
    assert without_password("amqp://[::1]/") == "amqp://[::1]/"


def test_another_rabbitmq_s_scripts_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RABBITMQ_SBIN", str(tmp_path))
    with pytest.raises(NotHere, match=f"^RABBITMQ_SBIN={tmp_path} has no rabbitmq-server$"):
        scripts()

    (tmp_path / "rabbitmq-server").touch()
    (tmp_path / "erl").touch(mode=0o755)
    (tmp_path / "epmd").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert scripts() == tmp_path


@pytest.mark.usefixtures("_node")
def test_the_package_s_own_scripts_are_used() -> None:
    """Of the RabbitMQ that `_node` runs, which it has installed if it had to."""
    assert str(scripts()) != "/usr/sbin", "those change the user and leave the broker behind"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
