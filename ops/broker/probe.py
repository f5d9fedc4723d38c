"""Asks an address whether an AMQP 0-9-1 broker answers there and lets us in."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import aio_pika
from aio_pika.exceptions import AMQPError, AuthenticationError, ProbableAuthenticationError
from aiormq.exceptions import InvalidFrameError

from ops.broker.broker import NotHere, without_password


def let_in(url: str, timeout: float = 5.0) -> None:
    """Returns when the broker at `url` opens its virtual host for us within `timeout` seconds, else raises NotHere.

    May be called with or without a running event loop: the question is asked in a thread of its own.
    """
    with _quiet(), ThreadPoolExecutor(1, thread_name_prefix="broker-probe") as thread:
        thread.submit(asyncio.run, _connect(url, timeout)).result()


async def _connect(url: str, timeout: float) -> None:
    where = without_password(url)
    try:
        async with asyncio.timeout(timeout):
            connection = await aio_pika.connect(url, timeout=timeout)
            await connection.close()
    except (AuthenticationError, ProbableAuthenticationError) as error:
        raise NotHere(f"{where} refuses user and password") from error
    except TimeoutError as error:
        raise NotHere(f"{where} gave no AMQP answer within {timeout:g} s") from error
    except InvalidFrameError as error:  # a Close where OpenOk is due: how the library tells a missing virtual host
        raise NotHere(f"{where} does not let us in (no such virtual host, or no right to it)") from error
    except (AMQPError, OSError, RuntimeError, ValueError) as error:
        raise NotHere(f"{where} does not let us in ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """The cause in a few words, without addresses of objects."""
    text = str(error.args[-1]) if error.args else type(error).__name__
    return " ".join(text.split())[:120]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The library warns on stderr of what we report in our own words."""
    logger = logging.getLogger("aiormq")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
