"""Logging: structlog, JSON lines on stdout (pretty on a terminal), secrets redacted last.

Log an event name and keys; bind ids with `bound`. Tracebacks show no locals, URLs no query. What nobody takes off
stdout is given up, counted, and told of as soon as somebody does.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import FilteringBoundLogger, Processor

from common.codec import dumps
from common.outlet import Outlet
from common.settings import LogSettings

_SECRET_KEYS = re.compile(r"token|secret|password|authorization|cookie|sealed|^code$", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"(?i)(bearer\s+|basic\s+|(?:code|token|secret|password|state)=)[^\s&\"',;]+")
_SECRET_MEMBER = re.compile(r"(?i)((?:code|token|secret|password)[\"']\s*:\s*[\"'])[^\"']+")
_USER_INFO = re.compile(r"(\w+://)[^/\s?#\"']+@")
_QUERY = re.compile(r"(https?://[^\s?\"']+)\?[^\s\"']*")
_ANYTHING = re.compile(r"[\s='\"]|://")
"""Without one of these none of the above can be in a text, as in most."""
_PLAIN = (str, int, float, bool, type(None))
_MASK = "[redacted]"


@lru_cache(maxsize=1024)
def _is_secret(key: str) -> bool:
    return _SECRET_KEYS.search(key) is not None


def configure(settings: LogSettings, secrets: Sequence[str] = ()) -> None:
    """Set up structlog and the standard library's logging for this process."""
    to_terminal = settings.log_format == "console" or (settings.log_format == "auto" and sys.stdout.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    global _out  # noqa: PLW0603  # as there is one stdout
    _out = Outlet(sys.stdout.fileno())
    renderers = _renderers(to_terminal, Redactor(secrets))
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Lines,
        cache_logger_on_first_use=True,
    )
    handler = _OfLibraries(_Lines(__name__))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # Both log every reconnect attempt with a traceback; we say it once, in our own words.
    for chatty in ("aio_pika", "aiormq", "aiohttp.access", "sqlalchemy", "alembic", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL if chatty.startswith("aio") else logging.WARNING)


class _Lines:
    """Of one module, on stdout: the standard library's way from a logger to its stream costs four times as much.

    A line and its end are one write: libraries log from threads of their own, right between two writes.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def msg(self, message: str) -> None:
        """One line."""
        if _out is not None and _out.write(message):
            _tell_of_losses(_out)

    log = debug = info = warning = error = critical = exception = msg


_out: Outlet | None = None
"""Where lines go, once `configure` was called."""
_told = 0


def lost_lines() -> int:
    """How many lines nobody took."""
    return 0 if _out is None else _out.lost


def _tell_of_losses(out: Outlet) -> None:
    global _told  # noqa: PLW0603  # as there is one stdout
    if out.lost != _told:
        _told = out.lost
        log.warning("log.lines_lost", so_far=_told)


class _OfLibraries(logging.Handler):
    """What libraries say goes the same way, one line after another."""

    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.msg(self.format(record))
        except Exception:  # noqa: BLE001  # a line that cannot be written costs no work (logging.Handler.emit)
            self.handleError(record)


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger for a module."""
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger


log = get_logger(__name__)


@contextmanager
def bound(**ids: Any) -> Iterator[None]:
    """Log lines within the block carry these, too; structlog's own looks at all that is bound, each time."""
    tokens = structlog.contextvars.bind_contextvars(**ids)
    try:
        yield
    finally:
        structlog.contextvars.reset_contextvars(**tokens)


class Redactor:
    """The last processor before rendering: masks known secrets, suspicious members and URL queries."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = sorted((secret for secret in secrets if len(secret) >= 4), key=len, reverse=True)

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if self._is_harmless(event):
            return event
        return {key: self._member(key, value) for key, value in event.items()}

    def _is_harmless(self, event: MutableMapping[str, Any]) -> bool:
        """Whether it is plain words and numbers, as most are: seen in one look at all of them."""
        if any(_is_secret(key) or type(value) not in _PLAIN for key, value in event.items()):
            return False
        text = "\0".join([value for value in event.values() if type(value) is str])
        return text.isascii() and not _ANYTHING.search(text) and not any(secret in text for secret in self._secrets)

    def _member(self, key: str, value: Any) -> Any:
        if _is_secret(key) and not isinstance(value, int | float | None):
            return _MASK
        return self.clean(value)

    def clean(self, value: Any) -> Any:
        """The value without secrets, at any depth."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return {key: self._member(str(key), inner) for key, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.clean(inner) for inner in value]
        if isinstance(value, int | float | bool) or value is None:
            return value
        return self._text(str(value))

    def _text(self, text: str) -> str:
        if not text.isascii():
            text = text.encode("utf-8", "backslashreplace").decode()  # lone surrogates would cost the whole line
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        if not _ANYTHING.search(text):
            return text
        text = _USER_INFO.sub(rf"\1{_MASK}@", text)
        text = _QUERY.sub(r"\1?…", text)
        text = _SECRET_MEMBER.sub(rf"\1{_MASK}", text)
        return _SECRET_TEXT.sub(rf"\1{_MASK}", text)


def _renderers(to_terminal: bool, redactor: Redactor) -> list[Processor]:
    if to_terminal:
        return [
            structlog.processors.format_exc_info,
            redactor,
            ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=plain_traceback),
        ]
    return [
        ExceptionRenderer(ExceptionDictTransformer(show_locals=False, max_frames=20)),
        redactor,
        structlog.processors.JSONRenderer(serializer=lambda event, **_: dumps(event).decode()),
    ]
