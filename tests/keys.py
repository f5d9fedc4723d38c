"""Fernet keys that are the same in every process of a test run: they show in the names of parametrised tests."""

import base64

OLD = base64.urlsafe_b64encode(bytes(range(32))).decode()
NEW = base64.urlsafe_b64encode(bytes(range(32, 64))).decode()
