"""A listing's story on one screen: asked of the admin API, put in order, laid out for a person."""
