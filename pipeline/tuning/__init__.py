"""A hyperparameter search with Ray Tune: search space, trials, and their MLflow runs."""
