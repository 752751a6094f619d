"""The HTTP API as a bare ASGI application: paths, methods and status codes."""
