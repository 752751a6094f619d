"""Experiments: a challenger answers a share of the episodes beside the champion. Which ones follows from one tag."""
