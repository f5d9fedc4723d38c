"""`python -m workers …`: what it takes, and what it says to anything else."""

from pathlib import Path

import pytest

from workers.__main__ import ROLES, start

REQUIRED = {"AMQP_URL", "SECRET_KEYS", "SYNCAROO_CLIENT_ID", "SYNCAROO_CLIENT_SECRET"}


@pytest.mark.parametrize("arguments", [[], ["bogus"], ["token", "fetch"], ["--help"]])
def test_an_unknown_role_is_told_the_known_ones(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert start(arguments) == 64
    assert "token|fetch|reconcile|relay|all" in capsys.readouterr().err


@pytest.mark.parametrize("role", [*ROLES, "all"])
def test_missing_settings_are_named(
    role: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in REQUIRED:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    assert start([role]) == 78
    told = capsys.readouterr().err.splitlines()
    assert "AMQP_URL: is required and not set" in told
    if role in ("token", "all"):
        assert {line.partition(":")[0] for line in told} == REQUIRED
