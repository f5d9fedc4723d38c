"""`gateway prove`: a gateway under load while everything that it stands on fails, and the sum of what came of it."""
