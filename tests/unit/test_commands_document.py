"""docs/commands.md says what the commands say, and every command keeps what that page promises of all."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from ops.cli import app
from ops.commands_document import PLACE, WITHOUT_JSON, commands, document, examples

ROOT = Path(__file__).parents[2]
GATEWAY = str(Path(sys.executable).with_name("gateway"))
COMMANDS = dict(commands())


def test_the_page_is_the_commands_own() -> None:
    assert PLACE.read_text(encoding="utf-8") == document(), "run python -m ops.commands_document"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_has_words_that_the_command_takes(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its options and arguments are parsed; nothing is run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "webhook.json").touch()
    lines = examples(COMMANDS[name])
    assert lines, "an epilog with an example"
    for line in lines:
        words = words_of(line, name)
        assert words[: len(name.split())] == name.split(), line
        if name != "sandbox":  # whose flags are its own
            COMMANDS[name].make_context(name, words[len(name.split()) :], parent=typer.Context(_top()))


def _top() -> Any:
    return typer.main.get_command(app)


def words_of(line: str, name: str) -> list[str]:
    """What follows `gateway`, without what the shell does around it."""
    words = shlex.split(line[line.index(f"gateway {name}") :].replace('"', ""))[1:]
    ends = [number for number, word in enumerate(words) if word in (">", ">>", "&&", "||") or word.endswith(")")]
    return [word.rstrip(")") for word in words[: ends[0] + words[ends[0]].endswith(")")]] if ends else words


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_speaks_json_or_is_listed_with_a_reason(name: str) -> None:
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    prints_itself = name == "topology" or "--json" in options

    assert prints_itself != (name in WITHOUT_JSON)


def run(*words: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """`gateway`, with nothing set but what is said."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [GATEWAY, *words],
        env={**kept, "PYTHONPATH": str(ROOT), **settings},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


NOWHERE = "127.0.0.1:1"
KEY = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="


@pytest.mark.parametrize(
    ("words", "settings", "says"),
    [
        (("status", "--url", f"http://{NOWHERE}"), {"ADMIN_TOKEN": "geheim"}, "does not answer"),
        (("db", "current"), {"DATABASE_URL": f"postgresql+asyncpg://a:geheim@{NOWHERE}/x"}, "Is it running?"),
        (("db", "check"), {"DATABASE_URL": "sqlite+aiosqlite:///junk"}, "gateway doctor"),
        (("keys", "check"), {"SECRET_KEYS": KEY}, "gateway setup"),
        (("keys", "check"), {"SECRET_KEYS": KEY, "DATABASE_URL": "sqlite+aiosqlite:///empty"}, "gateway setup"),
        (("tail", "--no-follow"), {"AMQP_URL": f"amqp://a:geheim@{NOWHERE}/x"}, "AMQP_URL"),
        (("setup", "--wait", "0.1"), {"AMQP_URL": f"amqp://a:geheim@{NOWHERE}/x"}, "Is it running"),
        (("snapshot", "--to", "q"), {"AMQP_URL": f"amqp://a:geheim@{NOWHERE}/x"}, "gateway setup"),
    ],
    ids=["ingress", "postgresql", "junk", "no-file", "no-tables", "tail", "setup", "snapshot"],
)
def test_what_is_away_is_one_sentence(
    words: tuple[str, ...], settings: dict[str, str], says: str, tmp_path: Path
) -> None:
    (tmp_path / "junk").write_text("this is no database, and longer than what a header of one would need to be " * 9)
    (tmp_path / "empty").touch()

    done = run(*words, folder=tmp_path, **settings)

    assert done.returncode == 1, done
    assert says in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "geheim" not in done.stderr


def test_who_has_seen_enough_closes_the_pipe(tmp_path: Path) -> None:
    with subprocess.Popen(
        [GATEWAY, "topology", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        process.wait(60)

    assert "Traceback" not in said
    assert "BrokenPipe" not in said


def test_bash_completes_commands(tmp_path: Path) -> None:
    asked = {"_GATEWAY_COMPLETE": "complete_bash", "COMP_WORDS": "gateway d", "COMP_CWORD": "1"}

    assert {"doctor", "dlq", "db", "demo"} <= set(run(folder=tmp_path, **asked).stdout.split())
    asked = {"_GATEWAY_COMPLETE": "complete_bash", "COMP_WORDS": "gateway dlq re", "COMP_CWORD": "2"}
    assert run(folder=tmp_path, **asked).stdout.split() == ["replay"]


def test_colours_are_for_terminals(tmp_path: Path) -> None:
    assert "\x1b[" not in run("doctor", "--only", "settings", folder=tmp_path).stdout
    assert "\x1b[" not in run("--help", folder=tmp_path).stdout
