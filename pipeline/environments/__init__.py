"""Makes Gymnasium environments, rejects those with unsupported spaces, and converts actions and nested values."""
