"""Makes Gymnasium environments, checks that their spaces are supported, and adapts actions and nested values."""
