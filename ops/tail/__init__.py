"""`gateway tail`: events as they come, from the log that keeps them all (`stream`) to lines of a screen (`lines`)."""
