"""Event rows in, CloudEvents on `syncaroo.events` out: one relay is active, the others stand by."""
