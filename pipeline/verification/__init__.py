"""The conformance suite: a registered version acts as RLlib would act with its checkpoint."""
