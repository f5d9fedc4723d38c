"""A RabbitMQ for the demo and the tests: one that is there, or one of our own.

`find()` → a `Broker` whose `url` leads to a virtual host that is nobody else's.
"""

from ops.broker.broker import Broker, NoBroker, NotHere, Say, Vhost, VhostRefused
from ops.broker.find import CHOICES, find
from ops.broker.node import PrivateNode

__all__ = ["CHOICES", "Broker", "NoBroker", "NotHere", "PrivateNode", "Say", "Vhost", "VhostRefused", "find"]
