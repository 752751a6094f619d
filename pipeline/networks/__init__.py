"""RLModules that accept any supported observation space, and the choice of the module that is trained."""
