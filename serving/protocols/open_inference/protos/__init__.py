"""Messages of protocols that are not HTTP, generated from the .proto files here."""
