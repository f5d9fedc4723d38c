"""Events in the store, to be published and to be forgotten."""
