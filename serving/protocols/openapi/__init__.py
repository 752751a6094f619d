"""The OpenAPI description of the API, generated from the spaces of the served policy, and a page that shows it."""
