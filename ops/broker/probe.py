"""Asks an address whether an AMQP 0-9-1 broker answers there and lets us in."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import aio_pika
from aio_pika.exceptions import AMQPError, AuthenticationError

from ops.broker.broker import NotHere, without_password


def let_in(url: str, timeout: float = 5.0) -> None:
    """Returns when the broker at `url` opens its virtual host for us within `timeout` seconds, else raises NotHere.

    May be called with or without a running event loop: the question is asked in a thread of its own.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="broker-probe") as thread:
        thread.submit(asyncio.run, _connect(url, timeout)).result()


async def _connect(url: str, timeout: float) -> None:
    where = without_password(url)
    try:
        async with asyncio.timeout(timeout):
            connection = await aio_pika.connect(url, timeout=timeout)
            await connection.close()
    except AuthenticationError as error:
        raise NotHere(f"{where} refuses user and password") from error
    except TimeoutError as error:
        raise NotHere(f"{where} gave no AMQP answer within {timeout:g} s") from error
    except (AMQPError, OSError, RuntimeError, ValueError) as error:
        raise NotHere(f"{where} does not let us in ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words; aiormq wraps the operating system's error."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error.args[-1]) if isinstance(error, OSError) and error.args else type(error).__name__
    return " ".join(text.split())[:120]
