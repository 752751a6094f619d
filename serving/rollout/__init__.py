"""Brings a new version into service: trial, admission, swap; and takes one back that fails there."""
