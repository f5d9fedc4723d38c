"""The pages' machinery: rendering and security headers (`render`), sessions and CSRF (`session`), forms (`forms`).

Every page of ours works without script and looks alike. Templates of all pages lie in `templates/`.
"""
