"""Chips in actors of Ray; the only package that imports Ray (the layers are checked)."""
