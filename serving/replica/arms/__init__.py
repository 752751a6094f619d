"""The arms of an experiment in one replica: which version answers an episode, and how often each arm answered."""
