"""Training beside stable-baselines3 in six environments; `python -m benchmarks.training` measures."""
