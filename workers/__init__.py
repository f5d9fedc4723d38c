"""The stages behind the queues: token, fetch, reconcile, relay. Each reads its own queue and imports no other."""
