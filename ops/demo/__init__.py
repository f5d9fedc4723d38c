"""The story that `make demo` plays and `make up` begins: real pages, processes and broker, the stand-in as Syncaroo."""
