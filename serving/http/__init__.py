"""The ASGI application that passes each HTTP request to its protocol, and sends the response."""
