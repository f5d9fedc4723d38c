"""`python -m ops` is the `gateway` command, for where no console script is installed."""

from ops.cli import main

main()
