"""Webhooks in, targets driven to answered, pages out to reconcile."""
