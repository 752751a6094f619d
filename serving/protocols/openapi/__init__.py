"""The OpenAPI description of the API, generated from the served policy's spaces, and the page that shows it."""
