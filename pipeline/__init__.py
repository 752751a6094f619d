"""Train PPO policies with RLlib and write them to MLflow's model registry."""
