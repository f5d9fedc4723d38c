"""What the gateway costs, beside the simplest correct service (the floor), its peers and what is possible at all.

`make bench` runs everything; `python -m benchmarks --help` says what else. Variants of a benchmark take turns, and what
is told are ratios within a round: two cores shared by load, service and broker move absolute figures by two to three.
"""
