"""The protocols of a replica: native JSON, MLflow scoring, Open Inference Protocol, and their OpenAPI description."""
