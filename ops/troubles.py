"""Troubles of databases, brokers and networks that no command has met in words of its own: one sentence each. Pure."""

from __future__ import annotations

import ssl

import aiohttp
import asyncpg  # type: ignore[import-untyped, unused-ignore]  # it ships no types
from aio_pika.exceptions import AMQPError
from sqlalchemy.exc import SQLAlchemyError

from common.errors import BrokerUnavailable, StoreUnavailable
from ops.doctor.store import judge_store_error

_STORE = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, StoreUnavailable)
_BROKER = (AMQPError, BrokerUnavailable)


def in_words(error: BaseException) -> str | None:
    """What is the matter, and what to do; None: it is none of these, but a bug or an error in words already.

    A text that names a setting or a command already says what to do.
    """
    if isinstance(error, BaseExceptionGroup):
        return next((words for one in error.exceptions if (words := in_words(one))), None)
    if "_URL" in str(error) or "gateway " in str(error):
        return None
    return _of_a_service(error) or _of_the_machine(error)


def _of_a_service(error: BaseException) -> str | None:
    if isinstance(error, _STORE):
        found = judge_store_error("the database", error)
        return f"{found.seen}. What to do: {found.advice}; `gateway doctor` says more."
    if isinstance(error, _BROKER):
        return f"AMQP_URL: the broker does not do what it should ({_kind(error)}); `gateway doctor` says why."
    return None


def _of_the_machine(error: BaseException) -> str | None:
    if isinstance(error, aiohttp.ClientError | ssl.SSLError | ConnectionError | TimeoutError):
        return f"The network does not do what it should ({_kind(error)}); `gateway doctor` says where."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return None


def _kind(error: BaseException) -> str:
    return type(error.__cause__ or error).__name__
