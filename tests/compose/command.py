"""Commands of the machine, with a limit and their last words."""

from __future__ import annotations

import os
import subprocess


class Failed(Exception):
    """A command failed; the text has its last words."""


def run(command: list[str], environment: dict[str, str], timeout: float) -> str:
    """What the command printed on stdout.

    Raises:
        Failed: it failed, or did not end within `timeout` seconds.
    """
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(command[:3])} did not end within {timeout:g} s") from error
    except OSError as error:
        raise Failed(f"{command[0]} cannot be run") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Failed(f"{' '.join(command[:3])}: {' / '.join(said[-5:]) or f'exit {done.returncode}'}")
    return done.stdout.strip()
