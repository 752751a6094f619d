"""Judges a challenger by the returns of live episodes: the statistics, and how many episodes a decision needs."""
