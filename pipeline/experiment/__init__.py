"""Runs experiments: judges a challenger by the returns of live episodes, and promotes it or rolls it back."""
