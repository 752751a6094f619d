"""Reports of clients about their episodes: rewards, returns and ends."""
