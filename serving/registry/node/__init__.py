"""What the processes of one node share through the cache directory: locks, and what the registry last answered."""
