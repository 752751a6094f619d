"""Computes recorded decisions with a challenger, and compares its actions with those that were served."""
