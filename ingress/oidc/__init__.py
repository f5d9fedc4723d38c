"""Logging users in with the platform's own identity provider (OpenID Connect), when `OIDC_*` is set."""
