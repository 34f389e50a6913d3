"""The commands of `chipmesh`, a module for each or for a family: the arguments, and what is called with them.

A command imports what it needs when it is called, so that help and bad options are answered at once.
"""
