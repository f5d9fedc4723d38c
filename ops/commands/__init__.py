"""The commands of `gateway`: each module has `add_to(app)`."""
