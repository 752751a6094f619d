"""MLflow's scoring protocol: the requests and responses of `mlflow models serve`."""
