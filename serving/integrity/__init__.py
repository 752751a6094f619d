"""Decides who must vouch for a version before it is served: signatures of trusted keys, and a passed gate."""
