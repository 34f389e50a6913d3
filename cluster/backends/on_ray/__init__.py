"""Chips in actors of Ray; the only package that imports Ray (the layers are checked)."""

import os

# Read by Ray's import. Else SIGTERM prints a stack, a worker that dies a paragraph on stdout, a call a traceback.
os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # calls that end because another one failed
