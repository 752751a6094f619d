"""What an operator reads of one request: log records as text or JSON, request identifiers, and OpenTelemetry traces."""
