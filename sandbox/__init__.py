"""A stand-in Syncaroo: its API, its OAuth on both sides and its webhooks: strict, seeded, with faults on order.

It shares no code with the gateway, so that the two cannot share a misreading of the guide.
"""

from sandbox.app import create_app
from sandbox.config import SandboxConfig

__all__ = ["SandboxConfig", "create_app"]
