"""The arguments of the served application: one declaration for Serve's config files and for the command line."""

from serving.arguments.arguments import Arguments
from serving.arguments.autoscaling import Autoscaling

__all__ = ["Arguments", "Autoscaling"]
