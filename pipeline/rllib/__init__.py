"""RLlib's PPO: the trainer, the environment runner and learner, Ray's start and stop, and the layout of checkpoints."""
