#!/bin/sh
# Makes .venv from the lock: sh ops/venv.sh PYTHON LOCK. Called by make; may be interrupted and run again.
set -eu
python=$1 lock=$2

say() { printf '%s\n' "$*" >&2; }

if [ -z "$python" ]; then
    say "No Python 3.11 or newer found. Install one (Debian, Ubuntu: sudo apt-get install python3 python3-venv;" \
        "macOS: brew install python@3.13), or say which: make PYTHON=/path/to/python3.11"
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "$python is not a Python 3.11 or newer."
    exit 1
fi

# Debian and Ubuntu keep what a virtual environment needs in a package of its own.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    sudo=
    if [ "$(id -u)" != 0 ]; then
        if [ "${ALLOW_INSTALL:-}" = 1 ] && command -v sudo >/dev/null; then sudo="sudo -n"; else sudo=no; fi
    fi
    if [ "$sudo" = no ] || ! command -v apt-get >/dev/null; then
        say "$python cannot make virtual environments. Install what is missing (Debian, Ubuntu:" \
            "sudo apt-get install python$version-venv), or set ALLOW_INSTALL=1 to have that done."
        exit 1
    fi
    say "Installing python$version-venv with apt-get …"
    apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120"
    install="install -y --no-install-recommends python$version-venv"
    # shellcheck disable=SC2086 # words on purpose
    $apt $install >/dev/null 2>&1 || { $apt update >/dev/null && $apt $install >/dev/null; } || {
        say "apt-get could not install python$version-venv."
        exit 1
    }
fi

if [ -e .venv/.complete ] || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    say "Making .venv with $("$python" --version) …"
    "$python" -m venv --clear .venv
fi
say "Installing the locked dependencies (about a minute the first time) …"
pip=".venv/bin/python -m pip --disable-pip-version-check --no-input -qq"
$pip install --require-hashes -r "$lock"
$pip install --no-deps --no-build-isolation -e .
touch .venv/.complete
say "Ready."
