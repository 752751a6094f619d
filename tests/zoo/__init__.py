"""Environments that misbehave, one class each, by topic. `tests.zoo.TOPIC:CLASS-v0` is the id of a class.

The base class `E` in `tests.zoo.base` behaves well. Each subclass changes one thing, which its docstring states in a
sentence, and is registered with Gymnasium when its module is imported, as the prefix of the id does in every process.
"""
