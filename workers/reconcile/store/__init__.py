"""What reconcile reads and writes in the store, by what is done."""
