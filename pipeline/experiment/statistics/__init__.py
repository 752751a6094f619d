"""Computes from the returns of episodes whether a challenger may replace the champion, valid whenever one looks."""
