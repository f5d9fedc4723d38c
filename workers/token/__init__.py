"""Our access to Syncaroo: the client of its token endpoint, and the one row that holds the token pair."""
