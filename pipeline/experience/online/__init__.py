"""Reports the online return of each version to MLflow: metrics, tags, a chart, and where to find them."""
