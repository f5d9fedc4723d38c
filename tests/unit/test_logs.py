"""common.logs: JSON lines in which no secret shows. Trap T2."""

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from common.codec import loads
from common.logs import Redactor

REDACT = Redactor(["s3cret-value", "s3cret-value-longer", "abc"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("token s3cret-value-longer.", "token [redacted]."),
        ("abc", "abc"),  # too short to be known from a word
        ("Authorization: Bearer eyJhbGciOi.x-y_z", "Authorization: Bearer [redacted]"),
        ("bearer  x1", "bearer  [redacted]"),
        ("Basic dXNlcg==", "Basic [redacted]"),
        ("GET /confirm?code=xyz&state=abc", "GET /confirm?code=[redacted]&state=[redacted]"),
        ("accessToken=xyz;", "accessToken=[redacted];"),
        ('{"refreshToken": "xyz", "n": 1}', '{"refreshToken": "[redacted]", "n": 1}'),
        ("{'clientSecret':'xyz'}", "{'clientSecret':'[redacted]'}"),
        ("see https://h/p?a=1&b=2 and http://h?x", "see https://h/p?… and http://h?…"),
        ("amqp://u:p@h:5672/v", "amqp://[redacted]@h:5672/v"),
        ("amqp://u:p@ss:w@h/v", "amqp://[redacted]@h/v"),
        ("postgresql+asyncpg://u:p@h/d", "postgresql+asyncpg://[redacted]@h/d"),
        ("https://tok@h/p", "https://[redacted]@h/p"),
        ("https://h/p@q", "https://h/p@q"),
        ("mail me@x.test", "mail me@x.test"),
        ("\udcff", "\\udcff"),
    ],
)
def test_texts(given: str, expected: str) -> None:
    assert REDACT.clean(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"access_token": "x", "attempts": 3}, {"access_token": "[redacted]", "attempts": 3}),
        ({"tokens": ["x"], "token_count": 2}, {"tokens": "[redacted]", "token_count": 2}),
        ({"password": b"x"}, {"password": "[redacted]"}),
        ({"headers": {"Authorization": ["Bearer x"]}}, {"headers": {"Authorization": "[redacted]"}}),
        ({"code": "x", "status_code": 5}, {"code": "[redacted]", "status_code": 5}),
        ({"sealed_pair": "x", "token": None}, {"sealed_pair": "[redacted]", "token": None}),
        ([{"a": ("s3cret-value", {"cookie": "x"})}], [{"a": ["[redacted]", {"cookie": "[redacted]"}]}]),
        ({"a": {"s3cret-value"}}, {"a": ["[redacted]"]}),
        ({"error": ValueError("s3cret-value")}, {"error": "[redacted]"}),
        ({"a": b"s3cret-value"}, {"a": "b'[redacted]'"}),
        ([1, 1.5, True, None], [1, 1.5, True, None]),
    ],
)
def test_nested_values(given: Any, expected: Any) -> None:
    assert REDACT.clean(given) == expected


_PROGRAM = """
import logging
from common.logs import configure, get_logger
from common.settings import LogSettings

configure(LogSettings(log_format="FORMAT"), ["s3cret-value"])
log = get_logger("test")

def fail(pair):
    a_local = "hidden-" + "local"
    raise ValueError("s3cret-value at https://h/p?code=x")

try:
    fail("hidden-" + "argument")
except ValueError:
    log.exception("it.failed", url="https://u:word@h/x?y", refresh_token="hidden-member", number=2**70)
    logging.getLogger("foreign").exception("s3cret-value %s", "Bearer hidden-foreign")
log.info("odd", text="lone \\udcff, new\\nline", nothing=float("nan"))
"""


def _run(log_format: str) -> list[str]:
    program = _PROGRAM.replace("FORMAT", log_format)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert not [word for word in ("s3cret-value", "hidden-", ":word", "code=x", "?y") if word in done.stdout]
    return done.stdout.splitlines()


def test_json_lines_show_no_secret_and_no_locals() -> None:
    """T2: a traceback with frames and without their locals; a foreign library's lines too; nothing costs a line."""
    ours, foreign, odd = map(loads, [line.encode() for line in _run("json")])
    assert (ours["event"], ours["level"], ours["logger"]) == ("it.failed", "error", "test")
    assert ours["exception"][0]["exc_type"] == "ValueError"
    frame = ours["exception"][0]["frames"][-1]
    assert frame["name"] == "fail"
    assert not frame.get("locals")
    assert foreign["logger"] == "foreign"
    assert odd["text"] == "lone \\udcff, new\nline"


def test_the_terminals_lines_neither() -> None:
    assert any("it.failed" in line for line in _run("console"))


_THREADS = """
import logging, threading
from common.logs import configure, get_logger
from common.settings import LogSettings

configure(LogSettings(log_format="json", log_level="debug"))

def say(logger):
    for number in range(4000):
        logger.info("said")

threads = [threading.Thread(target=say, args=(one,)) for one in (get_logger("ours"), logging.getLogger("foreign"))]
for one in threads: one.start()
for one in threads: one.join()
"""


def test_a_line_stays_a_line_when_a_library_s_thread_logs_meanwhile() -> None:
    done = subprocess.run([sys.executable, "-c", _THREADS], capture_output=True, timeout=60, check=True)
    lines = [loads(line) for line in done.stdout.splitlines()]
    assert Counter(line["logger"] for line in lines) == {"ours": 4000, "foreign": 4000}
