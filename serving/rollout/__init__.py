"""Brings a new version into service: trial, admission, and the watcher that swaps policies."""
