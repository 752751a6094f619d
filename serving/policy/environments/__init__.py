"""Makes the environments that policies are trained in, and holds them to Gymnasium's contract."""

from serving.policy.environments.factory import LEGACY_PREFIX, for_gymnasium, import_object, make

__all__ = ["LEGACY_PREFIX", "for_gymnasium", "import_object", "make"]
