"""Find the best layout of a model on a system: `space` what is searched, `bounds` what cannot be beaten, `search`."""

from cluster.planner.result import Plan
from cluster.planner.search import plan
from cluster.planner.space import Request, make_request

__all__ = ["Plan", "Request", "make_request", "plan"]
